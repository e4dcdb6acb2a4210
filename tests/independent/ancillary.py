"""Sections beside the latents: alpha and metadata."""

import struct
import zlib

import zstandard

from .errors import Corrupt, require

PNG_SIGNATURE = bytes.fromhex("89504e470d0a1a0a")
IHDR_START = struct.pack(">I4s", 13, b"IHDR")
IEND = bytes.fromhex("00000000 49454e44 ae426082")
GREY8 = bytes([8, 0, 0, 0, 0])
MAX_WINDOW, MAX_UNPACKED, PIECE = 2**23, 2**26, 256
KNOWN_TAGS, FIRST_FREE_TAG = (1, 2, 3), 64


def check_alpha(png: bytes, width: int, height: int) -> None:
    """The chunks of a PNG file that carries alpha; its pixels are any PNG reader's business."""
    fields = struct.pack(">II", width, height) + GREY8
    require(png[:29] == PNG_SIGNATURE + IHDR_START + fields, "alpha: IHDR")
    require(len(png) >= 45 and png[-12:] == IEND, "alpha: IEND")
    at = len(PNG_SIGNATURE)
    while at < len(png):
        require(len(png) - at >= 12, "alpha: cut short")
        end = at + 8 + int.from_bytes(png[at : at + 4], "big")
        require(end + 4 <= len(png), "alpha: cut short")
        require(zlib.crc32(png[at + 4 : end]) == int.from_bytes(png[end : end + 4], "big"), "alpha: CRC")
        at = end + 4


def read_metadata(section: bytes) -> dict[int, bytes]:
    """Known fields by tag."""
    try:
        frame = zstandard.get_frame_parameters(section)
        require(frame.window_size <= MAX_WINDOW, "metadata: window")
        require(frame.dict_id == 0, "metadata: dictionary")
        data = unpack(section)
    except zstandard.ZstdError as error:
        raise Corrupt(f"metadata: {error}") from error
    return read_fields(data)


def unpack(section: bytes) -> bytes:
    """Exactly one zstd frame's content; fed in small pieces, so that a bomb is noticed early."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
    data = bytearray()
    for at in range(0, len(section), PIECE):
        require(not unpacker.eof, "metadata: not one frame")
        data += unpacker.decompress(section[at : at + PIECE])
        require(len(data) <= MAX_UNPACKED, "metadata: too large")
    require(unpacker.eof and not unpacker.unused_data, "metadata: not one frame")
    return bytes(data)


def read_fields(data: bytes) -> dict[int, bytes]:
    """Fields of tag, length, bytes; tags ascend."""
    fields: dict[int, bytes] = {}
    at, previous = 0, -1
    while at < len(data):
        require(len(data) - at > 5, "metadata: cut short")
        tag, length = struct.unpack_from("<BI", data, at)
        require(tag > previous and 0 < length <= len(data) - at - 5, "metadata: field")
        require(tag in KNOWN_TAGS or tag >= FIRST_FREE_TAG, "metadata: unknown tag")
        if tag in KNOWN_TAGS:
            fields[tag] = data[at + 5 : at + 5 + length]
        at, previous = at + 5 + length, tag
    return fields
