"""Shared draws from the prior: what importance sampling and the Poisson functional representation choose from.

A draw of a dimension is one of 4096 quantiles of its scale index's prior, in 1/UNIT of noise. All blocks of a section
share one codebook of quantile numbers; a hash turns the signs, block by block and dimension by dimension. Floats only
say which candidate is sent.

Under the channel of ``rec.base`` the weight q(z)/p(z) of a candidate is exp(-(z - e)^2 / 2) up to a constant, whatever
the prior. So the candidate of the largest weight is the nearest one.

Legend: N dimensions of a section, D those in blocks, B blocks, I candidates, W columns, S scale indices, Q quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from recbatch.bench.coders import design
from recbatch.bench.coders.frame import Place
from recbatch.bench.coders.levels import Floats, Index, Ints
from recbatch.rec import noise
from recbatch.rec.base import SCALES, UNIT, Scales
from recbatch.rec.kernels import jit
from recbatch.rec.plan import make_plan
from recbatch.rec.tables import Tables, knots

CODEBOOK, TURN = 65, 66  # purposes of the shared randomness
QUANTILES = 4096
COLUMNS = 64  # most dimensions of a block
MOST = 1 << 16  # most candidates

Codes = NDArray[np.uint16]


@lru_cache(maxsize=4)
def quantiles(tables: Tables) -> Index:
    """int32 [S, Q], ascending and odd: the prior of every scale index at the middles of 4096 equal shares."""
    out = np.zeros((SCALES, QUANTILES), np.int32)
    fine = np.linspace(0, knots()[-1], 1 << 15)
    for k in range(1, SCALES):
        density = np.interp(fine, knots(), design.prior_density(tables, k))
        cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
        share = (np.arange(QUANTILES // 2) + 0.5) / (QUANTILES // 2) * cumulative[-1]
        upper = np.rint(np.interp(share, cumulative, fine) * design.SIGMA_S[k] * UNIT)
        out[k] = np.concatenate([-upper[::-1], upper])
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Which dimensions go together."""

    scalar_M: Index  # dimensions left to scalar symbols
    dims_D: Index
    starts_B1: Ints
    rate_B: Ints  # planned bits in 1/256


def make_blocks(scale_N: Scales, tables: Tables, most: int) -> Blocks:
    """Blocks of at most ``most`` planned 1/256 bits (one dimension at least), in the trellis's order."""
    plan = make_plan(scale_N, tables)
    starts_B1, rate_B = _cut(tables.rate_S[scale_N[plan.lattice_D]], most)
    return Blocks(scalar_M=plan.scalar_C, dims_D=plan.lattice_D, starts_B1=starts_B1, rate_B=rate_B)


@jit
def _cut(rate_D: Ints, most: int) -> tuple[Ints, Ints]:
    starts = np.zeros(rate_D.size + 1, np.int64)
    total = np.zeros(rate_D.size + 1, np.int64)
    blocks = 0
    for d in range(rate_D.size):
        width = d - starts[blocks]
        if width and (total[blocks] + rate_D[d] > most or width == COLUMNS):
            blocks += 1
            starts[blocks] = d
        total[blocks] += rate_D[d]
    if rate_D.size:
        blocks += 1
        starts[blocks] = rate_D.size
    return starts[: blocks + 1].copy(), total[:blocks].copy()


@lru_cache(maxsize=2)
def codebook(seed: int, section: int, count: int) -> Codes:
    """uint16 [W, I]: quantile numbers, the same for any larger count."""
    word = noise.words(seed, section, np.arange(COLUMNS * MOST // 4), purpose=CODEBOOK)
    parts = np.stack([(word >> np.uint64(16 * j)) & np.uint64(QUANTILES - 1) for j in range(4)], 1)
    return np.ascontiguousarray(parts.astype(np.uint16).reshape(COLUMNS, MOST)[:, :count])


def turns(place: Place, count: int) -> NDArray[np.uint16]:
    """uint16 [D]: what a dimension's quantile numbers are xored with: nothing, or all their bits."""
    bit = noise.octets(place.seed, place.section, count, purpose=TURN) & np.uint8(1)
    return bit.astype(np.uint16) * np.uint16(QUANTILES - 1)


def drawn(index_B: Ints, blocks: Blocks, scale_N: Scales, place: Place, tables: Tables, count: int) -> Index:
    """Samples [D] of the candidates with these numbers."""
    dims = blocks.dims_D
    width_B = np.diff(blocks.starts_B1)
    column_D = np.arange(dims.size) - np.repeat(blocks.starts_B1[:-1], width_B)
    code_D = codebook(place.seed, place.section, count)[column_D, np.repeat(index_B, width_B)]
    out: Index = quantiles(tables)[scale_N[dims], code_D ^ turns(place, dims.size)]
    return out


@jit
def distances(
    e_D: Floats, scale_D: Index, turn_D: NDArray[np.uint16], quantile_SQ: Index, codes_WI: Codes, count: int
) -> NDArray[np.float32]:
    """float32 [I]: half the squared distance of the first ``count`` candidates from one block's targets."""
    total = np.zeros(count, np.float32)
    near_Q = np.empty(quantile_SQ.shape[1], np.float32)
    for d in range(e_D.size):
        for q in range(near_Q.size):
            near_Q[q ^ turn_D[d]] = 0.5 * (quantile_SQ[scale_D[d], q] / UNIT - e_D[d]) ** 2
        for i in range(count):
            total[i] += near_Q[codes_WI[d, i]]
    return total
