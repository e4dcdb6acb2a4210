"""Symbols of a lossless stream: tuning, their law from raw values and a base, and the range coder of a lane.

Shapes: R x W symbols of a block's lane.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import require

UNITS = 1 << 24
TUNED = 18  # gains of the nine raw values, then biases
BIAS_UNITS = (8, 8, 8, 1, 1, 1, 4, 4, 4)
LIMIT = 12 << 24  # of what enters the logistic function
FORM = {"sigmoid": 1537, "inverse": 256, "weight": 1537}


@dataclass(frozen=True)
class Law:
    """The integer tables."""

    sigmoid: list[int]
    inverse: list[int]
    weight: list[int]

    def __post_init__(self) -> None:
        assert {name: len(getattr(self, name)) for name in FORM} == FORM
        assert all(0 <= a <= b <= UNITS for a, b in zip(self.sigmoid, self.sigmoid[1:], strict=False))
        assert min(self.inverse) > 0
        assert min(self.weight) >= 0
        assert 0 < self.weight[0] <= 1 << 16


def tuned(raw_9RW: np.ndarray, numbers_18: np.ndarray) -> np.ndarray:
    """Raw values as a plane's tuning changes them; zeros change nothing."""
    gain_9, bias_9 = numbers_18[:9] + 64, numbers_18[9:] * BIAS_UNITS
    return ((raw_9RW * gain_9[:, None, None] + 32) >> 6) + bias_9[:, None, None]


class Mixture:
    """The law of one symbol."""

    def __init__(self, raw: Sequence[int], base: int, bounds: tuple[int, int], law: Law) -> None:
        self.low, self.high = bounds
        self.sigmoid = law.sigmoid
        largest = max(raw[:3])
        e = [law.weight[min(largest - r, 1536)] for r in raw[:3]]
        shares = [(value << 16) // sum(e) for value in e]
        shares[list(raw[:3]).index(largest)] += (1 << 16) - sum(shares)
        places = [min(max(((r + 2) >> 2) + 128, 0), 255) for r in raw[6:]]
        means = [base + r for r in raw[3:6]]
        self.parts = [
            (mean, law.inverse[place], share)
            for mean, place, share in zip(means, places, shares, strict=True)
        ]

    def below(self, value: int) -> int:
        """Units below a value."""
        if value <= self.low:
            return 0
        if value > self.high:
            return UNITS
        total = 0
        for mean, inverse, share in self.parts:
            t = min(max((16 * value - 8 - mean) * inverse, -LIMIT), LIMIT - 1) + LIMIT
            i, part = t >> 18, (t >> 8) & 1023
            start = self.sigmoid[i]
            total += (start + (((self.sigmoid[i + 1] - start) * part + 512) >> 10)) * share
        return value - self.low + (((total >> 16) * (UNITS - (self.high - self.low + 1))) >> 24)


class Lane:
    """A range decoder."""

    def __init__(self, coded: bytes) -> None:
        require(not coded.endswith(b"\0"), "lane ends in a zero byte")
        self.words = np.frombuffer(coded + bytes(-len(coded) % 4), ">u4").tolist()
        self.at = 0
        self.rest = self.next_word() << 32 | self.next_word()
        self.span = 2**64 - 1

    def next_word(self) -> int:
        """The next word; zero after the end."""
        self.at += 1
        return self.words[self.at - 1] if self.at <= len(self.words) else 0

    def take(self, mixture: Mixture) -> int:
        """One symbol."""
        unit = self.span >> 24
        u = self.rest // unit
        require(u < UNITS, "lane holds what no writer makes")
        low, high = mixture.low, mixture.high + 1
        while high - low > 1:
            middle = (low + high) >> 1
            if mixture.below(middle) <= u:
                low = middle
            else:
                high = middle
        start, end = mixture.below(low), mixture.below(low + 1)
        self.rest -= unit * start
        self.span = unit * (end - start)
        if self.span < 1 << 32:
            self.rest = self.rest << 32 | self.next_word()
            self.span <<= 32
        return low

    def finish(self) -> None:
        """Every word must have been taken."""
        require(self.at >= len(self.words), "lane is not used up")


def read_block(
    lanes: Sequence[Lane], raw_9RW: np.ndarray, base_RW: np.ndarray, bounds: tuple[int, int], law: Law
) -> np.ndarray:
    """The values [R, W] of a block, each lane its rows."""
    rows, columns = base_RW.shape
    raw_RW9, bases = raw_9RW.transpose(1, 2, 0).tolist(), base_RW.tolist()
    value_RW = np.zeros((rows, columns), np.int64)
    for n, lane in enumerate(lanes):
        for i in range(rows * n // len(lanes), rows * (n + 1) // len(lanes)):
            for j in range(columns):
                value_RW[i, j] = lane.take(Mixture(raw_RW9[i][j], bases[i][j], bounds, law))
    return value_RW
