# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""The search on a GPU: a program per block, four steps between exchanges, no row and no score in global memory.

Legend: Z sections; T steps, D lattice dimensions of all sections; B blocks; J jobs, a junction or a block each, of F
fields; G groups of states; M = 2**(L - 4) middles; X slots and R rows of the tables (rows/gpu.py).

Four steps of the trellis lead from the 16 states (h, middle), four top bits h, to the 16 states (middle, b), four low
bits b: a butterfly in the registers of one thread, and its 32 decisions are one word. Then the metrics are transposed,
the only time that they change threads. docs/decisions/0004-gpu-search.md counts operations and bytes.

Metrics are int32 and start anywhere: a step costs at most 12 500, so they are never brought back to 0. Steps are filled
up to a multiple of four in front, by steps that cost nothing or bar all ways but the one to the block's first state.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from recbatch.rec.kernels.rows.gpu import BARRIER, TablesOn, choose, make_rows, prepare, put, tables_on
from recbatch.rec.kernels.viterbi.cpu import SPREAD, Scores

FEWEST_BITS, MOST_BITS = 9, 16
IN_REGISTERS = 14  # most bits whose metrics fit a program's registers; beyond, they lie in the L2 cache
TILE = 512  # middles at a time where metrics lie in memory
ROWS = 4  # made at once; more take registers, and eight at L = 12 force their layout on the butterflies
WAVE_BYTES = 1 << 32  # decisions and metrics of the programs of one launch
CHUNK = tl.constexpr(32)  # steps whose rows are made together

# Fields of a job: SPLIT of its COUNT steps from step FIRST on, the others from step SECOND on.
FIRST, SECOND, SPLIT, COUNT = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
SECTION, CLOSED, STOP, OWNER = tl.constexpr(4), tl.constexpr(5), tl.constexpr(6), tl.constexpr(7)
FIELDS = tl.constexpr(8)

Bytes = NDArray[np.uint8]
Index = NDArray[np.int32]


@triton.jit
def pair_table(map_ZG, pairs_Z8M, BITS: tl.constexpr):
    """Where a butterfly looks: for each of its eight pairs of states a byte per step, the word and whether to swap."""
    M: tl.constexpr = 1 << (BITS - 4)
    GROUPS: tl.constexpr = 1 << (BITS - 9)
    section, column = tl.program_id(0), tl.program_id(1)
    middle = tl.arange(0, M)
    packed = tl.zeros((M,), tl.int32)
    for i in tl.static_range(4):
        # before step i a pair of states has the bits h (3 - i of them), middle, b (i of them), and a top bit
        pair = ((column >> i) << (BITS - 4 + i)) | (middle << i) | (column & ((1 << i) - 1))
        turn = tl.load(map_ZG + section * GROUPS + ((pair >> 7) & (GROUPS - 1))).to(tl.int32)
        swap = pair >> (BITS - 2)
        packed |= ((((2 * pair + turn) & 255) >> 1) | (swap << 7)) << (8 * i)
    tl.store(pairs_Z8M + (section * 8 + column) * M + middle, packed)


@triton.jit
def _step_of(n, filled, job_F):
    """The step behind number ``n`` of a job, whether it is a real one, and how far it is before the first."""
    real = n - filled
    split = tl.load(job_F + SPLIT)
    t = tl.where(real < split, tl.load(job_F + FIRST) + real, tl.load(job_F + SECOND) + real - split)
    return t, (real >= 0) & (real < tl.load(job_F + COUNT)), -real


@triton.jit
def _four_steps(metric, pairs, words, WIDTH: tl.constexpr):
    """The butterflies of WIDTH middles: metrics [16, WIDTH] by top bits in, by low bits out, and the decisions."""
    column = tl.arange(0, 8)[:, None]
    decided = tl.zeros((WIDTH,), tl.int32)
    for i in tl.static_range(4):
        low, high = tl.split(tl.permute(tl.reshape(metric, (2, 8, WIDTH)), (1, 2, 0)))
        decided |= tl.sum(tl.where(high > low, 1 << column, 0), axis=0) << (8 * i)
        best = tl.maximum(low, high)
        pair = pairs >> (8 * i)
        costs = tl.load(words + i * 128 + (pair & 127))
        swapped = (pair & 128) != 0
        even, odd = costs & 0xFFFF, costs >> 16
        after = tl.join(best - tl.where(swapped, odd, even), best - tl.where(swapped, even, odd))
        metric = tl.reshape(tl.permute(after, (0, 2, 1)), (16, WIDTH))
    return metric, decided


@triton.jit(do_not_specialize=["rounds_most"])  # or every batch compiles anew
def search(
    jobs_JF, start_B, end_B, starts_T1, rotation_T, pairs_Z8M, slot_D, rest_D4, extra_D4, row_D4, offsets_XC, nats_RC,
    words_J, metrics_J, decided_J, rounds_most, clip, BITS: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Forward through one job: the decisions, and the best state at its end. TILE = M: metrics stay in registers."""
    M: tl.constexpr = 1 << (BITS - 4)
    job = tl.program_id(0).to(tl.int64)
    job_F = jobs_JF + job * FIELDS
    count, owner = tl.load(job_F + COUNT), tl.load(job_F + OWNER)
    start = tl.load(start_B + owner)
    filled = -count & 3
    rounds = (count + filled) >> 2
    words, decided_M = words_J + job * (CHUNK * 128), decided_J + job * rounds_most * M
    pairs_8M = pairs_Z8M + tl.load(job_F + SECTION) * (8 * M)
    first_state = start >> filled
    h, column, lane = tl.arange(0, 16)[:, None], tl.arange(0, 8)[:, None], tl.arange(0, TILE)
    before, after = metrics_J + job * (32 * M), metrics_J + job * (32 * M) + 16 * M
    if TILE == M:
        # a hint below the truth: four neighbours a thread would leave too few threads to keep a butterfly in each
        pairs = tl.load(pairs_8M + tl.max_contiguous(column * M + lane[None, :], (1, 1)))
        metric = tl.where((start < 0) | (h * M + lane[None, :] == first_state), 0, -BARRIER)
    else:
        for tile in range(0, M, TILE):
            state = tl.max_contiguous(h * M + tile + lane[None, :], (1, 1))
            tl.store(before + state, tl.where((start < 0) | (state == first_state), 0, -BARRIER))
    for chunk in range(0, rounds, CHUNK // 4):
        tl.debug_barrier()  # all have read the last chunk's rows
        for row in range(0, CHUNK, ROWS):
            t, real, left = _step_of(4 * chunk + row + tl.arange(0, ROWS), filled, job_F)
            make_rows(
                t, real, left, start, starts_T1, rotation_T, slot_D, rest_D4, extra_D4, row_D4, offsets_XC, nats_RC,
                clip, words + row * 128, BITS, ROWS,
            )  # fmt: skip
        tl.debug_barrier()  # and all see this one's
        for n in range(chunk, tl.minimum(chunk + CHUNK // 4, rounds)):
            words_4 = words + (n - chunk) * 512
            if TILE == M:
                metric, decided = _four_steps(metric, pairs, words_4, M)
                tl.store(decided_M + n * M + lane, decided)
                metric = tl.reshape(tl.permute(metric, (1, 0)), (16, M))
            else:
                for tile in range(0, M, TILE):
                    middle = tile + lane[None, :]
                    pairs = tl.load(pairs_8M + tl.max_contiguous(column * M + middle, (1, 1)))
                    here = tl.load(before + tl.max_contiguous(h * M + middle, (1, 1)))
                    here, decided = _four_steps(here, pairs, words_4, TILE)
                    tl.store(decided_M + n * M + tile + lane, decided)
                    states = (tile + lane[:, None]) * 16 + tl.arange(0, 16)[None, :]
                    tl.store(after + states, tl.permute(here, (1, 0)))
                before, after = after, before
                tl.debug_barrier()
    best = tl.full((), -(1 << 62), tl.int64)  # a metric and, negated, the state: the first of equals wins
    for tile in range(0, M, TILE):
        state = tl.max_contiguous(h * M + tile + lane[None, :], (1, 1))
        if TILE != M:
            metric = tl.load(before + state)
        best = tl.maximum(best, tl.max(tl.max((metric.to(tl.int64) << 16) | (65535 - state), axis=1), axis=0))
    end = tl.where(tl.load(job_F + CLOSED) != 0, start, 65535 - (best & 65535).to(tl.int32))
    tl.store(end_B + owner, end)


@triton.jit(do_not_specialize=["rounds_most"])  # or every batch compiles anew
def trace(jobs_JF, start_B, end_B, decided_J, state_T, rounds_most, BITS: tl.constexpr, STORE: tl.constexpr):
    """Back through one job to its step number STOP. STORE: keep the states; else the last is the block's start."""
    M: tl.constexpr = 1 << (BITS - 4)
    job = tl.program_id(0).to(tl.int64)
    job_F = jobs_JF + job * FIELDS
    count, owner, first = tl.load(job_F + COUNT), tl.load(job_F + OWNER), tl.load(job_F + FIRST)
    filled = -count & 3
    rounds = (count + filled) >> 2
    stop = filled + tl.load(job_F + STOP)
    decided_M = decided_J + job * rounds_most * M
    state = tl.load(end_B + owner)
    for back in range(0, rounds - (stop >> 2)):
        n = rounds - 1 - back
        decided = tl.load(decided_M + n * M + (state >> 4))
        for i in tl.static_range(3, -1, -1):
            real = 4 * n + i >= stop
            if STORE:
                tl.store(state_T + first + 4 * n + i - filled, state, real)
            column = ((state >> (BITS - 3 + i)) << i) | ((state >> 1) & ((1 << i) - 1))
            before = (state >> 1) | (((decided >> (8 * i + column)) & 1) << (BITS - 1))
            state = tl.where(real, before, state)
    if STORE:
        tl.store(end_B + owner, state)  # equal to the start, or the search is broken
    else:
        tl.store(start_B + owner, state)


@triton.jit
def finish(
    jobs_JF, state_T, map_ZG, rotation_T, e_D, scale_D, starts_T1, slot_S, columns_S, shift_S, half_S, step_S, shrink_S,
    narrow, offsets_XC, nats_RC, bit_T, code_T, integer_D, BITS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Bits, codewords and lattice integers of a block's states."""
    job_F = jobs_JF + tl.program_id(0) * FIELDS
    n = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    real = n < tl.load(job_F + COUNT)
    t = tl.load(job_F + FIRST) + n
    state = tl.load(state_T + t, real, 0)
    group = (tl.load(job_F + SECTION) << (BITS - 9)) + ((state >> 8) & ((1 << (BITS - 9)) - 1))
    turn = tl.load(map_ZG + group).to(tl.int32) + tl.load(rotation_T + t, real, 0).to(tl.int32)
    code = ((state + turn) & 255) ^ (state >> (BITS - 1))
    tl.store(bit_T + t, state & 1, real)
    tl.store(code_T + t, code, real)
    choose(
        t, real, code, e_D, scale_D, starts_T1, slot_S, columns_S, shift_S, half_S, step_S, shrink_S, narrow,
        offsets_XC, nats_RC, integer_D,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What ``search_block`` of the CPU takes for one section, and the arrays that it writes; blocks cover all steps."""

    e_D: NDArray[np.float32]
    scale_D: Bytes
    starts_T1: Index
    map_G: Bytes
    rotation_T: Bytes
    blocks: Sequence[tuple[int, int]]
    bit_T: Bytes
    code_T: Bytes
    integer_D: Index


def _jobs(sections: Sequence[Section], bits: int) -> tuple[Index, Index]:
    """Fields of every block's job and of every junction's."""
    blocks: list[tuple[int, ...]] = []
    junctions: list[tuple[int, ...]] = []
    base = 0
    for number, section in enumerate(sections):
        for first, last in section.blocks:
            steps, owner = last - first, len(blocks)
            closed = int(steps >= bits)
            blocks.append((base + first, 0, steps, steps, number, closed, 0, owner))
            if closed:
                around = min(steps // 2, 4 * bits)
                junctions.append(
                    (base + last - around, base + first, around, 2 * around, number, 0, around, owner)
                )
        base += section.starts_T1.size - 1
    return np.array(blocks, np.int32).reshape(-1, 8), np.array(junctions, np.int32).reshape(-1, 8)


def search_sections(
    sections: Sequence[Section],
    bits: int,
    scores: Scores,
    *,
    device: str,
    tile: int | None = None,
    wave_bytes: int = WAVE_BYTES,
) -> None:
    """Search all blocks of all sections as ``search_block`` does; writes each section's bit_T, code_T, integer_D.

    Args:
        sections: of any number of images; their maps and rotations are their own.
        bits: L, 9 to 16.
        scores: what to weigh by; kept on the device for the next call.
        device: "cuda", "cuda:1"; "cpu" only under Triton's interpreter.
        tile: middles at a time, a power of two; fewer than all keeps metrics in memory. None: what suits ``bits``.
        wave_bytes: bound of a launch's scratch memory.

    Raises:
        ValueError: bits out of range, or 2**31 dimensions or more.
        RuntimeError: a path is not closed (never expected).
    """
    if not FEWEST_BITS <= bits <= MOST_BITS:
        raise ValueError(
            f"The GPU's search takes {FEWEST_BITS} to {MOST_BITS} bits, not {bits}. Use the CPU's."
        )
    block_JF, junction_JF = _jobs(sections, bits)
    if not block_JF.size:
        return
    if sum(section.e_D.size for section in sections) >= 1 << 31:
        raise ValueError("The sections have 2**31 dimensions or more. Give fewer at a time.")
    with torch.cuda.device(device) if device != "cpu" else nullcontext():
        batch = _Batch(sections, bits, tables_on(scores, device), device, tile, wave_bytes)
        start_B = put(np.where(block_JF[:, 5] > 0, -1, 0).astype(np.int32), device)
        if junction_JF.size:
            batch.search(junction_JF, start_B, keep=False)
        end_B = batch.search(block_JF, start_B, keep=True)
        batch.finish(block_JF)
    if not torch.equal(start_B, end_B):
        raise RuntimeError("the trellis path of a block is not closed")
    steps = np.cumsum([section.bit_T.size for section in sections])[:-1]
    dims = np.cumsum([section.e_D.size for section in sections])[:-1]
    found = (
        np.split(batch.bit_T.cpu().numpy(), steps),
        np.split(batch.code_T.cpu().numpy(), steps),
        np.split(batch.integer_D.cpu().numpy(), dims),
    )
    for section, bit_T, code_T, integer_D in zip(sections, *found, strict=True):
        section.bit_T[:], section.code_T[:], section.integer_D[:] = bit_T, code_T, integer_D


class _Batch:
    """All sections on the device, and the launches in their order."""

    def __init__(
        self,
        sections: Sequence[Section],
        bits: int,
        tables: TablesOn,
        device: str,
        tile: int | None,
        wave_bytes: int,
    ) -> None:
        self.bits, self.tables, self.device, self.wave_bytes = bits, tables, device, wave_bytes
        self.middles = 1 << (bits - 4)
        self.tile = tile or (self.middles if bits <= IN_REGISTERS else TILE)
        sizes = np.array([section.e_D.size for section in sections])
        first = (np.cumsum(sizes) - sizes).astype(np.int32)
        starts = [section.starts_T1[:-1] + at for section, at in zip(sections, first, strict=True)]
        self.starts_T1 = put(np.concatenate([*starts, [sizes.sum()]]).astype(np.int32), device)
        self.steps, self.dims = self.starts_T1.numel() - 1, int(sizes.sum())
        self.e_D = put(np.concatenate([section.e_D for section in sections]), device)
        self.scale_D = put(np.concatenate([section.scale_D for section in sections]), device)
        self.map_ZG = put(np.concatenate([section.map_G for section in sections]), device)
        self.rotation_T = put(np.concatenate([section.rotation_T for section in sections]), device)
        self.pairs_Z8M = self._empty(len(sections), 8, self.middles)
        pair_table[(len(sections), 8)](self.map_ZG, self.pairs_Z8M, bits)
        self.state_T, self.integer_D = self._empty(self.steps), self._empty(self.dims)
        self.bit_T, self.code_T = (self._empty(self.steps, dtype=torch.uint8) for _ in range(2))
        self.slot_D, row_D4 = self._empty(self.dims), self._empty(self.dims, 4)
        rest_D4, extra_D4 = (self._empty(self.dims, 4, dtype=torch.float32) for _ in range(2))
        self.tries = (self.slot_D, rest_D4, extra_D4, row_D4)
        prepare[(triton.cdiv(self.steps, 256),)](
            self.e_D, self.scale_D, self.starts_T1, self.steps, *tables.law, *self.tries, 256,
            enable_fp_fusion=False,
        )  # fmt: skip

    def _empty(self, *shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def search(self, job_JF: Index, start_B: torch.Tensor, *, keep: bool) -> torch.Tensor:
        """Search and trace jobs, as many at once as there is memory for; gives the states they were traced to."""
        end_B = torch.zeros_like(start_B)
        rounds = int(job_JF[:, 3].max() + 3) // 4
        in_memory, warps = self.tile < self.middles, max(1, self.tile // 32)
        wave = max(1, self.wave_bytes // (4 * self.middles * (rounds + 32 * in_memory)))
        # the interpreter pays by the operation, not by the number
        rows = CHUNK.value if self.device == "cpu" else min(ROWS, max(2, warps))
        for at in range(0, job_JF.shape[0], wave):
            jobs_JF = put(job_JF[at : at + wave], self.device)
            count = jobs_JF.shape[0]
            decided_J = self._empty(count, rounds, self.middles)
            metrics_J = self._empty(count if in_memory else 1, 2, 16 * self.middles)
            search[(count,)](
                jobs_JF, start_B, end_B, self.starts_T1, self.rotation_T, self.pairs_Z8M, *self.tries,
                self.tables.offsets_XC, self.tables.nats_RC, self._empty(count, CHUNK.value * 128), metrics_J,
                decided_J, rounds, SPREAD // self.bits, self.bits, rows, self.tile,
                num_warps=warps, num_stages=1, enable_fp_fusion=False,
            )  # fmt: skip
            trace[(count,)](
                jobs_JF, start_B, end_B, decided_J, self.state_T, rounds, self.bits, keep, num_warps=1
            )
        return end_B

    def finish(self, job_JF: Index) -> None:
        """From states to bits, codewords and integers."""
        finish[(job_JF.shape[0], triton.cdiv(int(job_JF[:, 3].max()), 256))](
            put(job_JF, self.device), self.state_T, self.map_ZG, self.rotation_T, self.e_D, self.scale_D,
            self.starts_T1, *self.tables.law, self.tables.offsets_XC, self.tables.nats_RC, self.bit_T, self.code_T,
            self.integer_D, self.bits, 256, enable_fp_fusion=False,
        )  # fmt: skip
