"""The fixed-rate trellis: a state machine of raw bits picks quantiles of the prior, and nothing else is sent.

Dimensions are taken in the trellis coder's order, in blocks of about 1000 planned bits. Rates are added up, scaled by
the block's 4-bit code; whenever the sum has grown by a whole bit or more, the dimensions since the last step become
one, which sends that many bits. A state is the last L bits, and picks one of 256 levels for each dimension of its
step. The best closed path is found by the Viterbi algorithm; blocks of fewer bits than a state has start at zero.
Dimensions that the mixed trellis codes as scalar symbols are quantised as in ``ecsq``.

Sources: Marcellin & Fischer 1990, "Trellis coded quantization"; Mao & Gray 2010, "Stationary and trellis encoding for
IID sources", for bitshift codes; Tseng et al. 2024, "QTIP", for tail-biting by one pass over the junction.

Legend: N dimensions of a section, D those in blocks, B blocks, T steps of a block, S states, Q levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar

import numpy as np

from recbatch.bench.coders.candidates import QUANTILES, quantiles
from recbatch.bench.coders.design import LN2, RATE_S, SIGMA_S
from recbatch.bench.coders.fixed_search import levels_of_bits, make_steps, search_block
from recbatch.bench.coders.frame import Baseline, Bytes, Part, Place, Source, run_all
from recbatch.bench.coders.levels import Floats, Index, Ints
from recbatch.bench.coders.scalars import code_scalars, restore_scalars
from recbatch.rec import bits, noise
from recbatch.rec.base import UNIT, Samples, Scales, Targets
from recbatch.rec.plan import Plan, make_plan
from recbatch.rec.tables import Tables, columns

ROTATION, SIGN, STATE_MAP = 68, 69, 70  # purposes of the shared randomness
PLANNED = 1000 * 256  # 1/256 bits of a block
CODE_BITS = 4
WIDEST = 8  # bits of a step: a decision is a byte
FACTORS = np.rint(65536 * 2.0 ** ((np.arange(1 << CODE_BITS) - 8) / 8)).astype(np.int64)
# Excess on training photographs at levels 4, 12, 20, in percent: 0.85 12.9, 19.7, 30.5; 0.95 7.7, 11.9, 20.8; 1.0 6.8,
# 10.6, 18.4; 1.1 7.0, 10.4, 18.4; 1.25 10.8, 14.6, 23.4.
RHO = 1.0  # planned bits for a bit of KL
OUTLIER = 16.0  # squared deviations that one target counts for at most in a block's KL


@lru_cache(maxsize=4)
def levels(tables: Tables) -> Index:
    """int32 [scale indices, Q]: 256 quantiles of every prior, odd."""
    fine = quantiles(tables)[:, QUANTILES // 2 :]
    upper = (fine[:, 7::16] + fine[:, 8::16]) // 2
    return np.ascontiguousarray(np.concatenate([-upper[:, ::-1], upper], 1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FixedTrellis(Baseline):
    """Fixed-rate trellis of 2**bits states."""

    number: ClassVar[int] = 65008
    name: ClassVar[str] = "fixed-trellis"
    bits: int = 12

    @property
    def parameters(self) -> bytes:
        return bytes([self.bits])

    def code(self, target_N: Targets, scale_N: Scales, place: Place) -> tuple[Samples, Part]:
        plan = make_plan(scale_N, self.tables)
        layout = _Layout(plan, scale_N, place, self)
        e_D = target_N[plan.lattice_D].astype(np.float64)
        codes_B = layout.codes(e_D)
        steps = layout.steps(codes_B)
        found: list[Bytes] = [np.zeros(0, np.uint8)] * len(steps)

        def search(b: int) -> None:
            dims = layout.dims(b)
            found[b] = search_block(
                e_D[dims] * UNIT, layout.scale_D[dims], layout.sign_D[dims], layout.rotation_D[dims], *steps[b],
                layout.map_G, levels(self.tables), columns(), self.bits,
            )  # fmt: skip

        tasks: list[Callable[[], None]] = [partial(search, b) for b in range(len(steps))]
        run_all(tasks)
        out = np.zeros(scale_N.size, np.int32)
        out[plan.scalar_C], run_M, extra = code_scalars(target_N, scale_N, plan.scalar_C, self.tables)
        out[plan.lattice_D] = layout.samples(steps, found)
        side = bits.fixed(codes_B, np.full(codes_B.size, CODE_BITS))
        return out, Part(side=side, index=np.concatenate([side[:0], *found]), extra=extra, runs=(run_M,))

    def restore(self, source: Source, scale_N: Scales, place: Place) -> Samples:
        plan = make_plan(scale_N, self.tables)
        layout = _Layout(plan, scale_N, place, self)
        widths_B = np.full(layout.blocks, CODE_BITS)
        steps = layout.steps(bits.parse_fixed(source.bits.take(int(widths_B.sum())), widths_B))
        found = [source.bits.take(int(step[1].sum())) for step in steps]
        out = np.zeros(scale_N.size, np.int32)
        out[plan.scalar_C] = restore_scalars(source, scale_N, plan.scalar_C, self.tables)
        out[plan.lattice_D] = layout.samples(steps, found)
        return out


class _Layout:
    """What both sides know of a section's blocks."""

    def __init__(self, plan: Plan, scale_N: Scales, place: Place, coder: FixedTrellis) -> None:
        self._coder = coder
        self.scale_D = scale_N[plan.lattice_D].astype(np.int32)
        self.rate_D = coder.tables.rate_S[self.scale_D]
        count = self.scale_D.size
        done_D = np.cumsum(self.rate_D)
        self.blocks = max(1, round(int(done_D[-1]) / PLANNED)) if count else 0
        ends = [int(done_D[-1]) * (b + 1) // self.blocks for b in range(self.blocks)]
        self._ends: Ints = np.searchsorted(done_D, ends) + 1 if count else np.zeros(0, np.int64)
        self.sign_D = noise.octets(place.seed, place.section, count, purpose=SIGN) & np.uint8(1)
        self.rotation_D = noise.octets(place.seed, place.section, count, purpose=ROTATION)
        self.map_G = noise.octets(place.seed, place.section, 1 << (coder.bits - 8), purpose=STATE_MAP)

    def dims(self, b: int) -> slice:
        return slice(int(self._ends[b - 1]) if b else 0, int(self._ends[b]))

    def codes(self, e_D: Floats) -> Ints:
        """The rate code of each block: its KL, outliers cut, over what was planned."""
        variance_D = SIGMA_S[self.scale_D] ** 2
        rate_D = RATE_S[self.scale_D]
        square_D = np.minimum(e_D**2 / (1 + variance_D), OUTLIER)
        kl_D = rate_D + 0.5 / LN2 * variance_D / (1 + variance_D) * (square_D - 1)
        ratio = [RHO * kl_D[self.dims(b)].sum() / rate_D[self.dims(b)].sum() for b in range(self.blocks)]
        code_B = np.rint(8 * np.log2(np.maximum(np.array(ratio), 1e-3))) + 8
        out: Ints = np.clip(code_B, 0, (1 << CODE_BITS) - 1).astype(np.int64)
        return out

    def steps(self, code_B: Ints) -> list[tuple[Ints, Ints]]:
        """First dimensions [T + 1] and bits [T] of every block's steps."""
        return [
            make_steps(self.rate_D[self.dims(b)], int(FACTORS[code_B[b]]), min(self._coder.bits - 5, WIDEST))
            for b in range(self.blocks)
        ]

    def samples(self, steps: list[tuple[Ints, Ints]], found: list[Bytes]) -> Index:
        """Samples [D] of these bits."""
        out = np.zeros(self.scale_D.size, np.int32)
        table_SQ, column_CQ = levels(self._coder.tables), columns()
        for b, (starts_T1, width_T) in enumerate(steps):
            dims = self.dims(b)
            level_T = levels_of_bits(
                found[b], width_T, starts_T1, self.rotation_D[dims], self.map_G, self._coder.bits
            )
            size_T = np.diff(starts_T1)
            column_D = (np.arange(int(size_T.sum())) - np.repeat(starts_T1[:-1], size_T)) % column_CQ.shape[0]
            value_D = table_SQ[self.scale_D[dims], column_CQ[column_D, np.repeat(level_T, size_T)]]
            out[dims] = np.where(self.sign_D[dims] > 0, -value_D, value_D)
        return out
