"""Colour transform, levels and phases: what a stage knows when it predicts.

Level 0 is the image; level l + 1 is phase (0, 0) of level l, that is every second pixel of every second row. On the way
back three stages fill a level from its coarser one: A the phase (1, 1), B the phase (0, 1), C the phase (1, 0). Each
pixel is predicted from its taps: the nearest pixels of the phases that are known by then.

Shapes: B images, H x W pixels of a level, h x w positions of a phase, 3 components Y, Co, Cg, T taps, I inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Integers = NDArray[np.int16]

WEIGHT_BITS = 12  # of a predictor's weights
BASE_BITS = 4  # bases and means are in 1/16 grey level
COMPONENTS = 3
LOWEST = (0, -255, -255)  # of Y, Co, Cg
HIGHEST = 255  # of all three
COMPAND_SCALE, COMPAND_KNEE = 30.0, 8.0  # a difference d enters as round(30 ln(1 + |d| / 8)), with its sign
LARGEST_DIFFERENCE = 510
PREVIEW_INPUTS = 6


@dataclass(frozen=True)
class Stage:
    """One of the three steps that fill a level."""

    name: str
    phase: tuple[int, int]  # row and column parity of what it predicts
    taps: tuple[tuple[int, int, int, int], ...]  # phase row, phase column, row and column offset in the phase

    @cached_property
    def taps_T4(self) -> NDArray[np.int32]:  # noqa: N802
        return np.array(self.taps, np.int32)

    def inputs(self, *, preview: bool) -> int:
        """Input planes of the stage's network."""
        return 3 * len(self.taps) + 3 + (PREVIEW_INPUTS if preview else 0)


def _block(phase: tuple[int, int], rows: range, columns: range) -> tuple[tuple[int, int, int, int], ...]:
    return tuple((*phase, row, column) for row in rows for column in columns)


def _without_corners(block: tuple[tuple[int, int, int, int], ...]) -> tuple[tuple[int, int, int, int], ...]:
    rows, columns = [t[2] for t in block], [t[3] for t in block]
    ends = ({min(rows), max(rows)}, {min(columns), max(columns)})
    return tuple(t for t in block if not (t[2] in ends[0] and t[3] in ends[1]))


STAGES = (
    Stage("A", (1, 1), _block((0, 0), range(-1, 3), range(-1, 3))),
    Stage(
        "B",
        (0, 1),
        _block((0, 0), range(-1, 2), range(-1, 3)) + _block((1, 1), range(-2, 2), range(-1, 2)),
    ),
    Stage(
        "C",
        (1, 0),
        _block((0, 0), range(-1, 3), range(-1, 2))
        + _block((1, 1), range(-1, 2), range(-2, 2))
        + _without_corners(_block((0, 1), range(-1, 3), range(-2, 2))),
    ),
)


def make_compand() -> NDArray[np.int8]:
    """What a difference of -510..510 becomes; shipped with the weights, not made again by a decoder."""
    d = np.arange(LARGEST_DIFFERENCE + 1)
    half = np.rint(COMPAND_SCALE * np.log1p(d / COMPAND_KNEE)).astype(np.int8)
    return np.concatenate([-half[:0:-1], half])


def to_ycocg(pixels: NDArray[np.uint8]) -> Integers:
    """Pixels [..., H, W, C] to planes [..., 3, H, W]; grey gives Y alone and zeros.

    The reversible lifting of Malvar and Sullivan, 2003 (YCoCg-R).
    """
    wide = pixels.astype(np.int16)
    if pixels.shape[-1] == 1:
        y = wide[..., 0]
        return np.stack([y, np.zeros_like(y), np.zeros_like(y)], axis=-3)
    red, green, blue = wide[..., 0], wide[..., 1], wide[..., 2]
    co = red - blue
    t = blue + (co >> 1)
    cg = green - t
    return np.stack([t + (cg >> 1), co, cg], axis=-3)


def to_pixels(planes: Integers, channels: int) -> NDArray[np.uint8]:
    """Planes [..., 3, H, W] back to pixels [..., H, W, C]."""
    y, co, cg = planes[..., 0, :, :], planes[..., 1, :, :], planes[..., 2, :, :]
    if channels == 1:
        return y[..., None].astype(np.uint8)
    t = y - (cg >> 1)
    green = cg + t
    blue = t - (co >> 1)
    return np.stack([blue + co, green, blue], axis=-1).astype(np.uint8)


def phase_size(height: int, width: int, phase: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a phase of a level of height x width."""
    return (height + 1 - phase[0]) // 2, (width + 1 - phase[1]) // 2


@njit(cache=True, inline="always")
def _where(tap_4: Any, i: Any, height: Any, width: Any, columns: Any) -> Any:
    """Where a tap of position row i lies in a level: its row; its column parity and the columns of its phase; and the
    positions between which it needs no clamping. Where the tap's phase is empty, phase (0, 0) stands in."""
    p, q, down, across = tap_4[0], tap_4[1], tap_4[2], tap_4[3]
    if (height == 1 and p == 1) or (width == 1 and q == 1):
        p, q = 0, 0
    y = 2 * min(max(i + down, 0), (height + 1 - p) // 2 - 1) + p
    count = (width + 1 - q) // 2
    inner_from = min(columns, max(0, -across))
    inner_to = max(inner_from, min(columns, count - across))
    return y, q, count, inner_from, inner_to


@njit(cache=True, nogil=True)
def bases(
    level_B3HW: Any,
    taps_T4: Any,
    weights_3T: Any,
    first: Any,
    base_B3hw: Any,
) -> None:
    """Linear predictions of rows ``first`` .. of a phase, in 1/16, into ``base_B3hw`` (int32).

    weights_3T: int32 in 2**-12. Taps beyond the level repeat its edge; where a phase is empty, phase (0, 0) stands in.
    """
    batch, _, height, width = level_B3HW.shape
    rows, columns = base_B3hw.shape[2:]
    for b in range(batch):
        for c in range(3):
            low = (0 if c == 0 else -255) << BASE_BITS
            for i in range(rows):
                out = base_B3hw[b, c, i]
                out[:] = 1 << (WEIGHT_BITS - BASE_BITS - 1)
                for k in range(taps_T4.shape[0]):
                    y, q, count, inner_from, inner_to = _where(taps_T4[k], first + i, height, width, columns)
                    w, shift, source = weights_3T[c, k], taps_T4[k, 3], level_B3HW[b, c, y]
                    for j in range(inner_from):
                        out[j] += w * np.int32(source[q])
                    for j in range(inner_from, inner_to):
                        out[j] += w * np.int32(source[2 * (j + shift) + q])
                    for j in range(inner_to, columns):
                        out[j] += w * np.int32(source[2 * (count - 1) + q])
                for j in range(columns):
                    v = out[j] >> (WEIGHT_BITS - BASE_BITS)
                    v = max(low, min(HIGHEST << BASE_BITS, v))
                    out[j] = v


@njit(cache=True, nogil=True)
def inputs(level_B3HW: Any, taps_T4: Any, base_B3hw: Any, first: Any, compand_D: Any, out_BIhw: Any) -> None:
    """A stage's input planes: companded differences of taps from the rounded base, then the base itself, halved.

    out_BIhw: float32; the first 3 T + 3 planes are written.
    """
    batch, _, height, width = level_B3HW.shape
    rows, columns = base_B3hw.shape[2:]
    taps = taps_T4.shape[0]
    rounded = np.empty(columns, np.int32)
    for b in range(batch):
        for c in range(3):
            for i in range(rows):
                base = base_B3hw[b, c, i]
                for j in range(columns):
                    rounded[j] = (base[j] + (1 << (BASE_BITS - 1))) >> BASE_BITS
                out = out_BIhw[b, 3 * taps + c, i]
                for j in range(columns):
                    out[j] = rounded[j] - 128 if c == 0 else rounded[j] >> 1
                for k in range(taps):
                    y, q, count, inner_from, inner_to = _where(taps_T4[k], first + i, height, width, columns)
                    shift, source, out = taps_T4[k, 3], level_B3HW[b, c, y], out_BIhw[b, 3 * k + c, i]
                    for j in range(inner_from):
                        d = source[q] - rounded[j]
                        out[j] = compand_D[d + LARGEST_DIFFERENCE]
                    for j in range(inner_from, inner_to):
                        d = source[2 * (j + shift) + q] - rounded[j]
                        out[j] = compand_D[d + LARGEST_DIFFERENCE]
                    for j in range(inner_to, columns):
                        d = source[2 * (count - 1) + q] - rounded[j]
                        out[j] = compand_D[d + LARGEST_DIFFERENCE]


@njit(cache=True, nogil=True)
def add_preview(
    preview_B3HW: Any,
    phase_row: Any,
    phase_column: Any,
    guess_B3hw: Any,
    gain_3: Any,
    first: Any,
    base_B3hw: Any,
) -> None:
    """Correct bases by what the preview knows: its pixel beside what its own neighbours predict of it.

    guess_B3hw: int32 in 1/16, the preview's own linear prediction. gain_3: int32 in 2**-12. Changes ``base_B3hw``.
    """
    batch, _, rows, columns = base_B3hw.shape
    for b in range(batch):
        for c in range(3):
            low = (0 if c == 0 else -255) << BASE_BITS
            for i in range(rows):
                source = preview_B3HW[b, c, 2 * (first + i) + phase_row]
                for j in range(columns):
                    news = (np.int32(source[2 * j + phase_column]) << BASE_BITS) - guess_B3hw[b, c, i, j]
                    v = base_B3hw[b, c, i, j] + ((news * gain_3[c] + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS)
                    base_B3hw[b, c, i, j] = max(low, min(HIGHEST << BASE_BITS, v))


@njit(cache=True, nogil=True)
def preview_inputs(
    preview_B3HW: Any,
    phase_row: Any,
    phase_column: Any,
    guess_B3hw: Any,
    base_B3hw: Any,
    first: Any,
    compand_D: Any,
    offset: Any,
    out_BIhw: Any,
) -> None:
    """Six more input planes from ``offset`` on: the preview's news, and its distance from the corrected base."""
    batch, _, rows, columns = base_B3hw.shape
    half = 1 << (BASE_BITS - 1)
    for b in range(batch):
        for c in range(3):
            for i in range(rows):
                source = preview_B3HW[b, c, 2 * (first + i) + phase_row]
                news, distance = out_BIhw[b, offset + c, i], out_BIhw[b, offset + 3 + c, i]
                for j in range(columns):
                    seen = np.int32(source[2 * j + phase_column])
                    d = seen - ((guess_B3hw[b, c, i, j] + half) >> BASE_BITS)
                    d = max(-LARGEST_DIFFERENCE, min(LARGEST_DIFFERENCE, d))
                    news[j] = compand_D[d + LARGEST_DIFFERENCE]
                    d = seen - ((base_B3hw[b, c, i, j] + half) >> BASE_BITS)
                    d = max(-LARGEST_DIFFERENCE, min(LARGEST_DIFFERENCE, d))
                    distance[j] = compand_D[d + LARGEST_DIFFERENCE]


@njit(cache=True, nogil=True)
def compand_differences(value_Bhw: Any, base_Bhw: Any, compand_D: Any, out_Bhw: Any) -> None:
    """Companded differences of true values from rounded bases, float32: what later components see of earlier ones."""
    batch, rows, columns = value_Bhw.shape
    for b in range(batch):
        for i in range(rows):
            for j in range(columns):
                d = value_Bhw[b, i, j] - ((base_Bhw[b, i, j] + (1 << (BASE_BITS - 1))) >> BASE_BITS)
                d = max(-LARGEST_DIFFERENCE, min(LARGEST_DIFFERENCE, d))
                out_Bhw[b, i, j] = compand_D[d + LARGEST_DIFFERENCE]
