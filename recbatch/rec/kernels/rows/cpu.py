"""Rows at speed: two to five candidate integers a dimension, each a straight loop over the 256 codewords.

Offsets span one step, so the point nearest to any target is, for every codeword, one of two neighbouring integers; and
for a fixed integer the costs of all codewords lie side by side. No look-up, no rounding in the inner loop.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from recbatch.rec.kernels import jit

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]

PER_NAT = np.float32(64.0)  # metric units
CANDIDATES = 5
_HALF, _ZERO, _HUGE = np.float32(0.5), np.float32(0.0), np.float32(1e30)
_LN2 = math.log(2.0)


@jit
def candidates(e: float, shrink: float, step: float, out: Ints) -> int:
    """Integers worth a try: around the Gaussian posterior's mean, around e itself, and 0. Returns how many."""
    low = int(math.floor(shrink * e / step))
    out[0], out[1] = low, low + 1
    count = 2
    for extra in range(3):
        i = int(math.floor(e / step)) + extra if extra < 2 else 0
        if extra == 2 and abs(low) > 2:
            continue
        if (i < low or i > low + 1) and not (count > 2 and i == out[count - 1]):
            out[count] = i
            count += 1
    return count


@jit
def escape_nats(cell: int, half: int) -> float:
    """Nats of the code behind an escape: Elias-gamma of twice the distance beyond the row, and the sign."""
    beyond = 2 * (abs(cell) - half - 1) + (1 if cell < 0 else 0) + 1
    length = -1
    while beyond > 0:
        beyond >>= 1
        length += 2
    return _LN2 * length


@jit
def add_losses(
    e: float, shrink: float, step: float, shift: int, offsets: Floats32, nats_K256: Floats32, tries: Ints,
    best: Floats32, total: Floats32,
) -> None:  # fmt: skip
    """Add one dimension's losses, per codeword the best candidate's, to ``total``; ``best`` and ``tries`` are scratch."""
    half = nats_K256.shape[0] // 2 - 1
    count = candidates(e, shrink, step, tries)
    for n in range(count):
        cell = tries[n] >> shift
        rest = np.float32(e - step * tries[n])  # in double: e may be far larger than the step
        if -half <= cell <= half:
            nats, extra = nats_K256[cell + half], _ZERO
        else:
            nats, extra = nats_K256[2 * half + 1], np.float32(escape_nats(cell, half))
        if n == 0:
            for c in range(256):
                r = offsets[c] - rest
                best[c] = _HALF * r * r + (nats[c] + extra)
        else:
            for c in range(256):
                r = offsets[c] - rest
                loss = _HALF * r * r + (nats[c] + extra)
                best[c] = loss if loss < best[c] else best[c]
    for c in range(256):
        total[c] += best[c]


@jit
def choose(e: float, shrink: float, step: float, shift: int, offset: float, nats_K256: Floats32, c: int,
           tries: Ints) -> int:  # fmt: skip
    """The candidate integer with the least loss for codeword ``c``; the first of equals."""
    half = nats_K256.shape[0] // 2 - 1
    chosen, least = 0, 1e300
    for n in range(candidates(e, shrink, step, tries)):
        cell = tries[n] >> shift
        r = offset + step * tries[n] - e
        loss = 0.5 * r * r
        if -half <= cell <= half:
            loss += nats_K256[cell + half, c]
        else:
            loss += nats_K256[2 * half + 1, c] + escape_nats(cell, half)
        if loss < least:
            chosen, least = tries[n], loss
    return chosen


@jit
def finish_row(total: Floats32, clip: int, row_1024: NDArray[np.int16]) -> None:
    """Losses of a step as int16 metrics, best 0, at least ``-clip``; twice over, then twice with neighbours swapped."""
    least = _HUGE
    for c in range(256):
        least = total[c] if total[c] < least else least
    floor = np.float32(-clip)
    for c in range(256):
        x = (least - total[c]) * PER_NAT - _HALF
        x = x if x > floor else floor
        row_1024[c] = np.int16(np.int32(x))
    for c in range(256):
        row_1024[c + 256] = row_1024[c]
    for c in range(128):
        even, odd = row_1024[2 * c], row_1024[2 * c + 1]
        row_1024[512 + 2 * c] = odd
        row_1024[513 + 2 * c] = even
    for c in range(256):
        row_1024[c + 768] = row_1024[c + 512]
