"""What crosses the border between files and the codec.

Shape letters: H height, W width, C channels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class PngChunk(NamedTuple):
    """An ancillary chunk of a PNG file."""

    kind: bytes  # its type, four letters
    data: bytes
    is_after: bool = False  # it stands behind the image data


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Bytes carried unchanged, but for the orientation tag once the orientation is applied."""

    icc: bytes | None = None  # colour profile
    exif: bytes | None = None  # from its TIFF header on, without the "Exif" mark of JPEG
    xmp: bytes | None = None
    png_chunks: tuple[PngChunk, ...] = ()  # what else a PNG says, in its order, for another PNG

    def __bool__(self) -> bool:
        return bool(self.icc or self.exif or self.xmp or self.png_chunks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One decoded image, upright."""

    pixels: NDArray[np.uint8]  # [H, W, C], C = 3 RGB or 1 grey
    alpha: NDArray[np.uint8] | None = None  # [H, W], 0 is transparent; not premultiplied
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()  # every conversion, e.g. "orientation applied"
    source_format: str = ""  # Pillow's name in lower case: "jpeg", "png", ...

    @property
    def mode(self) -> str:
        """L, LA, RGB or RGBA."""
        return ("L" if self.pixels.shape[2] == 1 else "RGB") + ("" if self.alpha is None else "A")

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def pixels_sha256(picture: Picture) -> bytes:
    """SHA-256 of the pixels' bytes in C order [H, W, C], then of the alpha plane's: what lossless rows keep."""
    digest = hashlib.sha256(picture.pixels.tobytes())
    if picture.alpha is not None:
        digest.update(picture.alpha.tobytes())
    return digest.digest()
