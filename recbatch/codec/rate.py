"""Rate control: the level at which one image has the size or the PSNR that was asked for.

Size and PSNR grow with the level, each image on curves of its own. A few cheap estimates draw both curves, the level
is read off them, and one or two real encodes correct what the estimates got wrong. Nothing here knows of networks:
``search`` is given two functions, so that its promises can be tested on any curve.

What is asked for is a wish (a level, a size or a PSNR) between two bounds: a floor of PSNR raises the level, a cap of
bytes lowers it.

Shapes: G levels 0, 1/8, ..., 31; P points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recbatch.codec.types import Settings, quality_of_level
from recbatch.errors import ImageError
from recbatch.stream import LAST_LEVEL, LEVEL_PARTS

LAST = LAST_LEVEL * LEVEL_PARTS  # place of the highest level in G
MAX_ESTIMATES = 2
MAX_ENCODES = 6
CLOSE_LEVELS = 1.0  # the curves are taken as drawn where an estimate moved the level by less
SIZE_TOLERANCE = 0.015  # where the search ends; targets further apart than twice that never change places
PSNR_TOLERANCE_DB = 0.08
CAP_MARGIN = 0.004  # a level is not taken on trust where it is predicted to be so close to a bound
FLOOR_MARGIN_DB = 0.02
SIZE_PROMISE = 0.02  # beyond these the row says what became of the wish
PSNR_PROMISE_DB = 0.1
# of photographs on average; only the start of the search depends on them
SIZE_SLOPE = 0.09  # of log bytes by level, at level 16
SIZE_BEND = -0.0008
PSNR_SLOPE_DB = 0.45
TYPICAL_PSNR_DB = 34.0  # at level 16
TIE = 1e-9  # between levels where a curve is flat, so that too small a value points upwards
SLOPE_LIMIT = 0.9  # of the slopes: how much an image's own may differ, where it is guessed from two points

Floats = NDArray[np.float64]


class TargetOutOfReach(ImageError):
    """No rate level gives an image both the size and the quality that were asked for."""

    code = "target-out-of-reach"

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"No stream is what was asked for: {self.problem}. {self.remedy}."


@dataclass(frozen=True, slots=True)
class Point:
    """What an image is at one level."""

    size_bytes: int  # of the whole stream
    psnr_db: float = 0.0  # where nobody asked, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What is asked for of one image: at most one of the three wishes, and the bounds. Without a wish: ``level``."""

    pixels: int
    level: float = 0.0
    size_bytes: float | None = None
    psnr_db: float | None = None
    cap_bytes: int | None = None
    floor_db: float | None = None

    @classmethod
    def of(cls, settings: Settings, pixels: int) -> Aim:
        return cls(
            pixels=pixels,
            level=settings.level,
            size_bytes=None if settings.bpp is None else settings.bpp * pixels / 8,
            psnr_db=settings.psnr,
            cap_bytes=settings.max_bytes,
            floor_db=settings.min_psnr,
        )

    @property
    def needs_psnr(self) -> bool:
        return self.psnr_db is not None or self.floor_db is not None

    @property
    def names_level(self) -> bool:
        """Whether a level was asked for that bounds may leave as it is."""
        return self.size_bytes is None and self.psnr_db is None and 0 < self.level < LAST_LEVEL

    def miss(self, place: int, point: Point) -> float:
        """How far from the wish, signed, in units of the tolerance."""
        if self.size_bytes is not None:
            return math.log(point.size_bytes / self.size_bytes) / SIZE_TOLERANCE
        if self.psnr_db is not None:
            return (point.psnr_db - self.psnr_db) / PSNR_TOLERANCE_DB
        return place - self.level * LEVEL_PARTS

    def too_large(self, point: Point) -> bool:
        return self.cap_bytes is not None and point.size_bytes > self.cap_bytes

    def too_poor(self, point: Point) -> bool:
        return self.floor_db is not None and point.psnr_db < self.floor_db

    def is_good(self, place: int, point: Point) -> bool:
        """Within the bounds, and at the wish or as near to it as a bound allows."""
        if self.too_large(point) or self.too_poor(point):
            return False
        miss = self.miss(place, point)
        tolerance = 1.0 if self.size_bytes is not None or self.psnr_db is not None else 0.0
        if abs(miss) <= tolerance:
            return True
        if miss < 0:
            at_cap = self.cap_bytes is not None and point.size_bytes >= self.cap_bytes * (1 - SIZE_TOLERANCE)
            return at_cap or place == LAST
        at_floor = self.floor_db is not None and point.psnr_db <= self.floor_db + PSNR_TOLERANCE_DB
        return at_floor or place == 0


@dataclass(frozen=True, slots=True)
class Found:
    """The level that was chosen, and what the row should say about it."""

    level: float
    notes: tuple[str, ...]


@dataclass(slots=True)
class Curve:
    """A growing function of the level: a shape, moved so that it goes through the points that are known.

    Beyond the first and the last point it is moved as the two nearest ones suggest, within reason.
    """

    shape_G: Floats
    slope: float  # typical one, by level
    points: dict[int, float] = field(default_factory=dict)

    def values(self) -> Floats:
        if not self.points:
            return self.shape_G
        place_G, place_P = np.arange(LAST + 1), np.array(sorted(self.points))
        moved_P = np.array([self.points[p] for p in place_P]) - self.shape_G[place_P]
        moved_G = np.interp(place_G, place_P, moved_P)
        if len(place_P) > 1:
            limit = SLOPE_LIMIT * self.slope / LEVEL_PARTS
            slope_P = np.clip(np.diff(moved_P) / np.diff(place_P), -limit, limit)
            moved_G += slope_P[0] * np.minimum(place_G - place_P[0], 0)
            moved_G += slope_P[-1] * np.maximum(place_G - place_P[-1], 0)
        value_G: Floats = np.maximum.accumulate(self.shape_G + moved_G) + TIE * place_G
        return value_G


class Curves:
    """Both curves of an image, as far as they are known; sizes in logarithms of bytes."""

    def __init__(self, size_G: Floats, psnr_G: Floats) -> None:
        self.size, self.psnr = Curve(size_G, SIZE_SLOPE), Curve(psnr_G, PSNR_SLOPE_DB)
        self.known: dict[int, Point] = {}

    @classmethod
    def typical(cls, aim: Aim) -> Curves:
        """Of an average photograph; of its size nothing is known but that the wish is in the middle."""
        level_G = np.arange(LAST + 1) / LEVEL_PARTS - 16
        size = aim.size_bytes or aim.cap_bytes or aim.pixels / 10
        size_G = math.log(size) + SIZE_SLOPE * level_G + SIZE_BEND * level_G**2
        return cls(size_G, TYPICAL_PSNR_DB + PSNR_SLOPE_DB * level_G)

    def add(self, place: int, point: Point) -> None:
        self.known[place] = point
        self.size.points[place] = math.log(point.size_bytes)
        self.psnr.points[place] = point.psnr_db

    def best(self, aim: Aim) -> int:
        """Where the wish, as far as the bounds allow it, is expected."""
        size_G, psnr_G = self.size.values(), self.psnr.values()
        if aim.size_bytes is not None:
            wish = int(np.argmin(np.abs(size_G - math.log(aim.size_bytes))))
        elif aim.psnr_db is not None:
            wish = int(np.argmin(np.abs(psnr_G - aim.psnr_db)))
        else:
            wish = round(aim.level * LEVEL_PARTS)
        low, high = 0, LAST
        if aim.floor_db is not None:
            low = int(np.searchsorted(psnr_G, aim.floor_db + FLOOR_MARGIN_DB))
            poor, rich = self._split(aim.too_poor)
            low = min(max([low, *(p + 1 for p in poor)]), *rich, LAST + 1)
        if aim.cap_bytes is not None:
            high = int(np.searchsorted(size_G, math.log(aim.cap_bytes) - CAP_MARGIN, side="right")) - 1
            large, small = self._split(aim.too_large)
            high = max(min([high, *(p - 1 for p in large)]), *small, -1)
        place = min(max(wish, low), high) if low <= high else (low + high) // 2
        return min(max(place, 0), LAST)

    def _split(self, is_out: Callable[[Point], bool]) -> tuple[list[int], list[int]]:
        """Places of known points that break a bound, and of those that keep it, whatever the margin says."""
        out = [p for p, one in self.known.items() if is_out(one)]
        return out, [p for p in self.known if p not in out]


def search(aim: Aim, estimate: Callable[[float], Point], encode: Callable[[float], Point]) -> Found:
    """The level of an image; the stream that ``encode`` made at it is the one to keep.

    Args:
        estimate: what the image is likely to be at a level; called MAX_ESTIMATES times at most. It should be wrong
            by about the same share at all levels.
        encode: what it is; called MAX_ENCODES times at most.

    Raises:
        TargetOutOfReach: no level is within the bounds.
    """
    tried: dict[int, Point] = {}

    def attempt(place: int) -> bool:
        tried[place] = encode(place / LEVEL_PARTS)
        return aim.is_good(place, tried[place])

    if aim.names_level and attempt(round(aim.level * LEVEL_PARTS)):
        return _chosen(aim, tried)
    curves = _drawn(aim, estimate)
    for place, point in tried.items():
        curves.add(place, point)
    while len(tried) < MAX_ENCODES:
        place = curves.best(aim)
        if len(tried) == MAX_ENCODES - 1 and not _within_bounds(aim, tried):
            place = _last_resort(aim, tried)
        if place in tried or _is_hopeless(aim, tried) or attempt(place):
            break
        curves.add(place, tried[place])
    return _chosen(aim, tried)


def _drawn(aim: Aim, estimate: Callable[[float], Point]) -> Curves:
    """The curves that estimates give, without any point that is known."""
    curves = Curves.typical(aim)
    place = curves.best(aim)
    for _ in range(MAX_ESTIMATES):
        curves.add(place, estimate(place / LEVEL_PARTS))
        before, place = place, curves.best(aim)
        if abs(place - before) < CLOSE_LEVELS * LEVEL_PARTS:
            break
    return Curves(curves.size.values(), curves.psnr.values())


def _within_bounds(aim: Aim, tried: dict[int, Point]) -> dict[int, Point]:
    return {p: one for p, one in tried.items() if not aim.too_large(one) and not aim.too_poor(one)}


def _is_hopeless(aim: Aim, tried: dict[int, Point]) -> bool:
    """Whether the points rule every level out: both curves grow."""
    poor = max((p for p, one in tried.items() if aim.too_poor(one)), default=-1)
    large = min((p for p, one in tried.items() if aim.too_large(one)), default=LAST + 1)
    return large - poor <= 1


def _last_resort(aim: Aim, tried: dict[int, Point]) -> int:
    """The end of the range that keeps the bound which no point has kept so far."""
    return 0 if any(aim.too_large(one) for one in tried.values()) else LAST


def _chosen(aim: Aim, tried: dict[int, Point]) -> Found:
    good = _within_bounds(aim, tried)
    if not good:
        raise _out_of_reach(aim, tried)
    place = min(sorted(good), key=lambda p: abs(aim.miss(p, good[p])))
    return Found(place / LEVEL_PARTS, _notes(aim, place, good[place]))


def _out_of_reach(aim: Aim, tried: dict[int, Point]) -> TargetOutOfReach:
    smallest, best = tried[min(tried)], tried[max(tried)]
    if aim.cap_bytes is None:
        return TargetOutOfReach(
            f"{best.psnr_db:.2f} dB at best quality, asked for at least {aim.floor_db:g}",
            "Lower --min-psnr, or code the image without loss",
        )
    if aim.floor_db is None or not any(aim.too_poor(one) for one in tried.values()):
        return TargetOutOfReach(
            f"{smallest.size_bytes} bytes at lowest quality, asked for at most {aim.cap_bytes}",
            "Raise --max-bytes, or add --auto, since without loss it may be smaller",
        )
    small = [one for one in tried.values() if not aim.too_large(one)] or [smallest]
    nearest = max(small, key=lambda one: one.psnr_db)
    return TargetOutOfReach(
        f"{nearest.psnr_db:.2f} dB in {nearest.size_bytes} bytes, "
        f"asked for at least {aim.floor_db:g} in at most {aim.cap_bytes}",
        "Raise --max-bytes or lower --min-psnr",
    )


def _notes(aim: Aim, place: int, point: Point) -> tuple[str, ...]:
    """What became of a wish that could not be granted."""
    bpp = 8 * point.size_bytes / aim.pixels
    if aim.size_bytes is not None:
        missed = abs(point.size_bytes / aim.size_bytes - 1) > SIZE_PROMISE
        got, wish = f"{bpp:.2f} bpp", f"{8 * aim.size_bytes / aim.pixels:g}"
    elif aim.psnr_db is not None:
        missed = abs(point.psnr_db - aim.psnr_db) > PSNR_PROMISE_DB
        got, wish = f"{point.psnr_db:.2f} dB", f"{aim.psnr_db:g}"
    else:
        missed = aim.names_level and place != round(aim.level * LEVEL_PARTS)
        got, wish = f"quality {quality_of_level(place / LEVEL_PARTS):g}", f"{quality_of_level(aim.level):g}"
    if not missed:
        return ()
    low = aim.miss(place, point) < 0
    if low and place < LAST and aim.cap_bytes is not None:
        why = f"to fit {aim.cap_bytes} bytes"
    elif not low and place > 0 and aim.floor_db is not None:
        why = f"for at least {aim.floor_db:g} dB"
    else:
        why = {0: "at lowest quality", LAST: "at best quality"}.get(place, "at the nearest level")
    return (f"{got} {why}, asked for {wish}",)
