"""Training photographs as one flat array: decoded once, cropped at random ever after."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recbatch.errors import UsageError

REDUCTIONS = (1.0, 0.6)  # each photograph also enters reduced: hides JPEG traces, adds finer texture
MIN_SIDE = 192
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm")


class NoTrainingData(UsageError):
    """A folder holds nothing to train on."""

    code = "no-training-data"

    def __init__(self, folder: str, side: int = MIN_SIDE) -> None:
        super().__init__(folder, side)
        self.folder, self.side = folder, side

    def __str__(self) -> str:
        return (
            f"No image of at least {self.side} pixels a side was found in {self.folder}. "
            "Give a folder of image files or of Parquet shards with a column 'data'."
        )


@dataclass(frozen=True, slots=True)
class Photographs:
    """Decoded images, end to end in one uint8 array (memory-mapped).

    ``flat``: uint8 [sum H*W*3]; ``shapes``: int64 [I, 3] of (offset, height, width).
    """

    flat: NDArray[np.uint8]
    shapes: NDArray[np.int64]

    def largest_crop(self) -> int:
        """The side of the largest square that fits into an image."""
        return int(self.shapes[:, 1:].min(axis=1).max())

    def crops(self, count: int, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Random crops, flipped and transposed at random: uint8 [count, side, side, 3].

        Images that are large enough are drawn in proportion to their area.
        """
        area = self.shapes[:, 1] * self.shapes[:, 2] * (self.shapes[:, 1:].min(axis=1) >= side)
        out = np.empty((count, side, side, 3), np.uint8)
        for i, k in enumerate(rng.choice(len(area), count, p=area / area.sum())):
            crop = self._crop(int(k), side, rng)
            if rng.random() < 0.5:
                crop = crop[:, ::-1]
            if rng.random() < 0.5:
                crop = crop.transpose(1, 0, 2)
            out[i] = crop
        return out

    def _crop(self, k: int, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        offset, height, width = (int(v) for v in self.shapes[k])
        y, x = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        image = self.flat[offset : offset + height * width * 3].reshape(height, width, 3)
        return image[y : y + side, x : x + side]


def prepare(
    folder: Path, cache: Path, *, sources: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Photographs:
    """Decode every image below ``folder`` once into ``cache``; later calls map the cache.

    ``sources`` and ``exclude`` are parts of names in the shards' column ``source`` (image files: of their
    path); with ``sources`` only matching images enter, with ``exclude`` matching ones stay out.
    """
    stamp = json.dumps([str(folder), sorted(sources), sorted(exclude), REDUCTIONS])

    def scaled() -> Iterator[Image.Image]:
        for data in images_of(folder, sources=sources, exclude=exclude):
            image = Image.open(io.BytesIO(data)).convert("RGB")
            for factor in REDUCTIONS:
                if (reduced := reduce(image, factor, MIN_SIDE)) is not None:
                    yield reduced

    return Photographs(*decode_once(folder, cache, stamp, scaled()))


def decode_once(
    folder: Path, cache: Path, stamp: str, images: Iterator[Image.Image]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """RGB images end to end in the file ``cache``, mapped, and their (offset, height, width).

    They are only asked for where the cache is not there, or of another stamp. Raises NoTrainingData.
    """
    index = cache.with_suffix(".json")
    if index.exists() and cache.exists():
        saved = json.loads(index.read_text())
        if saved["stamp"] == stamp:
            return np.memmap(cache, np.uint8, "r"), np.array(saved["shapes"], np.int64)
    cache.parent.mkdir(parents=True, exist_ok=True)
    shapes: list[tuple[int, int, int]] = []
    offset = 0
    partial = cache.with_suffix(".partial")  # a call that is stopped leaves no cache that fits no index
    with partial.open("wb") as out:
        for image in images:
            out.write(np.asarray(image).tobytes())
            shapes.append((offset, image.height, image.width))
            offset += image.height * image.width * 3
    if not shapes:
        partial.unlink()
        raise NoTrainingData(str(folder))
    index.unlink(missing_ok=True)
    os.replace(partial, cache)
    index.write_text(json.dumps({"stamp": stamp, "shapes": shapes}))
    return np.memmap(cache, np.uint8, "r"), np.array(shapes, np.int64)


def prepared(cache: Path) -> Photographs | None:
    """What ``prepare`` left in a file, whatever it was made of; None where there is nothing."""
    index = cache.with_suffix(".json")
    if not (index.exists() and cache.exists()):
        return None
    shapes = np.array(json.loads(index.read_text())["shapes"], np.int64)
    return Photographs(np.memmap(cache, np.uint8, "r"), shapes)


def reduce(image: Image.Image, factor: float, least: int) -> Image.Image | None:
    """An image reduced by Lanczos; None where a side would be under ``least``."""
    size = (round(image.width * factor), round(image.height * factor))
    if min(size) < least:
        return None
    return image if factor == 1.0 else image.resize(size, Image.Resampling.LANCZOS)


def images_of(
    folder: Path,
    *,
    sources: Sequence[str] = (),
    exclude: Sequence[str] = (),
    shards_only: bool = False,
) -> Iterator[bytes]:
    """Every chosen image below a folder, Parquet shards unpacked; ``sources`` and ``exclude`` as in ``prepare``."""
    for source, data in _sourced(folder, shards_only=shards_only):
        if is_chosen(source, sources, exclude):
            yield data


def is_chosen(source: str, sources: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a name has one of ``sources``, if there are any, and none of ``exclude``."""
    wanted = not sources or any(part in source for part in sources)
    return wanted and not any(part in source for part in exclude)


def _sourced(folder: Path, *, shards_only: bool) -> Iterator[tuple[str, bytes]]:
    import pyarrow.parquet as pq

    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            shard = pq.ParquetFile(path)
            names = [c for c in ("source", "data") if c in shard.schema_arrow.names]
            for batch in shard.iter_batches(16, columns=names):
                for row in batch.to_pylist():
                    yield row.get("source", path.name), row["data"]
        elif not shards_only and path.suffix.lower() in IMAGE_SUFFIXES:
            yield str(path), path.read_bytes()
