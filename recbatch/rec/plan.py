"""The plan: which dimension is sent how and in which order, from the scale indices alone.

Legend: N dimensions of a section, C scalar ones, D lattice ones, T trellis steps.

Coded dimensions are taken in windows and each window is sorted by scale index, descending (stable). Dimensions of at
least GROUP_RATE are a step of their own; then steps are groups, closed when their planned rate reaches GROUP_RATE or
the window's lattice dimensions end; then come the scalar dimensions. Both sides compute this, so it is integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import InvalidPosterior
from recbatch.rec.base import SCALES, Scales
from recbatch.rec.kernels import jit
from recbatch.rec.tables import GROUP_RATE, SCALAR, Tables

WINDOW = 8192  # coded dimensions sorted together

Index = NDArray[np.int32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Order of one section."""

    scalar_C: Index  # dimensions, in the order of their symbols
    lattice_D: Index  # dimensions, step by step
    starts_T1: Index  # step t covers lattice_D[starts[t] : starts[t + 1]]

    @property
    def steps(self) -> int:
        return int(self.starts_T1.size) - 1


def make_plan(scales_N: Scales, tables: Tables) -> Plan:
    """Plan of a section. Raises InvalidPosterior if the scales aren't uint8 below SCALES in one dimension."""
    if not isinstance(scales_N, np.ndarray) or scales_N.dtype != np.uint8 or scales_N.ndim != 1:
        raise InvalidPosterior("scales must be a uint8 array of one dimension")
    if scales_N.size >= 1 << 31:
        raise InvalidPosterior("a section has 2**31 dimensions or more")
    if scales_N.size and int(scales_N.max()) >= SCALES:
        raise InvalidPosterior(f"a scale index is {scales_N.max()}, the last is {SCALES - 1}")
    scalars, lattice, starts = _plan(np.ascontiguousarray(scales_N), tables.rate_S, tables.kind_S)
    return Plan(scalar_C=scalars, lattice_D=lattice, starts_T1=starts)


@jit
def _plan(scales_N: Scales, rate_S: Ints, kind_S: Ints) -> tuple[Index, Index, Index]:
    scalars = lattices = 0
    for n in range(scales_N.size):
        kind = kind_S[scales_N[n]]
        scalars += kind == SCALAR
        lattices += kind > SCALAR
    scalar_C = np.empty(scalars, np.int32)
    lattice_D = np.empty(lattices, np.int32)
    starts = np.empty(lattices + 1, np.int32)
    starts[0] = 0
    at_scalar = at_lattice = steps = 0
    place_S = np.empty(SCALES, np.int64)
    n = 0
    while n < scales_N.size:
        first = n
        coded = 0
        place_S[:] = 0
        while n < scales_N.size and coded < WINDOW:
            k = scales_N[n]
            if k > 0:
                place_S[k] += 1
                coded += 1
            n += 1
        begin = at_lattice
        for k in range(SCALES - 1, 0, -1):  # counts to first places
            count = place_S[k]
            if kind_S[k] == SCALAR:
                place_S[k] = at_scalar
                at_scalar += count
            else:
                place_S[k] = at_lattice
                at_lattice += count
        for i in range(first, n):
            k = scales_N[i]
            if k > 0:
                if kind_S[k] == SCALAR:
                    scalar_C[place_S[k]] = i
                else:
                    lattice_D[place_S[k]] = i
                place_S[k] += 1
        rate = 0
        for d in range(begin, at_lattice):
            rate += rate_S[scales_N[lattice_D[d]]]
            if rate >= GROUP_RATE or d == at_lattice - 1:
                steps += 1
                starts[steps] = d + 1
                rate = 0
    return scalar_C, lattice_D, starts[: steps + 1].copy()
