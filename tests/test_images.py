"""Files to pictures and back: the policy, one property or one odd file at a time. All files are made here."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import threading
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageOps

from recbatch.errors import CorruptStream, ImageError
from recbatch.images import (
    FORMATS,
    CannotWrite,
    EmptyFile,
    ImageTooLarge,
    KeepOriginal,
    Metadata,
    NotAnImage,
    Picture,
    TruncatedImage,
    decode_alpha,
    encode_alpha,
    pack_metadata,
    parse_metadata,
    read_picture,
    to_pil,
    write_picture,
)
from recbatch.images.depth import what_would_be_lost

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(mode: str, width: int = 23, height: int = 17, seed: int = 1) -> Image.Image:
    planes = np.random.default_rng(seed).integers(0, 256, (height, width, CHANNELS[mode]), dtype=np.uint8)
    return Image.fromarray(planes[:, :, 0] if mode == "L" else planes)


def exif_with(orientation: int, order: str = ">") -> bytes:
    """A TIFF header, one directory of two entries, and a maker note that must not move."""
    head = b"MM\0*" if order == ">" else b"II*\0"
    entries = struct.pack(order + "HHI4s", 0x010F, 2, 4, b"cam\0")
    entries += struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return head + struct.pack(order + "IH", 8, 2) + entries + struct.pack(order + "I", 0) + b"maker note"


def planes_of(picture: Picture) -> np.ndarray[Any, Any]:
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


@st.composite
def pictures(draw: st.DrawFn, modes: tuple[str, ...] = tuple(CHANNELS)) -> Picture:
    mode = draw(st.sampled_from(modes))
    shape = (draw(st.integers(1, 20)), draw(st.integers(1, 20)), CHANNELS[mode])
    planes = draw(hnp.arrays(np.uint8, shape))
    some = st.none() | st.binary(min_size=1, max_size=60)
    exif = draw(st.none() | st.builds(exif_with, st.just(1), st.sampled_from("<>")))
    metadata = Metadata(icc=draw(st.sampled_from([None, ICC])), exif=exif, xmp=draw(some))
    if mode.endswith("A"):
        return Picture(pixels=planes[:, :, :-1], alpha=planes[:, :, -1], metadata=metadata)
    return Picture(pixels=planes, metadata=metadata)


# Round trips


@given(pictures())
@settings(deadline=None)
def test_png_gives_back_pixels_alpha_and_metadata_exactly(picture: Picture) -> None:
    again = read_picture(write_picture(picture, "png"))
    assert again.mode == picture.mode
    assert np.array_equal(planes_of(again), planes_of(picture))
    assert again.metadata == picture.metadata
    assert again.notes == ()
    assert again.source_format == "png"
    assert (again.width, again.height) == (picture.pixels.shape[1], picture.pixels.shape[0])


@given(pictures(modes=("RGB", "RGBA")), st.sampled_from(["webp", "tiff"]))
@settings(deadline=None, max_examples=60)
def test_webp_and_tiff_give_back_pixels_and_alpha_exactly(picture: Picture, format: str) -> None:
    again = read_picture(write_picture(picture, format))
    expected = planes_of(picture)
    if format == "webp" and picture.alpha is not None and (picture.alpha == 255).all():
        expected = picture.pixels  # the format leaves out an alpha plane without effect
    assert np.array_equal(planes_of(again)[:, :, : expected.shape[2]], expected)
    assert again.metadata.icc == picture.metadata.icc
    assert again.metadata.xmp == picture.metadata.xmp
    assert (again.metadata.exif is None) == (picture.metadata.exif is None)


@given(pictures(modes=("L", "LA")))
@settings(deadline=None, max_examples=30)
def test_tiff_keeps_grey(picture: Picture) -> None:
    again = read_picture(write_picture(picture, "tiff"))
    assert again.mode == picture.mode
    assert np.array_equal(planes_of(again), planes_of(picture))


@given(pictures(modes=("L", "RGB")))
@settings(deadline=None, max_examples=30)
def test_jpeg_keeps_shape_and_metadata(picture: Picture) -> None:
    again = read_picture(write_picture(picture, "jpeg"))
    assert again.pixels.shape == picture.pixels.shape
    assert again.metadata == picture.metadata


def test_jpeg_is_written_without_subsampling() -> None:
    with Image.open(io.BytesIO(write_picture(read_picture(saved(noise("RGB"), "PNG")), "jpg"))) as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3


@given(pictures())
@settings(deadline=None, max_examples=30)
def test_to_pil_holds_the_picture(picture: Picture) -> None:
    image = to_pil(picture)
    assert image.mode == picture.mode
    assert np.array_equal(np.asarray(image).reshape(planes_of(picture).shape), planes_of(picture))
    assert image.info.get("icc_profile") == picture.metadata.icc
    assert image.info.get("xmp") == picture.metadata.xmp


@pytest.mark.parametrize(
    ("format", "mode", "metadata", "words"),
    [
        ("jpeg", "RGBA", Metadata(), "alpha"),
        ("jpeg", "RGB", Metadata(exif=bytes(70_000)), "EXIF"),
        ("jpeg", "RGB", Metadata(xmp=bytes(70_000)), "XMP"),
        ("gif", "RGB", Metadata(), "png, webp, jpeg, tiff"),
        ("tiff", "RGB", Metadata(exif=b"no EXIF at all"), "EXIF"),
    ],
)
def test_what_a_format_can_not_hold_is_refused(
    format: str, mode: str, metadata: Metadata, words: str
) -> None:
    plain = read_picture(saved(noise(mode), "PNG"))
    with pytest.raises(CannotWrite, match=words):
        write_picture(Picture(pixels=plain.pixels, alpha=plain.alpha, metadata=metadata), format)


def test_webp_has_a_longest_side() -> None:
    wide = Picture(pixels=np.zeros((1, 16384, 1), np.uint8))
    with pytest.raises(CannotWrite, match="16383"):
        write_picture(wide, "webp")
    assert set(FORMATS) == {"png", "webp", "jpeg", "tiff"}


# What is exact and noted


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "BMP", "PPM", "QOI", "JPEG2000"])
def test_lossless_formats_give_their_pixels(format: str) -> None:
    image = noise("RGB")
    picture = read_picture(saved(image, format, **({"lossless": True} if format == "WEBP" else {})))
    assert np.array_equal(picture.pixels, np.asarray(image))
    assert picture.notes == ()
    assert picture.source_format == format.lower()


def test_a_jpegs_pixels_are_those_of_its_decoder() -> None:
    data = saved(noise("RGB"), "JPEG")
    assert np.array_equal(read_picture(data).pixels, np.asarray(Image.open(io.BytesIO(data))))


def test_a_bilevel_image_becomes_grey() -> None:
    bits = np.random.default_rng(3).integers(0, 2, (5, 9)).astype(bool)
    picture = read_picture(saved(Image.fromarray(bits), "PNG"))
    assert picture.mode == "L"
    assert np.array_equal(picture.pixels[:, :, 0], bits * np.uint8(255))
    assert picture.notes == ("1-bit->l",)


@pytest.mark.parametrize("transparency", [None, 3, bytes([0, 128, 255, 7] + [255] * 12)])
def test_a_palette_becomes_its_colours(transparency: int | bytes | None) -> None:
    rng = np.random.default_rng(4)
    index, palette = (
        rng.integers(0, 16, (11, 13), dtype=np.uint8),
        rng.integers(0, 256, (16, 3), dtype=np.uint8),
    )
    image = Image.fromarray(index).convert("L")
    image = Image.frombytes("P", image.size, index.tobytes())
    image.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    picture = read_picture(saved(image, "PNG", **options))
    assert np.array_equal(picture.pixels, palette[index])
    if transparency is None:
        assert picture.alpha is None
        assert picture.notes == ("palette->rgb",)
    else:
        alphas = np.full(16, 255, np.uint8)
        if isinstance(transparency, int):
            alphas[transparency] = 0
        else:
            alphas[:] = list(transparency)
        assert picture.alpha is not None
        assert np.array_equal(picture.alpha, alphas[index])
        assert picture.notes == ("palette->rgba",)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (
        png_chunk(b"IHDR", head),
        *chunks,
        png_chunk(b"IDAT", zlib.compress(rows)),
        png_chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_colour_key_becomes_alpha() -> None:
    rows = b"\0" + bytes([1, 2, 3, 9, 9, 9]) + b"\0" + bytes([1, 2, 4, 1, 2, 3])
    picture = read_picture(png_of(2, 2, 8, 2, rows, png_chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255], [255, 0]]
    assert picture.pixels[0, 0].tolist() == [1, 2, 3]
    assert picture.notes == ("colour key->alpha",)


@pytest.mark.parametrize(("depth", "row", "greys"), [(1, 0b01000000, [0, 255]), (2, 0b11010000, [255, 85])])
def test_a_colour_key_of_shallow_grey_is_scaled_with_it(depth: int, row: int, greys: list[int]) -> None:
    key = png_chunk(b"tRNS", struct.pack(">H", 1))
    picture = read_picture(png_of(2, 1, depth, 0, bytes([0, row]), key))
    assert picture.pixels[0, :, 0].tolist() == greys
    assert picture.alpha is not None
    assert picture.alpha[0].tolist() == [255, 0]
    assert picture.notes == (f"{depth}-bit->{'l' if depth == 1 else '8-bit'}", "colour key->alpha")


def test_texts_that_look_like_settings_change_nothing() -> None:
    names = (b"transparency", b"icc_profile", b"interlace", b"bbox", b"exif", b"xmp", b"Title")
    texts = [png_chunk(b"tEXt", name + b"\0value") for name in names]
    picture = read_picture(png_of(1, 9, 8, 0, b"\0\x07" * 9, *texts))
    assert picture.pixels.ravel().tolist() == [7] * 9
    assert picture.alpha is None
    assert (picture.metadata.icc, picture.metadata.exif, picture.metadata.xmp) == (None, None, None)
    assert [chunk.data for chunk in picture.metadata.png_chunks] == [name + b"\0value" for name in names]
    assert picture.notes == ()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "mode"), [("PNG", "RGBA"), ("TIFF", "RGB"), ("WEBP", "RGB"), ("JPEG", "L")]
)
def test_the_orientation_is_applied_and_its_tag_set_to_1(
    format: str, mode: str, orientation: int, order: str
) -> None:
    image, exif = noise(mode), exif_with(orientation, order)
    if format == "TIFF":
        tags = Image.Exif()
        tags.load(exif)
        data = saved(image, format, exif=tags)
    else:
        data = saved(
            image, format, exif=b"Exif\0\0" + exif, **({"lossless": True} if format == "WEBP" else {})
        )
    picture = read_picture(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(planes_of(picture).squeeze(), expected)
    assert picture.notes == (() if orientation == 1 else ("orientation applied",))
    if format != "TIFF":
        assert picture.metadata.exif == exif_with(1, order)
    assert read_picture(write_picture(picture, "png")).notes == ()


def test_the_orientation_in_xmp_follows_that_in_exif() -> None:
    plain = read_picture(saved(noise("RGB"), "PNG"))
    turned = Picture(pixels=plain.pixels, metadata=Metadata(exif=exif_with(6), xmp=XMP))
    assert read_picture(write_picture(turned, "png")).metadata.xmp == XMP.replace(b'"6"', b'"1"')
    alone = Picture(pixels=plain.pixels, metadata=Metadata(xmp=XMP))
    again = read_picture(write_picture(alone, "png"))
    assert again.metadata.xmp == XMP
    assert np.array_equal(again.pixels, plain.pixels)


@given(st.binary(max_size=40), st.sampled_from([b"", b"MM\0*", b"II*\0", b"MM\0*\0\0\0\x08"]))
@settings(deadline=None)
def test_odd_exif_is_carried_as_it_is(tail: bytes, head: bytes) -> None:
    exif = head + tail or b"x"
    picture = Picture(pixels=np.zeros((2, 3, 1), np.uint8), metadata=Metadata(exif=exif))
    again = read_picture(write_picture(picture, "png"))
    assert again.metadata.exif is not None
    assert len(again.metadata.exif) == len(exif)
    if "orientation applied" not in again.notes:
        assert again.metadata.exif == exif


def test_a_tiffs_description_is_carried_as_exif() -> None:
    tags = Image.Exif()
    tags[0x010E], tags[0x013B] = "a heron", "someone"
    picture = read_picture(saved(noise("RGB"), "TIFF", exif=tags))
    again = Image.Exif()
    again.load(picture.metadata.exif or b"")
    assert (again[0x010E], again[0x013B]) == ("a heron", "someone")
    assert 273 not in again  # where the old file's strips lay means nothing now


# What is kept as it is, or converted when asked


def frames(count: int) -> list[Image.Image]:
    return [noise("RGB", seed=seed) for seed in range(count)]


def animated(format: str, **options: Any) -> bytes:
    first, *rest = frames(3)
    return saved(first, format, save_all=True, append_images=rest, **options)


def png_16_rgb() -> bytes:
    return png_of(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0x1234, 0xFFFF, 0))


def tiff_16_rgb() -> bytes:
    entries = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 3, 134),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 140),
        (277, 3, 1, 3),
        (278, 3, 1, 1),
        (279, 4, 1, 6),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    body = b"II*\0" + struct.pack("<I", 8) + directory + bytes(4)
    return body.ljust(134, b"\0") + struct.pack("<HHH", 16, 16, 16) + struct.pack("<HHH", 0x1234, 0xFFFF, 0)


def tiff_with(tag: int, value: int) -> bytes:
    tags = Image.Exif()
    tags[tag] = value
    return saved(noise("RGB"), "TIFF", exif=tags)


def wide_grey() -> Image.Image:
    return Image.fromarray(np.arange(0, 65536, 331, dtype=np.uint16).reshape(11, 18))


KEPT = {
    "16-bit grey PNG": (lambda: saved(wide_grey(), "PNG"), "16-bit", ("16-bit->8-bit",)),
    "16-bit RGB PNG": (png_16_rgb, "16-bit", ("16-bit->8-bit",)),
    "16-bit grey TIFF": (lambda: saved(wide_grey(), "TIFF"), "16-bit", ("16-bit->8-bit",)),
    "16-bit RGB TIFF": (tiff_16_rgb, "16-bit", ("16-bit->8-bit",)),
    "16-bit PPM": (lambda: b"P6 1 1 65535\n" + bytes(6), "16-bit", ("16-bit->8-bit",)),
    "10-bit PGM": (lambda: b"P5 1 1 1023\n" + bytes(2), "10-bit", ("10-bit->8-bit",)),
    "16-bit JPEG 2000": (lambda: saved(wide_grey(), "JPEG2000"), "16-bit", ("16-bit->8-bit",)),
    "float TIFF": (lambda: saved(noise("L").convert("F"), "TIFF"), "float", ("float->8-bit",)),
    "32-bit TIFF": (lambda: saved(noise("L").convert("I"), "TIFF"), "32-bit", ("32-bit->8-bit",)),
    "CMYK JPEG": (lambda: saved(noise("RGB").convert("CMYK"), "JPEG"), "CMYK", ("cmyk->rgb",)),
    "Lab TIFF": (
        lambda: saved(noise("RGB").convert("LAB"), "TIFF"),
        "CIELAB",
        ("lab->rgb", "colour profile dropped"),
    ),
    "YCbCr TIFF": (lambda: saved(noise("RGB").convert("YCbCr"), "TIFF"), "YCbCr", ("ycbcr->rgb",)),
    "animated GIF": (lambda: animated("GIF"), "3 frames", ("first frame of 3", "palette->rgb")),
    "animated PNG": (lambda: animated("PNG"), "3 frames", ("first frame of 3",)),
    "animated WebP": (lambda: animated("WEBP"), "3 frames", ("first frame of 3",)),
    "TIFF of pages": (lambda: animated("TIFF"), "3 frames", ("first frame of 3",)),
    "MPO": (lambda: animated("MPO"), "3 frames", ("first frame of 3",)),
    "TIFF beside a raw image": (lambda: tiff_with(254, 1), "preview", ("preview only",)),
    "gain map": (
        lambda: saved(noise("RGB"), "JPEG", xmp=b'<a hdrgm:Version="1.0"/>') + saved(noise("L"), "JPEG"),
        "gain map",
        ("gain map dropped",),
    ),
    "motion photo": (
        lambda: saved(noise("RGB"), "JPEG", xmp=b'<a GCamera:MotionPhoto="1"/>') + b"\0\0\0\x08ftyp",
        "film",
        ("film dropped",),
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_would_lose_something_is_kept_unless_asked_for(name: str) -> None:
    make, reason, notes = KEPT[name]
    data = make()
    with pytest.raises(KeepOriginal, match=reason) as caught:
        read_picture(data)
    assert caught.value.width > 0
    assert caught.value.height > 0
    assert caught.value.source_format
    picture = read_picture(data, convert=True)
    assert picture.notes == notes
    assert (picture.width, picture.height) == (caught.value.width, caught.value.height)


@pytest.mark.parametrize("xmp", [b"MotionPhoto=", b'<a MotionPhoto="1"/>', b'<a hdrgm:Version="1.0"/>'])
def test_xmp_that_speaks_of_what_an_editor_cut_away_is_no_loss(xmp: bytes) -> None:
    picture = read_picture(saved(noise("RGB"), "JPEG", xmp=xmp))
    assert picture.metadata.xmp == xmp


@pytest.mark.parametrize(("flags", "bits"), [(0, 8), (0x40, 10), (0x60, 12)])
def test_a_deep_avif_is_told_from_its_header(flags: int, bits: int) -> None:
    data = bytearray(saved(noise("RGB"), "AVIF"))
    with Image.open(io.BytesIO(data)) as image:  # Pillow gives 8 bits of any AVIF
        data[data.index(b"av1C") + 6] |= flags
        assert [loss for loss, _ in what_would_be_lost(image, bytes(data))] == (
            [] if bits == 8 else [f"{bits}-bit samples"]
        )


def test_16_bits_are_rounded_to_8() -> None:
    picture = read_picture(saved(wide_grey(), "PNG"), convert=True)
    expected = np.floor(np.asarray(wide_grey()) / 257 + 0.5).astype(np.uint8)
    assert np.array_equal(picture.pixels[:, :, 0], expected)


def test_a_profile_does_not_outlive_its_colour_space() -> None:
    data = saved(noise("RGB").convert("CMYK"), "JPEG", icc_profile=ICC)
    picture = read_picture(data, convert=True)
    assert picture.metadata.icc is None
    assert picture.notes == ("cmyk->rgb", "colour profile dropped")


@pytest.mark.parametrize(("data", "name"), [(b"\xff\x0a" + bytes(30), "jxl"), (b"8BPS" + bytes(30), "psd")])
def test_images_of_formats_that_are_not_decoded_are_kept(data: bytes, name: str) -> None:
    with pytest.raises(KeepOriginal, match=name):
        read_picture(data)


# What is refused


def test_no_bytes() -> None:
    with pytest.raises(EmptyFile):
        read_picture(b"")


@pytest.mark.parametrize(
    "data",
    [
        b"hello, this is text",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg/>",
        bytes(64),
        b"BM",
    ],
)
def test_what_is_no_image_that_we_read(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        read_picture(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "JPEG2000", "AVIF"])
def test_every_truncation_of_an_image_is_refused(format: str) -> None:
    data = saved(noise("RGB", 9, 7), format)
    ends = len(data) - 2 if format == "GIF" else len(data)  # a GIF's last two bytes carry nothing
    for length in range(ends):
        with pytest.raises((TruncatedImage, NotAnImage, EmptyFile)) as caught:
            read_picture(data[:length])
        if length >= 16:
            assert caught.type is TruncatedImage


def bomb_png() -> bytes:
    return png_of(60_000, 60_000, 8, 0, b"")


def bomb_webp() -> bytes:
    extended = b"\0\0\0\0" + (16_000).to_bytes(3, "little") + (16_000).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + extended
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bomb_gif() -> bytes:
    return (
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"
    )


@pytest.mark.parametrize("make", [bomb_png, bomb_gif, lambda: b"P5 99999 99999 255\n"])
def test_a_bomb_is_refused_by_its_header(make: Any) -> None:
    with pytest.raises(ImageTooLarge) as caught:
        read_picture(make())
    assert caught.value.width * caught.value.height > caught.value.max_pixels == 200_000_000


def test_a_webp_bomb_is_refused() -> None:
    with pytest.raises(ImageError):
        read_picture(bomb_webp())


def test_the_limit_is_the_callers_and_pillows_own_is_left_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS
    data = saved(noise("RGB", 30, 20), "PNG")
    assert read_picture(data, max_pixels=600).width == 30
    with pytest.raises(ImageTooLarge, match="30 x 20 pixels, the limit is 599"):
        read_picture(data, max_pixels=599)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("head", [b"zTXt:big\0\0", b"zTXt:Raw profile type exif\0\0", b"tEXt:big\0"])
def test_a_png_text_that_would_unpack_to_much_is_carried_as_it_is(head: bytes) -> None:
    kind, _, name = head.partition(b":")
    text = zlib.compress(bytes(5 * 2**20))
    picture = read_picture(png_of(1, 1, 8, 0, b"\0\0", png_chunk(kind, name + text)))
    assert [(chunk.kind, chunk.data) for chunk in picture.metadata.png_chunks] == [(kind, name + text)]


@pytest.mark.parametrize("head", [b"iCCP:name\0\0", b"iTXt:XML:com.adobe.xmp\0\1\0\0\0"])
def test_a_profile_or_xmp_that_unpacks_to_more_than_the_limit_keeps_the_file(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbatch.images.reading.MAX_METADATA_BYTES", 2**16)
    kind, _, name = head.partition(b":")
    chunk = png_chunk(kind, name + zlib.compress(bytes(5 * 2**20)))
    with pytest.raises(KeepOriginal, match=f" {2**16 + 1} bytes of metadata"):
        read_picture(png_of(1, 1, 8, 0, b"\0\0", chunk))


def test_pillows_warnings_do_not_leak_and_filters_come_back() -> None:
    data = bytearray(saved(noise("RGB"), "TIFF", tiffinfo={270: "x" * 50}))
    warnings.simplefilter("error")
    before = list(warnings.filters)

    def read_many() -> None:
        rng = random.Random(8)
        for _ in range(40):
            damaged = bytearray(data)
            damaged[rng.randrange(len(data) - 200, len(data))] ^= 1 << rng.randrange(8)
            try:
                read_picture(bytes(damaged), convert=True)
            except ImageError:
                pass
            except BaseException as error:
                failures.append(error)

    failures: list[BaseException] = []
    threads = [threading.Thread(target=read_many) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(warnings.filters) == before


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0", b"GIF89a", b"P6 "]),
)
@settings(deadline=None, max_examples=500)
def test_random_bytes_raise_nothing_but_image_errors(data: bytes, head: bytes) -> None:
    with contextlib.suppress(ImageError):
        read_picture(head + data, max_pixels=10**6, convert=True)


def mutated(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(damaged))
        action = rng.randrange(5)
        if action < 2:
            damaged[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif action == 2:
            del damaged[place : place + rng.randint(1, 40)]
        elif action == 3:
            damaged[place:place] = rng.randbytes(rng.randint(1, 20))
        else:
            damaged[place : place + 4] = struct.pack(">I", rng.choice((0, 1, 2**31, 2**32 - 1)))
        if not damaged:
            break
    return bytes(damaged)


@pytest.mark.parametrize(
    "make",
    [
        *(
            lambda format=format: saved(noise("RGB"), format)
            for format in ("JPEG", "PNG", "WEBP", "BMP", "PPM")
        ),
        *(lambda format=format: saved(noise("RGB", 9, 7), format) for format in ("JPEG2000", "AVIF", "QOI")),
        lambda: saved(noise("RGBA"), "PNG", exif=b"Exif\0\0" + exif_with(6), icc_profile=ICC[:200]),
        lambda: saved(noise("RGB"), "JPEG", exif=b"Exif\0\0" + exif_with(6), xmp=XMP, comment=b"c"),
        lambda: saved(noise("RGB"), "TIFF", compression="tiff_lzw"),
        lambda: saved(noise("L"), "TIFF", tiffinfo={270: "description"}),
        lambda: saved(noise("RGB").quantize(16), "PNG", transparency=3),
        *(
            lambda name=name: KEPT[name][0]()
            for name in ("animated GIF", "animated PNG", "animated WebP", "MPO")
        ),
        *(lambda name=name: KEPT[name][0]() for name in ("TIFF of pages", "16-bit RGB TIFF", "CMYK JPEG")),
    ],
)
def test_damaged_files_raise_nothing_but_image_errors(make: Any) -> None:
    rng = random.Random(9)
    data, whole = make(), 0
    for _ in range(150):
        try:
            picture = read_picture(mutated(rng, data), max_pixels=10**6, convert=True)
        except ImageError:
            continue
        whole += 1
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.ndim == 3
        assert picture.alpha is None or picture.alpha.shape == picture.pixels.shape[:2]
    assert whole < 150


# The two sections of a stream


@given(
    st.builds(Metadata, *[], icc=st.none() | st.binary(min_size=1), exif=st.none() | st.binary(min_size=1))
)
@settings(deadline=None)
def test_metadata_packs_and_parses(metadata: Metadata) -> None:
    data = pack_metadata(metadata)
    assert bool(data) == bool(metadata)
    assert parse_metadata(data) == metadata


def test_large_and_incompressible_metadata_pack_and_parse() -> None:
    metadata = Metadata(icc=random.Random(1).randbytes(300_000), exif=bytes(12 * 2**20), xmp=XMP)
    assert parse_metadata(pack_metadata(metadata)) == metadata


def test_metadata_is_bounded_before_it_is_unpacked() -> None:
    data = pack_metadata(Metadata(exif=bytes(2**20)))
    assert len(data) < 300
    with pytest.raises(CorruptStream, match="more than 1000 bytes"):
        parse_metadata(data, max_size=1000)


def packed(record: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(record)


@pytest.mark.parametrize(
    "data",
    [
        b"not zstd",
        pack_metadata(Metadata(xmp=XMP))[:-1],
        pack_metadata(Metadata(xmp=XMP)) + b"x",
        pack_metadata(Metadata(xmp=XMP)) * 2,
        packed(struct.pack("<BI", 1, 4) + b"icc"),
        packed(struct.pack("<BI", 1, 0)),
        packed(struct.pack("<BI", 0, 1) + b"x"),
        packed(struct.pack("<BI", 9, 1) + b"x"),
        packed((struct.pack("<BI", 2, 1) + b"x") * 2),
        packed(b"\x01\0"),
    ],
)
def test_what_is_no_metadata_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptStream):
        parse_metadata(data)


def test_a_metadata_field_from_the_future_is_passed_over() -> None:
    record = struct.pack("<BI", 1, 2) + b"ab" + struct.pack("<BI", 66, 3) + b"new"
    assert parse_metadata(packed(record)) == Metadata(icc=b"ab")


def test_damaged_metadata_raises_nothing_but_corrupt_stream() -> None:
    rng, data = random.Random(10), pack_metadata(Metadata(icc=ICC, exif=exif_with(1), xmp=XMP))
    refused = 0
    for _ in range(1000):
        try:
            parse_metadata(mutated(rng, data), max_size=2**20)
        except CorruptStream:
            refused += 1
    assert refused > 500


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_alpha_packs_and_parses(alpha_HW: Any) -> None:
    height, width = alpha_HW.shape
    data = encode_alpha(alpha_HW)
    assert np.array_equal(decode_alpha(data, width, height), alpha_HW)
    with pytest.raises(CorruptStream):
        decode_alpha(data, width + 1, height)


def test_damaged_alpha_raises_nothing_but_corrupt_stream() -> None:
    rng, data = random.Random(11), encode_alpha(np.asarray(noise("L")))
    for length in range(len(data)):
        with pytest.raises(CorruptStream):
            decode_alpha(data[:length], 23, 17)
    refused = 0
    for _ in range(500):
        try:
            decode_alpha(mutated(rng, data), 23, 17)
        except CorruptStream:
            refused += 1
    assert refused > 250


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_only_a_grey_png_is_an_alpha_plane(mode: str) -> None:
    with pytest.raises(CorruptStream):
        decode_alpha(saved(noise("RGB").convert(mode), "PNG"), 23, 17)


def test_a_netpbm_file_of_several_images_is_kept() -> None:
    one = b"P6 3 2 255\n" + bytes(range(18))
    assert read_picture(one).pixels.shape == (2, 3, 3)
    assert read_picture(one + b"\n \n").pixels.shape == (2, 3, 3)
    with pytest.raises(KeepOriginal, match="several images"):
        read_picture(one + one)
    assert "first image only" in read_picture(one + b"\n" + one, convert=True).notes
    bits = b"P4 9 2\n" + bytes(4)
    with pytest.raises(KeepOriginal, match="several images"):
        read_picture(bits + bits)
