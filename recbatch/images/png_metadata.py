"""What describes a PNG's picture beside its pixels, and still does once they are upright and have 8 bits.

Colour profile, EXIF and XMP have fields of their own, since other formats hold them, too. Other chunks are carried
as they are, none of them unpacked: those of the specification, and unknown ones that call themselves safe to copy.
Not carried, and noted: what speaks of a palette or of samples that are gone, and unknown chunks that depend on
the image data.

Source: W3C, Portable Network Graphics specification, third edition, sections 5.4 (letters of a type) and 11.3.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from recbatch.images.picture import Metadata, PngChunk
from recbatch.images.png_file import PngFile

XMP_KEYWORD = b"XML:com.adobe.xmp"
_EXIF_MARK = b"Exif\0\0"
_EXIF_TEXT = b"Raw profile type exif"  # ImageMagick's way before PNG had a chunk for it
# they may name the orientation that has been applied
_ORIENTED = frozenset((_EXIF_TEXT, b"Raw profile type APP1", b"Raw profile type xmp"))
_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_LENGTHS = {
    b"gAMA": 4,
    b"cHRM": 32,
    b"sRGB": 1,
    b"cICP": 4,
    b"mDCV": 24,
    b"cLLI": 8,
    b"pHYs": 9,
    b"tIME": 7,
}
_SAMPLE_BYTES = {b"sBIT": (1, 2, 3, 4), b"bKGD": (2, 6)}  # whether they fit is for the picture to say
_FIELDS = frozenset((b"iCCP", b"eXIf"))
_SAFE_TO_COPY = 0x20  # of the last letter: lower case
_PALETTE = 3


def may_be_carried(kind: bytes, data: bytes) -> bool:
    """Whether a chunk is one that a stream's metadata may hold."""
    if len(kind) != 4 or not kind.isalpha() or not kind[:1].islower() or kind in _FIELDS:
        return False
    if kind in _LENGTHS:
        return len(data) == _LENGTHS[kind]
    if kind in _SAMPLE_BYTES:
        return len(data) in _SAMPLE_BYTES[kind]
    if kind in _TEXTS:
        return kind != b"iTXt" or _keyword(data) != XMP_KEYWORD
    return kind == b"sPLT" or bool(kind[3] & _SAFE_TO_COPY)


def png_metadata(file: PngFile, *, channels: int, max_size: int) -> tuple[Metadata, set[bytes]]:
    """A PNG's metadata, orientation not yet applied, and the types of the chunks that are left out.

    Args:
        file: the file, taken apart.
        channels: of the picture that came of it, alpha counted.
        max_size: nothing is unpacked to more than one byte above this.
    """
    carried: list[PngChunk] = []
    of_fields: dict[bytes, PngChunk] = {}
    dropped = set(file.damaged)
    for chunk in file.chunks:
        kind, data, _ = chunk
        if kind in _FIELDS or (kind == b"iTXt" and _keyword(data) == XMP_KEYWORD):
            if kind in of_fields:
                dropped.add(kind)
            of_fields[kind] = chunk  # of several the last one counts
        elif _fits(kind, data, file, channels):
            carried.append(chunk)
        else:
            dropped.add(kind)
    values = {kind: _value(chunk, max_size) for kind, chunk in of_fields.items()}
    dropped.update(kind for kind, value in values.items() if not value)
    exif = values.get(b"eXIf")
    if not exif and (exif := _exif_of_texts(carried, max_size)):
        others = [chunk for chunk in carried if not _is_named(chunk, (_EXIF_TEXT,))]
        if len(others) < len(carried) - 1:
            dropped.update(chunk.kind for chunk in carried if _is_named(chunk, (_EXIF_TEXT,)))
        carried = others
    metadata = Metadata(
        icc=values.get(b"iCCP") or None,
        exif=exif or None,
        xmp=values.get(b"iTXt") or None,
        png_chunks=tuple(carried),
    )
    return metadata, dropped


def upright_chunks(chunks: Iterable[PngChunk], orientation: int) -> tuple[tuple[PngChunk, ...], set[bytes]]:
    """The chunks that still hold when an EXIF orientation has been applied, and the types of the others."""
    kept: list[PngChunk] = []
    dropped: set[bytes] = set()
    for chunk in chunks:
        if chunk.kind == b"oFFs" or _is_named(chunk, _ORIENTED):  # oFFs: where its upper left corner is
            dropped.add(chunk.kind)
        elif chunk.kind == b"pHYs" and orientation >= 5:  # rows and columns have changed places
            data = chunk.data
            kept.append(chunk._replace(data=data[4:8] + data[:4] + data[8:]))
        else:
            kept.append(chunk)
    return tuple(kept), dropped


def metadata_size(metadata: Metadata) -> int:
    """Bytes of all of it, unpacked, as the metadata section counts them."""
    named = sum(len(part or b"") for part in (metadata.icc, metadata.exif, metadata.xmp))
    return named + sum(8 + len(chunk.data) for chunk in metadata.png_chunks)


def _fits(kind: bytes, data: bytes, file: PngFile, channels: int) -> bool:
    """Whether a chunk may be carried and is true of the picture as it came back."""
    if not may_be_carried(kind, data):
        return False
    if kind == b"sBIT":
        return len(data) == channels and all(1 <= bits <= 8 for bits in data)
    if kind == b"bKGD":  # a palette's index, or a colour in the file's own samples
        is_same = file.depth == 8 and file.colour_type != _PALETTE
        return is_same and len(data) == (2 if channels < 3 else 6)
    return True


def _value(chunk: PngChunk, max_size: int) -> bytes | None:
    """What a chunk holds for its field; None where it is broken."""
    if chunk.kind == b"eXIf":
        return chunk.data
    if chunk.kind == b"iCCP":  # as a zTXt: name, method, profile
        return _text(b"zTXt", chunk.data, max_size)
    return _text(chunk.kind, chunk.data, max_size)


def _exif_of_texts(chunks: Iterable[PngChunk], max_size: int) -> bytes | None:
    """EXIF in a text: a blank line, its name, its length, then lines of hexadecimal. Of several the last counts."""
    texts = [chunk for chunk in chunks if _is_named(chunk, (_EXIF_TEXT,))]
    text = _text(texts[-1].kind, texts[-1].data, max_size) if texts else None
    try:
        exif = bytes.fromhex("".join((text or b"").decode("latin-1").split("\n")[3:]))
    except ValueError:
        return None
    return exif.removeprefix(_EXIF_MARK)


def _is_named(chunk: PngChunk, keywords: Iterable[bytes]) -> bool:
    return chunk.kind in _TEXTS and _keyword(chunk.data) in keywords


def _keyword(data: bytes) -> bytes:
    return data[: data.find(b"\0", 0, 80)] if b"\0" in data[:80] else data[:80]


def _text(kind: bytes, data: bytes, max_size: int) -> bytes | None:
    """What follows a text chunk's keyword, unpacked; None where the chunk is broken."""
    _, _, rest = data.partition(b"\0")
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflated(rest[1:], max_size) if rest[:1] == b"\0" else None
    parts = rest[2:].split(b"\0", 2)  # language, the keyword in it, text
    if len(parts) != 3:
        return None
    if rest[0] == 0:
        return parts[2]
    return _inflated(parts[2], max_size) if rest[1] == 0 else None


def _inflated(data: bytes, max_size: int) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(data, max_size + 1)
    except zlib.error:
        return None
