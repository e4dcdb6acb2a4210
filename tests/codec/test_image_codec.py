from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import photograph, source_of
from PIL import Image

from recbatch import stream
from recbatch.codec import (
    BadSetting,
    Decoder,
    Encoded,
    ImageCodec,
    Settings,
    Source,
    level_of_quality,
    quality_of_level,
)
from recbatch.codec.quality import psnr
from recbatch.errors import CorruptData, ImageError
from recbatch.images import read_picture


def encode_one(codec: ImageCodec, source: Source) -> Encoded:
    (result,) = codec.encode([source])
    assert isinstance(result, Encoded), result
    return result


@pytest.fixture(scope="module")
def codec(weights: bytes) -> ImageCodec:
    """Always codes, also where the file is smaller."""
    return ImageCodec(Settings(level=20, keep_originals="never"), weights=[weights])


@pytest.fixture(scope="module")
def thrifty(weights: bytes) -> ImageCodec:
    return ImageCodec(Settings(level=20), weights=[weights])


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (64, 64), (65, 130)])
def test_any_size_and_mode_comes_back_as_it_was(codec, decoder, mode, size):
    source = source_of(photograph(*size, mode))
    encoded = encode_one(codec, source)
    picture = decoder.decode(encoded.stream)
    original = read_picture(source.data)
    assert (picture.width, picture.height, picture.mode) == (*size, mode)
    assert picture.alpha is None or np.array_equal(picture.alpha, original.alpha)
    assert encoded.psnr == pytest.approx(psnr(original.pixels, picture.pixels))


@settings(max_examples=15, deadline=None)
@given(
    width=st.integers(1, 150), height=st.integers(1, 150), seed=st.integers(0, 99), level=st.integers(0, 31)
)
def test_a_stream_decodes_to_what_was_measured(weights, width, height, seed, level):
    source = source_of(photograph(width, height, seed=seed))
    encoded = encode_one(ImageCodec(Settings(level=level, keep_originals="never"), weights=[weights]), source)
    restored = Decoder(lambda head: weights).decode(encoded.stream)
    assert psnr(read_picture(source.data).pixels, restored.pixels) == pytest.approx(encoded.psnr, abs=1e-9)
    assert encoded.stream_sha256 == hashlib.sha256(encoded.stream).digest()
    total = encoded.index_bits + encoded.symbol_bits + encoded.side_bits
    assert total == 8 * len(encoded.stream)


def test_a_stream_does_not_depend_on_its_neighbours(codec):
    sources = [source_of(photograph(w, h, seed=w), name=f"{w}") for w, h in ((70, 90), (128, 64), (33, 200))]
    together = codec.encode(sources)
    apart = [encode_one(codec, s) for s in sources]
    assert [e.stream for e in together] == [e.stream for e in apart]


def test_more_quality_costs_more_bits_and_gives_a_closer_image(weights):
    source = source_of(photograph(192, 192))
    rows = [
        encode_one(ImageCodec(Settings(level=level, keep_originals="never"), weights=[weights]), source)
        for level in (0, 5, 10)
    ]
    sizes = [len(r.stream) for r in rows]
    assert sizes == sorted(sizes)
    assert [r.psnr for r in rows] == sorted(r.psnr for r in rows)


def test_no_row_is_larger_than_its_file(thrifty):
    for image in (Image.new("RGB", (40, 40), "red"), photograph(1, 1), photograph(30, 20)):
        source = source_of(image, format="WEBP", quality=20)
        encoded = encode_one(thrifty, source)
        assert len(encoded.stream) <= len(source.data)
        if encoded.codec == "original":
            assert encoded.stream == source.data
            assert encoded.notes == ("kept as original: smaller than its stream",)


def test_what_would_lose_something_is_kept_and_says_why(thrifty):
    deep = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16)
    encoded = encode_one(thrifty, source_of(deep))
    assert encoded.codec == "original"
    assert "16" in encoded.notes[0]


def test_conversion_on_request_is_noted(codec):
    cmyk = encode_one(codec, source_of(photograph(64, 64, "RGBA").convert("CMYK"), format="JPEG"))
    assert cmyk.codec == "lossy"
    assert "cmyk->rgb" in cmyk.notes


def test_metadata_travels(codec, decoder):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    encoded = encode_one(
        codec, source_of(photograph(64, 64), exif=exif.tobytes(), icc_profile=b"profile " * 20)
    )
    metadata = decoder.decode(encoded.stream).metadata
    assert metadata.icc == b"profile " * 20
    assert b"a description" in (metadata.exif or b"")


def test_a_bad_image_is_an_error_value_and_the_others_go_on(codec):
    good = source_of(photograph(64, 64))
    results = codec.encode([good, Source(name="t", data=b"text"), Source(name="e", data=b""), good])
    assert isinstance(results[0], Encoded)
    assert isinstance(results[1], ImageError)
    assert isinstance(results[2], ImageError)
    assert results[0] == results[3]


def test_mode_original_keeps_every_byte():
    source = source_of(photograph(64, 64), format="JPEG")
    encoded = encode_one(ImageCodec(Settings(mode="original")), source)
    assert (encoded.stream, encoded.codec, encoded.width) == (source.data, "original", 64)


def test_the_paper_coder_does_the_whole_way(weights, decoder):
    codec = ImageCodec(Settings(level=12, coder="irec", keep_originals="never"), weights=[weights])
    encoded = encode_one(codec, source_of(photograph(96, 64)))
    assert encoded.coder == "irec"
    assert decoder.decode(encoded.stream).width == 96


@pytest.mark.parametrize(
    "bad", [{"level": 32}, {"level": -1}, {"effort": 0}, {"mode": "png"}, {"keep_originals": "no"}]
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(BadSetting, match="can't be"):
        Settings(**bad)


def test_quality_names_levels_and_back():
    assert [level_of_quality(q) for q in (0, 50, 100)] == [0, 15.5, 31]
    assert all(level_of_quality(quality_of_level(place / 8)) == place / 8 for place in range(8 * 31 + 1))
    with pytest.raises(BadSetting):
        level_of_quality(101)


def test_the_wrong_model_is_named_before_any_pixel_is_made(codec, weights):
    encoded = encode_one(codec, source_of(photograph(64, 64)))
    parsed = stream.parse(encoded.stream)
    other = stream.pack(
        stream.Stream(**{f: getattr(parsed, f) for f in parsed.__slots__ if f != "model"}, model=b"other123")
    )
    with pytest.raises(CorruptData, match="not 6f74686572313233"):
        Decoder(lambda head: weights).decode(other)


def test_the_decoder_of_the_package_reads_a_restored_png_like_pillow_does(codec, decoder):
    from recbatch.images import write_picture

    encoded = encode_one(codec, source_of(photograph(50, 40)))
    picture = decoder.decode(encoded.stream)
    again = np.asarray(Image.open(io.BytesIO(write_picture(picture, "png"))))
    assert np.array_equal(again, picture.pixels)
