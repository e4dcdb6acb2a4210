"""Steps, search and decoding of the fixed-rate trellis: its compiled part.

Legend: D dimensions of a block, T steps, S states, Q levels, G runs of 256 states.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recbatch.bench.coders.levels import Bytes, Floats, Index, Ints
from recbatch.rec.base import UNIT
from recbatch.rec.kernels import jit

Floats32 = NDArray[np.float32]


@jit
def make_steps(rate_D: Ints, factor: int, most: int) -> tuple[Ints, Ints]:
    """First dimensions [T + 1] and widths [T]: a step ends once at least one whole bit has come together.

    ``factor`` is in 1/65536; what is left of the last step's bits, or of a step wider than ``most``, is not sent.
    """
    starts = np.zeros(rate_D.size + 1, np.int64)
    width = np.zeros(rate_D.size, np.int64)
    steps, total, spent = 0, 0, 0
    for d in range(rate_D.size):
        total += rate_D[d] * factor
        bits = (total >> 24) - spent
        if bits > 0 or d == rate_D.size - 1:
            width[steps] = min(bits, most)
            spent += width[steps]
            steps += 1
            starts[steps] = d + 1
    return starts[: steps + 1].copy(), width[:steps].copy()


@jit
def _row(
    e_D: Floats, scale_D: Index, sign_D: Bytes, first: int, last: int, level_SQ: Index, column_CQ: Bytes,
    row_Q: Floats32,
) -> None:  # fmt: skip
    """Half the squared distance of each codeword from the targets of a step, twice in a row for rotations."""
    row_Q[:] = 0
    for d in range(first, last):
        column = (d - first) % column_CQ.shape[0]
        for q in range(256):
            z = level_SQ[scale_D[d], column_CQ[column, q]]
            miss = ((-z if sign_D[d] else z) - e_D[d]) / UNIT
            row_Q[q] += 0.5 * miss * miss
    least = row_Q[:256].min()
    for q in range(256):
        row_Q[q] -= least
        row_Q[q + 256] = row_Q[q]


@jit
def _forward(
    metric_S: Floats32, row_Q: Floats32, width: int, rotation: int, map_G: Bytes, bits: int, best_S: Floats32,
    decision_S: Bytes,
) -> None:  # fmt: skip
    """One step, in place; ``decision_S`` gets the bits that leave the state."""
    rest = 1 << (bits - width)
    for j in range(rest):
        best_S[j] = metric_S[j]
        decision_S[j] = 0
    for h in range(1, 1 << width):
        for j in range(rest):
            if metric_S[h * rest + j] < best_S[j]:
                best_S[j] = metric_S[h * rest + j]
                decision_S[j] = h
    least = best_S[:rest].min()
    for g in range(map_G.size):
        turn = (int(map_G[g]) + rotation) & 255
        for low in range(256):
            state = (g << 8) | low
            metric_S[state] = best_S[state >> width] - least + row_Q[low + turn]


@jit
def search_block(
    e_D: Floats, scale_D: Index, sign_D: Bytes, rotation_D: Bytes, starts_T1: Ints, width_T: Ints, map_G: Bytes,
    level_SQ: Index, column_CQ: Bytes, bits: int,
) -> Bytes:  # fmt: skip
    """The bits of the best path; closed on itself where the block has as many bits as a state. Targets in 1/UNIT."""
    steps, states = width_T.size, 1 << bits
    metric_S, best_S = np.zeros(states, np.float32), np.empty(states, np.float32)
    row_Q = np.empty(512, np.float32)
    decision_TS = np.empty((steps, states), np.uint8)
    closed = width_T.sum() >= bits
    end = 0
    if closed:  # once around the junction with every start open
        around = min(steps, 4 * bits)
        for turn in range(2 * around):
            t = steps - around + turn if turn < around else turn - around
            _row(e_D, scale_D, sign_D, starts_T1[t], starts_T1[t + 1], level_SQ, column_CQ, row_Q)
            rotation = int(rotation_D[starts_T1[t]])
            _forward(metric_S, row_Q, width_T[t], rotation, map_G, bits, best_S, decision_TS[t])
        state = int(metric_S.argmin())
        for t in range(around - 1, -1, -1):
            rest = state >> width_T[t]
            state = (int(decision_TS[t, rest]) << (bits - width_T[t])) | rest
        end = state
    metric_S[:] = 1e9
    metric_S[end] = 0
    for t in range(steps):
        _row(e_D, scale_D, sign_D, starts_T1[t], starts_T1[t + 1], level_SQ, column_CQ, row_Q)
        rotation = int(rotation_D[starts_T1[t]])
        _forward(metric_S, row_Q, width_T[t], rotation, map_G, bits, best_S, decision_TS[t])
    state = end if closed else int(metric_S.argmin())
    out = np.empty(width_T.sum(), np.uint8)
    at = out.size
    for t in range(steps - 1, -1, -1):
        for b in range(width_T[t]):
            at -= 1
            out[at] = (state >> b) & 1
        rest = state >> width_T[t]
        state = (int(decision_TS[t, rest]) << (bits - width_T[t])) | rest
    return out


@jit
def levels_of_bits(
    bit_K: Bytes, width_T: Ints, starts_T1: Ints, rotation_D: Bytes, map_G: Bytes, bits: int
) -> Ints:
    """The codeword of every step."""
    out = np.empty(width_T.size, np.int64)
    state = 0
    if bit_K.size >= bits:
        for b in range(bit_K.size - bits, bit_K.size):
            state = (state << 1) | bit_K[b]
    at = 0
    for t in range(width_T.size):
        for _ in range(width_T[t]):
            state = ((state << 1) | bit_K[at]) & ((1 << bits) - 1)
            at += 1
        out[t] = ((state & 255) + int(map_G[state >> 8]) + int(rotation_D[starts_T1[t]])) & 255
    return out
