"""JPEG files as Lepton: smaller than JPEG XL on most photographs, and less particular about damaged files.

The package is optional. A stream has a fixed part of 28 bytes (the file's length at 20, that of the packed header at
24), the header, packed by zlib, and the coefficients. The header holds the JPEG's own header and what else the exact
file needs, in sections; Lepton allocates what a section's length says before it looks for the bytes, so the lengths
are checked here first.

Lepton works in a pool of threads that a fork does not take along: a forked child would wait for it for ever. Where
the process has forked since the first call, a fresh process does the work.

Source: Horn et al. 2017, "The design, implementation, and deployment of a system to transparently compress hundreds
of petabytes of image files for a file-storage service"; the layout from streams of lepton-jpeg-python 0.5.8.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from typing import Any

from recbatch.codec.jpeg_header import Frame, read_frame
from recbatch.codec.native import MissingRecoder, attempt, check_size, library
from recbatch.errors import CorruptStream

MAGIC = b"\xcf\x84\x01"  # the third byte is the version
MAX_FILE_BYTES = 2**31 - 1
MAX_HEADER_BYTES = 2**26  # unpacked: the metadata, and all that follows the image
_FIXED_BYTES = 28
_COUNTED = {b"HDR": 1, b"CRS": 4, b"FRS": 1, b"GRB": 1}  # sections with a count of units of so many bytes
_FIXED = {b"P0D": 1, b"EEE": 28}
_SPLIT, _SPLIT_BYTES = b"HH", 16  # one for each part; their number is the mark's third byte
_FRESH = """
import json, sys, lepton_jpeg_python as lepton
call, options = getattr(lepton, sys.argv[1]), json.loads(sys.argv[2])
sys.stdout.buffer.write(call(sys.stdin.buffer.read(), options))
"""
_pool_owner: list[int] = []  # the process whose pool Lepton uses


def encode(jpeg: bytes, frame: Frame) -> bytes | None:
    """The file as Lepton, not yet proved; None where Lepton is missing or can't represent it."""
    if _package() is None:
        return None
    # one part: parts share no statistics, two cost 1% and the usual four 2%; sides: no more than was checked
    return _call("compress_bytes", jpeg, frame, max_partitions=1)


def decode(data: bytes, *, max_pixels: int) -> bytes | None:
    """The JPEG file of a stream; None where Lepton fails.

    Raises CorruptStream, StreamTooLarge before Lepton sees the stream; MissingRecoder.
    """
    frame, size_bytes = _read(data)
    check_size(frame.width, frame.height, stream_bytes=len(data), max_pixels=max_pixels)
    if _package() is None:
        raise MissingRecoder("lepton-jpeg-python", "recbatch[lepton]")
    jpeg = _call("decompress_bytes", data, frame)
    return jpeg if jpeg is not None and len(jpeg) == size_bytes else None


def _package() -> Any:
    return library("lepton_jpeg_python")


def _call(function: str, data: bytes, frame: Frame, **options: int) -> bytes | None:
    options["max_jpeg_width"], options["max_jpeg_height"] = frame.width, frame.height
    options["max_jpeg_file_size"] = MAX_FILE_BYTES
    if not _pool_owner:
        _pool_owner.append(os.getpid())
    if os.getpid() == _pool_owner[0]:
        return attempt(lambda: getattr(_package(), function)(data, options))
    fresh = [sys.executable, "-c", _FRESH, function, json.dumps(options)]
    return attempt(lambda: subprocess.run(fresh, input=data, capture_output=True, check=True).stdout)


def _read(data: bytes) -> tuple[Frame, int]:
    """Frame and length of the JPEG file that a stream holds. Raises CorruptStream."""
    if len(data) < _FIXED_BYTES:
        raise CorruptStream("it ends in its header", len(data))
    size_bytes, packed_bytes = struct.unpack_from("<II", data, 20)
    unpacker = zlib.decompressobj()
    try:
        header = unpacker.decompress(data[_FIXED_BYTES : _FIXED_BYTES + packed_bytes], MAX_HEADER_BYTES)
    except zlib.error as e:
        raise CorruptStream("its header can't be unpacked", _FIXED_BYTES) from e
    if not unpacker.eof:
        raise CorruptStream("its header has no end", _FIXED_BYTES)
    frame = read_frame(b"\xff\xd8" + _jpeg_header(header))
    if frame is None:
        raise CorruptStream("its header names no size", _FIXED_BYTES)
    return frame, size_bytes


def _jpeg_header(header: bytes) -> bytes:
    """The JPEG's own header, once every section's length is known to fit. Raises CorruptStream."""
    at, found = 0, b""
    while at < len(header):
        mark, start = header[at : at + 3], at + 3
        if mark in _COUNTED and start + 4 <= len(header):
            end = start + 4 + _COUNTED[mark] * int.from_bytes(header[start : start + 4], "little")
        elif mark in _FIXED:
            end = start + _FIXED[mark]
        elif mark.startswith(_SPLIT) and len(mark) == 3:
            end = start + _SPLIT_BYTES * mark[2]
        else:
            raise CorruptStream("its header has a section of no known kind", _FIXED_BYTES)
        if mark == b"HDR":
            found = header[start + 4 : end]
        at = end
    if at != len(header):
        raise CorruptStream("a section of its header is cut short", _FIXED_BYTES)
    return found
