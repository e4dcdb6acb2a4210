"""Kinds that a camera might make: noise at night, faces, plain photographs; and a gradient that none would.

Shapes: H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from recbatch.bench.pictures.brush import HEIGHT, WIDTH, Pixels, Random, clipped
from recbatch.bench.pictures.text import gradient
from recbatch.images import read_picture

# file of docs/demo/photographs -> part with the face (left, top, right, bottom)
FACES: Mapping[str, tuple[int, int, int, int]] = {
    "astronaut.png": (60, 0, 444, 384),
    "chelsea.png": (16, 0, 416, 300),
}
PLAIN = ("coffee.png", "mountains.jpg")  # for comparison: what the codec is made for


def night(rng: Random) -> Pixels:
    """A dark street with lamps, under the noise of a small sensor at high gain."""
    coarse = Image.fromarray(rng.integers(0, 70, (16, 24, 3), np.uint8))
    scene_HWC = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64) * 0.5
    y_H1, x_W = np.arange(HEIGHT)[:, None], np.arange(WIDTH)
    for _ in range(9):
        y, x, width = rng.integers(60, HEIGHT - 60), rng.integers(20, WIDTH - 20), rng.uniform(6, 30)
        glow_HW = np.exp(-((y_H1 - y) ** 2 + (x_W - x) ** 2) / (2 * width**2))
        scene_HWC += rng.uniform(120, 300) * glow_HW[:, :, None] * np.array([1.0, 0.8, 0.5])
    deviation_HWC = np.sqrt(20 + 1.2 * scene_HWC)  # read noise, and the noise of light itself
    return clipped(scene_HWC + rng.normal(0, 1, scene_HWC.shape) * deviation_HWC)


def smooth(rng: Random) -> Pixels:
    """A computed gradient: banding shows at once."""
    return gradient(rng, WIDTH, HEIGHT)


def faces(folder: Path) -> dict[str, Pixels]:
    """Parts of known photographs, where they lie in the folder."""
    return {
        f"face-{Path(name).stem}": _part(folder / name, box)
        for name, box in FACES.items()
        if (folder / name).is_file()
    }


def photographs(folder: Path) -> dict[str, Pixels]:
    """The middle of two photographs, at the size of the other pictures where they are large enough."""
    return {f"photo-{Path(name).stem}": middle(folder / name) for name in PLAIN if (folder / name).is_file()}


def middle(path: Path) -> Pixels:
    height, width = read_picture(path.read_bytes(), convert=True).pixels.shape[:2]
    left, top = max(0, width - WIDTH) // 2, max(0, height - HEIGHT) // 2
    return _part(path, (left, top, left + WIDTH, top + HEIGHT))


def _part(path: Path, box: tuple[int, int, int, int]) -> Pixels:
    left, top, right, bottom = box
    return np.ascontiguousarray(read_picture(path.read_bytes(), convert=True).pixels[top:bottom, left:right])
