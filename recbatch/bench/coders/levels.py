"""Quantiser levels to symbols and back, and the integer rows that symbols are coded by.

A level is a signed integer. Its low ``shift`` bits (wide priors only) travel raw; the rest, the cell, is a symbol:
-HALF..HALF, or one of two escapes that tell whether |cell| is even or odd, with a code of the distance beyond among
the bits. Two, because trellis-coded quantisation must know the parity before it reads that code.

Legend: N levels, C rows, K symbols of a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptStream
from recbatch.rec import ans, bits
from recbatch.rec.kernels import jit

HALF = 63
SYMBOLS = 2 * HALF + 3
EVEN, ODD = 2 * HALF + 1, 2 * HALF + 2  # the escapes
FARTHEST_LEVEL = 1 << 26  # no target asks for more, at any step

Index = NDArray[np.int32]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]


def integer_rows(mass_CK: Floats) -> ans.Rows:
    """Rows of ``rec.ans`` from masses in any unit: floors, the rest to the largest."""
    room = ans.TOTAL - mass_CK.shape[1]
    share_CK = np.maximum(mass_CK, 0) + 1e-300
    out = np.floor(share_CK / share_CK.sum(1, keepdims=True) * room * (1 - 1e-12))
    out[np.arange(out.shape[0]), out.argmax(1)] += room - out.sum(1)
    rows_CK: ans.Rows = out.astype(np.float32)
    return rows_CK


def write_levels(level_N: Ints, shift_N: Ints) -> tuple[Index, Bytes]:
    """Symbols, and as bits the low parts followed by what is behind the escapes."""
    symbol_N, low_N, escapes = _split(level_N, shift_N)
    return symbol_N, np.concatenate([bits.fixed(low_N, shift_N), bits.gammas(escapes)])


def read_low(source: bits.BitReader, shift_N: Ints) -> Ints:
    """The low parts; they stand before any escape's code."""
    return bits.parse_fixed(source.take(int(shift_N.sum())), shift_N)


def join_levels(symbol_N: Index, low_N: Ints, shift_N: Ints, source: bits.BitReader) -> Ints:
    """Levels from symbols and low parts; takes the escapes' codes. Raises CorruptStream."""
    escapes = source.take_gammas(int((symbol_N > 2 * HALF).sum()))
    level_N, fits = _join(symbol_N, low_N, shift_N, escapes)
    if not fits:
        raise CorruptStream("a quantiser's level is out of range")
    return level_N


@jit
def symbol_of(cell: int) -> int:
    """The symbol of a cell."""
    if -HALF <= cell <= HALF:
        return cell + HALF
    return EVEN + (abs(cell) & 1)


@jit
def level_bits(bits_K: Floats, level: int, shift: int) -> float:
    """What a level costs under one row, all included."""
    cell = level >> shift
    cost = bits_K[symbol_of(cell)] + shift
    if abs(cell) > HALF:
        code = 2 * ((abs(cell) - HALF - 1) >> 1) + 2
        while code > 1:
            cost += 2.0
            code >>= 1
        cost += 1.0
    return float(cost)


@jit
def _split(level_N: Ints, shift_N: Ints) -> tuple[Index, Ints, Ints]:
    symbol_N = np.empty(level_N.size, np.int32)
    low_N = np.empty(level_N.size, np.int64)
    escapes = np.empty(level_N.size, np.int64)
    count = 0
    for n in range(level_N.size):
        cell = level_N[n] >> shift_N[n]
        low_N[n] = level_N[n] & ((1 << shift_N[n]) - 1)
        symbol_N[n] = symbol_of(cell)
        if symbol_N[n] > 2 * HALF:
            escapes[count] = 2 * ((abs(cell) - HALF - 1) >> 1) + (1 if cell < 0 else 0) + 1
            count += 1
    return symbol_N, low_N, escapes[:count].copy()


@jit
def _join(symbol_N: Index, low_N: Ints, shift_N: Ints, escapes: Ints) -> tuple[Ints, bool]:
    level_N = np.empty(symbol_N.size, np.int64)
    used = 0
    for n in range(symbol_N.size):
        cell = np.int64(symbol_N[n]) - HALF
        if symbol_N[n] > 2 * HALF:
            cell = 2 * ((escapes[used] - 1) >> 1) + HALF + 1 + (symbol_N[n] - EVEN)
            if (escapes[used] - 1) & 1:
                cell = -cell
            used += 1
        if abs(cell) > FARTHEST_LEVEL >> shift_N[n]:
            return level_N, False
        level_N[n] = (cell << shift_N[n]) | low_N[n]
    return level_N, True
