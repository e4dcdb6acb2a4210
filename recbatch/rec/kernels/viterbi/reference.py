"""What the search must find, in plain NumPy.

State s of L bits; a bit b leads to ((s << 1) | b) mod 2**L; step t then earns row_t[c(s')],

    c(s) = ((s + map[h] + rotation_t) & 255) ^ top

with h the bits between the low byte and the top bit. Map and rotation are even, so top swaps a codeword with its pair.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def codes_reference(states_T: Ints, map_G: Ints, rotation_T: Ints | int, bits: int) -> Ints:
    """Codeword of each step's state."""
    top_T = states_T >> (bits - 1)
    inner_T = states_T - (top_T << (bits - 1))
    return np.asarray(((states_T + map_G[inner_T >> 8] + rotation_T) & 255) ^ top_T, np.int64)


def best_score_reference(
    rows_T256: Ints,
    map_G: Ints,
    rotation_T: Ints,
    bits: int,
    *,
    start: int | None = None,
    end: int | None = None,
) -> int:
    """The highest total a path can earn, from state ``start`` to state ``end`` (None: any)."""
    states = np.arange(1 << bits)
    score = np.zeros(1 << bits, np.int64)
    if start is not None:
        score = np.where(states == start, 0, -(1 << 40))
    for t in range(rows_T256.shape[0]):
        before = np.maximum(score[states >> 1], score[(states >> 1) | 1 << (bits - 1)])
        score = before + rows_T256[t][codes_reference(states, map_G, int(rotation_T[t]), bits)]
    return int(score.max() if end is None else score[end])
