"""What the pictures of all kinds are made with: canvases, words, text in the font that Pillow brings along.

Shapes: H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels: TypeAlias = NDArray[np.uint8]
Random: TypeAlias = np.random.Generator
Colour: TypeAlias = tuple[int, int, int]

WIDTH, HEIGHT = 768, 512  # 0.39 MP, the size of a Kodak photograph
WHITE: Colour = (255, 255, 255)
INK: Colour = (28, 28, 32)

ONSETS = [*"bcdfghlmnprstv", "st", "tr", "br", "pl", "gr", "th", "ch", "qu"]
VOWELS = [*"aeiou", "ea", "ou", "ai"]
CODAS = ["", "", "n", "r", "s", "t", "l", "m", "nd", "st", "ck", "ng"]


def canvas(
    colour: Colour = WHITE, *, width: int = WIDTH, height: int = HEIGHT
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An RGB image of one colour, and what draws on it."""
    image = Image.new("RGB", (width, height), colour)
    return image, ImageDraw.Draw(image)


def font(size: int) -> Any:
    """Pillow's own scalable font: the same letters on every machine with the same Pillow."""
    return ImageFont.load_default(size)


def words(rng: Random) -> Iterator[str]:
    """Words of no language, some with a capital, a comma or a full stop."""
    start = True
    while True:
        syllables = 1 + int(rng.choice(4, p=[0.35, 0.35, 0.2, 0.1]))
        word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(syllables))
        word = word.capitalize() if start or rng.random() < 0.05 else word
        start = rng.random() < 0.1
        yield word + ("." if start else "," if rng.random() < 0.08 else "")


def paragraph(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    rng: Random,
    *,
    size: int,
    fill: Any = INK,
    spacing: float = 1.35,
) -> None:
    """Fill a box (left, top, right, bottom) with lines of text."""
    left, top, right, bottom = box
    letters, source = font(size), words(rng)
    y, pending = float(top), next(source)
    while y + size <= bottom:
        line = ""
        while draw.textlength(line + pending, font=letters) <= right - left:
            line, pending = line + pending + " ", next(source)
        if not line:
            return  # not even one word fits
        draw.text((left, round(y)), line, font=letters, fill=fill)
        y += size * spacing


def pixels_of(image: Image.Image) -> Pixels:
    """[H, W, C], C = 3 or 1."""
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def clipped(values_HWC: NDArray[Any]) -> Pixels:
    out: Pixels = np.clip(np.rint(values_HWC), 0, 255).astype(np.uint8)
    return out
