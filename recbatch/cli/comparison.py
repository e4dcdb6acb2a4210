"""One picture with originals beside their restorations, as crops at their true size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

CROP = 288  # side of a crop, in pixels
PAIRS_IN_ROW = 2
GAP, PAIR_GAP, MARGIN = 4, 28, 28
TITLE_HEIGHT, LABEL_HEIGHT = 84, 50
PAPER, INK, FAINT = (250, 250, 248), (24, 24, 24), (110, 110, 110)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An original and its restoration, with what is to be written under them."""

    name: str
    original: Image.Image
    restored: Image.Image
    original_label: str
    restored_label: str


def draw_comparison(pairs: Sequence[Pair], *, title: str, subtitle: str) -> Image.Image:
    """All pairs on one sheet; no pixel of them is scaled."""
    from PIL import Image, ImageDraw, ImageFont

    large, medium, small = (ImageFont.load_default(size) for size in (26, 15, 13))
    columns = min(PAIRS_IN_ROW, len(pairs))
    rows = -(-len(pairs) // columns)
    pair_width = 2 * CROP + GAP
    width = 2 * MARGIN + columns * pair_width + (columns - 1) * PAIR_GAP
    height = MARGIN + TITLE_HEIGHT + rows * (CROP + LABEL_HEIGHT) + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=large)
    pen.text((MARGIN, MARGIN + 38), subtitle, fill=FAINT, font=medium)
    for place, pair in enumerate(pairs):
        left = MARGIN + place % columns * (pair_width + PAIR_GAP)
        top = MARGIN + TITLE_HEIGHT + place // columns * (CROP + LABEL_HEIGHT)
        draw_pair(sheet, pen, pair, left, top, (medium, small))
    return sheet


def draw_pair(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    pair: Pair,
    left: int,
    top: int,
    fonts: tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, ImageFont.FreeTypeFont | ImageFont.ImageFont],
) -> None:
    sides = (
        (pair.original, pair.name, pair.original_label),
        (pair.restored, "restored", pair.restored_label),
    )
    for side, (image, heading, label) in enumerate(sides):
        x = left + side * (CROP + GAP)
        crop = centre_crop(image)
        sheet.paste(crop, (x + (CROP - crop.width) // 2, top + (CROP - crop.height) // 2))
        pen.text((x, top + CROP + 4), heading, fill=INK, font=fonts[0])
        pen.text((x, top + CROP + 23), label, fill=FAINT, font=fonts[1])


def centre_crop(image: Image.Image) -> Image.Image:
    left, top = max(0, (image.width - CROP) // 2), max(0, (image.height - CROP) // 2)
    crop = image.crop((left, top, min(image.width, left + CROP), min(image.height, top + CROP)))
    if "A" not in crop.getbands():
        return crop.convert("RGB")
    from PIL import Image

    flat = Image.new("RGBA", crop.size, (255, 255, 255, 255))
    flat.alpha_composite(crop.convert("RGBA"))
    return flat.convert("RGB")
