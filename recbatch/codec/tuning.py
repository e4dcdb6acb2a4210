"""What one image tells the networks of itself: eighteen numbers for each stage and colour of the finest levels.

The encoder looks at a few rows of each plane, fits the numbers (``recbatch.rec.mixture_tuning``) and keeps those that
save more than they cost. A tile's code begins with them: a varint whose bits say which planes have numbers (level 0
stage A Y first, then Co, Cg, stage B, ... level 1, ...), then 18 signed bytes for each of those.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbatch import stream
from recbatch.models.lossless import geometry
from recbatch.models.lossless.folded import LosslessModel, Variant
from recbatch.models.lossless.geometry import COMPONENTS, STAGES, Integers
from recbatch.rec.mixture_tuning import fit
from recbatch.rec.mixtures import PARAMETERS

LEVELS = 3  # levels 0, 1, 2 can be tuned
PLANES = LEVELS * len(STAGES) * COMPONENTS
NUMBERS = 2 * PARAMETERS
STRIPS, STRIP_ROWS = 5, 4  # rows that are looked at, in each of so many places
MOST_SYMBOLS = 4096  # of those rows, evenly spread, that the numbers are fitted to
LEAST_SYMBOLS = 1024  # of a plane worth tuning
COST_BITS = 8 * NUMBERS
MARGIN = 2.0  # what the rows promise must be so many times the cost: they are only a sample


@dataclass(frozen=True, slots=True)
class Tuning:
    """``numbers``: int8 [LEVELS, stages, components, 18]; zeros change nothing."""

    numbers: NDArray[np.int8]

    @classmethod
    def none(cls) -> Tuning:
        return cls(np.zeros((LEVELS, len(STAGES), COMPONENTS, NUMBERS), np.int8))

    def of(self, level: int, stage: int, component: int) -> NDArray[np.int8]:
        """The numbers [18] of a plane."""
        if level >= LEVELS:
            return np.zeros(NUMBERS, np.int8)
        numbers: NDArray[np.int8] = self.numbers[level, stage, component]
        return numbers

    def pack(self) -> bytes:
        """As it stands before a tile's lanes."""
        planes = self.numbers.reshape(PLANES, NUMBERS)
        present = planes.any(axis=1)
        mask = sum(1 << int(plane) for plane in np.flatnonzero(present))
        return stream.varint(mask) + planes[present].tobytes()

    @classmethod
    def parse(cls, cursor: stream.Cursor) -> Tuning:
        """Read what ``pack`` wrote. Raises CorruptStream."""
        mask = cursor.varint("the list of tuned planes", 2**PLANES - 1)
        planes = np.zeros((PLANES, NUMBERS), np.int8)
        for plane in range(PLANES):
            if mask >> plane & 1:
                planes[plane] = np.frombuffer(cursor.take(NUMBERS, "a plane's tuning"), np.int8)
        return cls(planes.reshape(LEVELS, len(STAGES), COMPONENTS, NUMBERS))


def tune(
    model: LosslessModel,
    variant: Variant,
    planes_3HW: Integers,
    preview_3HW: Integers | None,
    components: int,
) -> Tuning:
    """The tuning of one image. Call it in ``exact_mode``."""
    tuning = Tuning.none()
    for level in range(LEVELS):
        step = 1 << level
        here = np.ascontiguousarray(planes_3HW[None, :, ::step, ::step])
        seen = None if preview_3HW is None else np.ascontiguousarray(preview_3HW[None, :, ::step, ::step])
        for stage, s in enumerate(STAGES):
            rows, columns = geometry.phase_size(here.shape[2], here.shape[3], s.phase)
            if rows * columns < LEAST_SYMBOLS:
                return tuning
            found = _looked_at(model, variant, here, seen, level, stage, rows, columns, components)
            for c, (raw, base, values) in enumerate(found):
                numbers, saved = fit(raw, base, values, geometry.LOWEST[c], geometry.HIGHEST)
                if saved * rows * columns > MARGIN * COST_BITS:
                    tuning.numbers[level, stage, c] = numbers
    return tuning


Symbols = tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]


def _looked_at(
    model: LosslessModel,
    variant: Variant,
    here: Integers,
    seen: Integers | None,
    level: int,
    stage: int,
    rows: int,
    columns: int,
    components: int,
) -> list[Symbols]:
    """Raw parameters [N, 9], bases and values [N] of some rows of a stage, by component."""
    p, q = STAGES[stage].phase
    height = max(STRIP_ROWS, -(-MOST_SYMBOLS // (STRIPS * columns)))
    tops = (
        range(0, rows, height)
        if rows <= STRIPS * height
        else [(2 * i + 1) * rows // (2 * STRIPS) - height // 2 for i in range(STRIPS)]
    )
    parts: list[list[Symbols]] = [[] for _ in range(components)]
    for top in tops:
        last = min(rows, top + height)
        band = model.band(variant, here, seen, level, stage, top, last)
        done: list[NDArray[np.int32]] = []
        for c in range(components):
            raw = model.head(variant, stage, band, done)
            done.append(here[:, c, p::2, q::2][:, top:last].astype(np.int32))
            symbols = raw[0].reshape(PARAMETERS, -1).T, band.base[0, c].ravel(), done[-1].ravel()
            parts[c].append(symbols)
    return [_thinned(part) for part in parts]


def _thinned(parts: list[Symbols]) -> Symbols:
    raw, base, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    step = -(-len(values) // MOST_SYMBOLS)
    return raw[::step], base[::step], values[::step]
