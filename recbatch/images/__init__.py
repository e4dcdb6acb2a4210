"""Pillow in, arrays out, and back.

``read_picture`` turns a file's bytes into a ``Picture``: 8-bit grey or RGB, an alpha plane if there is one,
the colour profile, EXIF and XMP, and a note for every conversion. What 8-bit grey or RGB can't hold is not
converted in silence: it raises ``KeepOriginal`` unless the caller asks for the conversion. ``write_picture``
makes a file again.

Knows no codec, no network and no path. Any bytes give a picture or an ``ImageError``, never another
exception; the size in the header is checked before a pixel is decoded; no format is read that runs programs
or fetches.

A caller needs ``read_picture``, ``write_picture`` and ``Picture``.
"""

from __future__ import annotations

from recbatch.images.errors import (
    CannotWrite,
    EmptyFile,
    ImageTooLarge,
    KeepOriginal,
    NotAnImage,
    TruncatedImage,
)
from recbatch.images.picture import Metadata, Picture, pixels_sha256
from recbatch.images.reading import picture_size, read_picture
from recbatch.images.sections import decode_alpha, encode_alpha, pack_metadata, parse_metadata
from recbatch.images.writing import FORMATS, to_pil, write_picture

__all__ = [
    "FORMATS",
    "CannotWrite",
    "EmptyFile",
    "ImageTooLarge",
    "KeepOriginal",
    "Metadata",
    "NotAnImage",
    "Picture",
    "TruncatedImage",
    "decode_alpha",
    "encode_alpha",
    "pack_metadata",
    "parse_metadata",
    "picture_size",
    "pixels_sha256",
    "read_picture",
    "to_pil",
    "write_picture",
]
