"""Who runs in ``recbatch bench kinds`` beside our codec: JPEG, WebP, JPEG XL and AVIF, lossy and lossless, by Pillow.

Shapes: H height, W width, C channels (3, or 1 for grey).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from recbatch.bench.bd import Curve, Point
from recbatch.bench.extras import need
from recbatch.bench.pictures.brush import Pixels, clipped, pixels_of
from recbatch.codec.quality import PSNR_OF_EQUAL, ms_ssim, psnr

QUALITIES = (5, 20, 40, 60, 75, 88, 95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """One lossy codec, its quality the only thing that varies."""

    name: str
    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    is_colour: bool = False  # the format has no grey: such pictures go in as RGB

    def file(self, pixels_HWC: Pixels, quality: int) -> bytes:
        return save(pixels_HWC, self.format, is_colour=self.is_colour, quality=quality, **self.options)

    def curve(self, pixels_HWC: Pixels, qualities: Sequence[int] = QUALITIES) -> Curve:
        """Size of the file, PSNR and MS-SSIM at each quality; what came back without any loss is no point of it."""
        points = []
        for quality in qualities:
            data = self.file(pixels_HWC, quality)
            restored_HWC = load(data, pixels_HWC.shape[2])
            if (closeness := psnr(pixels_HWC, restored_HWC)) < PSNR_OF_EQUAL:
                bpp = 8 * len(data) / (pixels_HWC.shape[0] * pixels_HWC.shape[1])
                points.append(Point(bpp=bpp, psnr=closeness, ms_ssim=ms_ssim(pixels_HWC, restored_HWC)))
        return Curve(name=self.name, points=tuple(points))


RIVALS: tuple[Rival, ...] = (
    Rival(name="jpeg-420", format="JPEG", options={"optimize": True, "subsampling": "4:2:0"}),
    Rival(name="jpeg-444", format="JPEG", options={"optimize": True, "subsampling": "4:4:4"}),
    Rival(name="webp-m4", format="WEBP", options={"method": 4}, is_colour=True),
    Rival(name="jxl-e7", format="JXL", options={"effort": 7, "num_threads": 1}),
    Rival(name="avif-s6", format="AVIF", options={"speed": 6, "max_threads": 1}, is_colour=True),
)

LOSSLESS: Mapping[str, tuple[str, Mapping[str, Any], bool]] = {
    "png": ("PNG", {"optimize": True}, False),
    "webp-lossless": ("WEBP", {"lossless": True, "method": 4, "quality": 80}, True),
    "jxl-e7-lossless": ("JXL", {"lossless": True, "effort": 7, "num_threads": 1}, False),
}


def lossless_bytes(pixels_HWC: Pixels) -> dict[str, int]:
    """Bytes of the picture by each lossless codec."""
    return {
        name: len(save(pixels_HWC, format, is_colour=is_colour, **options))
        for name, (format, options, is_colour) in LOSSLESS.items()
    }


def save(pixels_HWC: Pixels, format: str, *, is_colour: bool = False, **options: Any) -> bytes:
    """A file by Pillow."""
    if format == "JXL":
        need("pillow_jxl")
        import pillow_jxl  # noqa: F401  (registers the format)
    image = Image.fromarray(pixels_HWC[:, :, 0] if pixels_HWC.shape[2] == 1 else pixels_HWC)
    out = io.BytesIO()
    (image.convert("RGB") if is_colour else image).save(out, format=format, **options)
    return out.getvalue()


def load(data: bytes, channels: int) -> Pixels:
    """The pixels of a file, [H, W, channels]; grey is the rounded mean of what a colour format gives back."""
    image = Image.open(io.BytesIO(data))
    pixels_HWC = pixels_of(image if image.mode == "L" else image.convert("RGB"))
    if pixels_HWC.shape[2] > channels:
        return clipped(pixels_HWC.mean(axis=2, keepdims=True))
    return np.repeat(pixels_HWC, channels // pixels_HWC.shape[2], axis=2)


def nearest(rival: Rival, pixels_HWC: Pixels, target_bytes: int) -> tuple[int, bytes]:
    """The quality, and the file, whose size is nearest to a target, by bisection: size grows with quality."""
    low, high = 1, 99
    best = (low, rival.file(pixels_HWC, low))
    while low <= high:
        middle = (low + high) // 2
        data = rival.file(pixels_HWC, middle)
        if abs(len(data) - target_bytes) < abs(len(best[1]) - target_bytes):
            best = middle, data
        low, high = (middle + 1, high) if len(data) < target_bytes else (low, middle - 1)
    return best
