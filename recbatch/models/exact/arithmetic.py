"""The definition of exact arithmetic: int64 NumPy, slow, obvious, and the last resort of the ladder.

Shapes: B batch, I input channels, O output channels, H, W plane, K kernel side, L rate levels.

A layer with integer weights, biases and shifts computes, on integers x,

    acc = sum(weight * x) + bias                  zeros around the plane
    y   = clamp(((acc + half) >> shift) + addend, lo, hi),      half = 2**(shift - 1), or 0 for shift 0

where ``>>`` floors. Everything that runs faster must give these very integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recbatch.models.exact.errors import ExactBoundExceeded, ExactOperandTooWide

Integers = NDArray[np.int64]
Range = tuple[int, int]

SUM_LIMIT = 2**24 - 1  # float32 holds every integer up to here, and every one of them times 2**-shift
MAX_SHIFT = 20
MAX_WEIGHT = 127
INPUT_RANGE: Range = (-128, 255)  # 8 significant bits: bf16 and TF32 products of these are exact too
OUTPUT_RANGE: Range = (-(2**15), 2**15 - 1)


def half(shift: Integers) -> Integers:
    """What makes the floor of a shift a rounding, half up."""
    shift = np.asarray(shift, dtype=np.int64)
    return np.where(shift > 0, np.left_shift(1, np.maximum(shift, 1) - 1), 0).astype(np.int64)


def accumulate(x_BIHW: Integers, weight_OIKK: Integers, bias_O: Integers) -> Integers:
    """The sums of a convolution of stride 1 whose plane keeps its size, int64 [B, O, H, W]."""
    x, weight = x_BIHW.astype(np.int64), weight_OIKK.astype(np.int64)
    batch, _, height, width = x.shape
    side, pad = weight.shape[2], weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    acc = np.zeros((batch, weight.shape[0], height * width), np.int64)
    for row in range(side):
        for column in range(side):
            tap = padded[:, :, row : row + height, column : column + width]
            acc += weight[:, :, row, column] @ tap.reshape(batch, x.shape[1], height * width)
    acc += bias_O.astype(np.int64)[..., :, None]  # [O] or, with a level for each image, [B, O]
    return acc.reshape(batch, weight.shape[0], height, width)


def finish(
    acc_BOHW: Integers, shift_O: Integers, out_range: Range, addend: Integers | None = None
) -> Integers:
    """Round the sums to the output's grid, add what is on that grid already, clamp."""
    shift = np.asarray(shift_O, dtype=np.int64)[:, None, None]
    y: Integers = (acc_BOHW + half(shift)) >> shift
    if addend is not None:
        y = y + addend
    return y.clip(*out_range)


def bounds(weight_OIKK: Integers, bias_LO: Integers, shift_O: Integers, in_range: Range) -> Integers:
    """The largest magnitude that any partial sum of an output channel can reach, int64 [O]."""
    reach = max(abs(in_range[0]), abs(in_range[1]))
    weights = np.abs(weight_OIKK.astype(np.int64)).sum(axis=(1, 2, 3))
    biases = np.abs(bias_LO.astype(np.int64)).max(axis=0)
    result: Integers = weights * reach + biases + half(shift_O.astype(np.int64))
    return result


def check_ranges(in_range: Range, out_range: Range) -> None:
    """Raises ExactOperandTooWide."""
    for what, given, allowed in (
        ("input range", in_range, INPUT_RANGE),
        ("output range", out_range, OUTPUT_RANGE),
    ):
        if not allowed[0] <= given[0] <= given[1] <= allowed[1]:
            raise ExactOperandTooWide(
                what, f"{given[0]}..{given[1]}", f"{allowed[0]}..{allowed[1]}, in order"
            )


def check_layer(
    weight_OIKK: Integers, bias_LO: Integers, shift_O: Integers, in_range: Range, out_range: Range
) -> None:
    """Raises ExactOperandTooWide or ExactBoundExceeded unless each way to add a sum up gives the same."""
    check_ranges(in_range, out_range)
    widest = int(np.abs(weight_OIKK.astype(np.int64)).max(initial=0))
    if widest > MAX_WEIGHT:
        raise ExactOperandTooWide("largest weight", str(widest), f"{MAX_WEIGHT}")
    low, high = int(shift_O.min()), int(shift_O.max())
    if low < 0 or high > MAX_SHIFT:
        raise ExactOperandTooWide("shift", f"{low}..{high}", f"0..{MAX_SHIFT}")
    reached = bounds(weight_OIKK, bias_LO, shift_O, in_range)
    worst = int(reached.argmax())
    if reached[worst] > SUM_LIMIT:
        raise ExactBoundExceeded(worst, int(reached[worst]), SUM_LIMIT)


def scattered(shape: tuple[int, ...], in_range: Range, *, seed: int) -> Integers:
    """Integers spread over a range, the same on every machine: inputs of self-tests and golden vectors."""
    lo, hi = in_range
    z = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) + np.uint64(seed << 40)
    z *= np.uint64(0x9E3779B97F4A7C15)  # the finaliser of SplitMix64, Steele et al. 2014
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    spread = (z % np.uint64(hi - lo + 1)).astype(np.int64) + lo
    return spread.reshape(shape)


def signs(shape: tuple[int, ...], *, seed: int) -> Integers:
    """+1 and -1, the same on every machine."""
    return 2 * scattered(shape, (0, 1), seed=seed) - 1
