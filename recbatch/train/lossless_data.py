"""Exact pixels to train the lossless model on, and crops of them.

Files without loss enter as they are. JPEG files enter reduced, since their own pixels are what a decoder made up; and
since a reduction averages a sensor's noise away, some crops get noise again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recbatch.train.data import IMAGE_SUFFIXES, NoTrainingData, decode_once, images_of, is_chosen, reduce

JPEG_REDUCTION = 0.5
MIN_SIDE = 96
NOISY, MOST_NOISE = 0.25, 2.5  # share of crops, and largest deviation in grey levels
GREY = 0.03  # share of crops without colour


@dataclass(frozen=True, slots=True)
class ExactPixels:
    """Images end to end in one array (memory-mapped), their previews in another where there are any.

    ``flat``, ``previews``: uint8 [sum H*W*3]; ``shapes``: int64 [I, 3] of (offset, height, width).
    """

    flat: NDArray[np.uint8]
    shapes: NDArray[np.int64]
    previews: NDArray[np.uint8] | None = None

    def crops(
        self, count: int, side: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Random crops uint8 [count, side, side, 3] and the same parts of the previews."""
        area = self.shapes[:, 1] * self.shapes[:, 2] * (self.shapes[:, 1:].min(axis=1) >= side)
        out = np.empty((count, side, side, 3), np.uint8)
        seen = None if self.previews is None else np.empty_like(out)
        for i, k in enumerate(rng.choice(len(area), count, p=area / area.sum())):
            offset, height, width = (int(v) for v in self.shapes[k])
            cut = _Cut.at_random(offset, height, width, side, rng)
            out[i] = cut.of(self.flat)
            if rng.random() < NOISY:
                sigma = rng.uniform(0, MOST_NOISE)
                noise = rng.normal(0, sigma, (side, side, 1 if cut.grey else 3))
                out[i] = np.clip(np.rint(out[i] + noise), 0, 255)
            if seen is not None and self.previews is not None:
                seen[i] = cut.of(self.previews)
        return out, seen


@dataclass(frozen=True, slots=True)
class _Cut:
    """A square of an image, and what is done to it."""

    offset: int
    height: int
    width: int
    y: int
    x: int
    side: int
    flipped: bool
    turned: bool
    grey: bool

    @classmethod
    def at_random(cls, offset: int, height: int, width: int, side: int, rng: np.random.Generator) -> _Cut:
        y, x = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
        flip, turn, grey = rng.random(3)
        return cls(offset, height, width, y, x, side, flip < 0.5, turn < 0.5, grey < GREY)

    def of(self, flat: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The square [side, side, 3] out of images that lie end to end."""
        image = flat[self.offset : self.offset + self.height * self.width * 3]
        part = image.reshape(self.height, self.width, 3)
        part = part[self.y : self.y + self.side, self.x : self.x + self.side]
        part = part[:, ::-1] if self.flipped else part
        part = part.transpose(1, 0, 2) if self.turned else part
        return np.repeat(part[..., 1:2], 3, axis=2) if self.grey else part


def prepare_exact(
    folder: Path,
    cache: Path,
    *,
    sources: Sequence[str] = (),
    exclude: Sequence[str] = (),
    shards_only: bool = False,
) -> ExactPixels:
    """Decode every image below ``folder`` once into ``cache``; later calls map the cache.

    ``sources`` and ``exclude`` as in ``recbatch.train.data.prepare``; ``shards_only`` leaves image files out.
    """
    stamp = json.dumps([str(folder), sorted(sources), sorted(exclude), JPEG_REDUCTION, shards_only])

    def exact() -> Iterator[Image.Image]:
        for data in images_of(folder, sources=sources, exclude=exclude, shards_only=shards_only):
            image = Image.open(io.BytesIO(data))
            factor = JPEG_REDUCTION if image.format == "JPEG" else 1.0
            if (reduced := reduce(image.convert("RGB"), factor, MIN_SIDE)) is not None:
                yield reduced

    return ExactPixels(*decode_once(folder, cache, stamp, exact()))


@dataclass(frozen=True, slots=True)
class SmallPixels:
    """Images of a few pixels a side: tiles as they are, and parts of larger images reduced to tiles.

    ``tiles``: uint8 [N, S, S, 3], may be empty; ``large`` may be None, not both.
    """

    tiles: NDArray[np.uint8]
    large: ExactPixels | None

    def crops(
        self, count: int, side: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Images uint8 [count, side, side, 3], flipped at random; half are tiles where there are both."""
        out = np.empty((count, side, side, 3), np.uint8)
        share = 0.0 if not len(self.tiles) else 1.0 if self.large is None else 0.5
        for i in range(count):
            is_tile = rng.random() < share
            part = self.tiles[rng.integers(len(self.tiles))] if is_tile else self._reduced(side, rng)
            out[i] = part[:, ::-1] if rng.random() < 0.5 else part
        return out, None

    def _reduced(self, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A square of a large image, reduced by a box filter."""
        assert self.large is not None
        shapes = self.large.shapes
        offset, height, width = (int(v) for v in shapes[rng.integers(len(shapes))])
        least, most = 2 * side, min(height, width)
        extent = int(np.exp(rng.uniform(np.log(min(least, most)), np.log(most))))
        y, x = rng.integers(0, height - extent + 1), rng.integers(0, width - extent + 1)
        image = self.large.flat[offset : offset + height * width * 3].reshape(height, width, 3)
        square = Image.fromarray(np.ascontiguousarray(image[y : y + extent, x : x + extent]))
        return np.asarray(square.resize((side, side), Image.Resampling.BOX))


def prepare_small(
    folder: Path, cache: Path, *, tiles: int, sources: Sequence[str] = (), exclude: Sequence[str] = ()
) -> SmallPixels:
    """Tiles of the image files below ``folder`` (none of ``exclude``), and its Parquet shards' images to reduce.

    Raises NoTrainingData where there is neither.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not is_chosen(str(path), sources, exclude):
            continue
        image = np.asarray(Image.open(path).convert("RGB"))
        rows, columns = image.shape[0] // tiles, image.shape[1] // tiles
        cut = image[: rows * tiles, : columns * tiles].reshape(rows, tiles, columns, tiles, 3)
        found.append(cut.transpose(0, 2, 1, 3, 4).reshape(-1, tiles, tiles, 3))
    shards = any(folder.rglob("*.parquet"))
    large = (
        prepare_exact(folder, cache, sources=sources, exclude=exclude, shards_only=True) if shards else None
    )
    if not found and large is None:
        raise NoTrainingData(str(folder))
    return SmallPixels(np.concatenate(found) if found else np.empty((0, tiles, tiles, 3), np.uint8), large)
