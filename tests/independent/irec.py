"""Coder 2: iREC.

Shapes: D coded dimensions of a block, at most 1000.
"""

from math import isqrt

import numpy as np

from . import randomness as rnd
from .entropy import TOTAL, Stack, starts_of, uniform_starts
from .errors import require
from .tables import Tables

BLOCK = 1000
MAX_STEPS = 8192
NATS = 45426  # ln 2 in 1/65536
ESCAPE = 15
QUOTIENT_STARTS = starts_of(np.array([[(TOTAL >> min(j + 1, 15)) - 1 for j in range(16)]], np.int64))[
    0
].tolist()


def expected_steps(scale_D: np.ndarray, omega: int, tables: Tables) -> int:
    """The step count that a block's rate suggests."""
    unit = (omega << 24) // 16
    total = int(tables["rate"][scale_D].sum()) * NATS
    return min(max(-(-total // unit), 1), MAX_STEPS)


def steps_from(folded: int, expected: int) -> int:
    """A difference folded to an integer >= 0, unfolded and added."""
    return expected + folded // 2 if folded % 2 == 0 else expected - (folded + 1) // 2


class Decoder:
    """Decodes the parts of one payload, in order."""

    def __init__(self, parameters: bytes, payload: bytes, seed: int, tables: Tables) -> None:
        require(len(parameters) == 2 and min(parameters) >= 1, "coder parameters")
        self.omega, self.candidates = parameters[0], parameters[1] + 1
        self.seed, self.tables = seed, tables
        self.part = 0
        self.stack = Stack(payload)
        self.index_starts = uniform_starts(self.candidates)
        self.bits_allowed = 8 * len(payload) + 64
        self.steps_seen = 0

    def decode_part(self, scale_N: np.ndarray) -> np.ndarray:
        """Residuals [N] of the next part, int64."""
        part = self.part
        self.part += 1
        residual_N = np.zeros(len(scale_N), np.int64)
        coded = np.flatnonzero(scale_N > 0)
        blocks = [coded[first : first + BLOCK] for first in range(0, len(coded), BLOCK)]
        if not blocks:
            return residual_N
        counts = self.read_counts(
            [expected_steps(scale_N[block], self.omega, self.tables) for block in blocks]
        )
        paths = [[self.stack.pop(self.index_starts) for _ in range(count)] for count in counts]
        for number, (block, path) in enumerate(zip(blocks, paths, strict=True)):
            noise_D = replay(path, len(block), (self.seed, part), number, self.tables)
            sigma_D = self.tables["sigma"][scale_N[block]]
            residual_N[block] = (((noise_D + (1 << 14)) >> 15) * sigma_D + (1 << 29)) >> 30
        return residual_N

    def read_counts(self, expected: list[int]) -> list[int]:
        """Steps of each block, bounded by what the payload can hold."""
        pop = self.stack.pop
        rice = pop(uniform_starts(8))
        quotients = [pop(QUOTIENT_STARTS) for _ in expected]
        inner, remainder_starts = [quotient < ESCAPE for quotient in quotients], uniform_starts(1 << rice)
        remainders = [pop(remainder_starts) if short and rice > 0 else 0 for short in inner]
        highs = [0 if short else pop(uniform_starts(128)) for short in inner]
        lows = [0 if short else pop(uniform_starts(64)) for short in inner]
        counts = [
            steps_from(quotient << rice | remainder, mean) if short else high * 64 + low + 1
            for short, quotient, remainder, mean, high, low in zip(
                inner, quotients, remainders, expected, highs, lows, strict=True
            )
        ]
        require(all(1 <= count <= MAX_STEPS for count in counts), "step count")
        self.steps_seen += sum(counts)
        # first by bit length: so many steps that the exact power below would be a waste are refused at once
        require(
            self.steps_seen * (self.candidates.bit_length() - 1) <= self.bits_allowed, "more steps than bits"
        )
        require(self.candidates**self.steps_seen <= 1 << self.bits_allowed, "more steps than bits")
        return counts

    def finish(self) -> None:
        """The payload must be used up."""
        self.stack.finish()


def replay(path_T: list[int], size: int, key_of: tuple[int, int], block: int, tables: Tables) -> np.ndarray:
    """Noise of a block [D]: the sum of the steps that the indices chose; `key_of` is seed and part."""
    draws = rnd.word(rnd.make_key(*key_of, rnd.DRAWS), block)
    path = rnd.word(rnd.make_key(*key_of, rnd.PATHS), block)
    ratio, normal = tables["ratio"].tolist(), tables["normal"]
    dims_D = np.arange(size)
    sign_words = 1024 + np.arange((size + 63) // 64)
    left = 1 << 44
    noise_D = np.zeros(size, np.int64)
    for t, index in enumerate(path_T):
        taken = (left * ratio[len(path_T) - 1 - t]) >> 18
        left -= taken
        word_D = rnd.words(rnd.word(draws, t), 64 * dims_D + (index >> 2))
        u_D = (word_D >> np.uint64(16 * (index & 3) + 4)) & np.uint64(4095)
        sign_bytes = rnd.words(path, sign_words).astype("<u8").view(np.uint8)
        minus_D = np.unpackbits(sign_bytes, bitorder="little")[:size] == 1
        move_D = isqrt(taken) * normal[u_D.astype(np.int64)]
        noise_D += np.where(minus_D, -move_D, move_D)
        path = rnd.word(path, index)
    return noise_D
