"""What ``bench lossless`` runs on: the images of folders and of their sub-folders, or the tiles of mosaics.

Only sizes are read at first; pixels are loaded when it is their turn, so a folder may be larger than memory.

Shape letters: H height, W width, C channels (grey, grey and alpha, RGB, RGB and alpha).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from recbatch.bench.inputs import SUFFIXES, NoImages
from recbatch.errors import ImageError, UsageError
from recbatch.images import read_picture
from recbatch.images.opening import open_image, quiet_pillow

Pixels: TypeAlias = NDArray[np.uint8]  # [H, W, C]
MAX_PIXELS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image, or one tile of one."""

    name: str
    file: Path
    pixels: int
    side: int | None = None  # of a tile
    number: int = 0  # of a tile, in reading order


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """All that was found in one place."""

    name: str
    tiles: int | None  # their side
    items: Sequence[Item]

    @property
    def pixels(self) -> int:
        return sum(item.pixels for item in self.items)


def image_set(place: str | Path, *, tiles: int | None = None, images: int | None = None) -> ImageSet:
    """The images of a folder, of its sub-folders, or the one of a file, by name.

    Args:
        tiles: cut every image into tiles of this side. What remains on the right and below is left out.
        images: only so many images or tiles, evenly spread over all.

    Raises:
        NoImages, UsageError (a file is no image).
    """
    root = Path(place)
    if root.is_file():
        files = [(root.name, root)]
    else:
        files = [(path.relative_to(root).as_posix(), path) for path in sorted(root.rglob("*"))]
        files = [(name, path) for name, path in files if path.suffix.lower() in SUFFIXES and path.is_file()]
    items = [item for name, path in files for item in _items(name, path, tiles)]
    if not items:
        raise NoImages(str(place))
    if images is not None and images < len(items):
        items = [items[n * len(items) // images] for n in range(max(1, images))]
    return ImageSet(name=root.resolve().name, tiles=tiles, items=items)


def grouped(items: Sequence[Item], pixels: int) -> Iterator[list[Item]]:
    """Neighbours together, so many that each group but the last has at least these pixels."""
    group: list[Item] = []
    held = 0
    for item in items:
        group.append(item)
        held += item.pixels
        if held >= pixels:
            yield group
            group, held = [], 0
    if group:
        yield group


class Loader:
    """Hands out pixels; keeps the last file, since tiles of one come one after the other."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._pixels_HWC: Pixels | None = None

    def load(self, item: Item) -> Pixels:
        """The item's pixels, upright; alpha is the last channel. Raises UsageError."""
        if self._pixels_HWC is None or self._file != item.file:
            self._pixels_HWC, self._file = _read(item.file), item.file
        pixels_HWC = self._pixels_HWC
        if item.side is None:
            return pixels_HWC
        row, column = divmod(item.number, pixels_HWC.shape[1] // item.side)
        top, left = row * item.side, column * item.side
        return np.ascontiguousarray(pixels_HWC[top : top + item.side, left : left + item.side])


def _items(name: str, path: Path, tiles: int | None) -> Iterator[Item]:
    try:
        with quiet_pillow():
            width, height = open_image(path.read_bytes(), max_pixels=MAX_PIXELS).size
    except ImageError as error:
        raise _unfit(path, error) from error
    if tiles is None:
        yield Item(name=name, file=path, pixels=width * height)
        return
    for number in range((width // tiles) * (height // tiles)):
        yield Item(name=f"{name}#{number}", file=path, pixels=tiles**2, side=tiles, number=number)


def _read(path: Path) -> Pixels:
    try:
        picture = read_picture(path.read_bytes(), max_pixels=MAX_PIXELS, convert=True)
    except ImageError as error:
        raise _unfit(path, error) from error
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


def _unfit(path: Path, error: ImageError) -> UsageError:
    return UsageError(f"{path} is no image to measure on ({error.code}). Move it out of the folder.")
