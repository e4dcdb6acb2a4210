# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""Rows for the search on a GPU: candidate integers once per dimension, losses of 256 codewords where they are used.

Legend: T steps and D lattice dimensions of all sections one after another; S scale indices; X slots (a scale index
and a place in its group), narrow ones first; R rows of -ln P (a slot and a symbol), narrow ones first; 256 codewords
in their natural order.

The arithmetic is that of ``cpu.py``, operation for operation. Launch with ``enable_fp_fusion=False``: then nothing is
contracted, and rows equal the CPU's. ``prepare`` and ``choose`` treat each step by itself; ``make_rows`` runs inside
the search, ROWS steps at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from recbatch.rec.kernels.rows.cpu import place_of
from recbatch.rec.kernels.viterbi.cpu import Scores

LN2 = tl.constexpr(0.6931471805599453)
PER_NAT = tl.constexpr(64.0)
BARRIER = tl.constexpr(12500)  # cost that bars a path; see the search's CPU kernel


@triton.jit
def candidates(e, shrink, step):
    """Four integers worth a try, in the CPU's order; where it has fewer, one of them again."""
    low = tl.floor(shrink * e / step).to(tl.int32)
    high = tl.floor(e / step).to(tl.int32)
    far = (high > low + 1) | (high + 1 < low)
    beside = (high != low) & ~far
    zero = ((low > 0) | (low < -1)) & (low > -3) & (low < 3) & ~far
    third = tl.where(beside, tl.where(high > low, high + 1, high), tl.where(zero, 0, low))
    third = tl.where(far, high, third)
    fourth = tl.where(far, high + 1, tl.where(zero, 0, third))
    return low, low + 1, third, fourth


@triton.jit
def symbol_of(integer, shift, half):
    """The symbol of a lattice integer, and in float64 the nats of the code behind it."""
    cell = integer >> shift
    inside = (cell >= -half) & (cell <= half)
    beyond = tl.where(inside, 1, 2 * (tl.abs(cell) - half - 1) + (cell < 0).to(tl.int32) + 1)
    exponent = (beyond.to(tl.float64).to(tl.int64, bitcast=True) >> 52) - 1023  # floor(log2), exactly
    nats = tl.where(inside, 0.0, LN2 * (2 * exponent + 1).to(tl.float64))
    return tl.where(inside, cell + half, 2 * half + 1), nats


@triton.jit
def _law(scale, place, live, slot_S, columns_S, shift_S, half_S, step_S, shrink_S):
    """What belongs to a scale index and a place in a group: slot, shift, half, step and shrink."""
    slot = tl.load(slot_S + scale, live, 0) + tl.minimum(place, tl.load(columns_S + scale, live, 1) - 1)
    shift, half = tl.load(shift_S + scale, live, 0), tl.load(half_S + scale, live, 7)
    return slot, shift, half, tl.load(step_S + scale, live, 1.0), tl.load(shrink_S + scale, live, 0.0)


@triton.jit
def _row_of(slot, half, narrow):
    """First row of a slot: 16 rows for each narrow slot, then 64 for each wide one."""
    return tl.where(half == 7, slot * 16, narrow * 16 + (slot - narrow) * 64)


@triton.jit
def _put(at, n, integer, e, step, shift, half, first, live, rest_D4, extra_D4, row_D4):
    symbol, nats = symbol_of(integer, shift, half)
    rest = e - step * integer.to(tl.float64)  # in double: e may be far larger than the step
    tl.store(rest_D4 + at + n, rest.to(tl.float32), live)
    tl.store(extra_D4 + at + n, nats.to(tl.float32), live)
    tl.store(row_D4 + at + n, first + symbol, live)


@triton.jit(do_not_specialize=["steps"])
def prepare(
    e_D, scale_D, starts_T1, steps, slot_S, columns_S, shift_S, half_S, step_S, shrink_S, narrow,
    slot_D, rest_D4, extra_D4, row_D4, TILE: tl.constexpr,
):  # fmt: skip
    """Of every dimension its slot, and of its four candidates what is left of e, the nats and the row."""
    t = tl.program_id(0) * TILE + tl.arange(0, TILE)
    begin = tl.load(starts_T1 + t, t < steps, 0)
    end = tl.load(starts_T1 + t + 1, t < steps, 0)
    for place in range(0, tl.max(end - begin)):
        d = begin + place
        live = d < end
        scale = tl.load(scale_D + d, live, 0).to(tl.int32)
        slot, shift, half, step, shrink = _law(
            scale, place, live, slot_S, columns_S, shift_S, half_S, step_S, shrink_S
        )
        e = tl.load(e_D + d, live, 0.0).to(tl.float64)
        i0, i1, i2, i3 = candidates(e, shrink, step)
        first, at = _row_of(slot, half, narrow), d.to(tl.int64) * 4
        tl.store(slot_D + d, slot, live)
        _put(at, 0, i0, e, step, shift, half, first, live, rest_D4, extra_D4, row_D4)
        _put(at, 1, i1, e, step, shift, half, first, live, rest_D4, extra_D4, row_D4)
        _put(at, 2, i2, e, step, shift, half, first, live, rest_D4, extra_D4, row_D4)
        _put(at, 3, i3, e, step, shift, half, first, live, rest_D4, extra_D4, row_D4)


@triton.jit
def _loss(at, n, offset, code, live, rest_D4, extra_D4, row_D4, nats_RC):
    rest = tl.load(rest_D4 + at + n, live, 0.0)[:, None]
    extra = tl.load(extra_D4 + at + n, live, 0.0)[:, None]
    row = tl.load(row_D4 + at + n, live, 0)[:, None]
    r = offset - rest
    return r * r + (tl.load(nats_RC + row * 256 + code) + extra)


@triton.jit
def make_rows(
    t, real, left, start, starts_T1, rotation_T, slot_D, rest_D4, extra_D4, row_D4, offsets_XC, nats_RC, clip, words,
    BITS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Costs of steps ``t`` as 128 words each, at ``words``: an even codeword's below its odd neighbour's.

    Words are turned by the step's rotation, so the search reads them by the state alone. A step that is not ``real``
    comes ``left`` steps before the first real one. It costs nothing, or, where ``start`` is a state, bars all ways but
    the one to it.
    """
    code = tl.arange(0, 256)[None, :]
    begin = tl.load(starts_T1 + t, real, 0)
    end = tl.load(starts_T1 + t + 1, real, 0)
    total = tl.zeros((ROWS, 256), tl.float32)
    for place in range(0, tl.max(end - begin)):
        d = begin + place
        live = d < end
        at = d.to(tl.int64) * 4
        offset = tl.load(offsets_XC + tl.load(slot_D + d, live, 0)[:, None] * 256 + code)
        loss0 = _loss(at, 0, offset, code, live, rest_D4, extra_D4, row_D4, nats_RC)
        loss1 = _loss(at, 1, offset, code, live, rest_D4, extra_D4, row_D4, nats_RC)
        loss2 = _loss(at, 2, offset, code, live, rest_D4, extra_D4, row_D4, nats_RC)
        loss3 = _loss(at, 3, offset, code, live, rest_D4, extra_D4, row_D4, nats_RC)
        least = tl.minimum(tl.minimum(loss0, loss1), tl.minimum(loss2, loss3))
        total += tl.where(live[:, None], least, 0.0)
    units = (total * PER_NAT + 0.5).to(tl.int32)
    cost = tl.minimum(units - tl.min(units, axis=1)[:, None], clip)
    state = start >> tl.maximum(left - 1, 0)  # where the one open way leads
    wrong = ((code ^ (state ^ (state >> (BITS - 1)))[:, None]) & 1) * BARRIER
    cost = tl.where(real[:, None], cost, tl.where(start >= 0, wrong, 0))
    even, odd = tl.split(tl.reshape(cost, (ROWS, 128, 2)))
    turn = tl.load(rotation_T + t, real, 0).to(tl.int32) >> 1
    place = (tl.arange(0, 128)[None, :] - turn[:, None]) & 127
    tl.store(words + tl.arange(0, ROWS)[:, None] * 128 + place, even | (odd << 16))


@triton.jit
def _better(integer, chosen, least, offset, e, step, shift, half, first, code, live, nats_RC):
    symbol, escape = symbol_of(integer, shift, half)
    nats = tl.load(nats_RC + (first + symbol) * 256 + code, live, 0.0).to(tl.float64)
    r = offset + step * integer.to(tl.float64) - e
    loss = r * r + (nats + escape)
    return tl.where(loss < least, integer, chosen), tl.minimum(loss, least)


@triton.jit
def choose(
    t, real, code, e_D, scale_D, starts_T1, slot_S, columns_S, shift_S, half_S, step_S, shrink_S, narrow, offsets_XC,
    nats_RC, integer_D,
):  # fmt: skip
    """Integers of the dimensions of steps ``t``, given their codewords; in float64, the first of equals."""
    begin = tl.load(starts_T1 + t, real, 0)
    end = tl.load(starts_T1 + t + 1, real, 0)
    for place in range(0, tl.max(end - begin)):
        d = begin + place
        live = d < end
        scale = tl.load(scale_D + d, live, 0).to(tl.int32)
        slot, shift, half, step, shrink = _law(
            scale, place, live, slot_S, columns_S, shift_S, half_S, step_S, shrink_S
        )
        e = tl.load(e_D + d, live, 0.0).to(tl.float64)
        offset = tl.load(offsets_XC + slot * 256 + code, live, 0.0).to(tl.float64)
        first = _row_of(slot, half, narrow)
        i0, i1, i2, i3 = candidates(e, shrink, step)
        worst = tl.full(e.shape, 1e300, tl.float64)
        chosen, least = _better(i0, i0, worst, offset, e, step, shift, half, first, code, live, nats_RC)
        chosen, least = _better(i1, chosen, least, offset, e, step, shift, half, first, code, live, nats_RC)
        chosen, least = _better(i2, chosen, least, offset, e, step, shift, half, first, code, live, nats_RC)
        chosen, least = _better(i3, chosen, least, offset, e, step, shift, half, first, code, live, nats_RC)
        tl.store(integer_D + d, chosen, live)


@dataclass(frozen=True, slots=True, kw_only=True)
class TablesOn:
    """``Scores`` on a device: narrow and wide slots in one list, codewords in their natural order."""

    source: Scores  # kept, so that its id stays taken
    law: tuple[torch.Tensor | int, ...]  # slot_S to narrow, as the kernels take them
    offsets_XC: torch.Tensor
    nats_RC: torch.Tensor


_uploaded: dict[tuple[int, str], TablesOn] = {}


def put(array: NDArray[Any], device: str) -> torch.Tensor:
    """A copy on the device."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def tables_on(scores: Scores, device: str) -> TablesOn:
    """The tables on a device; the last few are kept there."""
    key = (id(scores.narrow_nats_XKC), device)
    if key not in _uploaded:
        if len(_uploaded) >= 4:
            _uploaded.clear()
        order = np.array([place_of(code) for code in range(256)])
        narrow = scores.narrow_offsets_XC.shape[0]
        symbols_S = np.array([scores.narrow_nats_XKC.shape[1], scores.wide_nats_XKC.shape[1]])[scores.wide_S]
        integers = (
            scores.slot_S + narrow * scores.wide_S,
            scores.columns_S,
            scores.shift_S,
            symbols_S // 2 - 1,
        )
        law = [put(array.astype(np.int32), device) for array in integers]
        law += [put(array.astype(np.float64), device) for array in (scores.step_S, scores.shrink_S)]
        offsets = np.concatenate([scores.narrow_offsets_XC, scores.wide_offsets_XC])
        nats = np.concatenate(
            [scores.narrow_nats_XKC.reshape(-1, 256), scores.wide_nats_XKC.reshape(-1, 256)]
        )
        _uploaded[key] = TablesOn(
            source=scores,
            law=(*law, narrow),
            offsets_XC=put(offsets[:, order], device),
            nats_RC=put(nats[:, order], device),
        )
    return _uploaded[key]
