"""Entropy-coded trellis-coded quantisation: the strongest quantiser at hand, at 8, 64 and 256 states.

Dimensions are taken in the trellis coder's order. Those that it codes as scalar symbols are quantised as in ``ecsq``;
the others run through one machine (``machines``) with tables of their own for every scale index and context of a
state. Points and probabilities are designed by running the search itself on samples of the law of the observation.
The decoder needs each level's parity before it can read the next one, so it goes symbol by symbol.

Sources: Fischer & Wang 1992, "Entropy-constrained trellis-coded quantization", and those of ``machines``.

Legend: N dimensions of a section, M scalar ones, D trellis ones, S scale indices, C contexts, A magnitudes, K symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from recbatch.bench.coders import design
from recbatch.bench.coders.frame import Baseline, Part, Place, Run, Source
from recbatch.bench.coders.levels import (
    HALF,
    SYMBOLS,
    Floats,
    Index,
    Ints,
    integer_rows,
    join_levels,
    read_low,
    write_levels,
)
from recbatch.bench.coders.machines import machine
from recbatch.bench.coders.scalars import code_scalars, restore_scalars
from recbatch.bench.coders.stack import Book
from recbatch.bench.coders.tcq_search import search, values, walk
from recbatch.rec.base import SCALES, UNIT, Samples, Scales, Targets
from recbatch.rec.plan import make_plan
from recbatch.rec.tables import SCALAR, Tables

# Excess of 8 and 64 states on training photographs at level 12, in percent, by step: 1.8 4.5, 2.7; 1.9 4.5, 2.6; 2.0
# 4.6, 2.6; 2.1 4.7, 2.6; 2.3 5.0, 2.9. Eight contexts against two (the quantisers): -0.3, -0.2. The first scale index
# of the trellis: anything from 1 to 30 is equal within 0.1.
STEP = 2.0
CONTEXTS = 8
# Draws of the observation in the rounds of a design; two times as many gain about a tenth of a point.
DRAWS = (8192,) * 24 + (16384,) * 6
WEIGHT = 8.0  # of what a probability is smoothed by, in draws


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """Integers of every scale index and context; row k * C + c."""

    step_S: Ints  # of the union of both quantisers, 1/UNIT of noise
    shift_S: Ints
    point_XA: Ints
    book: Book
    context_S: Index  # of a state of the machine
    half_C: Index  # which quantiser a context has


@lru_cache(maxsize=8)
def trained(tables: Tables, states: int) -> Trained:
    """Designed once per tables and number of states."""
    context_S, half_C = contexts(states)
    step_S = np.full(SCALES, design.units(np.array(STEP)))
    shift_S = design.shifts(2 * step_S / UNIT)
    lattice_CA = np.maximum(2 * np.arange(HALF + 1) - half_C[:, None], 0)
    point_SCA = step_S[:, None, None] * lattice_CA
    mass_SCK = np.ones((SCALES, half_C.size, SYMBOLS))
    for k in range(1, SCALES):
        if shift_S[k]:
            mass_SCK[k] = design.cell_row(tables, k, 2 * step_S[k] / UNIT, int(shift_S[k]))
        elif tables.kind_S[k] != SCALAR:
            law = design.observation(tables, k)
            tuned = designed(law, states, int(step_S[k]))
            point_SCA[k] = tuned.point_CA
            mass_SCK[k] = [design.row_of(mass_A, law.beyond) for mass_A in tuned.mass_CA]
    return Trained(
        step_S, shift_S, point_SCA.reshape(-1, HALF + 1), Book(integer_rows(mass_SCK.reshape(-1, SYMBOLS))),
        context_S, half_C,
    )  # fmt: skip


def contexts(states: int) -> tuple[Index, Index]:
    """Which tables a state uses: the low bits of its number, of which the machine makes one the quantiser."""
    made = machine(states)
    context_S = (np.arange(states) % min(states, CONTEXTS)).astype(np.int32)
    half_C = np.zeros(int(context_S.max()) + 1, np.int32)
    half_C[context_S] = made.quantiser_S
    return context_S, half_C


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """The design of one law."""

    point_CA: Ints
    mass_CA: Floats  # a row's sum is 1
    loss: float  # nats a dimension, at multiplier 1


def designed(law: design.Observation, states: int, step: int) -> Tuned:
    """Points and masses for one law, iterated from the lattice.

    Every round draws another order: with one order the contexts learn it by heart, and long iterations from a
    neighbour's design end up worse by half a point for the same reason.
    """
    made = machine(states)
    context_S, half_C = contexts(states)
    lattice_CA = step * np.maximum(2 * np.arange(HALF + 1) - half_C[:, None], 0)
    smooth_CA = np.stack([_nearest(law, point_A / UNIT) for point_A in lattice_CA])
    point_CA, mass_CA = lattice_CA.copy(), smooth_CA.copy()
    one, none = np.full(1, step), np.zeros(1, np.int64)
    loss = 0.0
    for turn, draws in enumerate(DRAWS):
        e_D = stratified(law, draws, turn)
        index_D = np.zeros(draws, np.int32)
        book = Book(integer_rows(np.stack([design.row_of(mass_A, law.beyond) for mass_A in mass_CA])))
        level_D, used_D = search(
            e_D, index_D, one, none, point_CA, book.bits, context_S, half_C, made.next_SP, made.before_SP,
            made.parity_SP,
        )  # fmt: skip
        z_D = values(level_D, used_D, index_D, one, point_CA, half_C) / UNIT
        symbol_D, extra = write_levels(level_D, index_D.astype(np.int64))
        bits = float(book.bits[used_D, symbol_D].sum()) + extra.size
        loss = (bits * design.LN2 + 0.5 * float(((z_D - e_D) ** 2).sum())) / draws
        cell_D = used_D * (HALF + 1) + np.minimum(np.abs(level_D), HALF)
        count_CA = np.bincount(cell_D, minlength=mass_CA.size).reshape(mass_CA.shape)
        total_CA = np.bincount(cell_D, np.abs(e_D), mass_CA.size).reshape(mass_CA.shape)
        weight_CA = count_CA + WEIGHT * smooth_CA
        mean_CA = (total_CA + WEIGHT * smooth_CA * point_CA / UNIT) / np.maximum(weight_CA, 1e-300)
        point_CA = np.where(weight_CA > 1e-9, design.units(mean_CA), lattice_CA)
        point_CA[:, 0] = 0
        mass_CA = weight_CA / weight_CA.sum(1, keepdims=True)
    return Tuned(point_CA, mass_CA, loss)


def stratified(law: design.Observation, draws: int, seed: int) -> Floats:
    """Observations with this law: its quantiles in a random order, with random signs."""
    order = np.random.default_rng(seed)
    cumulative = np.cumsum(law.p_G)
    size = np.interp((np.arange(draws) + 0.5) / draws * cumulative[-1], cumulative, law.e_G)
    return np.asarray(order.permutation(size) * (2 * order.integers(0, 2, draws) - 1), np.float64)


def _nearest(law: design.Observation, point_A: Floats) -> Floats:
    """Masses of the cells around ascending points."""
    edges = 0.5 * (point_A[1:] + point_A[:-1])
    return np.bincount(np.searchsorted(edges, law.e_G), law.p_G, point_A.size).astype(np.float64)


class Tcq(Baseline):
    """Trellis-coded quantisation; the number of states is the subclass's."""

    states: ClassVar[int]

    def code(self, target_N: Targets, scale_N: Scales, place: Place) -> tuple[Samples, Part]:
        made, steps = trained(self.tables, self.states), machine(self.states)
        plan = make_plan(scale_N, self.tables)
        scale_D = scale_N[plan.lattice_D].astype(np.int32)
        level_D, used_D = search(
            target_N[plan.lattice_D].astype(np.float64), scale_D, made.step_S, made.shift_S, made.point_XA,
            made.book.bits, made.context_S, made.half_C, steps.next_SP, steps.before_SP, steps.parity_SP,
        )  # fmt: skip
        symbol_D, extra_D = write_levels(level_D, made.shift_S[scale_D])
        numbers_D = (scale_D * made.half_C.size + used_D).astype(np.int32)
        out = np.zeros(scale_N.size, np.int32)
        out[plan.scalar_C], run_M, extra_M = code_scalars(target_N, scale_N, plan.scalar_C, self.tables)
        out[plan.lattice_D] = values(level_D, used_D, scale_D, made.step_S, made.point_XA, made.half_C)
        run_D = Run(symbols=symbol_D, numbers=numbers_D, book=made.book)
        return out, Part(extra=np.concatenate([extra_M, extra_D]), runs=(run_M, run_D))

    def restore(self, source: Source, scale_N: Scales, place: Place) -> Samples:
        made, steps = trained(self.tables, self.states), machine(self.states)
        plan = make_plan(scale_N, self.tables)
        scale_D = scale_N[plan.lattice_D].astype(np.int32)
        out = np.zeros(scale_N.size, np.int32)
        out[plan.scalar_C] = restore_scalars(source, scale_N, plan.scalar_C, self.tables)
        low_D = read_low(source.bits, made.shift_S[scale_D])
        symbol_D, used_D = walk(
            source.stack.words, source.stack.state, made.book.starts, scale_D, made.shift_S, low_D, made.context_S,
            made.half_C.size, steps.next_SP,
        )  # fmt: skip
        level_D = join_levels(symbol_D, low_D, made.shift_S[scale_D], source.bits)
        value_D = values(level_D, used_D, scale_D, made.step_S, made.point_XA, made.half_C)
        out[plan.lattice_D] = np.clip(value_D, -(2**31 - 1), 2**31 - 1)
        return out


class Tcq8(Tcq):
    """Eight states, of the enhanced compression model beyond VVC."""

    number, name, states = 65003, "tcq8", 8


class Tcq64(Tcq):
    """64 states."""

    number, name, states = 65004, "tcq64", 64


class Tcq256(Tcq):
    """256 states; the search takes thirty times as long as with eight."""

    number, name, states = 65005, "tcq256", 256
