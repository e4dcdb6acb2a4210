"""What a PNG says beside its pixels: carried through pictures and streams, where it still holds."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_images import ICC, XMP, exif_with, mutated, noise, png_chunk, png_of, saved

from recbatch.errors import CorruptStream
from recbatch.images import (
    KeepOriginal,
    Metadata,
    Picture,
    TruncatedImage,
    pack_metadata,
    parse_metadata,
    read_picture,
    write_picture,
)
from recbatch.images.picture import PngChunk
from recbatch.images.png_file import MAX_CHUNKS

PHYS = struct.pack(">IIB", 3000, 2000, 1)
BEFORE = (
    (b"gAMA", struct.pack(">I", 45455)),
    (b"cHRM", struct.pack(">8I", *range(31270, 31278))),
    (b"sRGB", b"\0"),
    (b"cICP", bytes((9, 16, 0, 1))),
    (b"mDCV", bytes(range(24))),
    (b"cLLI", bytes(range(8))),
    (b"sBIT", bytes((5, 6, 5))),
    (b"bKGD", bytes((0, 1, 0, 2, 0, 3))),
    (b"pHYs", PHYS),
    (b"sPLT", b"a\0\x08" + bytes(6)),
    (b"sPLT", b"b\0\x08" + bytes(6)),
    (b"tEXt", b"Title\0a heron"),
    (b"tEXt", b"Title\0a heron, again"),
    (b"zTXt", b"Comment\0\0" + zlib.compress(b"long " * 50)),
    (b"oFFs", bytes(9)),
    (b"prVt", b""),
)
AFTER = (
    (b"iTXt", b"Author\0\0\0de\0Urheber\0" + "jemand \u00fc".encode()),
    (b"tIME", bytes((7, 234, 1, 2, 3, 4, 5))),
    (b"prVt", b"behind"),
)


def file_of(*before: tuple[bytes, bytes], after: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A PNG of 2 x 1 RGB pixels with these chunks."""
    data = png_of(2, 1, 8, 2, bytes(range(7)).replace(b"\1", b"\0"), *(png_chunk(*one) for one in before))
    return data[:-12] + b"".join(png_chunk(*one) for one in after) + data[-12:]


def chunks_in(data: bytes) -> list[tuple[bytes, bytes]]:
    """Types and bytes of a PNG file's chunks, checksums proved."""
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert png_chunk(kind, body) == data[at : at + 12 + length]
        found.append((kind, body))
        at += 12 + length
    return found


def carried(picture: Picture) -> list[tuple[bytes, bytes]]:
    return [(chunk.kind, chunk.data) for chunk in picture.metadata.png_chunks]


def proved(picture: Picture) -> Picture:
    """The picture, once a stream's section and a PNG file have given back its metadata."""
    assert parse_metadata(pack_metadata(picture.metadata)) == picture.metadata
    again = read_picture(write_picture(picture, "png"))
    assert again.metadata == picture.metadata
    assert again.notes == ()
    assert np.array_equal(again.pixels, picture.pixels)
    return picture


# Through pictures


def test_every_kind_comes_back_in_its_order_and_place() -> None:
    picture = proved(read_picture(file_of(*BEFORE, after=AFTER)))
    assert picture.notes == ()
    assert carried(picture) == [*BEFORE, *AFTER]
    assert [chunk.is_after for chunk in picture.metadata.png_chunks] == [False] * len(BEFORE) + [True] * len(
        AFTER
    )
    written = chunks_in(write_picture(picture, "png"))
    places = [kind for kind, _ in written]
    assert written[1 : 1 + len(BEFORE)] == list(BEFORE)
    assert set(places[1 + len(BEFORE) : -1 - len(AFTER)]) == {b"IDAT"}
    assert written[-1 - len(AFTER) : -1] == list(AFTER)
    with Image.open(io.BytesIO(write_picture(picture, "png"))) as image:
        assert image.text["Title"] == "a heron, again"
        assert image.text["Author"] == "jemand \u00fc"
        assert image.info["gamma"] == 0.45455


def test_chunks_stand_beside_profile_exif_and_xmp() -> None:
    data = saved(noise("RGB"), "PNG", icc_profile=ICC, exif=b"Exif\0\0" + exif_with(1))
    first = data.index(b"IDAT") - 4
    xmp = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))
    data = data[:first] + png_chunk(*BEFORE[0]) + xmp + data[first:-12] + png_chunk(*AFTER[0]) + data[-12:]
    picture = proved(read_picture(data))
    chunks = (PngChunk(*BEFORE[0]), PngChunk(*AFTER[0], True))
    assert picture.metadata == Metadata(icc=ICC, exif=exif_with(1), xmp=XMP, png_chunks=chunks)
    assert picture.notes == ()


@pytest.mark.parametrize("format", ["webp", "jpeg", "tiff"])
def test_other_formats_leave_the_chunks_out(format: str) -> None:
    picture = read_picture(file_of(*BEFORE, after=AFTER))
    again = read_picture(write_picture(picture, format))
    assert again.metadata.png_chunks == ()
    assert again.pixels.shape == picture.pixels.shape


kinds = st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"sPLT", b"prVt", b"abCd", b"vpAg", b"caBX", b"sCAL"])
fixed = st.sampled_from([*BEFORE, *AFTER])
some_chunks = st.lists(fixed | st.tuples(kinds, st.binary(max_size=40)), max_size=6)


@given(some_chunks, some_chunks)
@settings(deadline=None)
def test_whatever_is_carried_is_stable_and_the_rest_is_named(
    before: list[tuple[bytes, bytes]], after: list[tuple[bytes, bytes]]
) -> None:
    picture = proved(read_picture(file_of(*before, after=tuple(after))))
    unsafe = {b"caBX", b"sCAL"}
    assert carried(picture) == [one for one in [*before, *after] if one[0] not in unsafe]
    gone = sorted({kind.decode() for kind, _ in [*before, *after] if kind in unsafe})
    assert picture.notes == ((f"chunks dropped: {', '.join(gone)}",) if gone else ())


@pytest.mark.parametrize(
    ("chunk", "dropped"),
    [
        ((b"hIST", bytes(4)), True),
        ((b"caBX", b"signed"), True),  # upper case at the end: not safe to copy
        ((b"prvt", b"reserved letter"), False),
        ((b"gAMA", bytes(3)), True),  # of a length that other readers refuse
        ((b"pHYs", bytes(10)), True),
        ((b"sBIT", bytes((5, 6, 5, 8))), True),  # four samples, the picture has three
        ((b"sBIT", bytes((5, 6, 9))), True),
        ((b"sBIT", bytes((0, 6, 5))), True),
        ((b"bKGD", b"\0\1"), True),
        ((b"iCCP", b"name\0\0no zlib"), True),
        ((b"iCCP", b"name\0\1" + zlib.compress(ICC)), True),
        ((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0no zlib"), True),
        ((b"eXIf", b""), True),
    ],
)
def test_what_no_longer_holds_or_never_did_is_dropped_by_name(
    chunk: tuple[bytes, bytes], dropped: bool
) -> None:
    picture = proved(read_picture(file_of(chunk)))
    assert picture.notes == ((f"chunks dropped: {chunk[0].decode()}",) if dropped else ())
    assert carried(picture) == ([] if dropped else [chunk])


@pytest.mark.parametrize(
    ("colour", "depth", "row", "chunk", "kept"),
    [
        (3, 8, b"\0\1", (b"bKGD", b"\1"), False),  # an index
        (3, 8, b"\0\1", (b"sBIT", bytes((5, 6, 5))), True),  # of the palette's colours
        (3, 8, b"\0\1", (b"hIST", bytes(4)), False),
        (0, 4, b"\x1e", (b"bKGD", b"\0\7"), False),  # in 4 bits
        (0, 4, b"\x1e", (b"sBIT", b"\3"), True),
        (0, 4, b"\x1e", (b"gAMA", bytes(4)), True),
        (0, 8, b"\1\2", (b"bKGD", b"\0\7"), True),
        (4, 8, b"\1\2\3\4", (b"bKGD", b"\0\7"), True),
        (4, 8, b"\1\2\3\4", (b"sBIT", b"\5\5"), True),
        (6, 8, bytes(8), (b"bKGD", bytes(6)), True),
        (0, 16, bytes(4), (b"sBIT", b"\x0c"), False),
        (0, 16, bytes(4), (b"sBIT", b"\x08"), True),
        (0, 16, bytes(4), (b"bKGD", b"\1\7"), False),
        (2, 16, bytes(12), (b"cICP", bytes((9, 16, 0, 1))), True),
    ],
)
def test_chunks_of_samples_are_carried_where_the_samples_are(
    colour: int, depth: int, row: bytes, chunk: tuple[bytes, bytes], kept: bool
) -> None:
    palette = [png_chunk(b"PLTE", bytes((1, 2, 3, 4, 5, 6)))] if colour == 3 else []
    data = png_of(2, 1, depth, colour, b"\0" + row, *palette, png_chunk(*chunk))
    picture = proved(read_picture(data, convert=True))
    assert carried(picture) == ([chunk] if kept else [])
    assert (f"chunks dropped: {chunk[0].decode()}" in picture.notes) == (not kept)


def test_significant_bits_without_those_of_a_new_alpha_are_dropped() -> None:
    key = png_chunk(b"tRNS", bytes(6))
    picture = proved(read_picture(png_of(1, 1, 8, 2, bytes(4), png_chunk(b"sBIT", b"\5\6\5"), key)))
    assert picture.mode == "RGBA"
    assert picture.notes == ("colour key->alpha", "chunks dropped: sBIT")


def hexadecimal(exif: bytes) -> bytes:
    """As ImageMagick writes a profile into a text."""
    body = exif.hex().encode()
    lines = b"\n".join(body[at : at + 72] for at in range(0, len(body), 72))
    return b"\nexif\n%8d\n" % len(exif) + lines + b"\n"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_resolution_turns_with_the_picture_and_old_orientations_stay_behind(orientation: int) -> None:
    profiles = [(b"tEXt", b"Raw profile type " + name + b"\0x") for name in (b"APP1", b"exif", b"iptc")]
    others = [(b"pHYs", PHYS), (b"oFFs", bytes(9)), (b"tEXt", b"Title\0x")]
    picture = proved(read_picture(file_of((b"eXIf", exif_with(orientation)), *others, *profiles)))
    assert picture.metadata.exif == exif_with(1)
    if orientation == 1:
        assert carried(picture) == [*others, *profiles]
        assert picture.notes == ()
    else:
        turned = struct.pack(">IIB", 2000, 3000, 1) if orientation >= 5 else PHYS
        assert carried(picture) == [(b"pHYs", turned), others[2], profiles[2]]
        assert picture.notes == ("orientation applied", "chunks dropped: oFFs, tEXt")


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("mark", [b"", b"Exif\0\0"])
def test_exif_in_a_text_becomes_exif(kind: bytes, mark: bytes) -> None:
    text = hexadecimal(mark + exif_with(6))
    heads = {b"tEXt": b"\0", b"zTXt": b"\0\0", b"iTXt": b"\0\0\0\0\0"}
    body = b"Raw profile type exif" + heads[kind] + (zlib.compress(text) if kind == b"zTXt" else text)
    picture = proved(read_picture(file_of((kind, body), BEFORE[0])))
    assert picture.metadata == Metadata(exif=exif_with(1), png_chunks=(PngChunk(*BEFORE[0]),))
    assert picture.notes == ("orientation applied",)
    assert picture.pixels.shape == (2, 1, 3)


def test_of_several_texts_with_exif_the_last_counts_and_the_loss_is_named() -> None:
    texts = [(b"tEXt", b"Raw profile type exif\0" + hexadecimal(exif_with(1, order))) for order in "<>"]
    picture = proved(read_picture(file_of(*texts)))
    assert picture.metadata == Metadata(exif=exif_with(1, ">"))
    assert picture.notes == ("chunks dropped: tEXt",)


@pytest.mark.parametrize("body", [b"", b"\nexif\n 4\nno hex", b"\nexif\n 0\n\n"])
def test_a_text_that_holds_no_exif_after_all_stays_a_text(body: bytes) -> None:
    chunk = (b"tEXt", b"Raw profile type exif\0" + body)
    picture = proved(read_picture(file_of(chunk)))
    assert picture.metadata == Metadata(png_chunks=(PngChunk(*chunk),))


def test_of_two_profiles_the_last_counts_and_the_loss_is_named() -> None:
    profiles = [(b"iCCP", b"name\0\0" + zlib.compress(body)) for body in (b"one", b"two")]
    picture = proved(read_picture(file_of(*profiles)))
    assert picture.metadata == Metadata(icc=b"two")
    assert picture.notes == ("chunks dropped: iCCP",)


def test_a_profile_of_more_than_a_mebibyte_is_carried() -> None:
    profile = random.Random(2).randbytes(2**20 + 5)
    picture = proved(read_picture(file_of((b"iCCP", b"name\0\0" + zlib.compress(profile)))))
    assert picture.metadata.icc == profile


# Damage and limits


def test_a_wrong_checksum_before_the_image_data_is_damage_and_behind_it_costs_the_chunk() -> None:
    data = bytearray(file_of(BEFORE[0], after=AFTER))
    data[data.index(b"gAMA") + 8] ^= 1
    with pytest.raises(TruncatedImage, match="gAMA chunk has a wrong checksum"):
        read_picture(bytes(data))
    data = bytearray(file_of(BEFORE[0], after=AFTER))
    data[data.index(b"Author") + 2] ^= 1
    picture = proved(read_picture(bytes(data)))
    assert carried(picture) == [BEFORE[0], *AFTER[1:]]
    assert picture.notes == ("chunks dropped: iTXt",)


def test_a_file_with_too_many_chunks_is_kept() -> None:
    chunks = [(b"tEXt", b"")] * MAX_CHUNKS
    assert len(proved(read_picture(file_of(*chunks))).metadata.png_chunks) == MAX_CHUNKS
    for extra in [(b"tEXt", b""), (b"caBX", b"")]:
        with pytest.raises(KeepOriginal, match=f"more than {MAX_CHUNKS} chunks"):
            read_picture(file_of(extra, *chunks))


def test_chunks_count_towards_the_limit_of_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbatch.images.reading.MAX_METADATA_BYTES", 2**16)
    limit = 2**16 - 1024
    with pytest.raises(KeepOriginal, match=f"{limit + 1} bytes of metadata"):
        read_picture(file_of((b"tEXt", bytes(limit - 7))))
    picture = read_picture(file_of((b"tEXt", bytes(limit - 8))))
    assert parse_metadata(pack_metadata(picture.metadata), max_size=2**16) == picture.metadata


def test_fields_that_are_not_of_png_take_no_more_bytes_than_before() -> None:
    assert zstandard.decompress(pack_metadata(Metadata(icc=b"ab"))) == struct.pack("<BI", 1, 2) + b"ab"
    chunks = (PngChunk(b"tEXt", b"a\0b"), PngChunk(b"tIME", bytes(7), True))
    assert zstandard.decompress(pack_metadata(Metadata(png_chunks=chunks))) == bytes.fromhex(
        "40 0b000000 74455874 03000000 610062"  # 64: tEXt
        "41 0f000000 74494d45 07000000 00000000000000"  # 65: tIME
    )


def section(*chunks: tuple[bytes, bytes], cut: int = 0, tag: int = 64) -> bytes:
    field = b"".join(kind + struct.pack("<I", len(body)) + body for kind, body in chunks)
    field = field[: len(field) - cut]
    return zstandard.ZstdCompressor().compress(struct.pack("<BI", tag, len(field)) + field)


@pytest.mark.parametrize(
    "data",
    [
        section((b"tEXt", b"abc"), cut=1),
        section((b"tEXt", b""), cut=1),
        section((b"tEXt", b"a"), (b"tEXt", b""), cut=4),
        *(
            section((kind, bytes(9)))
            for kind in (b"IDAT", b"IEND", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"hIST", b"caBX")
        ),
        *(
            section((kind, bytes(9)))
            for kind in (b"iCCP", b"eXIf", b"gAMA", b"sBIT", b"bKGD", b"te\0t", b"t\xc3\xa4t")
        ),
        section((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0x")),
        section(*[(b"tEXt", b"")] * (MAX_CHUNKS + 1)),
        section((b"caBX", b""), tag=65),
    ],
)
def test_what_is_no_list_of_chunks_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptStream):
        parse_metadata(data)


def test_damaged_sections_raise_nothing_but_corrupt_stream() -> None:
    rng, refused = random.Random(12), 0
    chunks = (*(PngChunk(*one) for one in BEFORE), *(PngChunk(*one, True) for one in AFTER))
    record = zstandard.decompress(pack_metadata(Metadata(xmp=XMP, png_chunks=chunks)))
    for _ in range(1000):
        try:
            found = parse_metadata(zstandard.ZstdCompressor().compress(mutated(rng, record)))
        except CorruptStream:
            refused += 1
            continue
        picture = Picture(pixels=np.zeros((1, 1, 3), np.uint8), metadata=found)
        assert read_picture(write_picture(picture, "png")).pixels.tolist() == [[[0, 0, 0]]]
    assert 200 < refused < 1000
