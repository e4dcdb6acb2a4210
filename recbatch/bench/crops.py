"""What the figures look like: the same crop of the source and of several codecs' files, at equal bytes.

Ours is coded first, at a rate level. Every other codec then gets the highest quality setting whose whole file is not
larger than ours. Figures are of whole images; the crop is the window with most detail in the source (or the one asked
for), so that no codec has a say in where to look.

Shapes: H x W pixels, C colours, S the side of a crop.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbatch import rec, stream
from recbatch.bench.inputs import Image, load_weights
from recbatch.bench.lossy import joined_images, lossy_benchmark
from recbatch.codec import lossy
from recbatch.codec.quality import ms_ssim, psnr
from recbatch.codec.refine import STEPS_OF_EFFORT
from recbatch.errors import UsageError
from recbatch.images import to_pil
from recbatch.models.photo import PhotoModel

Pixels = NDArray[np.uint8]  # [H, W, C]
Progress = Callable[[str], None]

SIDE = 192
GRID = 16  # the window with most detail is looked for at multiples of this
DEFAULT_LEVELS = (4, 12)
RANKED_BY = (4, 9, 14, 18, 22)  # rate levels of the BD-rates that choose images
HIGHEST = 100  # quality
OTHERS: dict[str, tuple[str, int, dict[str, object]]] = {  # Pillow's name, steps to one of quality, options
    "JPEG 4:2:0": ("JPEG", 1, {"optimize": True, "subsampling": "4:2:0"}),
    "WebP": ("WEBP", 20, {"method": 6}),  # its lowest qualities are far apart
    "AVIF": ("AVIF", 1, {"speed": 6, "max_threads": 1}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One codec's file of one image. ``setting`` is its level or quality; None for the source."""

    codec: str
    setting: float | None
    file_bytes: int
    bpp: float
    psnr: float | None
    ms_ssim: float | None
    fits: bool  # the file is not larger than ours
    crop: Pixels = field(repr=False)

    def caption(self) -> list[str]:
        """Two lines to stand under the crop."""
        if self.psnr is None:
            return [self.codec, f"{self.bpp:.2f} bpp as PNG"]
        similarity = "" if self.ms_ssim is None else f", MS-SSIM {self.ms_ssim:.4f}"
        larger = "" if self.fits else " (its least)"
        return [f"{self.codec}, {self.bpp:.3f} bpp{larger}", f"{self.psnr:.2f} dB{similarity}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRow:
    """One image at one rate: source, other codecs, ours."""

    image: str
    why: str  # it was chosen
    level: float
    left: int
    top: int
    cells: tuple[Cell, ...]

    def title(self) -> str:
        reason = f" ({self.why})" if self.why else ""
        return f"{self.image}{reason}, level {self.level:g}, crop at {self.left}, {self.top}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CropResult:
    """All rows, image by image."""

    model: str
    digest: str
    rows: tuple[CropRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures, without pixels."""
        rows = []
        for row in self.rows:
            cells = [
                {
                    "codec": cell.codec,
                    "setting": cell.setting,
                    "file_bytes": cell.file_bytes,
                    "bpp": cell.bpp,
                    "psnr": cell.psnr,
                    "ms_ssim": cell.ms_ssim,
                    "fits": cell.fits,
                }
                for cell in row.cells
            ]
            place = {"left": row.left, "top": row.top}
            rows.append({"image": row.image, "why": row.why, "level": row.level, **place, "cells": cells})
        return {"model": self.model, "digest": self.digest, "rows": rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An image to show; ``at`` is left, top of its crop, None: the window with most detail."""

    image: Image
    why: str = ""
    at: tuple[int, int] | None = None


def crops_benchmark(
    folders: str | Path | Sequence[str | Path],
    *,
    model: str = "photo-s2",
    levels: Sequence[float] = DEFAULT_LEVELS,
    effort: int = 5,
    names: Sequence[str] = (),
    progress: Progress | None = None,
) -> CropResult:
    """Crops of some images at some rates.

    Args:
        folders: of image files, 192 pixels a side at least.
        names: of images to show, each with ``@LEFT,TOP`` if the crop is to be there. None: the image that gains most
            on JPEG by BD-rate, the median one and the one that gains least; all images are coded for that.

    Raises:
        NoImages, UnknownModel, UsageError (no such image, a crop beyond its edges).
    """
    say = progress or (lambda _: None)
    images = joined_images(folders)
    choices = [_named(name, images) for name in names] or _ranked(folders, images, model, say)
    net = PhotoModel.from_bytes(load_weights(model))
    rows = []
    for choice in choices:
        for level in levels:
            say(f"{choice.image.name}, level {level:g}")
            rows.append(_row(choice, net, level, effort))
    return CropResult(model=net.name, digest=net.digest.hex(), rows=tuple(rows))


def busiest(pixels: Pixels, side: int = SIDE) -> tuple[int, int]:
    """Left and top of the window with the largest sum of differences between neighbours."""
    grey_HW = pixels.astype(np.float64).mean(axis=2)
    detail_HW = np.zeros_like(grey_HW)
    detail_HW[:, 1:] += np.abs(np.diff(grey_HW, axis=1))
    detail_HW[1:] += np.abs(np.diff(grey_HW, axis=0))
    sums = np.zeros((grey_HW.shape[0] + 1, grey_HW.shape[1] + 1))
    sums[1:, 1:] = detail_HW.cumsum(0).cumsum(1)
    whole = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    on_grid = whole[::GRID, ::GRID]
    top, left = np.unravel_index(int(on_grid.argmax()), on_grid.shape)
    return GRID * int(left), GRID * int(top)


def best_quality(encode: Callable[[int], bytes], limit_bytes: int, highest: int) -> tuple[int, bytes]:
    """The highest quality from 0 on whose file is within the limit, by halving; 0 where none is.

    Sizes of neighbouring qualities may be out of order by a little: then a slightly better one may be missed.
    """
    low, high = 0, highest
    best = low, encode(low)
    if len(best[1]) > limit_bytes:
        return best
    while low < high:
        middle = (low + high + 1) // 2
        data = encode(middle)
        if len(data) <= limit_bytes:
            low, best = middle, (middle, data)
        else:
            high = middle - 1
    return best


def _row(choice: Choice, net: PhotoModel, level: float, effort: int) -> CropRow:
    image = choice.image
    picture = image.picture
    left, top = choice.at or busiest(picture.pixels)
    coder = rec.coder("trellis", effort=effort, tables=lossy.tables_of(net))
    (coded,) = lossy.encode([picture], net, coder, level, steps=STEPS_OF_EFFORT.get(effort, 0))
    restored = lossy.decode(stream.parse(coded.data), net, coder).pixels
    budget = len(coded.data)

    def cell(codec: str, setting: float | None, size: int, pixels: Pixels, *, source: bool = False) -> Cell:
        return Cell(
            codec=codec,
            setting=setting,
            file_bytes=size,
            bpp=8 * size / image.pixels,
            psnr=None if source else psnr(picture.pixels, pixels),
            ms_ssim=None if source else ms_ssim(picture.pixels, pixels),
            fits=source or size <= budget,
            crop=np.broadcast_to(pixels[top : top + SIDE, left : left + SIDE], (SIDE, SIDE, 3)).copy(),
        )

    cells = [cell("source", None, len(image.data), picture.pixels, source=True)]
    for name, (_, steps, _) in OTHERS.items():
        quality, data = best_quality(partial(encode_other, name, image), budget, HIGHEST * steps)
        cells.append(cell(name, quality / steps, len(data), decode_other(data, picture.pixels.shape[2])))
    cells.append(cell("recbatch", level, budget, restored))
    return CropRow(image=image.name, why=choice.why, level=level, left=left, top=top, cells=tuple(cells))


def encode_other(name: str, image: Image, quality: int) -> bytes:
    """A file of another codec, without metadata; ``quality`` counts in its steps."""
    kind, steps, options = OTHERS[name]
    out = io.BytesIO()
    colours = "RGB" if image.picture.pixels.shape[2] == 3 else "L"
    to_pil(image.picture).convert(colours).save(
        out, format=kind, quality=quality / steps if steps > 1 else quality, **options
    )
    return out.getvalue()


def decode_other(data: bytes, channels: int) -> Pixels:
    from PIL import Image as Pillow

    pixels = np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"))
    return pixels[..., :channels]


def _named(name: str, images: Sequence[Image]) -> Choice:
    file, _, place = name.partition("@")
    image = next((one for one in images if one.name == file), None)
    if image is None:
        raise UsageError(
            f"There is no image {file!r} in these folders. Give the name of a file, as it stands there."
        )
    at = None
    if place:
        try:
            left, top = (int(part) for part in place.split(","))
        except ValueError as error:
            raise UsageError(f"{place!r} is no place of a crop. Write {file}@LEFT,TOP in pixels.") from error
        at = left, top
    left, top = at or (0, 0)
    picture = image.picture
    if min(left, top) < 0 or left + SIDE > picture.width or top + SIDE > picture.height:
        raise UsageError(
            f"{file} has {picture.width}x{picture.height} pixels, a crop of {SIDE}x{SIDE} at {left},{top} does not fit "
            "in. Choose another place or image."
        )
    return Choice(image=image, at=at)


def _ranked(
    folders: str | Path | Sequence[str | Path], images: Sequence[Image], model: str, say: Progress
) -> list[Choice]:
    """Best, median and worst by BD-rate against JPEG, of those that are large enough."""
    say("coding all images to choose among them")
    measured = lossy_benchmark(folders, model=model, levels=RANKED_BY, archive=False, progress=say)
    by_name = {one.name: one for one in images if min(one.picture.width, one.picture.height) >= SIDE}
    ranked = [row for row in reversed(measured.hardest()) if row.image in by_name]
    if not ranked:
        raise UsageError("No image of these folders can be compared with JPEG. Name some with --image.")
    places = {0: "gains most on JPEG", len(ranked) // 2: "median", len(ranked) - 1: "gains least on JPEG"}
    out = []
    for place, why in places.items():
        rate = next(rate for rate in ranked[place].psnr if rate is not None)
        out.append(Choice(image=by_name[ranked[place].image], why=f"{why}: {rate.percent:+.1f} %"))
    return out
