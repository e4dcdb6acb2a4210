"""Pixels without loss: every one comes back, from bytes that do not depend on neighbours or threads."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lossless_models import TINY_PHOTO, model_file, random_model, trust_convolutions
from pictures import file_of, photograph, source_of
from PIL import Image

from recbatch import rec, stream
from recbatch.codec import Decoder, Encoded, ImageCodec, Settings, Source, jpeg, lossless, lossy
from recbatch.codec.image_codec import NotWithoutLoss, VerificationFailed
from recbatch.errors import ImageError
from recbatch.images import Metadata, Picture, pixels_sha256, read_picture
from recbatch.models.exact import selftest
from recbatch.models.photo import PhotoModel

COLOURS = {"L": 1, "LA": 1, "RGB": 3, "RGBA": 3}
FILES = [model_file(), TINY_PHOTO.read_bytes()]


@pytest.fixture(autouse=True, scope="module")
def no_trials():
    with pytest.MonkeyPatch.context() as patch:
        trust_convolutions(patch)
        yield
    selftest.forget_trials()


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def previews():
    photo = PhotoModel.from_bytes(FILES[1])
    return lossless.PreviewMaker(photo, rec.coder("trellis", effort=1, tables=lossy.tables_of(photo)))


@pytest.fixture(scope="module")
def reader():
    """Knows both models, by the heads of their digests."""
    from recbatch.models import weights

    known = {weights.digest(data): data for data in FILES}
    return Decoder(lambda head: next(data for digest, data in known.items() if digest.startswith(head)))


def picture_of(seed: int, width: int, height: int, mode: str, kind: str) -> Picture:
    rng = np.random.default_rng(seed)
    shape = (height, width, COLOURS[mode])
    if kind == "flat":
        pixels = np.broadcast_to(rng.integers(0, 256, shape[2]), shape)
    elif kind == "noise":
        pixels = rng.integers(0, 256, shape)
    elif kind == "extremes":
        pixels = rng.choice([0, 255], shape)
    else:
        slope = rng.uniform(-3, 3, (2, shape[2]))
        pixels = (
            np.arange(height)[:, None, None] * slope[0] + np.arange(width)[None, :, None] * slope[1] + 128
        )
    alpha = rng.integers(0, 256, shape[:2]).astype(np.uint8) if mode.endswith("A") else None
    return Picture(pixels=np.clip(pixels, 0, 255).astype(np.uint8), alpha=alpha)


def same(a: Picture, b: Picture) -> bool:
    return (
        a.mode == b.mode
        and np.array_equal(a.pixels, b.pixels)
        and (a.alpha is None or np.array_equal(a.alpha, b.alpha))
        and a.metadata == b.metadata
    )


def code(pictures, model, previews=None):
    return lossless.encode(pictures, [b""] * len(pictures), model, previews)


# -- round trips


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    mode=st.sampled_from(sorted(COLOURS)),
    kind=st.sampled_from(["flat", "noise", "extremes", "ramp"]),
)
@example(seed=0, width=1, height=1, mode="RGB", kind="noise")
@example(seed=0, width=1, height=1, mode="LA", kind="noise")
@example(seed=0, width=1, height=67, mode="RGBA", kind="noise")
@example(seed=0, width=66, height=1, mode="L", kind="extremes")
@example(seed=0, width=2, height=2, mode="RGB", kind="extremes")
def test_any_small_picture_comes_back(model, reader, seed, width, height, mode, kind):
    picture = picture_of(seed, width, height, mode, kind)
    (coded,) = code([picture], model)
    assert same(reader.decode(coded.data), picture)
    head = stream.header(coded.data)
    assert head.size <= 24
    assert (head.width, head.height, head.mode, head.codec) == (width, height, mode, stream.CODEC_LOSSLESS)
    assert coded.kl_bits == 0
    lanes = lossless.lossless_walk.lanes(height, width)
    most = 96 * lanes + 8 * (4 + lossless.Tuning.none().numbers.size)
    assert coded.residual_bits <= 1.001 * coded.ideal_bits + most


@pytest.mark.parametrize(
    ("width", "height", "mode"), [(300, 131, "RGB"), (40, 520, "L"), (129, 257, "RGBA"), (1, 1000, "RGB")]
)
def test_pictures_of_several_bands_and_lanes_come_back(model, reader, width, height, mode):
    picture = picture_of(3, width, height, mode, "ramp")
    (coded,) = code([picture], model)
    assert same(reader.decode(coded.data), picture)


@pytest.mark.parametrize(
    ("width", "height", "mode"), [(64, 64, "RGB"), (65, 130, "RGBA"), (71, 64, "L"), (140, 121, "LA")]
)
def test_a_preview_stands_first_and_is_a_stream_of_its_own(model, previews, reader, width, height, mode):
    picture = picture_of(1, width, height, mode, "ramp")
    (coded,) = code([picture], model, previews)
    assert same(reader.decode(coded.data), picture)
    size = stream.preview_size(coded.data)
    assert size > 0
    seen = reader.preview(coded.data[:size])
    assert (seen.width, seen.height, seen.alpha) == (width, height, None)
    assert coded.kl_bits > 0
    assert coded.ideal_bits > coded.kl_bits
    assert coded.preview.index + coded.preview.symbols > 0


def test_small_pictures_have_no_preview_and_the_small_networks(model, previews, reader):
    picture = picture_of(1, 63, 200, "RGB", "ramp")
    (coded,) = code([picture], model, previews)
    assert stream.preview_size(coded.data) == 0
    assert same(reader.preview(coded.data), picture)
    assert stream.header(coded.data).level == lossless.VARIANTS.index("plain")
    (coded,) = code([picture_of(1, 64, 63, "RGB", "ramp")], model)
    assert stream.header(coded.data).level == lossless.VARIANTS.index("small")


def test_tiles_are_coded_apart_and_fit_together(model, previews, reader, monkeypatch):
    monkeypatch.setattr(lossless, "TILE", 48)
    cuts = list(lossless.tiles(70, 150))
    covered = np.zeros((70, 150), int)
    for rows, columns in cuts:
        covered[rows, columns] += 1
        assert rows.stop - rows.start <= 48
        assert columns.stop - columns.start <= 48
    assert (covered == 1).all()
    assert len(cuts) == 8
    for mode, maker in (("RGB", None), ("LA", previews)):
        picture = picture_of(4, 150, 70, mode, "ramp")
        (coded,) = code([picture], model, maker)
        assert same(reader.decode(coded.data), picture)


def test_the_header_of_a_thumbnail_is_no_burden(model):
    (coded,) = code([picture_of(0, 32, 32, "RGB", "noise")], model)
    assert stream.header(coded.data).size <= 24
    assert 8 * len(coded.data) == coded.residual_bits + 8 * (
        stream.header(coded.data).size + stream.CRC_BYTES
    )


def test_metadata_and_recipes_travel(model, reader):
    picture = Picture(
        pixels=picture_of(0, 20, 20, "RGB", "ramp").pixels,
        metadata=Metadata(icc=b"profile " * 9, exif=b"II*\0x"),
    )
    (coded,) = lossless.encode([picture], [b"a recipe"], model)
    assert same(reader.decode(coded.data), picture)
    assert stream.parse(coded.data).sections[stream.SECTION_FILE] == b"a recipe"


# -- what bytes do not depend on


@pytest.mark.parametrize(("width", "height", "mode"), [(20, 33, "LA"), (130, 129, "RGB")])
def test_pictures_together_give_the_bytes_of_each_alone(model, previews, width, height, mode):
    kinds = ["ramp", "noise", "flat"] if width < 64 else ["ramp", "noise"]
    pictures = [picture_of(seed, width, height, mode, kind) for seed, kind in enumerate(kinds)]
    for maker in (None, previews):
        together = [c.data for c in code(pictures, model, maker)]
        assert together == [code([p], model, maker)[0].data for p in pictures]


def test_threads_leave_no_trace(model, previews, reader):
    picture = picture_of(7, 140, 150, "RGB", "ramp")
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found += [code([picture], model, maker)[0].data for maker in (None, previews)]
            assert all(same(reader.decode(data), picture) for data in found)
    finally:
        torch.set_num_threads(before)
    assert found[:2] == found[2:]


@pytest.mark.parametrize("rung", ["float64", "int64"])
def test_a_stream_decodes_alike_on_the_slow_paths(model, reader, rung):
    from recbatch.models import exact

    picture = picture_of(5, 24, 21, "RGB", "ramp")
    (coded,) = code([picture], model)
    with exact.at_least(rung):
        assert same(reader.decode(coded.data), picture)
        assert code([picture], model)[0].data == coded.data


def test_parts_join_and_split():
    for parts in ([b""], [b"a"], [b"", b"", b"xy"], [b"q" * 300, b"", b"z"]):
        assert lossless.split(lossless.join(parts), len(parts)) == parts


# -- files


@pytest.fixture(scope="module")
def codec():
    return ImageCodec(Settings(mode="lossless", effort=1), weights=FILES)


def codec_with(**choices: object) -> ImageCodec:
    return ImageCodec(Settings(mode="lossless", effort=1, **choices), weights=FILES)


def encode_one(codec: ImageCodec, source: Source) -> Encoded:
    (result,) = codec.encode([source])
    assert isinstance(result, Encoded), result
    return result


def restored(encoded: Encoded, reader: Decoder) -> Picture:
    """The picture of a row, by whichever of its codecs."""
    if encoded.codec == "lossless":
        return reader.decode(encoded.stream)
    return read_picture(jpeg.restore(encoded.stream) if encoded.codec == "jpeg" else encoded.stream)


PALETTE = photograph(60, 50).quantize(16)
EIGHT_BIT = {
    "rgb": file_of(photograph(90, 70), compress_level=0),
    "grey": file_of(photograph(90, 70, "L"), compress_level=0),
    "rgba": file_of(photograph(40, 30, "RGBA"), compress_level=0),
    "grey and alpha": file_of(photograph(40, 30, "LA"), compress_level=0),
    "palette": file_of(PALETTE),
    "bmp": file_of(photograph(50, 40), "BMP"),
    "webp": file_of(photograph(50, 40), "WEBP", lossless=True),
    "one pixel": file_of(photograph(1, 1)),
}


@pytest.mark.parametrize("name", EIGHT_BIT)
@pytest.mark.parametrize("keep", ["never", "smaller", "always"])
def test_every_8_bit_file_gives_its_pixels_back_and_is_never_bigger(reader, name, keep):
    source = Source(name=name, data=EIGHT_BIT[name])
    encoded = encode_one(codec_with(keep_originals=keep), source)
    before = read_picture(source.data)
    after = restored(encoded, reader)
    assert np.array_equal(after.pixels, before.pixels)
    assert after.alpha is None or np.array_equal(after.alpha, before.alpha)
    if keep == "never":
        assert encoded.codec == "lossless"
    else:
        assert len(encoded.stream) <= len(source.data)
    if keep == "always":
        assert (encoded.codec, encoded.stream) == ("original", source.data)
    if encoded.codec == "lossless":
        assert encoded.pixels_sha256 == pixels_sha256(before)
        assert encoded.psnr is None
        parts = encoded.index_bits + encoded.symbol_bits + encoded.residual_bits + encoded.side_bits
        assert parts == 8 * len(encoded.stream)


def test_a_jpeg_is_recoded_and_every_byte_comes_back(codec):
    source = source_of(photograph(200, 150), format="JPEG", quality=90)
    encoded = encode_one(codec, source)
    assert encoded.codec in ("jpeg", "original")
    assert len(encoded.stream) <= len(source.data)
    file = jpeg.restore(encoded.stream) if encoded.codec == "jpeg" else encoded.stream
    assert file == source.data


def test_the_pixels_of_a_jpeg_can_be_asked_for(reader):
    source = source_of(photograph(70, 64), format="JPEG")
    encoded = encode_one(codec_with(keep_originals="never"), source)
    assert encoded.codec == "lossless"
    assert np.array_equal(restored(encoded, reader).pixels, read_picture(source.data).pixels)


DEEP = file_of(Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16))
FLOAT = file_of(Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF")
CMYK = file_of(photograph(64, 64, "RGBA").convert("CMYK"), "TIFF")


@pytest.mark.parametrize("data", [DEEP, FLOAT, CMYK], ids=["16 bits", "float", "cmyk"])
def test_what_8_bits_cannot_hold_keeps_its_bytes_or_is_refused(codec, data):
    source = Source(name="deep", data=data)
    encoded = encode_one(codec, source)
    assert (encoded.codec, encoded.stream) == ("original", data)
    assert encoded.notes[0].startswith("kept as original: ")
    (refused,) = codec_with(keep_originals="never").encode([source])
    assert isinstance(refused, NotWithoutLoss)


def test_broken_files_are_an_error_each_and_the_others_go_on(codec):
    good = source_of(photograph(40, 40))
    png, photo = file_of(photograph(90, 70)), file_of(photograph(90, 70), "JPEG")
    bad = [b"", b"text", png[:60], photo[:200], png[:-300], b"\x89PNG\r\n\x1a\n"]
    results = codec.encode([good, *(Source(name="b", data=data) for data in bad), good])
    assert all(isinstance(r, ImageError) for r in results[1:-1])
    assert isinstance(results[0], Encoded)
    assert results[0] == results[-1]


def test_files_come_back_themselves_where_that_is_asked_for(reader):
    codec = codec_with(exact_files=True)
    data = file_of(photograph(90, 70))
    encoded = encode_one(codec, Source(name="a", data=data))
    if encoded.codec == "lossless":
        assert reader.file(encoded.stream, reader.decode(encoded.stream)) == data
    else:
        assert encoded.stream == data
    loose = encode_one(codec, Source(name="b", data=file_of(photograph(90, 70), compress_level=0)))
    assert loose.codec == "lossless"  # the file is all pixels, and twice the stream
    again = reader.file(loose.stream, reader.decode(loose.stream))
    assert again == file_of(photograph(90, 70), compress_level=0)
    webp = source_of(photograph(50, 40), format="WEBP", lossless=True)
    kept = encode_one(codec, webp)
    assert (kept.codec, kept.stream) == ("original", webp.data)
    assert "rebuilt" in kept.notes[0]


def test_without_exact_files_a_stream_has_no_recipe(codec, reader):
    encoded = encode_one(codec, Source(name="a", data=EIGHT_BIT["rgb"]))
    assert encoded.codec == "lossless"
    assert reader.file(encoded.stream, reader.decode(encoded.stream)) is None


def test_a_batch_of_files_gives_the_streams_of_each_alone():
    codec = codec_with(keep_originals="never")
    sources = [source_of(photograph(w, h, seed=w)) for w, h in ((70, 66), (30, 20), (70, 66), (20, 30))]
    together = codec.encode(sources)
    assert [e.stream for e in together] == [encode_one(codec, s).stream for s in sources]


def test_no_preview_means_none(reader):
    source = source_of(photograph(80, 80))
    with_one = encode_one(codec_with(keep_originals="never"), source)
    without = encode_one(codec_with(keep_originals="never", preview=False), source)
    assert stream.preview_size(with_one.stream) > 0
    assert with_one.coder == "trellis"
    assert stream.preview_size(without.stream) == 0
    assert (without.coder, without.kl_bits, without.index_bits) == ("", 0, 0)
    assert same(reader.decode(with_one.stream), reader.decode(without.stream))


# -- proof before commit


@pytest.mark.parametrize("what", ["pixel", "alpha", "metadata", "shape"])
def test_a_decoder_that_errs_anywhere_is_caught(monkeypatch, what):
    codec = codec_with(keep_originals="never")
    source = source_of(photograph(30, 20, "RGBA"), icc_profile=b"profile " * 20)
    true_decode = Decoder.decode

    def wrong(self, data, **options):
        found = true_decode(self, data, **options)
        pixels, alpha, metadata = found.pixels.copy(), found.alpha.copy(), found.metadata
        if what == "pixel":
            pixels[-1, -1, 0] ^= 1
        elif what == "alpha":
            alpha[0, 0] ^= 1
        elif what == "metadata":
            metadata = Metadata()
        else:
            pixels, alpha = pixels[1:], alpha[1:]
        return Picture(pixels=pixels, alpha=alpha, metadata=metadata)

    monkeypatch.setattr(Decoder, "decode", wrong)
    (result,) = codec.encode([source])
    assert isinstance(result, VerificationFailed)


def test_an_encoder_that_errs_is_caught(monkeypatch):
    """The stream is what it says it is, but of other pixels."""
    codec = codec_with(keep_originals="never", preview=False)
    true_encode = lossless.encode

    def wrong(pictures, *rest):
        changed = []
        for p in pictures:
            pixels = p.pixels.copy()
            pixels[3, 4, 1] ^= 1
            changed.append(Picture(pixels=pixels, alpha=p.alpha, metadata=p.metadata))
        return true_encode(changed, *rest)

    monkeypatch.setattr(lossless, "encode", wrong)
    (result,) = codec.encode([source_of(photograph(30, 20))])
    assert isinstance(result, VerificationFailed)
    assert "other pixels" in str(result)


def test_a_png_written_from_a_row_has_the_same_pixels(codec, reader):
    from recbatch.images import write_picture

    encoded = encode_one(codec, Source(name="a", data=EIGHT_BIT["rgb"]))
    again = Image.open(io.BytesIO(write_picture(reader.decode(encoded.stream), "png")))
    assert np.array_equal(np.asarray(again), np.asarray(photograph(90, 70)))
