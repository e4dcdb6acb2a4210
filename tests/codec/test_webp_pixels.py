"""Pictures that are no photographs: their pixels as lossless WebP in a lossless stream, read without any model."""

from __future__ import annotations

import io
import struct
import zlib
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lossless_models import TINY_PHOTO, model_file, trust_convolutions
from pictures import GOLDEN, file_of, photograph, source_of
from PIL import Image, features

from recbatch import stream
from recbatch.archive import Record
from recbatch.codec import Decoder, Encoded, ImageCodec, Settings, Source, lossless, webp_pixels
from recbatch.engine.rows import for_browsing, preview
from recbatch.errors import CorruptStream, RecbatchError
from recbatch.images import Metadata, Picture, pixels_sha256, read_picture
from recbatch.models.exact import selftest

FILES = [model_file(), TINY_PHOTO.read_bytes()]
PALETTE = np.array([(255, 255, 255), (0, 0, 0), (200, 30, 40), (20, 90, 160)], np.uint8)


@pytest.fixture(autouse=True, scope="module")
def no_trials():
    with pytest.MonkeyPatch.context() as patch:
        trust_convolutions(patch)
        yield
    selftest.forget_trials()


def no_model(head: bytes) -> bytes:
    pytest.fail("a model was asked for")


@pytest.fixture(scope="module")
def reader() -> Decoder:
    return Decoder(no_model)


@lru_cache
def codec_with(**choices: object) -> ImageCodec:
    return ImageCodec(
        Settings(mode="lossless", effort=1, **{"keep_originals": "never", **choices}), weights=FILES
    )


def encoded(source: Source, **choices: object) -> Encoded:
    (row,) = codec_with(**choices).encode([source])
    assert isinstance(row, Encoded), row
    return row


def drawn(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Picture:
    """Boxes, and a few signs that come again and again."""
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, (5, 7, 5))
    numbers = np.zeros((height, width), np.int64)
    for _ in range(4):
        top, left = rng.integers(0, height), rng.integers(0, width)
        numbers[top : top + height // 3, left : left + width // 3] = rng.integers(0, 4)
    for top in range(1, height - 7, 9):
        for left in range(1, width - 5, 6):
            numbers[top : top + 7, left : left + 5] ^= signs[rng.integers(5)]
    pixels = PALETTE[numbers % 4]
    alpha = (255 - 60 * (numbers % 3)).astype(np.uint8) if mode.endswith("A") else None
    return Picture(pixels=pixels if mode.startswith("RGB") else pixels[:, :, :1].copy(), alpha=alpha)


def source(picture: Picture, **options: object) -> Source:
    planes = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    return source_of(Image.fromarray(planes[:, :, 0] if planes.shape[2] == 1 else planes), **options)


def by_webp(picture: Picture, recipe: bytes = b"") -> bytes:
    tried = webp_pixels.attempt(picture, recipe)
    assert tried is not None
    return tried.coded.data


def same(a: Picture, b: Picture) -> bool:
    return a.metadata == b.metadata and a.mode == b.mode and pixels_sha256(a) == pixels_sha256(b)


# --- there and back ---


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("size", [(200, 120), (131, 77), (1, 1), (33, 1), (1, 40), (16, 16)])
def test_a_drawing_comes_back_without_a_model(reader: Decoder, mode: str, size: tuple[int, int]) -> None:
    picture = drawn(*size, mode)
    data = by_webp(picture)
    assert same(reader.decode(data), picture)
    parsed = stream.parse(data)
    assert (parsed.model, parsed.level) == (bytes(4), 0)
    assert set(parsed.sections) == {stream.SECTION_PIXELS, *([stream.SECTION_ALPHA] if "A" in mode else [])}
    assert stream.preview(data) == b""


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    colours=st.integers(1, 256),
    mode=st.sampled_from(["L", "RGB"]),
)
@example(seed=0, width=64, height=64, colours=256, mode="RGB")
def test_any_palette_comes_back(seed: int, width: int, height: int, colours: int, mode: str) -> None:
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 256, (colours, len(mode)), np.uint8)
    picture = Picture(pixels=palette[rng.integers(0, colours, (height, width))])
    section = webp_pixels.encode(picture.pixels)
    assert section is not None
    data = lossless.packed(picture, {stream.SECTION_PIXELS: section}, b"")
    assert same(Decoder(no_model).decode(data), picture)
    if mode == "RGB":
        assert webp_pixels.has_few_colours(picture.pixels)


def test_noise_would_come_back_too(reader: Decoder) -> None:
    """Who writes another choice writes a good stream."""
    picture = Picture(pixels=np.random.default_rng(0).integers(0, 256, (19, 23, 3), np.uint8))
    section = webp_pixels.encode(picture.pixels)
    assert section is not None
    assert same(reader.decode(lossless.packed(picture, {stream.SECTION_PIXELS: section}, b"")), picture)


@pytest.mark.parametrize(("width", "height", "mode"), [(16_500, 3, "RGB"), (2, 2049, "L")])
def test_tiles_fit_together_beyond_what_one_webp_file_can_hold(
    reader: Decoder, width: int, height: int, mode: str
) -> None:
    picture = Picture(pixels=np.zeros((height, width, len(mode)), np.uint8))
    picture.pixels[height // 2 :, width // 3 :] = 200
    picture.pixels[-1, -1] = 77
    assert same(reader.decode(by_webp(picture)), picture)


def test_a_section_is_a_webp_file_without_what_its_size_tells() -> None:
    picture = drawn(61, 47)
    section = webp_pixels.encode(picture.pixels)
    assert section is not None
    file = webp_pixels.file_of(section, 47, 61)
    assert len(file) - 25 - len(section) in (0, 1)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), picture.pixels)


# --- which pictures ---


def test_drawings_become_webp_and_their_rows_name_no_model(reader: Decoder) -> None:
    picture = drawn(300, 200)
    row = encoded(source(picture))
    assert (row.codec, row.coder, row.model) == ("lossless", "webp", "")
    assert (row.kl_bits, row.ideal_bits, row.index_bits, row.symbol_bits) == (0, 0, 0, 0)
    assert row.residual_bits == 8 * len(stream.parse(row.stream).sections[stream.SECTION_PIXELS])
    assert row.residual_bits + row.side_bits == 8 * len(row.stream)
    assert row.pixels_sha256 == pixels_sha256(picture)
    assert same(reader.decode(row.stream), picture)


@pytest.mark.parametrize(("mode", "preview"), [("RGB", False), ("L", True), ("RGBA", False)])
def test_photographs_are_what_they_would_be_without_webp(
    mode: str, preview: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = source_of(photograph(90, 80, mode))
    row = encoded(made, preview=preview)
    assert row.coder != "webp"
    monkeypatch.setattr(webp_pixels, "attempt", lambda *_: None)
    assert encoded(made, preview=preview) == row


def test_photographs_are_never_encoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webp_pixels, "encode", lambda _: pytest.fail("an encode was paid for"))
    folder = GOLDEN.parents[1] / "docs" / "demo" / "photographs"
    for path in folder.iterdir():
        if path.suffix in (".png", ".jpg"):
            assert webp_pixels.attempt(read_picture(path.read_bytes()), b"") is None, path.name


def test_a_photograph_with_a_palette_is_tried() -> None:
    picture = read_picture(file_of(photograph(150, 120).quantize(200)))
    assert webp_pixels.attempt(picture, b"") is not None
    assert not webp_pixels.has_few_colours(np.asarray(photograph(150, 120)))


def test_what_is_far_below_our_reach_is_not_coded_by_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lossless, "encode", lambda *_: pytest.fail("an encode was paid for"))
    assert encoded(source(drawn(300, 200))).coder == "webp"


def test_the_smaller_of_both_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures are always coded both ways: here by a model that nobody trained, which is bad at everything."""
    icon = source(drawn(24, 24))
    small = encoded(icon)
    monkeypatch.setattr(webp_pixels, "attempt", lambda *_: None)
    assert len(small.stream) < len(encoded(icon).stream)
    flat = Picture(pixels=np.full((40, 40, 3), 9, np.uint8))
    bulky = webp_pixels.Attempt(lossless.Coded(bytes(10**6), 0.0, 0.0, lossless.Bits(), 8), False)
    monkeypatch.setattr(webp_pixels, "attempt", lambda *_: bulky)
    assert encoded(source(flat)).coder == ""


def test_a_batch_gives_the_streams_of_each_alone() -> None:
    made = [
        source(drawn(24, 24, seed=1)),
        source_of(photograph(24, 24)),
        source(drawn(24, 24, seed=2)),
        source(drawn(150, 90)),
    ]
    together = codec_with().encode(made)
    assert [row.stream for row in together if isinstance(row, Encoded)] == [
        encoded(one).stream for one in made
    ]


def test_without_webp_in_pillow_ours_is_taken_and_theirs_is_unsupported(
    reader: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = by_webp(drawn(30, 30))
    monkeypatch.setattr(features, "check", lambda _: False)
    assert webp_pixels.attempt(drawn(30, 30), b"") is None
    with pytest.raises(stream.UnsupportedFormat, match="WebP"):
        reader.decode(data)


def test_a_library_that_writes_other_files_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webp_pixels, "file_of", lambda *_: b"RIFF and more chunks")
    assert webp_pixels.attempt(drawn(30, 30), b"") is None


# --- what goes with a stream ---


def test_files_and_metadata_of_drawings_come_back(reader: Decoder) -> None:
    made = source(drawn(200, 150, "RGBA"), icc_profile=b"a profile " * 9, compress_level=1)
    row = encoded(made, exact_files=True)
    assert row.coder == "webp"
    picture = reader.decode(row.stream)
    assert picture.metadata == read_picture(made.data).metadata != Metadata()
    assert reader.file(row.stream, picture) == made.data


def test_the_preview_of_such_a_row_is_the_picture(reader: Decoder) -> None:
    picture = drawn(200, 150)
    row = encoded(source(picture))
    record = Record(
        key="a.png",
        codec="lossless",
        stream=row.stream,
        model=row.model,
        coder=row.coder,
        pixels_sha256=row.pixels_sha256,
        width=200,
        height=150,
        mode="RGB",
    )
    assert same(preview(record, reader.decode), picture)
    assert same(for_browsing(reader.preview(row.stream), "jpeg"), picture)


# --- damage ---


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def with_fields(data: bytes, **fields: object) -> stream.Stream:
    parsed = stream.parse(data)
    return stream.Stream(**{**{name: getattr(parsed, name) for name in parsed.__slots__}, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"model": b"\1\0\0\0"},
        {"level": 1},
        {"sections": {stream.SECTION_PIXELS: b"x", stream.SECTION_LATENTS: b"x"}},
        {"sections": {stream.SECTION_PIXELS: b"x", stream.SECTION_RESIDUAL: b"x"}},
        {"sections": {stream.SECTION_PIXELS: b""}},
        {"sections": {stream.SECTION_FILE: b"x"}},
    ],
)
def test_fields_that_contradict_the_section_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(stream.InvalidStream):
        stream.pack(with_fields(by_webp(drawn(20, 20)), **fields))


def test_a_lossy_stream_has_no_such_section() -> None:
    data = (GOLDEN / "stream" / "rgb.rec").read_bytes()
    parsed = stream.parse(data)
    with pytest.raises(stream.InvalidStream):
        stream.pack(with_fields(data, sections={**parsed.sections, stream.SECTION_PIXELS: b"x"}))


def test_a_header_with_a_model_is_corrupt_where_the_pixels_need_none(reader: Decoder) -> None:
    body = bytearray(by_webp(drawn(20, 20))[:-4])
    at = body.index(bytes(5))  # the variant, then the model
    for place in range(at, at + 5):
        changed = body.copy()
        changed[place] = 1
        with pytest.raises(CorruptStream):
            reader.decode(sealed(bytes(changed)))


@pytest.mark.parametrize("section", [b"x", b"\0" * 9, b"\xff" * 300, b"RIFF\x10\0\0\0WEBPVP8 \4\0\0\0abcd"])
def test_what_is_no_webp_is_corrupt(reader: Decoder, section: bytes) -> None:
    with pytest.raises(CorruptStream):
        reader.decode(
            stream.pack(with_fields(by_webp(drawn(20, 20)), sections={stream.SECTION_PIXELS: section}))
        )


def fuzz(reader: Decoder, count: int, seed: int) -> None:
    """Accidents under a true checksum: a named error, or the very pixels."""
    rng = np.random.default_rng(seed)
    pictures = [drawn(40, 30), drawn(19, 23, "L"), drawn(9, 9, "RGBA")]
    streams = [by_webp(picture)[:-4] for picture in pictures]
    refused = 0
    for _ in range(count):
        body = bytearray(streams[int(rng.integers(len(streams)))])
        at = int(rng.integers(8, len(body)))
        if (kind := rng.integers(4)) == 0:
            body[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            body[at : at + 3] = rng.bytes(3)
        elif kind == 2:
            del body[at:]
        else:
            body[at:at] = rng.bytes(int(rng.integers(1, 6)))
        try:
            found = reader.decode(sealed(bytes(body)))
        except RecbatchError:
            refused += 1
        else:
            assert any(same(found, picture) for picture in pictures)
    assert refused > 0.8 * count


def test_damage_under_a_true_checksum_is_a_named_error(reader: Decoder) -> None:
    fuzz(Decoder(lambda head: FILES[0]), 300, 0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_damage_under_a_true_checksum_fifty_thousand_times(seed: int) -> None:
    fuzz(Decoder(lambda head: FILES[0]), 10_000, 100 + seed)


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (30_000, 30_000), (21, 20), (20, 21), (19, 20)])
def test_another_size_never_gives_a_picture(reader: Decoder, size: tuple[int, int]) -> None:
    body = by_webp(drawn(20, 20))[:-4]
    sides = stream.varint(size[0]) + stream.varint(size[1])
    with pytest.raises(CorruptStream):
        reader.decode(sealed(body[:10] + sides + body[12:]), max_pixels=2**62)


# --- what is said of it ---


def test_what_is_shown_of_such_a_stream_names_no_model() -> None:
    from recbatch import api
    from recbatch.cli.inspect import stream_rows

    found = api.stream_info((GOLDEN / "lossless" / "pixels-webp.rec").read_bytes())
    assert (found.codec, found.coder, found.model, found.model_name) == ("lossless", "webp", "", None)
    assert set(found.bytes) == {"header and checksum", "pixels"}
    shown = {row[0]: row[1] for row in stream_rows(found)}
    assert (shown["model"], shown["coder"]) == ("none", "webp")
