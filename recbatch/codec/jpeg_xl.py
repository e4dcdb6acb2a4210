"""JPEG files as JPEG XL with reconstruction data: an ISO standard that ordinary viewers show.

Only the container form can carry the box ``jbrd`` from which the JPEG file comes back, so only that form counts
here. libjxl reports some allocations that fail as damage and aborts the whole process at others: what a stream claims
is looked at before it is handed over.

Source: ISO/IEC 18181-1 (size header) and 18181-2 (boxes, annex A).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from recbatch.codec.native import MissingRecoder, attempt, check_size, library
from recbatch.errors import CorruptStream

MAGIC = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
MAX_PIXELS_ENCODED = 50_000_000  # the encoder takes up to 33 bytes a pixel: 1.7 GB
_CODESTREAM = b"\xff\x0a"
_SIZE_BYTES = 11  # the longest size header, with what begins the codestream; no picture is shorter
_SIDE_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height, by code 1 to 7


def encode(jpeg: bytes) -> bytes | None:
    """The file as JPEG XL, not yet proved; None where libjxl is missing or can't represent it."""
    package = _package()
    if package is None:
        return None
    # one thread: our workers are one to a core, a pool of its own would not outlive a fork; the bytes are the same
    return attempt(lambda: package.jpegxl_encode_jpeg(jpeg, numthreads=1))


def holds_jpeg(data: bytes) -> bool:
    """Whether bytes are a JPEG XL container with reconstruction data of a JPEG file."""
    return data.startswith(MAGIC) and any(kind == b"jbrd" for kind, _ in _boxes(data))


def decode(data: bytes, *, max_pixels: int) -> bytes | None:
    """The JPEG file of a container; None where libjxl fails, or finds only pixels, which it does not decode.

    Raises CorruptStream, StreamTooLarge before libjxl sees the stream; MissingRecoder.
    """
    width, height = _size(data)
    check_size(width, height, stream_bytes=len(data), max_pixels=max_pixels)
    package = _package()
    if package is None:
        raise MissingRecoder("imagecodecs", "imagecodecs")
    return attempt(lambda: package.jpegxl_decode_jpeg(data, numthreads=1))


def _package() -> Any:
    package = library("imagecodecs")  # it loads libjxl when first asked about it
    return package if package and package.JPEGXL.available else None


def _boxes(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each box; stops at the first that does not fit."""
    view, at = memoryview(data), 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= len(data):
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        elif size == 0:  # to the end of the file
            size = len(data) - at
        if size < head or at + size > len(data):
            return
        yield kind, view[at + head : at + size]
        at += size


def _size(data: bytes) -> tuple[int, int]:
    """Width and height from the codestream's first bytes. Raises CorruptStream."""
    start = b""
    for kind, content in _boxes(data):
        if kind in (b"jxlc", b"jxlp"):
            part = content[4:] if kind == b"jxlp" else content  # a part begins with its number
            start += part[:_SIZE_BYTES]
            if len(start) >= _SIZE_BYTES:  # parts may be as short as they like
                break
    if not start.startswith(_CODESTREAM) or len(start) < _SIZE_BYTES:
        raise CorruptStream("its codestream does not begin as one")
    bits, at = int.from_bytes(start[2:], "little"), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return bits >> (at - count) & ((1 << count) - 1)

    small = take(1)  # sides in units of 8

    def side() -> int:
        return 8 * (take(5) + 1) if small else take(_SIDE_BITS[take(2)]) + 1

    height = side()
    ratio = take(3)
    if not ratio:
        return side(), height
    numerator, denominator = _RATIOS[ratio - 1]
    return height * numerator // denominator, height
