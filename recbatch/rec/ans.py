"""Entropy coding by exact integer rows: constriction's asymmetric numeral systems, and nothing float about it.

A row is K integers k_j >= 0 with sum 2**24 - K; symbol j then has probability (k_j + 1) / 2**24, exactly. constriction
takes rows as float32, which holds every integer up to 2**24, so its words are those of an integer coder with 64-bit
state, 32-bit words and 24-bit weights (tests/rec/test_ans.py has such a coder to compare). No symbol is impossible.

It is a stack: the last symbol in is the first out, so encoders write calls, and symbols, backwards.
"""

from __future__ import annotations

import constriction
import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptStream

PRECISION = 24  # bits of a probability
TOTAL = 1 << PRECISION
CHUNK = 1 << 15  # symbols a call: bounds the memory of gathered rows; leaves no trace in the words

Symbols = NDArray[np.int32]  # [N] < K
Rows = NDArray[np.float32]  # [classes, K] integers, a row's sum is 2**24 - K
RowNumbers = NDArray[np.int32]  # [N] which row each symbol uses

_MODEL = constriction.stream.model.Categorical(perfect=False)


class Encoder:
    """Collects symbols; give them in the reverse of the decoder's order."""

    def __init__(self) -> None:
        self._stack = constriction.stream.stack.AnsCoder()

    def push(self, symbols_N: Symbols, numbers_N: RowNumbers, rows_CK: Rows) -> None:
        """Put a run of symbols on the stack; the decoder will get this run forwards."""
        for end in range(symbols_N.size, 0, -CHUNK):
            run = slice(max(0, end - CHUNK), end)
            self._stack.encode_reverse(symbols_N[run], _MODEL, rows_CK[numbers_N[run]])

    def finish(self) -> bytes:
        """Little-endian words, the zero bytes that end the last one left out."""
        words = np.asarray(self._stack.get_compressed(), np.uint32)
        return words.astype("<u4").tobytes().rstrip(b"\0")


class Decoder:
    """Takes symbols off the stack, in forward order."""

    def __init__(self, data: bytes, *, offset: int = 0) -> None:
        if data.endswith(b"\0"):
            raise CorruptStream("the entropy-coded part ends in a zero byte", offset + len(data) - 1)
        words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)
        self._stack = (
            constriction.stream.stack.AnsCoder(words) if words.size else constriction.stream.stack.AnsCoder()
        )
        self._offset = offset

    def pop(self, numbers_N: RowNumbers, rows_CK: Rows) -> Symbols:
        """The next symbols; any bytes give some symbols, ``finish`` tells whether they were the right bytes."""
        symbols = np.empty(numbers_N.size, np.int32)
        for start in range(0, numbers_N.size, CHUNK):
            run = slice(start, start + CHUNK)
            symbols[run] = self._stack.decode(_MODEL, rows_CK[numbers_N[run]])
        return symbols

    def finish(self) -> None:
        """Raises CorruptStream unless every word was used up."""
        if not self._stack.is_empty():
            raise CorruptStream("the entropy-coded part does not end with its last symbol", self._offset)
