"""What the quantisers share: the law of the observation by scale index, and entropy-constrained design under it.

Where the tables have a density for a scale index, it is used, whatever the kind of that index. Where they have none
(the scalar dimensions of tables that give them masses only), the mixture stands in that those masses were made from.

Source: Chou, Lookabaugh & Gray 1989, "Entropy-constrained vector quantization", for the iteration.

Legend: G points of a grid over the observation's magnitude, A magnitudes 0..HALF of a level, K symbols of a row,
B knots of a density, S scale indices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recbatch.bench.coders.levels import EVEN, HALF, ODD, SYMBOLS, Floats, Ints
from recbatch.rec.base import SCALES, UNIT
from recbatch.rec.tables import REACH, Tables, knots, sigma

LN2 = math.log(2)
SIGMA_S = np.array([sigma(index) for index in range(SCALES)])
RATE_S = 0.5 * np.log2(1 + SIGMA_S**2)  # planned bits
COVER = 8.0  # prior deviations that a row's symbols reach at least
FINE = 0.05  # width of the grid, in units of noise
NOISE_REACH = 7.0
STAND_IN = ((0.96, 0.5), (0.035, 4.0), (0.005, 64.0))  # shares and variances: rec.make_tables.scalar_prior


def prior_density(tables: Tables, index: int) -> Floats:
    """Density of z / sigma at ``knots()``, in any unit."""
    row_B: Floats = tables.arrays["density"][index].astype(np.float64)
    if row_B.any():
        return row_B
    x_B = knots()
    out = np.zeros(x_B.size)
    for share, variance in STAND_IN:
        out += share * np.exp(-0.5 * x_B**2 / variance) / math.sqrt(variance)
    return out


@dataclass(frozen=True, slots=True)
class Observation:
    """The law of |e| on a grid, and the probability beyond it."""

    e_G: Floats
    p_G: Floats
    beyond: float


def observation(tables: Tables, index: int) -> Observation:
    """Prior and noise convolved, for an index whose levels need no low bits."""
    width = FINE
    deviation = float(SIGMA_S[index])
    density_B, x_B = prior_density(tables, index), knots()
    reach = min(REACH * deviation, 4.5 * HALF) + NOISE_REACH
    fine = min(width, deviation / 16)
    z = (np.arange(math.ceil(min(REACH * deviation, reach) / fine)) + 0.5) * fine
    weight = np.interp(z / deviation, x_B, density_B, right=0.0) * fine
    total = float((0.5 * (density_B[1:] + density_B[:-1]) * np.diff(x_B)).sum()) * deviation
    cells = math.ceil(reach / width)
    z_G = np.bincount((z / width).astype(np.int64), weight, cells)[:cells]
    taps = math.ceil(NOISE_REACH / width)
    noise = np.exp(-0.5 * (np.arange(-taps, taps + 1) * width) ** 2)
    both = np.convolve(np.concatenate([z_G[::-1], z_G]), noise / noise.sum(), "same")
    p_G = both[cells:] / max(total, float(z_G.sum()))
    e_G = (np.arange(cells).astype(np.float64) + 0.5) * width
    return Observation(e_G, p_G.astype(np.float64), max(0.0, 1 - float(p_G.sum())))


def shifts(spacing_S: Floats) -> Ints:
    """Raw low bits of the levels, so that the rest fits a row."""
    ratio_S = np.maximum(COVER * SIGMA_S / (HALF * spacing_S), 1.0)
    return np.ceil(np.log2(ratio_S)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A designed quantiser of one index."""

    point_A: Floats  # what a magnitude stands for, in units of noise
    mass_A: Floats
    loss: float  # nats: rate and half the squared error


def lloyd(law: Observation, spacing: float, *, rounds: int = 40) -> Scalar:
    """Entropy-constrained scalar quantiser at multiplier 1, iterated from the lattice of this spacing."""
    lattice_A = np.arange(HALF + 1) * spacing
    nearest_G = np.minimum(np.rint(law.e_G / spacing).astype(np.int64), HALF)
    near_G = np.stack([nearest_G + 1, nearest_G, nearest_G - 1, nearest_G - 2, np.zeros_like(nearest_G)])
    near_G = np.clip(near_G, 0, HALF)
    point_A = lattice_A.copy()
    mass_A: Floats = np.bincount(nearest_G, law.p_G, HALF + 1).astype(np.float64)
    loss = math.inf
    for _ in range(rounds):
        nats_A = -np.log(np.maximum(mass_A, 2.0**-24)) + LN2 * (np.arange(HALF + 1) > 0)
        cost = 0.5 * (law.e_G - point_A[near_G]) ** 2 + nats_A[near_G]
        best_G = cost.argmin(0)
        choice_G = np.take_along_axis(near_G, best_G[None], 0)[0]
        loss = float((np.take_along_axis(cost, best_G[None], 0)[0] * law.p_G).sum())
        mass_A = np.bincount(choice_G, law.p_G, HALF + 1).astype(np.float64)
        mean_A = np.bincount(choice_G, law.p_G * law.e_G, HALF + 1)
        point_A = np.where(mass_A > 1e-12, mean_A / np.maximum(mass_A, 1e-300), lattice_A)
        point_A[0] = 0.0
    return Scalar(np.maximum.accumulate(point_A), mass_A, loss)


def row_of(mass_A: Floats, beyond: float) -> Floats:
    """Masses [K] of symbols from those of magnitudes, and of what no magnitude covers."""
    out = np.zeros(SYMBOLS)
    out[HALF + 1 : 2 * HALF + 1] = mass_A[1:] / 2
    out[:HALF] = mass_A[:0:-1] / 2
    out[HALF] = mass_A[0]
    out[EVEN] = out[ODD] = max(beyond, 1e-9) / 2
    return out


def cell_row(tables: Tables, index: int, spacing: float, shift: int) -> Floats:
    """Masses [K] of cells of 2**shift levels, for priors so wide that noise does not change them."""
    deviation = float(SIGMA_S[index])
    density_B, x_B = prior_density(tables, index), knots()
    parts = min(1 << shift, 16)
    inside = (np.arange(parts) + 0.5) / parts * (1 << shift) - 0.5
    cell = np.arange(-HALF, HALF + 1)
    z = np.abs((cell[:, None] * (1 << shift) + inside) * spacing)
    out = np.zeros(SYMBOLS)
    out[: 2 * HALF + 1] = np.interp(z / deviation, x_B, density_B, right=0.0).mean(1) * (1 << shift) * spacing
    total = 2 * float((0.5 * (density_B[1:] + density_B[:-1]) * np.diff(x_B)).sum()) * deviation
    out[EVEN] = out[ODD] = max((total - out.sum()) / 2, total * 1e-9)
    return out


def units(value: Floats) -> Ints:
    """Units of noise to sample integers."""
    return np.rint(np.asarray(value) * UNIT).astype(np.int64)
