"""The very same PNG file back from its pixels.

``recipe`` takes a PNG file and returns what its pixels do not say: the chunks around them, the filter of each
row, and how the rows were deflated. ``rebuild`` takes the recipe and the pixels and returns the file. A recipe is
proved by rebuilding before it is returned; None stands for every file that can't be proved.

The hazard: a recipe names settings of a compressor, not its output. The same settings give other bytes in another
family of zlib: zlib, zlib-ng and zlib-rs differ, and the zlib inside Pillow may be another than Python's. Within
one family the bytes have been the same for many years, but nobody promises it. So a recipe holds the CRC-32 of
the whole file, and ``rebuild`` raises ``OtherZlib`` rather than return other bytes. The pixels do not depend on
any of this. Only files without compression are free of it. A caller that must have the file on any machine
keeps the original.

The recipe's layout, all integers little-endian or varints (7 bits a byte, lowest first):

    version 1, flags (bit 0: the body is one zstd frame; bits 1-3: EXIF orientation - 1)
    CRC-32 of the recipe, these four bytes left out, and of the rows before they are filtered
    CRC-32 of the file
    body: depth, colour type, interlacing; chunks before and after IDAT; bytes after IEND; sizes of the IDAT chunks;
          the two bytes of the zlib header; how to deflate; the rows' filters; bytes after the zlib stream
"""

from __future__ import annotations

from recbatch.images.png.errors import OtherZlib
from recbatch.images.png.recipes import rebuild, recipe

__all__ = ["OtherZlib", "rebuild", "recipe"]
