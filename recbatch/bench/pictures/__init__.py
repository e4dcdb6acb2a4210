"""Pictures of kinds that learned codecs are known to be bad at, made by script: the same on every run.

Letters are of the font that comes with Pillow, charts by matplotlib, so other versions of the two may shift a pixel.
Nothing here is a photograph but what ``photographs`` holds: faces, the inlay of a screenshot, two for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbatch.bench.pictures import drawn, photographic, text
from recbatch.bench.pictures.brush import Pixels, Random

INLAY = "coffee.png"

MAKERS: Mapping[str, Callable[[Random], Pixels]] = {
    "text-page": text.page,
    "text-code": text.code,
    "text-table": text.table,
    "text-gradients": text.on_gradients,
    "text-scan": text.scan,
    "screenshot": lambda rng: text.screenshot(rng, None),
    "line-art": drawn.lines,
    "map": drawn.city_map,
    "comic": drawn.comic,
    "chart-curves": drawn.curves_chart,
    "chart-bars": drawn.bars_chart,
    "pixel-art": drawn.pixel_art,
    "squares": drawn.squares,
    "dithered": drawn.dithered,
    "gradient": photographic.smooth,
    "night": photographic.night,
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture, [H, W, C] with C = 3 or 1."""

    name: str
    pixels_HWC: Pixels


def pictures(photographs: str | Path | None = None, *, only: Sequence[str] | None = None) -> list[Drawing]:
    """All pictures, or the named ones; those with photographs where the folder has them."""
    made = {
        name: make(np.random.default_rng([*name.encode()]))  # seeded by its name: a new kind moves no other
        for name, make in MAKERS.items()
        if only is None or name in only
    }
    if photographs is not None:
        folder = Path(photographs)
        if (folder / INLAY).is_file():
            rng = np.random.default_rng([*b"screenshot-photo"])
            made["screenshot-photo"] = text.screenshot(rng, photographic.middle(folder / INLAY))
        made |= photographic.faces(folder) | photographic.photographs(folder)
    return [Drawing(name, pixels) for name, pixels in made.items() if only is None or name in only]


__all__ = ["MAKERS", "Drawing", "pictures"]
