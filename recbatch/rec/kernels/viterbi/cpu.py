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
WORD = 16  # steps whose survivors share a word


class Scores(NamedTuple):
    """What the encoder weighs candidates by; floats, so none of it may reach a decoder."""

    slot_S: Ints  # an index's first slot among the narrow or the wide ones
    wide_S: Ints
    shift_S: Ints
    columns_S: Ints  # slots of the index, one per place in a group
    step_S: Floats64  # this and the offsets in the rows kernel's unit, as e_D
    shrink_S: Floats64  # sigma^2 / (1 + sigma^2)
    narrow_offsets_XC: Floats32
    narrow_nats_XKC: Floats32
    wide_offsets_XC: Floats32
    wide_nats_XKC: Floats32


@jit
def code_of(state: int, map_G: Bytes, rotation: int, bits: int) -> int:
    """Codeword of a state: its low byte, turned by an even number; the state's top bit swaps it within its pair."""
    turned: int = state + map_G[(state >> 8) & (map_G.size - 1)] + rotation
    return (turned & 255) ^ (state >> (bits - 1))


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
    if bit == 0:  # what stood there before is of no account
        for j in range(half):
            x, y = low[j], high[j]
            best[j] = y if y > x else x
            decision[j] = flag if y > x else none
    else:
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
def sweep(
    steps_N: Index, metric: Int16s, decisions: Uint16s, bits: int, e_D: Floats32, scale_D: Bytes, starts_T1: Index,
    map_G: Bytes, rotation_T: Bytes, scores: Scores,
) -> Int16s:  # fmt: skip
    """Metrics after these steps, from ``metric``, which is used up; fills in the survivors.

    Rows of WORD steps are made at a time: scores and metrics do not fit the first cache together.
    """
    # handing the tuple on for every step would take as long as a row itself
    (
        slot_S,
        wide_S,
        shift_S,
        columns_S,
        step_S,
        shrink_S,
        narrow_offsets,
        narrow_nats,
        wide_offsets,
        wide_nats,
    ) = scores
    clip = SPREAD // bits
    other, best = np.empty_like(metric), np.empty(metric.size >> 1, np.int16)
    rows = np.empty((WORD, 512), np.int16)
    total, units, tries = np.empty(256, np.float32), np.empty(256, np.int32), np.empty(CANDIDATES, np.int64)
    for begin in range(0, steps_N.size, WORD):
        count = min(WORD, steps_N.size - begin)
        for n in range(count):
            t = steps_N[begin + n]
            total[:] = np.float32(0)
            for d in range(starts_T1[t], starts_T1[t + 1]):
                k = scale_D[d]
                slot = slot_S[k] + min(d - starts_T1[t], columns_S[k] - 1)
                e = np.float64(e_D[d])
                if wide_S[k]:
                    add_losses(
                        e, shrink_S[k], step_S[k], shift_S[k], slot, wide_offsets, wide_nats, tries, total
                    )
                else:
                    add_losses(
                        e, shrink_S[k], step_S[k], shift_S[k], slot, narrow_offsets, narrow_nats, tries, total
                    )
            finish_row(total, clip, units, rows[n])
        for n in range(count):
            rotation = rotation_T[steps_N[begin + n]]
            advance(metric, best, other, decisions[begin // WORD], n, rows[n], map_G, rotation)
            metric, other = other, metric
            if n % BARRIER_STEPS == BARRIER_STEPS - 1:
                renormalise(metric)
    return metric


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
    metric = np.empty(1 << bits, np.int16)
    start, end = 0, -1
    if steps >= bits:
        around = min(steps // 2, 4 * bits)
        order_N = np.empty(2 * around, np.int32)
        for n in range(around):
            order_N[n], order_N[around + n] = last - around + n, first + n
        decisions = np.empty(((2 * around + WORD - 1) // WORD, metric.size >> 1), np.uint16)
        metric[:] = 0
        metric = sweep(order_N, metric, decisions, bits, e_D, scale_D, starts_T1, map_G, rotation_T, scores)
        junction = np.empty(2 * around, np.int32)
        trace(decisions, 2 * around, np.argmax(metric), bits, junction)
        start = end = int(junction[around - 1])
    order_N = np.arange(first, last).astype(np.int32)
    decisions = np.empty(((steps + WORD - 1) // WORD, metric.size >> 1), np.uint16)
    metric[:] = BARRED
    metric[start] = 0
    metric = sweep(order_N, metric, decisions, bits, e_D, scale_D, starts_T1, map_G, rotation_T, scores)
    if end < 0:
        end = int(np.argmax(metric))
    states = np.empty(max(steps, 1), np.int32)
    if trace(decisions, steps, end, bits, states) != start:
        return False
    (
        slot_S,
        wide_S,
        shift_S,
        columns_S,
        step_S,
        shrink_S,
        narrow_offsets,
        narrow_nats,
        wide_offsets,
        wide_nats,
    ) = scores
    tries = np.empty(CANDIDATES, np.int64)
    for n in range(steps):
        t = first + n
        s = states[n]
        c = code_of(s, map_G, rotation_T[t], bits)
        bit_T[t], code_T[t] = s & 1, c
        place, begin = place_of(c), starts_T1[t]
        for d in range(begin, starts_T1[t + 1]):
            k = scale_D[d]
            slot = slot_S[k] + min(d - begin, columns_S[k] - 1)
            e = np.float64(e_D[d])
            if wide_S[k]:
                offset, nats = wide_offsets[slot, place], wide_nats[slot]
            else:
                offset, nats = narrow_offsets[slot, place], narrow_nats[slot]
            integer_D[d] = choose(
                e, shrink_S[k], step_S[k], shift_S[k], np.float64(offset), nats, place, tries
            )
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
