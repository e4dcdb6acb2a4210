"""The decoder's side of ``rec.ans`` in plain integers, for tables that depend on what was just decoded.

``rec.ans.Encoder`` writes the words; this takes them apart by the same law (64-bit state, 32-bit words, 24-bit
weights), one symbol at a time, so that compiled loops can choose the next row by the last symbol. Trellis-coded
quantisation needs that; the other baselines use it too, since one reader is easier to trust than two.

Legend: N symbols, C rows, K symbols of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptStream
from recbatch.rec.ans import PRECISION, TOTAL, Rows
from recbatch.rec.kernels import jit

Words = NDArray[np.uint32]
State = NDArray[np.uint64]  # [2]: the coder's state, words not yet taken
Index = NDArray[np.int32]
Starts = NDArray[np.uint32]  # [C, K + 1] weights before each symbol

_MASK = np.uint64(TOTAL - 1)
_SHIFT = np.uint64(PRECISION)
_WORD = np.uint64(32)
_LEAST = np.uint64(1 << 32)


@dataclass(frozen=True, eq=False)
class Book:
    """Rows of probabilities as both sides want them."""

    rows: Rows  # float32 [C, K], integers; a row's sum is 2**24 - K

    @cached_property
    def starts(self) -> Starts:
        classes, symbols = self.rows.shape
        out = np.zeros((classes, symbols + 1), np.int64)
        np.cumsum(self.rows.astype(np.int64) + 1, axis=1, out=out[:, 1:])
        return out.astype(np.uint32)

    @cached_property
    def bits(self) -> NDArray[np.float64]:
        """Length of every symbol, what an encoder weighs by."""
        return np.asarray(PRECISION - np.log2(self.rows.astype(np.float64) + 1))


class Stack:
    """Takes symbols off the words of ``rec.ans.Encoder``, in forward order."""

    def __init__(self, data: bytes, *, offset: int = 0) -> None:
        if data.endswith(b"\0"):
            raise CorruptStream("the entropy-coded part ends in a zero byte", offset + len(data) - 1)
        self.words: Words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)
        self.state: State = np.array([0, self.words.size], np.uint64)
        self._offset = offset
        _refill(self.words, self.state)
        _refill(self.words, self.state)

    def pop(self, numbers_N: Index, book: Book) -> Index:
        """The next symbols; any bytes give some, ``finish`` tells whether they were the right ones."""
        return _pop_all(self.words, self.state, np.ascontiguousarray(numbers_N, np.int32), book.starts)

    def finish(self) -> None:
        """Raises CorruptStream unless every word was used up."""
        if self.state.any():
            raise CorruptStream("the entropy-coded part does not end with its last symbol", self._offset)


@jit
def _refill(words: Words, state: State) -> None:
    if state[0] < _LEAST and state[1] > 0:
        state[1] -= np.uint64(1)
        state[0] = (state[0] << _WORD) | np.uint64(words[np.int64(state[1])])


@jit
def pop(words: Words, state: State, starts_K1: NDArray[np.uint32]) -> int:
    """One symbol by this row."""
    place = np.uint32(state[0] & _MASK)
    low, high = 0, starts_K1.size - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if starts_K1[middle] <= place:
            low = middle
        else:
            high = middle
    size = np.uint64(starts_K1[low + 1] - starts_K1[low])
    state[0] = size * (state[0] >> _SHIFT) + np.uint64(place - starts_K1[low])
    _refill(words, state)
    return low


@jit
def _pop_all(words: Words, state: State, numbers_N: Index, starts_CK: Starts) -> Index:
    out = np.empty(numbers_N.size, np.int32)
    for n in range(numbers_N.size):
        out[n] = pop(words, state, starts_CK[numbers_N[n]])
    return out
