"""The EXIF orientation: found and set to 1 in place, and applied to pixels.

In place, because to parse and write EXIF again moves what maker notes point at.
"""

from __future__ import annotations

import re
import struct

import numpy as np
from numpy.typing import NDArray

_TAG = 0x0112
_SHORT = 3
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8](?=\s*[\"'<])")


def exif_orientation(exif: bytes) -> tuple[int, bytes]:
    """The orientation 1..8, and the same bytes with the tag set to 1. Anything odd counts as 1, unchanged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1, exif
    (directory,) = struct.unpack_from(f"{order}I", exif, 4)
    if directory + 2 > len(exif):
        return 1, exif
    (entries,) = struct.unpack_from(f"{order}H", exif, directory)
    for entry in range(entries):
        start = directory + 2 + 12 * entry
        if start + 12 > len(exif):
            break
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, start)
        if tag == _TAG and kind == _SHORT and count == 1:
            if not 2 <= value <= 8:
                return 1, exif
            patched = bytearray(exif)
            struct.pack_into(f"{order}H", patched, start + 8, 1)
            return value, bytes(patched)
    return 1, exif


def upright_xmp(xmp: bytes) -> bytes:
    """The same XMP with its copy of the orientation, if any, set to 1."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply an EXIF orientation to [H, W] or [H, W, C]."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
