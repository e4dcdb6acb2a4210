"""Lossless streams changed on the way, with checksums put right again: a named error, or the true pixels.

Never wrong pixels, never an exception of another kind, never more work than the bytes at hand allow.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from lossless_models import TINY_PHOTO, model_file, random_model, trust_convolutions
from pictures import photograph

from recbatch import rec, stream
from recbatch.codec import Decoder, lossless, lossy
from recbatch.errors import CorruptStream, RecbatchError
from recbatch.images import Picture
from recbatch.models import weights
from recbatch.models.exact import selftest
from recbatch.models.photo import PhotoModel
from recbatch.models.weights import UnknownModel

FILES = [model_file(), TINY_PHOTO.read_bytes()]
KNOWN = {weights.digest(data): data for data in FILES}


def find(head: bytes) -> bytes:
    """The models of these tests; anything else is unknown, as in an archive."""
    for digest, data in KNOWN.items():
        if digest.startswith(head):
            return data
    raise UnknownModel(head.hex(), "two of these tests")


@pytest.fixture(autouse=True, scope="module")
def no_trials():
    with pytest.MonkeyPatch.context() as patch:
        trust_convolutions(patch)
        yield
    selftest.forget_trials()


@pytest.fixture(scope="module")
def reader():
    return Decoder(find)


@pytest.fixture(scope="module")
def samples():
    """Streams of small pictures and what they hold: every mode, one with a preview, one of two sections more."""
    model = random_model()
    photo = PhotoModel.from_bytes(FILES[1])
    maker = lossless.PreviewMaker(photo, rec.coder("trellis", effort=1, tables=lossy.tables_of(photo)))
    out = []
    for mode, size, previews in (
        ("RGB", (9, 7), None),
        ("L", (12, 1), None),
        ("RGBA", (5, 6), None),
        ("LA", (1, 1), None),
        ("RGB", (64, 64), maker),
    ):
        pixels = np.asarray(photograph(*size, mode)).reshape(size[1], size[0], -1)
        alpha = pixels[..., -1].copy() if mode.endswith("A") else None
        colours = pixels[..., : 1 if mode.startswith("L") else 3].copy()
        picture = Picture(pixels=colours, alpha=alpha)
        out.append((lossless.encode([picture], [b""], model, previews)[0].data, picture))
    return out


def sealed(body: bytes) -> bytes:
    """With the checksum that belongs to it."""
    return body + struct.pack("<I", zlib.crc32(body))


def check(reader: Decoder, data: bytes, truths: list[Picture], *, max_pixels: int = 1 << 16) -> bool:
    """Whether a stream was refused; what is not refused must be one of the true pictures."""
    try:
        found = reader.decode(data, max_pixels=max_pixels)
    except RecbatchError:
        return True
    assert any(
        np.array_equal(found.pixels, true.pixels)
        and (found.alpha is None) == (true.alpha is None)
        and (true.alpha is None or np.array_equal(found.alpha, true.alpha))
        for true in truths
    ), "wrong pixels passed off as right"
    return False


def mutated(rng: np.random.Generator, streams: list[bytes]) -> bytes:
    """A stream without its checksum after one of five accidents."""
    body = bytearray(streams[int(rng.integers(len(streams)))][:-4])
    kind = rng.integers(5)
    if kind == 0:  # bits, anywhere behind the magic
        for _ in range(int(rng.integers(1, 4))):
            body[int(rng.integers(8, len(body)))] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # a byte of the header, where most is decided
        body[int(rng.integers(8, min(40, len(body))))] = int(rng.integers(256))
    elif kind == 2:
        del body[int(rng.integers(8, len(body))) :]
    elif kind == 3:  # the end of another
        other = streams[int(rng.integers(len(streams)))][:-4]
        body = body[: int(rng.integers(8, len(body)))] + other[int(rng.integers(8, len(other))) :]
    else:
        at = int(rng.integers(8, len(body) + 1))
        body[at:at] = rng.bytes(int(rng.integers(1, 6)))
    return bytes(body)


def fuzz(reader: Decoder, samples, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths = [picture for _, picture in samples]
    # the stream with a preview takes a hundred times as long as the others
    small = [data for data, _ in samples[:-1]]
    every = [data for data, _ in samples]
    refused = sum(
        check(reader, sealed(mutated(rng, every if k % 30 == 0 else small)), truths) for k in range(count)
    )
    assert refused > 0.9 * count


def test_damage_under_a_true_checksum_is_a_named_error(reader, samples):
    fuzz(reader, samples, 90, 0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_damage_under_a_true_checksum_a_hundred_thousand_times(reader, samples, seed):
    fuzz(reader, samples, 10_000, 100 + seed)


def test_any_byte_changed_is_seen_by_the_checksum(reader, samples):
    rng = np.random.default_rng(1)
    for data, _ in samples:
        for at in rng.integers(0, len(data), 60):
            changed = bytearray(data)
            changed[at] ^= int(rng.integers(1, 256))
            with pytest.raises(RecbatchError):
                reader.decode(bytes(changed))


def test_a_stream_cut_anywhere_is_corrupt(reader, samples):
    for data, _ in samples:
        for end in {*range(0, len(data), max(1, len(data) // 50)), len(data) - 1}:
            with pytest.raises(CorruptStream):
                reader.decode(data[:end])


def with_fields(data: bytes, **fields: object) -> bytes:
    parsed = stream.parse(data)
    kept = {name: getattr(parsed, name) for name in parsed.__slots__}
    return stream.pack(stream.Stream(**{**kept, **fields}))


def sized(data: bytes, width: int, height: int) -> bytes:
    """The stream with another size in its header, whatever ``pack`` thinks of it."""
    parsed = stream.parse(data)
    old = stream.varint(parsed.width) + stream.varint(parsed.height)
    body = data[:-4]
    assert body[10 : 10 + len(old)] == old
    return sealed(body[:10] + stream.varint(width) + stream.varint(height) + body[10 + len(old) :])


@pytest.mark.parametrize("size", [(30_000, 30_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (1, 2**30)])
def test_a_short_stream_that_claims_a_huge_image_is_refused_before_any_work(reader, samples, size):
    with pytest.raises(RecbatchError):
        reader.decode(sized(samples[0][0], *size))


def test_a_stream_that_claims_more_than_the_limit_is_too_large(reader, samples):
    with pytest.raises(stream.StreamTooLarge):
        reader.decode(sized(samples[0][0], 90, 90), max_pixels=8_000)


def test_another_size_never_gives_a_picture(reader, samples):
    for data, picture in samples[:-1]:
        for size in ((picture.width + 1, picture.height), (3, 11)):
            with pytest.raises(RecbatchError):
                reader.decode(sized(data, *size))


def test_networks_of_another_number_are_refused(reader, samples):
    data, _ = samples[0]
    for level in (0, 1, 3, 255):
        with pytest.raises(RecbatchError):
            reader.decode(with_fields(data, level=level))


def test_another_digest_or_model_is_an_error_with_its_own_name(reader, samples):
    data, _ = samples[0]
    with pytest.raises(lossy.OtherArithmetic, match="pixels"):
        reader.decode(with_fields(data, pixels_digest=b"\1\2\3\4"))
    with pytest.raises(UnknownModel):
        reader.decode(with_fields(data, model=b"\1\2\3\4"))
    with pytest.raises(RecbatchError):  # a lossy model, where a lossless one belongs
        reader.decode(with_fields(data, model=weights.digest(FILES[1])[:4]))


def test_previews_of_other_images_or_of_no_stream_are_refused(reader, samples):
    data, _ = samples[-1]
    parsed = stream.parse(data)
    sections = dict(parsed.sections)
    inner = sections[stream.SECTION_LATENTS]
    smaller = stream.parse(inner)
    kept = {name: getattr(smaller, name) for name in smaller.__slots__}
    for preview in (
        b"text",
        inner[:-1],
        samples[0][0],
        data,
        stream.pack(stream.Stream(**{**kept, "width": 65})),
        stream.pack(stream.Stream(**{**kept, "level": 31})),
        stream.pack(stream.Stream(**{**kept, "model": b"anything"})),
    ):
        with pytest.raises(RecbatchError):
            reader.decode(with_fields(data, sections={**sections, stream.SECTION_LATENTS: preview}))
    del sections[stream.SECTION_LATENTS]
    with pytest.raises(RecbatchError):
        reader.decode(with_fields(data, sections=sections))


@pytest.mark.parametrize(
    "residual", [b"", b"\0", b"\xff" * 3, b"\0\0\0", b"\xff" * 400, bytes(300), b"\x80" * 12]
)
def test_residuals_that_no_encoder_wrote_are_refused(reader, samples, residual):
    for data, _ in samples[:3]:
        sections = {**stream.parse(data).sections, stream.SECTION_RESIDUAL: residual}
        with pytest.raises(RecbatchError):
            reader.decode(with_fields(data, sections=sections))


def test_lengths_of_parts_that_do_not_fit_are_corrupt():
    for data, count in ((b"", 2), (b"\x05abc", 2), (b"\x80", 2), (b"\x80\x00", 2), (b"\x01\x01", 4)):
        with pytest.raises(CorruptStream):
            lossless.split(data, count)
