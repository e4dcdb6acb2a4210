"""What a stream holds beside the latents: the alpha plane and the metadata, each as bytes and back.

Normative in docs/format.md. Both readers bound what they allocate before they believe a size.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptStream
from recbatch.images.picture import Metadata, PngChunk
from recbatch.images.png_file import MAX_CHUNKS
from recbatch.images.png_metadata import may_be_carried

MAX_METADATA_BYTES = 64 * 2**20
_ZSTD_LEVEL = 12
_ZSTD_MAX_WINDOW = 8 * 2**20
_ZSTD_STEP = 256  # input bytes at a time: a block of four bytes may unpack to 128 KiB
_FIELDS = ((1, "icc"), (2, "exif"), (3, "xmp"))
_FIRST_ANCILLARY_FIELD = 64  # readers of 1.0 that know no field as high pass over it
_CHUNK_FIELDS = ((64, False), (65, True))  # before the image data, and behind it
_FIELD_HEAD = struct.Struct("<BI")
_CHUNK_HEAD = struct.Struct("<4sI")

_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_GREY_8 = bytes((8, 0, 0, 0, 0))  # depth, colour type, compression, filter, interlace


def pack_metadata(metadata: Metadata) -> bytes:
    """The metadata section's bytes; empty where there is no metadata, and then there is no section."""
    import zstandard

    if not metadata:
        return b""
    fields = [(tag, getattr(metadata, name)) for tag, name in _FIELDS]
    for tag, is_after in _CHUNK_FIELDS:
        chunks = (chunk for chunk in metadata.png_chunks if chunk.is_after == is_after)
        packed = (_CHUNK_HEAD.pack(chunk.kind, len(chunk.data)) + chunk.data for chunk in chunks)
        fields.append((tag, b"".join(packed)))
    record = b"".join(_FIELD_HEAD.pack(tag, len(value)) + value for tag, value in fields if value)
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(record)


def parse_metadata(data: bytes, max_size: int = MAX_METADATA_BYTES) -> Metadata:
    """Read a metadata section; nothing, as where there is no section, is no metadata.

    Raises:
        CorruptStream: not one zstd frame, unpacks to more than ``max_size``, or not a metadata record.
    """
    if not data:
        return Metadata()
    record = _unpacked(data, max_size)
    found: dict[str, bytes] = {}
    chunks: list[PngChunk] = []
    names, places = dict(_FIELDS), dict(_CHUNK_FIELDS)
    offset, last = 0, 0
    while offset < len(record):
        if len(record) - offset < _FIELD_HEAD.size:
            raise CorruptStream("the metadata ends inside a field")
        tag, length = _FIELD_HEAD.unpack_from(record, offset)
        offset += _FIELD_HEAD.size
        if length == 0 or length > len(record) - offset:
            raise CorruptStream(f"metadata field {tag} says {length} bytes, {len(record) - offset} are left")
        if tag <= last:
            raise CorruptStream(f"metadata field {tag} comes after field {last}")
        if tag in names:
            found[names[tag]] = record[offset : offset + length]
        elif tag in places:
            _parse_chunks(memoryview(record)[offset : offset + length], places[tag], chunks)
        elif tag < _FIRST_ANCILLARY_FIELD:
            raise CorruptStream(f"metadata field {tag} is not known")
        offset, last = offset + length, tag
    return Metadata(
        icc=found.get("icc"), exif=found.get("exif"), xmp=found.get("xmp"), png_chunks=tuple(chunks)
    )


def _parse_chunks(field: memoryview, is_after: bool, chunks: list[PngChunk]) -> None:
    """Append the chunks of one field."""
    offset = 0
    while offset < len(field):
        if len(field) - offset < _CHUNK_HEAD.size:
            raise CorruptStream("the metadata ends inside a PNG chunk")
        kind, length = _CHUNK_HEAD.unpack_from(field, offset)
        offset += _CHUNK_HEAD.size
        if length > len(field) - offset:
            raise CorruptStream(f"a PNG chunk says {length} bytes, {len(field) - offset} are left")
        data = bytes(field[offset : offset + length])
        if not may_be_carried(kind, data):
            raise CorruptStream(f"a PNG chunk {kind!r} of {length} bytes is none that metadata holds")
        if len(chunks) >= MAX_CHUNKS:
            raise CorruptStream(f"the metadata holds more than {MAX_CHUNKS} PNG chunks")
        chunks.append(PngChunk(kind, data, is_after))
        offset += length


def _unpacked(data: bytes, max_size: int) -> bytes:
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW).decompressobj()
    parts, size = [], 0
    for start in range(0, len(data), _ZSTD_STEP):
        if unpacker.eof:
            raise CorruptStream("bytes follow the metadata")
        try:
            parts.append(unpacker.decompress(data[start : start + _ZSTD_STEP]))
        except zstandard.ZstdError as error:
            raise CorruptStream(f"the metadata can't be unpacked ({error})") from None
        size += len(parts[-1])
        if size > max_size:
            raise CorruptStream(f"the metadata unpacks to more than {max_size} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise CorruptStream("the metadata is not one whole zstd frame")
    return b"".join(parts)


def encode_alpha(alpha_HW: NDArray[np.uint8]) -> bytes:
    """The alpha section's bytes: a PNG of one 8-bit grey plane."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(alpha_HW)).save(file, format="PNG", optimize=True)
    return file.getvalue()


def decode_alpha(data: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """The alpha plane [H, W] of a stream whose header names this size.

    Raises:
        CorruptStream: not a PNG of one 8-bit grey plane of this size, or damaged.
    """
    from PIL import PngImagePlugin

    expected = _PNG_START + struct.pack(">II", width, height) + _PNG_GREY_8
    if data[: len(expected)] != expected or not data.endswith(_PNG_END) or not _chunks_are_whole(data):
        raise CorruptStream(f"the alpha plane is not a whole 8-bit grey PNG of {width} x {height} pixels")
    try:
        # not Image.open: its guard against large images is global, and the size is known to be right
        plane = np.array(PngImagePlugin.PngImageFile(io.BytesIO(data)), dtype=np.uint8)
    except Exception as error:
        raise CorruptStream(f"the alpha plane can't be decoded ({error})") from None
    if plane.shape != (height, width):
        raise CorruptStream(f"the alpha plane decodes to the shape {plane.shape}")
    return plane


def _chunks_are_whole(data: bytes) -> bool:
    """Whether a PNG's chunks fill it exactly and have their checksums, some of which Pillow passes over."""
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(
            data[end - 4 : end], "big"
        ):
            return False
        at = end
    return at == len(data)
