"""Pictures made by script, and their files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from recbatch.codec import Source

GOLDEN = Path(__file__).parents[1] / "golden"


def photograph(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A smooth random scene with an edge and a little noise."""
    rng = np.random.default_rng(seed)
    bands = len(mode)
    coarse = rng.integers(0, 256, (max(2, height // 24), max(2, width // 24), bands), np.uint8)
    planes = [
        Image.fromarray(coarse[..., b]).resize((width, height), Image.Resampling.BICUBIC)
        for b in range(bands)
    ]
    pixels = np.stack([np.asarray(p, np.int16) for p in planes], axis=-1)
    pixels[height // 2 :, width // 3 :] += 40
    pixels += rng.integers(-3, 4, pixels.shape, np.int16)
    clipped = np.clip(pixels, 0, 255).astype(np.uint8)
    return Image.fromarray(clipped[..., 0] if mode == "L" else clipped, mode if bands > 1 else "L")


def file_of(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def source_of(image: Image.Image, name: str = "a.png", format: str = "PNG", **options: object) -> Source:
    return Source(name=name, data=file_of(image, format, **options))
