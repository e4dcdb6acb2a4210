"""Lossless streams of pictures that are no photographs: their pixels as lossless WebP, in place of our residual.

WebP copies what stood before and knows palettes, which text, screens and drawings are made of; our networks know
photographs. Each tile is one VP8L bitstream without its first five bytes, and without the file around it: what is
left out follows from the tile's size, so a reader has nothing to believe. docs/format.md, "Pixels as WebP".

Shapes: H x W pixels, C = 3 colours or 1 grey, N sampled pixels.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from PIL.WebPImagePlugin import WebPImageFile

from recbatch import stream
from recbatch.codec import lossless, lossy
from recbatch.codec.auto import LEAST_OF_ESTIMATE, estimated_bpp, is_drawn
from recbatch.errors import CorruptStream
from recbatch.images import Picture
from recbatch.rec.base import Bits

CODER = "webp"
# Measured on the pictures of bench.pictures: 1 % smaller than method 4 and than quality 99, at worst as slow as our
# networks. Method 6 at quality 100 tries everything, takes up to ten times as long, and wins nothing more.
METHOD, QUALITY = 5, 100
FEW_COLOURS = {1: 16, 3: 256}  # by channels: a photograph with so few was dithered, or has a palette
SAMPLED_PIXELS = 1 << 14
# RIFF, its size, WEBP, VP8L, its size; then what a VP8L bitstream begins with: a signature, width and height
HEAD = struct.Struct("<4sI4s4sIBI")
BEFORE_CHUNK, BEFORE_HEAD, BEFORE_CODE = 8, 20, HEAD.size
SIGNATURE, SIDE_BITS = 0x2F, 14


@dataclass(frozen=True, slots=True)
class Attempt:
    """A stream by WebP."""

    coded: lossless.Coded
    is_enough: bool  # so small that none of our networks' can be smaller


def attempt(picture: Picture, recipe: bytes) -> Attempt | None:
    """A picture as a stream with WebP in it; None for photographs, which pay some hundredths of an encode.

    ``recipe`` rebuilds the source file from the pixels; b"" for none.
    """
    height, width, _ = picture.pixels.shape
    estimate = estimated_bpp(picture.pixels)
    drawn = is_drawn(picture.pixels, estimate) or has_few_colours(picture.pixels)
    if not drawn or not features.check("webp"):
        return None
    code = encode(picture.pixels)
    # what no reader would take: fewer bytes than its limit on pixels allows
    if code is None or height * width > stream.MAX_PIXELS_PER_BYTE * len(code):
        return None
    data = lossless.packed(picture, {stream.SECTION_PIXELS: code}, recipe)
    # of a small picture the estimate is mostly the price of its own counts
    is_small = height * width <= lossless.SMALL_PIXELS
    is_enough = not is_small and 8 * len(code) <= LEAST_OF_ESTIMATE * estimate * height * width
    return Attempt(lossless.Coded(data, 0.0, 0.0, Bits(), 8 * len(code)), is_enough)


def has_few_colours(pixels_HWC: NDArray[np.uint8]) -> bool:
    """Whether a picture seems to have a palette, by a sample of its pixels."""
    height, width, colours = pixels_HWC.shape
    sample_NC = pixels_HWC.reshape(-1, colours)[:: max(1, height * width // SAMPLED_PIXELS)].astype(np.uint32)
    numbers_N = sample_NC @ np.array([1, 256, 65536][:colours], np.uint32)
    return bool(np.unique(numbers_N).size <= FEW_COLOURS[colours])


def encode(pixels_HWC: NDArray[np.uint8]) -> bytes | None:
    """The section of a picture's pixels; None where this WebP library writes files of another form."""
    codes = []
    for rows, columns in lossless.tiles(*pixels_HWC.shape[:2]):
        tile_HWC = pixels_HWC[rows, columns]
        height, width, _ = tile_HWC.shape
        out = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(tile_HWC, (height, width, 3))))
        image.save(out, "WEBP", lossless=True, method=METHOD, quality=QUALITY)
        data = out.getvalue()
        size = int.from_bytes(data[BEFORE_HEAD - 4 : BEFORE_HEAD], "little")
        code = data[BEFORE_CODE : BEFORE_HEAD + size]
        if file_of(code, height, width) != data:
            return None
        codes.append(code)
    return lossless.join(codes)


def decode(parsed: stream.Stream) -> Picture:
    """The picture of a stream, checked against its digest; needs no model.

    Raises:
        CorruptStream, UnsupportedFormat (there is no WebP in this Pillow).
    """
    if not features.check("webp"):
        raise stream.UnsupportedFormat("its pixels are WebP, and this Pillow has none")
    height, width, colours = parsed.height, parsed.width, 1 if parsed.mode in ("L", "LA") else 3
    cuts = list(lossless.tiles(height, width))
    codes = lossless.split(parsed.sections[stream.SECTION_PIXELS], len(cuts))
    pixels_HWC = np.empty((height, width, colours), np.uint8)
    for (rows, columns), code in zip(cuts, codes, strict=True):
        tile_HWC = _decode_tile(code, rows.stop - rows.start, columns.stop - columns.start)
        pixels_HWC[rows, columns] = tile_HWC[:, :, :colours]
    try:
        return lossless.restored(parsed, pixels_HWC)
    except lossy.OtherArithmetic:  # there is none here but integers that all machines share
        raise CorruptStream("its pixels are not those that it was made of") from None


def _decode_tile(code: bytes, height: int, width: int) -> NDArray[np.uint8]:
    try:
        image = WebPImageFile(io.BytesIO(file_of(code, height, width)))
        found = (image.size, image.mode, image.n_frames)
        pixels_HWC = np.array(image, np.uint8)
    except Exception as error:  # whatever Pillow makes of damage
        raise CorruptStream(f"a tile is no lossless WebP: {error}") from None
    if found != ((width, height), "RGB", 1) or pixels_HWC.shape != (height, width, 3):
        raise CorruptStream(f"a tile of {width} x {height} is WebP of {found}")
    return pixels_HWC


def file_of(code: bytes, height: int, width: int) -> bytes:
    """The WebP file around a tile's code: RIFF with one VP8L chunk, whose version is 0 and which has no alpha.

    Source: Alakuijala 2014, WebP Lossless Bitstream Specification, sections 2 and 3.
    """
    size = BEFORE_CODE - BEFORE_HEAD + len(code)
    whole = BEFORE_HEAD - BEFORE_CHUNK + size + size % 2
    sides = width - 1 | height - 1 << SIDE_BITS
    head = HEAD.pack(b"RIFF", whole, b"WEBP", b"VP8L", size, SIGNATURE, sides)
    return head + code + bytes(size % 2)
