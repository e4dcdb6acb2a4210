"""Rows at speed: two to five candidate integers a dimension, each a straight loop over the 256 codewords.

Offsets span one step, so the point nearest to any target is, for every codeword, one of two neighbouring integers; and
for a fixed integer the costs of all codewords lie side by side. No look-up, no rounding in the inner loop.

Lengths (e, step, offsets) come in units of which UNITS_PER_NOISE are a noise deviation, so that half the squared error
is r * r.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from recbatch.rec.kernels import jit

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]

PER_NAT = np.float32(64.0)  # metric units
CANDIDATES = 4
UNITS_PER_NOISE = math.sqrt(0.5)
_HALF = np.float32(0.5)
_LN2 = math.log(2.0)


@jit
def place_of(code: int) -> int:
    """Where a codeword stands in the score tables: even ones first, as the search reads rows."""
    return (code >> 1) + ((code & 1) << 7)


@jit
def candidates(e: float, shrink: float, step: float, out: Ints) -> int:
    """Integers worth a try: around the Gaussian posterior's mean, around e itself or 0. Returns how many."""
    low, high = math.floor(shrink * e / step), math.floor(e / step)
    out[0], out[1] = low, low + 1
    if high > low + 1 or high + 1 < low:
        out[2], out[3] = high, high + 1
        return 4
    count = 2
    if high != low:
        out[count] = high + 1 if high > low else high
        count += 1
    if (low > 0 or low < -1) and -3 < low < 3:
        out[count] = 0
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
def _terms(integer: int, e: float, step: float, shift: int, half: int) -> tuple[np.float32, np.float32, int]:
    """What is left of ``e``, the nats behind the symbol, and the symbol."""
    cell = integer >> shift
    rest = np.float32(e - step * integer)  # in double: e may be far larger than the step
    if -half <= cell <= half:
        return rest, np.float32(0.0), cell + half
    return rest, np.float32(escape_nats(cell, half)), 2 * half + 1


@jit
def add_losses(
    e: float, shrink: float, step: float, shift: int, slot: int, offsets_XC: Floats32, nats_XKC: Floats32,
    tries: Ints, total: Floats32,
) -> None:  # fmt: skip
    """Add one dimension's losses, per codeword the best candidate's, to ``total``; ``tries`` is scratch."""
    half = nats_XKC.shape[1] // 2 - 1
    count = candidates(e, shrink, step, tries)
    rest0, extra0, symbol0 = _terms(tries[0], e, step, shift, half)
    rest1, extra1, symbol1 = _terms(tries[1], e, step, shift, half)
    offsets, nats0, nats1 = offsets_XC[slot], nats_XKC[slot, symbol0], nats_XKC[slot, symbol1]
    if count == 2 and extra0 == 0 and extra1 == 0:  # nearly all
        for c in range(256):
            r0, r1 = offsets[c] - rest0, offsets[c] - rest1
            total[c] += min(r0 * r0 + nats0[c], r1 * r1 + nats1[c])
        return
    rest2, extra2, symbol2 = _terms(tries[min(2, count - 1)], e, step, shift, half)
    rest3, extra3, symbol3 = _terms(tries[count - 1], e, step, shift, half)
    nats2, nats3 = nats_XKC[slot, symbol2], nats_XKC[slot, symbol3]
    for c in range(256):
        r0, r1 = offsets[c] - rest0, offsets[c] - rest1
        loss0, loss1 = r0 * r0 + (nats0[c] + extra0), r1 * r1 + (nats1[c] + extra1)
        r2, r3 = offsets[c] - rest2, offsets[c] - rest3
        loss2, loss3 = r2 * r2 + (nats2[c] + extra2), r3 * r3 + (nats3[c] + extra3)
        total[c] += min(min(loss0, loss1), min(loss2, loss3))


@jit
def choose(e: float, shrink: float, step: float, shift: int, offset: float, nats_K256: Floats32, place: int,
           tries: Ints) -> int:  # fmt: skip
    """The candidate integer with the least loss for the codeword at ``place``; the first of equals."""
    half = nats_K256.shape[0] // 2 - 1
    chosen, least = 0, 1e300
    for n in range(candidates(e, shrink, step, tries)):
        cell = tries[n] >> shift
        r = offset + step * tries[n] - e
        loss = r * r
        if -half <= cell <= half:
            loss += nats_K256[cell + half, place]
        else:
            loss += nats_K256[2 * half + 1, place] + escape_nats(cell, half)
        if loss < least:
            chosen, least = tries[n], loss
    return chosen


@jit
def finish_row(total: Floats32, clip: int, units: NDArray[np.int32], row_512: NDArray[np.int16]) -> None:
    """Losses of a step as int16 metrics, best 0, at least ``-clip``: even codewords twice over, then odd ones."""
    for c in range(256):
        units[c] = np.int32(total[c] * PER_NAT + _HALF)
    least = units[0]
    for c in range(256):
        least = min(least, units[c])
    floor = np.int32(-clip)
    for c in range(128):
        row_512[c] = np.int16(max(least - units[c], floor))
        row_512[c + 256] = np.int16(max(least - units[c + 128], floor))
    for c in range(128):
        row_512[c + 128] = row_512[c]
        row_512[c + 384] = row_512[c + 256]
