"""Integers to entropy-coded symbols and back, and integers to samples: the compiled middle of the trellis coder.

Legend: N dimensions of a section, C scalar ones, D lattice ones, T steps (plan's order), S scale indices, Q offsets.
A symbol row is narrow (16) or wide (64); the last symbol is the escape, and a code of the distance beyond the row
follows among the bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recbatch.rec.kernels import jit
from recbatch.rec.tables import NARROW, WIDE

Bytes = NDArray[np.uint8]
Index = NDArray[np.int32]
Ints = NDArray[np.int64]
Floats32 = NDArray[np.float32]
Floats64 = NDArray[np.float64]

LIMIT = (1 << 31) - 1  # a sample fits int32


@jit
def quantise_scalars(
    target_N: Floats32,
    scale_N: Bytes,
    scalar_C: Index,
    nats_SA: Floats64,
    value_SA: Floats64,
    step_S: Floats64,
) -> Index:
    """The cheapest of nearest, next to zero and zero, for every scalar dimension; the only floats here, encoder's."""
    out = np.zeros(scalar_C.size, np.int32)
    last = value_SA.shape[1] - 1
    for j in range(scalar_C.size):
        k = scale_N[scalar_C[j]]
        e = np.float64(target_N[scalar_C[j]])
        size = abs(e)
        nearest = int(size / step_S[k] + 0.5)
        if nearest == 0:
            continue
        chosen, least = 0, 0.5 * size * size + nats_SA[k, 0]
        for n in range(max(1, nearest - 1), nearest + 1):
            if n <= last:
                z, cost = value_SA[k, n], nats_SA[k, n]
            else:
                z, cost = n * step_S[k], nats_SA[k, last + 1]
                beyond = 2 * (n - last - 1) + 2
                while beyond > 1:
                    cost += 2 * 0.6931471805599453
                    beyond >>= 1
            loss = 0.5 * (z - size) ** 2 + cost
            if loss < least:
                chosen, least = n, loss
        out[j] = chosen if e > 0 else -chosen
    return out


@jit
def row_numbers(
    scale_N: Bytes, scalar_C: Index, lattice_D: Index, starts_T1: Index, code_T: Bytes, columns: Bytes, first_row_S:
    Ints, wide_S: Ints, shift_S: Ints,
) -> tuple[Index, Index, Ints, Index]:  # fmt: skip
    """Rows of the narrow symbols (scalars first) and of the wide ones, the wide ones' low bits, each D's offset."""
    wides = 0
    for d in range(lattice_D.size):
        wides += wide_S[scale_N[lattice_D[d]]]
    narrow = np.empty(scalar_C.size + lattice_D.size - wides, np.int32)
    wide = np.empty(wides, np.int32)
    widths = np.empty(wides, np.int64)
    offset_D = np.empty(lattice_D.size, np.int32)
    for j in range(scalar_C.size):
        narrow[j] = first_row_S[scale_N[scalar_C[j]]]
    at_narrow, at_wide = scalar_C.size, 0
    for t in range(code_T.size):
        for d in range(starts_T1[t], starts_T1[t + 1]):
            k = scale_N[lattice_D[d]]
            q = np.int32(columns[d - starts_T1[t], code_T[t]])
            offset_D[d] = q
            if wide_S[k]:
                wide[at_wide] = first_row_S[k] + q
                widths[at_wide] = shift_S[k]
                at_wide += 1
            else:
                narrow[at_narrow] = first_row_S[k] + q
                at_narrow += 1
    return narrow, wide, widths, offset_D


@jit
def split_integers(
    integer_C: Index,
    integer_D: Index,
    scale_N: Bytes,
    lattice_D: Index,
    wide_S: Ints,
    shift_S: Ints,
    narrows: int,
) -> tuple[Index, Index, Ints, Ints]:
    """Integers to narrow symbols, wide symbols, low bits and escape values (narrow ones first)."""
    narrow = np.empty(narrows, np.int32)
    wide = np.empty(integer_C.size + integer_D.size - narrows, np.int32)
    low = np.empty(wide.size, np.int64)
    escapes = np.empty(integer_C.size + integer_D.size, np.int64)
    count = 0
    half = NARROW // 2 - 1
    for j in range(integer_C.size):
        narrow[j], escape = _symbol(integer_C[j], half)
        if escape:
            escapes[count] = escape
            count += 1
    at = integer_C.size
    for d in range(integer_D.size):
        if not wide_S[scale_N[lattice_D[d]]]:
            narrow[at], escape = _symbol(integer_D[d], half)
            at += 1
            if escape:
                escapes[count] = escape
                count += 1
    at, half = 0, WIDE // 2 - 1
    for d in range(integer_D.size):
        k = scale_N[lattice_D[d]]
        if wide_S[k]:
            low[at] = integer_D[d] & ((1 << shift_S[k]) - 1)
            wide[at], escape = _symbol(integer_D[d] >> shift_S[k], half)
            at += 1
            if escape:
                escapes[count] = escape
                count += 1
    return narrow, wide, low, escapes[:count].copy()


@jit
def _symbol(cell: int, half: int) -> tuple[int, int]:
    if -half <= cell <= half:
        return cell + half, 0
    return 2 * half + 1, 2 * (abs(cell) - half - 1) + (1 if cell < 0 else 0) + 1


@jit
def _cell(symbol: int, half: int, escape: int) -> int:
    if symbol <= 2 * half:
        return symbol - half
    size = ((escape - 1) >> 1) + half + 1
    return -size if (escape - 1) & 1 else size


@jit
def join_integers(
    narrow: Index, wide: Index, low: Ints, escapes: Ints, scale_N: Bytes, lattice_D: Index, scalars: int, wide_S: Ints,
    shift_S: Ints,
) -> tuple[Ints, Ints]:  # fmt: skip
    """Inverse of ``split_integers``."""
    integer_C = np.empty(scalars, np.int64)
    integer_D = np.empty(lattice_D.size, np.int64)
    used, half = 0, NARROW // 2 - 1
    escape = 0
    for j in range(scalars):
        if narrow[j] == NARROW - 1:
            escape = escapes[used]
            used += 1
        integer_C[j] = _cell(narrow[j], half, escape)
    at = scalars
    for d in range(lattice_D.size):
        if not wide_S[scale_N[lattice_D[d]]]:
            if narrow[at] == NARROW - 1:
                escape = escapes[used]
                used += 1
            integer_D[d] = _cell(narrow[at], half, escape)
            at += 1
    at, half = 0, WIDE // 2 - 1
    for d in range(lattice_D.size):
        k = scale_N[lattice_D[d]]
        if wide_S[k]:
            if wide[at] == WIDE - 1:
                escape = escapes[used]
                used += 1
            integer_D[d] = (_cell(wide[at], half, escape) << shift_S[k]) | low[at]
            at += 1
    return integer_C, integer_D


@jit
def samples(
    integer_C: Ints, integer_D: Ints, scale_N: Bytes, scalar_C: Index, lattice_D: Index, offset_D: Index, sign_D: Bytes,
    centroid_SA: Ints, delta_S: Ints, offsets_SQ: Ints,
) -> tuple[Index, bool]:  # fmt: skip
    """The law of the sample, in units of 1/UNIT of noise; False: a sample does not fit, so no encoder sent it."""
    out = np.zeros(scale_N.size, np.int32)
    for j in range(integer_C.size):
        k, i = scale_N[scalar_C[j]], integer_C[j]
        if abs(i) > LIMIT // delta_S[k]:
            return out, False
        value = centroid_SA[k, abs(i)] if abs(i) < centroid_SA.shape[1] else abs(i) * delta_S[k]
        out[scalar_C[j]] = value if i > 0 else -value
    for d in range(integer_D.size):
        k = scale_N[lattice_D[d]]
        if abs(integer_D[d]) > LIMIT // delta_S[k] - 1:
            return out, False
        value = offsets_SQ[k, offset_D[d]] + delta_S[k] * integer_D[d]
        out[lattice_D[d]] = -value if sign_D[d] else value
    return out, True
