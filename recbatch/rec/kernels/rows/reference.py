"""What a row is, in float64 and at leisure.

Legend: 256 codewords; a dimension has its observation e, its lattice step, an offset and a row of -ln P per codeword.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def escape_bits(integer: int, half: int) -> int:
    """Length of the code that follows an escape; ``half`` is the last integer with a symbol of its own."""
    beyond = 2 * (abs(integer) - half - 1) + (integer < 0) + 1
    return 2 * int(math.log2(beyond)) + 1


def integer_nats(integer: int, nats_K: Floats, shift: int) -> float:
    """Cost of one lattice integer given -ln P of the row's symbols; the low ``shift`` bits cost the same for all."""
    cell = integer >> shift
    half = nats_K.size // 2 - 1
    if abs(cell) <= half:
        return float(nats_K[cell + half])
    return float(nats_K[-1]) + math.log(2) * escape_bits(cell, half)


def losses_reference(
    e: float, step: float, offsets_256: Floats, nats_256K: Floats, shift: int, reach: int
) -> Floats:
    """Per codeword the least of (z - e)^2 / 2 - ln P(i) over all integers i within ``reach`` of 0 or of e / step."""
    near = round(e / step)
    integers = sorted({*range(-reach, reach + 1), *range(near - reach, near + reach + 1)})
    out = np.full(256, np.inf)
    for c in range(256):
        for i in integers:
            z = offsets_256[c] + step * i
            out[c] = min(out[c], 0.5 * (z - e) ** 2 + integer_nats(i, nats_256K[c], shift))
    return out


def row_reference(losses_M256: Floats, clip: int, per_nat: int = 64) -> NDArray[np.int16]:
    """A group's losses as the search's int16 row: the best codeword 0, the others negative, at least ``-clip``."""
    total = losses_M256.sum(0)
    return np.asarray(np.rint(np.maximum((total.min() - total) * per_nat, -clip)), np.int16)
