"""What crosses the border between files and the codec.

Shape letters: H height, W width, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Bytes carried unchanged, but for the orientation tag once the orientation is applied."""

    icc: bytes | None = None  # colour profile
    exif: bytes | None = None  # from its TIFF header on, without the "Exif" mark of JPEG
    xmp: bytes | None = None

    def __bool__(self) -> bool:
        return bool(self.icc or self.exif or self.xmp)


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
