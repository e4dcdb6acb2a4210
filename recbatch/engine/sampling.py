"""A sample of many files, and what it says of all of them.

Files are put into classes by size, classes into strata of about equal weight, and from each stratum some files are
drawn at random. Large files are drawn more often than small ones, because most bytes and most of the time are theirs;
a fifth of the sample looks at numbers of files alone, so that small ones are seen as well. Totals are estimated by the
combined ratio estimator with size as its helper, which makes use of the sizes being known of all files.

Source: Cochran 1977, "Sampling Techniques", 3rd ed., sections 5.4 (degrees of freedom) and 6.11 (combined ratio).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

PER_STRATUM = 6  # files drawn from a stratum, about
BY_COUNT = 0.2  # share of the weight that goes by numbers of files, not by their bytes
SMALLEST = 512  # bytes; what is far below counts as alike
CLASSES_PER_OCTAVE = 4
UNSEEN = 3.0  # "rule of three": of what makes up 3/n of a whole, n draws miss all in 5 % of cases
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student's t at 97.5 %, 1 to 9 degrees
_Z = 1.959964

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Files of neighbouring sizes."""

    count: int
    bytes: int
    wanted: int  # of these files in the sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Generic[R]):
    """Rows with the stratum of each, in an order of which every beginning is spread over all sizes as the whole is."""

    strata: tuple[Stratum, ...]  # from small to large files
    drawn: tuple[tuple[int, R], ...]

    @property
    def is_all(self) -> bool:
        return all(stratum.wanted == stratum.count for stratum in self.strata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval; nan where nothing can be said."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        return Estimate(value=self.value * factor, low=self.low * factor, high=self.high * factor)

    def plus(self, constant: float) -> Estimate:
        return Estimate(value=self.value + constant, low=self.low + constant, high=self.high + constant)


UNKNOWN = Estimate(value=math.nan, low=math.nan, high=math.nan)


def draw(rows: Iterable[R], size_of: Callable[[R], int], *, wanted: int, seed: int) -> Sample[R]:
    """About ``wanted`` of the rows. They are read twice; in memory is the sample.

    Args:
        rows: the same each time that they are iterated.
        size_of: bytes of a row's file.
        wanted: files of the sample; a few more may come.
        seed: the same rows and seed give the same sample.
    """
    classes: dict[int, list[int]] = {}
    for row in rows:
        size = size_of(row)
        tally = classes.setdefault(class_of(size), [0, 0])
        tally[0] += 1
        tally[1] += size
    strata, stratum_of = _cut(classes, wanted)
    picked: list[list[R]] = [[] for _ in strata]
    seen = [0] * len(strata)
    rng = random.Random(seed)
    for row in rows:
        number = stratum_of[class_of(size_of(row))]
        pool, room = picked[number], strata[number].wanted
        seen[number] += 1
        if len(pool) < room:
            pool.append(row)
        elif (place := rng.randrange(seen[number])) < room:
            pool[place] = row
    ordered: list[tuple[float, int, R]] = []
    for number, pool in enumerate(picked):
        rng.shuffle(pool)
        shift = rng.random()
        ordered.extend(((place + shift) / len(pool), number, row) for place, row in enumerate(pool))
    ordered.sort(key=lambda each: each[:2])
    return Sample(strata=tuple(strata), drawn=tuple((number, row) for _, number, row in ordered))


def class_of(size: int) -> int:
    return int(CLASSES_PER_OCTAVE * math.log2(max(size, 0) + SMALLEST))


def _cut(classes: dict[int, list[int]], wanted: int) -> tuple[list[Stratum], dict[int, int]]:
    """Strata of about equal weight, and the stratum of each class."""
    count = sum(tally[0] for tally in classes.values())
    size = sum(tally[1] for tally in classes.values())
    weight = {
        name: BY_COUNT * tally[0] / count + (1 - BY_COUNT) * tally[1] / max(size, 1)
        for name, tally in classes.items()
    }
    share = 1 / max(1, wanted // PER_STRATUM)
    groups: list[list[int]] = []
    room = 0.0
    for name in sorted(classes):
        if room <= 0 or weight[name] > 2 * room:  # closing now comes nearer to equal weights
            groups.append([])
            room = share * (1 - 1e-9)
        groups[-1].append(name)
        room -= weight[name]
    counts = [sum(classes[name][0] for name in group) for group in groups]
    weights = [sum(weight[name] for name in group) for group in groups]
    strata = [
        Stratum(count=n, bytes=sum(classes[name][1] for name in group), wanted=take)
        for n, group, take in zip(counts, groups, _allocate(counts, weights, wanted), strict=True)
    ]
    return strata, {name: number for number, group in enumerate(groups) for name in group}


def _allocate(counts: Sequence[int], weights: Sequence[float], wanted: int) -> list[int]:
    """Files from each stratum by its weight, at least two; what small ones can't give, the others do."""
    full: set[int] = set()
    while True:
        left = wanted - sum(counts[i] for i in full)
        open_weight = sum(weight for i, weight in enumerate(weights) if i not in full)
        takes = [
            counts[i] if i in full else max(2, math.ceil(left * weights[i] / open_weight - 1e-9))
            for i in range(len(counts))
        ]
        more = {i for i, take in enumerate(takes) if take >= counts[i]} - full
        if not more:
            return takes
        full |= more


class Placed(Protocol):
    """One file of the sample, looked at."""

    @property
    def stratum(self) -> int: ...
    @property
    def size(self) -> int: ...


S = TypeVar("S", bound=Placed)


class Sight(Generic[S]):
    """What was seen of a sample, which may be less than all of it.

    >>> Sight(sample.strata, looks).total(lambda look: look.bytes)
    """

    def __init__(self, strata: Sequence[Stratum], seen: Sequence[S]) -> None:
        self._groups = _joined(strata, seen)
        self.count = sum(stratum.count for stratum in strata)
        self.bytes = sum(stratum.bytes for stratum in strata)
        self.seen = len(seen)

    @property
    def is_all(self) -> bool:
        return self.seen == self.count

    def total(self, value: Callable[[S], float], *, most: float | None = None) -> Estimate:
        """The sum of a value over all files, by its ratio to their bytes.

        Args:
            most: the largest ratio that a file can have; the smallest is 0. The interval then leaves room for files
                of another kind that are too few to have been seen: up to ``UNSEEN / seen`` of the bytes.
        """
        ratio, error, t = self._ratio(value, lambda each: float(each.size))
        if not math.isfinite(ratio):
            return UNKNOWN
        below = above = t * error
        if most is not None and not self.is_all:
            unseen = min(1.0, UNSEEN / ((1 - BY_COUNT) * self.seen))
            below, above = max(below, unseen * ratio), max(above, unseen * (most - ratio))
        return Estimate(value=ratio, low=max(0.0, ratio - below), high=ratio + above).scaled(self.bytes)

    def ratio(self, value: Callable[[S], float], to: Callable[[S], float]) -> Estimate:
        """The sum of one value by the sum of another: a mean, where that is 1 of each file."""
        ratio, error, t = self._ratio(value, to)
        return Estimate(value=ratio, low=ratio - t * error, high=ratio + t * error)

    def _ratio(self, value: Callable[[S], float], to: Callable[[S], float]) -> tuple[float, float, float]:
        """With its standard error, and by what to multiply that."""
        above = sum(weight * sum(map(value, group)) for weight, _, group in self._groups)
        below = sum(weight * sum(map(to, group)) for weight, _, group in self._groups)
        if below <= 0:  # nothing was seen, or nothing but empty files
            return math.nan, math.nan, math.nan
        ratio = above / below
        variance, freedom = self._variance(lambda each: value(each) - ratio * to(each))
        return ratio, math.sqrt(variance) / below, student(freedom)

    def share(self, holds: Callable[[S], bool]) -> Estimate:
        """Of all files those for which something holds; by Wilson's interval, which is not empty at 0."""
        if not self.seen:
            return UNKNOWN
        weights = [weight for weight, _, group in self._groups for _ in group]
        hits = sum(weight * sum(map(holds, group)) for weight, _, group in self._groups)
        p = hits / sum(weights)
        if self.is_all:
            return Estimate(value=p, low=p, high=p)
        n = sum(weights) ** 2 / sum(
            weight * weight for weight in weights
        )  # as good as so many of equal weight
        z2 = _Z * _Z * (1 - self.seen / self.count)
        middle, spread = p + z2 / (2 * n), math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n)))
        low, high = (middle - spread) / (1 + z2 / n), (middle + spread) / (1 + z2 / n)
        return Estimate(value=p, low=max(0.0, low), high=min(1.0, high))

    def _variance(self, residual: Callable[[S], float]) -> tuple[float, float]:
        """Of the weighted sum of residuals, and its degrees of freedom (Satterthwaite)."""
        parts = []
        for _, count, group in self._groups:
            drawn = len(group)
            if drawn == count:
                continue
            if drawn == 1:  # the only one seen at all
                return math.inf, 1.0
            values = [residual(each) for each in group]
            mean = sum(values) / drawn
            spread = sum((each - mean) ** 2 for each in values) / (drawn - 1)
            parts.append((count * count * (1 - drawn / count) * spread / drawn, drawn - 1))
        variance = sum(part for part, _ in parts)
        if not variance:
            return 0.0, 1.0
        return variance, variance**2 / sum(part * part / freedom for part, freedom in parts)


def _joined(strata: Sequence[Stratum], seen: Sequence[S]) -> list[tuple[float, int, tuple[S, ...]]]:
    """Weight of each file, files there are, and files seen; strata of which too few were seen go together."""
    by_stratum: list[list[S]] = [[] for _ in strata]
    for each in seen:
        by_stratum[each.stratum].append(each)
    groups: list[tuple[int, list[S]]] = []
    for stratum, mine in zip(strata, by_stratum, strict=True):
        if groups and _too_few(*groups[-1]):
            count, others = groups[-1]
            groups[-1] = count + stratum.count, others + mine
        else:
            groups.append((stratum.count, mine))
    while len(groups) > 1 and _too_few(*groups[-1]):
        (count, mine), (more, others) = groups.pop(), groups.pop()
        groups.append((count + more, others + mine))
    return [(count / len(mine), count, tuple(mine)) for count, mine in groups if mine]


def _too_few(count: int, seen: Sequence[S]) -> bool:
    return len(seen) < min(2, count)


def student(freedom: float) -> float:
    """The quantile of Student's t at 97.5 %; for many degrees by its expansion about the normal one."""
    if freedom < len(_T):
        return _T[max(0, int(freedom) - 1)]  # rounded down, so rather too wide
    z = _Z
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
