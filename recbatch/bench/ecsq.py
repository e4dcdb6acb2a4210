"""Entropy-coded scalar quantisation of the same latents, under the same prior: what index coding has to beat.

Every dimension is quantised with step 3.46 noise deviations (sqrt(12): the error of the noise itself), by
rate-distortion optimised choice among the nearest point, the next towards zero, and zero. Points and probabilities
of each scale index are designed under the prior that the trellis has: those of its scalar dimensions are taken as they
are; for the others the trellis's density of the sample, convolved with the noise, gives the density of the
observation, and an entropy-constrained quantiser is iterated on it. Code lengths are ideal.

Source: Chou, Lookabaugh & Gray 1989, "Entropy-constrained vector quantization", for the iteration.

Shapes: N dimensions, A magnitudes 0..A-1 of a symbol, G points of a grid over the observation's magnitude.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from recbatch.bench.ideal import SIGMA_S, Floats, IdealCoder
from recbatch.rec.base import UNIT, Scales
from recbatch.rec.tables import SCALAR, Tables, knots

STEP = 3.46
REACH = 10.0  # deviations of the observation that the design covers; beyond it symbols escape
LEAST = 2.0**-24  # probability that no symbol falls below, as in the real entropy coder
ROUNDS = 30
CELLS = 64  # grid points of a step
SMOOTH = (
    50.0  # prior deviations in units of noise from which a density is flat over a step, and nothing to design
)

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quantiser:
    """By magnitude: what a symbol stands for and its cost in bits, the sign's included."""

    point_A: Floats
    bits_A: Floats
    escape_bits: float

    def choose(self, e_N: Floats) -> tuple[Floats, Floats]:
        """Values and bits of the symbols that are best in squared error over two plus nats."""
        size_N = np.abs(e_N)
        nearest_N = np.rint(size_N / STEP).astype(np.int64)
        best_N, bits_N = self.point_of(nearest_N), self.bits_of(nearest_N)
        cost_N = 0.5 * (size_N - best_N) ** 2 + math.log(2) * bits_N
        for other_N in (np.maximum(nearest_N - 1, 0), np.zeros_like(nearest_N)):
            point_N, length_N = self.point_of(other_N), self.bits_of(other_N)
            other_cost_N = 0.5 * (size_N - point_N) ** 2 + math.log(2) * length_N
            better_N = other_cost_N < cost_N
            best_N = np.where(better_N, point_N, best_N)
            bits_N = np.where(better_N, length_N, bits_N)
            cost_N = np.where(better_N, other_cost_N, cost_N)
        return np.copysign(best_N, e_N), bits_N

    def point_of(self, magnitude_N: Integers) -> Floats:
        last = self.point_A.size - 1
        inside_N = self.point_A[np.minimum(magnitude_N, last)]
        return np.where(magnitude_N > last, magnitude_N * STEP, inside_N)

    def bits_of(self, magnitude_N: Integers) -> Floats:
        last = self.point_A.size - 1
        beyond_N = np.maximum(magnitude_N - last, 1)
        escaped_N = self.escape_bits + 2 * np.floor(np.log2(beyond_N)) + 2  # Elias gamma, and the sign
        return np.where(magnitude_N > last, escaped_N, self.bits_A[np.minimum(magnitude_N, last)])


class EcsqCoder(IdealCoder):
    """The quantiser as a coder of the codec."""

    name: ClassVar[str] = "ecsq"

    def __init__(self, tables: Tables | None = None) -> None:
        self._tables = tables or Tables.default()
        self._made: dict[int, Quantiser] = {}

    def quantiser(self, index: int) -> Quantiser:
        """The quantiser of one scale index, designed on first use."""
        if index not in self._made:
            self._made[index] = (
                scalar_quantiser(self._tables, index)
                if self._tables.kind_S[index] == SCALAR
                else designed_quantiser(self._tables, index)
            )
        return self._made[index]

    def draw(self, e_N: Floats, index_N: Scales, *, section: int) -> tuple[Floats, float]:
        value_N, total = np.zeros(e_N.size), 0.0
        order = np.argsort(index_N, kind="stable")
        ends = np.cumsum(np.bincount(index_N, minlength=SIGMA_S.size))
        for index in range(1, SIGMA_S.size):  # 0 is not coded
            members = order[ends[index - 1] : ends[index]]
            if members.size:
                value_N[members], bits = self.quantiser(index).choose(e_N[members])
                total += float(bits.sum())
        return value_N, total


def scalar_quantiser(tables: Tables, index: int) -> Quantiser:
    """The trellis's own scalar symbols."""
    mass_A = np.asarray(tables.arrays["mass"][index], np.float64)
    bits_A = -np.log2(np.maximum(mass_A / mass_A.sum(), LEAST))
    signed_A = bits_A[:8] + (np.arange(8) > 0)
    return Quantiser(tables.centroid_SA[index] / UNIT, signed_A, float(bits_A[8]))


def designed_quantiser(tables: Tables, index: int) -> Quantiser:
    """An entropy-constrained quantiser for a dimension of this scale index under the tables' density."""
    sigma = float(SIGMA_S[index])
    magnitudes = math.ceil(REACH * math.sqrt(1 + sigma**2) / STEP) + 2
    e_G, p_G = observation_density(tables, index, (magnitudes - 0.5) * STEP)
    nearest_G = np.rint(e_G / STEP).astype(np.int64)
    lattice_A = np.arange(magnitudes).astype(np.float64) * STEP
    if sigma > SMOOTH:
        heights = tables.arrays["density"][index].astype(np.float64)
        flat_A: Floats = np.interp(lattice_A / sigma, knots(), heights, right=0.0) * np.minimum(
            1 + np.arange(magnitudes), 2
        )
        return Quantiser(lattice_A, _bits(flat_A), -math.log2(LEAST))
    quantiser = Quantiser(lattice_A, _bits(_sums(nearest_G, p_G, magnitudes)), -math.log2(LEAST))
    candidates = np.stack([nearest_G, np.maximum(nearest_G - 1, 0), np.zeros_like(nearest_G)])
    for _ in range(ROUNDS):
        cost = 0.5 * (e_G - quantiser.point_A[candidates]) ** 2 + math.log(2) * quantiser.bits_A[candidates]
        choice_G = np.take_along_axis(candidates, cost.argmin(0)[None], 0)[0]
        mass_A = _sums(choice_G, p_G, magnitudes)
        mean_A = _sums(choice_G, p_G * e_G, magnitudes) / np.maximum(mass_A, 1e-300)
        point_A: Floats = np.where(mass_A > LEAST, mean_A, lattice_A)
        point_A[0] = 0.0
        quantiser = Quantiser(point_A, _bits(mass_A), -math.log2(LEAST))
    return quantiser


def observation_density(tables: Tables, index: int, reach: float) -> tuple[Floats, Floats]:
    """Magnitudes on a grid up to ``reach``, and their probabilities: the prior's density plus noise."""
    width = STEP / CELLS
    e_G = (np.arange(round(reach / width)).astype(np.float64) + 0.5) * width
    sigma = float(SIGMA_S[index])
    fine = min(width, sigma / 8)
    z = np.arange(0, reach + 8, fine) + 0.5 * fine
    density = np.interp(z / sigma, knots(), tables.arrays["density"][index].astype(np.float64), right=0.0)
    weight = density * fine
    # noise spreads each z over its neighbours: bins of z on the grid of e, then one convolution
    cells = np.bincount((z / width).astype(np.int64), weight, e_G.size + round(8 / width) + 1)
    taps = np.arange(-round(8 / width), round(8 / width) + 1) * width
    noise = np.exp(-0.5 * taps**2)
    both_signs = np.concatenate([cells[::-1], cells])
    spread = np.convolve(both_signs, noise / noise.sum(), "same")[cells.size : cells.size + e_G.size]
    return e_G, spread / spread.sum()


def _sums(cell_G: Integers, weight_G: Floats, cells: int) -> Floats:
    return np.bincount(cell_G, weight_G, cells).astype(np.float64)


def _bits(mass_A: Floats) -> Floats:
    """Ideal code lengths of magnitudes with their signs."""
    p_A = np.maximum(mass_A / mass_A.sum(), LEAST)
    bits: Floats = -np.log2(p_A / p_A.sum()) + (np.arange(p_A.size) > 0)
    return bits
