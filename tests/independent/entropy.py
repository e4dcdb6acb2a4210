"""The stack of asymmetric numeral systems, rows of probabilities, and raw bits."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from .errors import require

PRECISION = 24
TOTAL = 1 << PRECISION
MAX_GAMMA_ZEROS = 40


def starts_of(k_RK: np.ndarray) -> np.ndarray:
    """Rows [R, K] to the starts of their symbols, and the end [R, K + 1]."""
    starts_RK = np.zeros((k_RK.shape[0], k_RK.shape[1] + 1), np.int64)
    np.cumsum(k_RK + 1, axis=1, out=starts_RK[:, 1:])
    assert (starts_RK[:, -1] == TOTAL).all()
    return starts_RK


def uniform_starts(symbols: int) -> list[int]:
    """A row of equal chances; the first symbols get what does not divide."""
    share, rest = divmod(TOTAL - symbols, symbols)
    k_K = np.full(symbols, share, np.int64)
    k_K[:rest] += 1
    return starts_of(k_K[None])[0].tolist()


def weighted_starts(weight_RK: np.ndarray) -> np.ndarray:
    """Rows of weights [R, K], int64 and each at most 2^36, to starts [R, K + 1]."""
    symbols = weight_RK.shape[1]
    sum_R = weight_RK.sum(axis=1)
    k_RK = weight_RK * (TOTAL - symbols) // np.maximum(sum_R, 1)[:, None]
    k_RK[sum_R == 0] = (TOTAL - symbols) // symbols
    # argmax finds the first of the largest; of a row of zeros that is symbol 0, as the law wants
    largest_R = weight_RK.argmax(axis=1)
    k_RK[np.arange(len(k_RK)), largest_R] += TOTAL - symbols - k_RK.sum(axis=1)
    return starts_of(k_RK)


class Stack:
    """Symbols come off the end of the coded bytes."""

    def __init__(self, coded: bytes) -> None:
        require(not coded.endswith(b"\0"), "stack ends in a zero byte")
        padded = coded + bytes(-len(coded) % 4)
        self.words = np.frombuffer(padded, "<u4").tolist()
        self.state = 0
        while self.words and self.state < 1 << 32:
            self.state = self.state << 32 | self.words.pop()

    def pop(self, starts: Sequence[int]) -> int:
        """One symbol by its row's starts [K + 1]."""
        low = self.state & (TOTAL - 1)
        symbol = bisect_right(starts, low) - 1
        start, end = starts[symbol], starts[symbol + 1]
        self.state = (self.state >> PRECISION) * (end - start) + low - start
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()
        return symbol

    def finish(self) -> None:
        """Nothing may be left."""
        require(not self.words and self.state == 0, "stack is not used up")


class Bits:
    """Raw bits, highest of a byte first."""

    def __init__(self, data: bytes) -> None:
        self.bits = np.unpackbits(np.frombuffer(data, np.uint8)).tolist()
        self.at = 0

    def take(self, count: int) -> list[int]:
        """The next bits."""
        require(count <= len(self.bits) - self.at, "bits are used up")
        self.at += count
        return self.bits[self.at - count : self.at]

    def number(self, count: int) -> int:
        """The next bits as a number, highest first."""
        value = 0
        for bit in self.take(count):
            value = value << 1 | bit
        return value

    def gamma(self) -> int:
        """A number of at least 1: as many zeros as it has bits after its first, then the number."""
        zeros = 0
        while not self.number(1):
            zeros += 1
            require(zeros < MAX_GAMMA_ZEROS, "gamma code is too long")
        return 1 << zeros | self.number(zeros)

    def finish(self) -> None:
        """Only the zero bits that fill the last byte may be left."""
        rest = self.bits[self.at :]
        require(len(rest) < 8 and not any(rest), "bits are not used up")
