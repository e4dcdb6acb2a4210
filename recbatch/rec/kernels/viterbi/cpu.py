"""The search at speed: int16 metrics, decisions packed sixteen steps to a word, rows made as they are needed.

Legend: T steps, D lattice dimensions, H = 2**(L - 1), S scale indices, X slots (a scale index and a column).

Metrics stay in range without saturation: a row lies in [-clip, 0], any state is at most L steps from any other, so
metrics differ by at most L * clip once L steps are done (12 000), start at 0 or -12 500, and are brought back to a
maximum of 0 every eighth step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbatch.rec.kernels import jit
from recbatch.rec.kernels.rows.cpu import CANDIDATES, add_losses, choose, finish_row, place_of

Int16s = NDArray[np.int16]
Uint16s = NDArray[np.uint16]
Bytes = NDArray[np.uint8]
Floats32 = NDArray[np.float32]
Floats64 = NDArray[np.float64]
Index = NDArray[np.int32]
Ints = NDArray[np.int64]

SPREAD = 12000  # most that two metrics differ
BARRED = np.int16(-12500)  # metric of a state that the path can't start from
BARRIER_STEPS = 8  # steps between renormalisations


class Scores(NamedTuple):
    """What the encoder weighs candidates by; floats, so none of it may reach a decoder."""

    slot_S: Ints  # an index's first slot among the narrow or the wide ones
    wide_S: Ints
    shift_S: Ints
    columns_S: Ints  # slots of the index, one per place in a group
    step_S: Floats64  # units of noise
    shrink_S: Floats64  # sigma^2 / (1 + sigma^2)
    narrow_offsets_XC: Floats32
    narrow_nats_XKC: Floats32
    wide_offsets_XC: Floats32
    wide_nats_XKC: Floats32


class Work(NamedTuple):
    """One thread's scratch memory."""

    metric: Int16s
    other: Int16s
    best: Int16s
    row: Int16s
    total: Floats32
    units: Index
    tries: Ints


@jit
def code_of(state: int, map_G: Bytes, rotation: int, bits: int) -> int:
    """Codeword of a state: its low byte, turned by an even number; the state's top bit swaps it within its pair."""
    turned: int = state + map_G[(state >> 8) & (map_G.size - 1)] + rotation
    return (turned & 255) ^ (state >> (bits - 1))


@jit
def make_work(bits: int) -> Work:
    """Scratch for a trellis of 2**bits states."""
    states = 1 << bits
    return Work(
        np.empty(states, np.int16),
        np.empty(states, np.int16),
        np.empty(states >> 1, np.int16),
        np.empty(512, np.int16),
        np.empty(256, np.float32),
        np.empty(256, np.int32),
        np.empty(CANDIDATES, np.int64),
    )


@jit
def advance(
    metric: Int16s,
    best: Int16s,
    other: Int16s,
    decision: Uint16s,
    bit: int,
    row: Int16s,
    map_G: Bytes,
    rotation: int,
) -> None:
    """One step: ``other`` gets the metrics after it, bit number ``bit`` of ``decision`` the survivors.

    A run of 256 states reads, turned, the even codewords for its even states and the odd ones for its odd states, or,
    where the state's top bit is set, the other way round.
    """
    half = best.size
    flag, none = np.uint16(1 << bit), np.uint16(0)
    low, high = metric[:half], metric[half:]
    for j in range(half):
        x, y = low[j], high[j]
        best[j] = y if y > x else x
        decision[j] |= flag if y > x else none
    for run in range(2 * map_G.size):
        swapped = run >= map_G.size
        at = ((map_G[run - map_G.size if swapped else run] + rotation) & 255) >> 1
        even = row[at + 256 : at + 384] if swapped else row[at : at + 128]
        odd = row[at : at + 128] if swapped else row[at + 256 : at + 384]
        source = best[run * 128 : run * 128 + 128]
        target = other[run * 256 : run * 256 + 256]
        for i in range(128):
            target[2 * i] = source[i] + even[i]
            target[2 * i + 1] = source[i] + odd[i]


@jit
def renormalise(metric: Int16s) -> None:
    """Subtract the maximum."""
    top = metric[0]
    for j in range(metric.size):
        top = metric[j] if metric[j] > top else top
    for j in range(metric.size):
        metric[j] -= top


@jit
def make_row(
    e_D: Floats32, scale_D: Bytes, begin: int, end: int, scores: Scores, clip: int, work: Work
) -> None:
    """The row of the step that covers dimensions ``begin`` to ``end``, into ``work.row``."""
    work.total[:] = np.float32(0)
    for d in range(begin, end):
        k = scale_D[d]
        slot = scores.slot_S[k] + min(d - begin, scores.columns_S[k] - 1)
        if scores.wide_S[k]:
            add_losses(
                np.float64(e_D[d]), scores.shrink_S[k], scores.step_S[k], scores.shift_S[k],
                scores.wide_offsets_XC[slot], scores.wide_nats_XKC[slot], work.tries, work.total,
            )  # fmt: skip
        else:
            add_losses(
                np.float64(e_D[d]), scores.shrink_S[k], scores.step_S[k], scores.shift_S[k],
                scores.narrow_offsets_XC[slot], scores.narrow_nats_XKC[slot], work.tries, work.total,
            )  # fmt: skip
    finish_row(work.total, clip, work.units, work.row)


@jit
def trace(decisions: Uint16s, steps: int, end: int | np.integer[Any], bits: int, states: Index) -> int:
    """Follow the survivors back from state ``end``; fills in the states, returns the one before the first step."""
    high = 1 << (bits - 1)
    s: Any = end
    for t in range(steps - 1, -1, -1):
        states[t] = s
        s = s >> 1
        if (decisions[t >> 4, s] >> np.uint16(t & 15)) & 1:
            s |= high
    return int(s)


@jit
def search_block(
    e_D: Floats32, scale_D: Bytes, starts_T1: Index, first: int, last: int, map_G: Bytes, rotation_T: Bytes, bits: int,
    scores: Scores, bit_T: Bytes, code_T: Bytes, integer_D: Index,
) -> bool:  # fmt: skip
    """Search steps ``first`` to ``last`` as one block; writes their bits, codewords and lattice integers.

    A block of at least L steps bites its tail: it starts in the state its own last L bits spell. That state is found
    by a search over the junction. A shorter block starts in state 0. False: the path did not come out where it must
    (never expected).
    """
    steps = last - first
    clip = SPREAD // bits
    work = make_work(bits)
    metric, other = work.metric, work.other
    states = np.empty(max(steps, 1), np.int32)
    start, end = 0, -1
    if steps >= bits:
        around = min(steps // 2, 4 * bits)
        decisions = np.zeros(((2 * around + 15) >> 4, work.best.size), np.uint16)
        metric[:] = 0
        for n in range(2 * around):
            t = last - around + n if n < around else first + n - around
            make_row(e_D, scale_D, starts_T1[t], starts_T1[t + 1], scores, clip, work)
            advance(metric, work.best, other, decisions[n >> 4], n & 15, work.row, map_G, rotation_T[t])
            metric, other = other, metric
            if n % BARRIER_STEPS == BARRIER_STEPS - 1:
                renormalise(metric)
        junction = np.empty(2 * around, np.int32)
        trace(decisions, 2 * around, np.argmax(metric), bits, junction)
        start = end = int(junction[around - 1])
    decisions = np.zeros(((steps + 15) >> 4, work.best.size), np.uint16)
    metric[:] = BARRED
    metric[start] = 0
    for n in range(steps):
        t = first + n
        make_row(e_D, scale_D, starts_T1[t], starts_T1[t + 1], scores, clip, work)
        advance(metric, work.best, other, decisions[n >> 4], n & 15, work.row, map_G, rotation_T[t])
        metric, other = other, metric
        if n % BARRIER_STEPS == BARRIER_STEPS - 1:
            renormalise(metric)
    if end < 0:
        end = int(np.argmax(metric))
    if trace(decisions, steps, end, bits, states) != start:
        return False
    for n in range(steps):
        t = first + n
        s = states[n]
        c = code_of(s, map_G, rotation_T[t], bits)
        bit_T[t], code_T[t] = s & 1, c
        place, begin = place_of(c), starts_T1[t]
        for d in range(begin, starts_T1[t + 1]):
            k = scale_D[d]
            slot = scores.slot_S[k] + min(d - begin, scores.columns_S[k] - 1)
            e, shrink, step, shift = (
                np.float64(e_D[d]),
                scores.shrink_S[k],
                scores.step_S[k],
                scores.shift_S[k],
            )
            if scores.wide_S[k]:
                offset, nats = scores.wide_offsets_XC[slot, place], scores.wide_nats_XKC[slot]
            else:
                offset, nats = scores.narrow_offsets_XC[slot, place], scores.narrow_nats_XKC[slot]
            integer_D[d] = choose(e, shrink, step, shift, np.float64(offset), nats, place, work.tries)
    return True


@jit
def codes_of_bits(
    bit_T: Bytes, first: int, last: int, map_G: Bytes, rotation_T: Bytes, bits: int, code_T: Bytes
) -> None:
    """A decoder's view of a block: its codewords, from its bits alone."""
    mask = (1 << bits) - 1
    s = 0
    if last - first >= bits:
        for t in range(last - bits, last):
            s = (s << 1) | bit_T[t]
    for t in range(first, last):
        s = ((s << 1) | bit_T[t]) & mask
        code_T[t] = code_of(s, map_G, rotation_T[t], bits)
