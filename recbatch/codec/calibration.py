"""Calibration: a small shift of the scale indices of each latent channel, for one image.

A prior network is right on average over photographs, not for each of them: in one image a channel is twice as wide as
predicted, in the next half. The encoder sees by how much and says so, in steps of three scale indices (a factor of
1.085**3 in deviation), wherever that saves more bits than it costs. A shift changes nothing but the indices that the
coder gets: means stay, and a dimension that is not coded stays so.

Section layout (docs/format.md): one byte, the levels of zeros of pass 0 (low) and pass 1 (high); then one stack of
symbols ``shift + REACH``: those of pass 0 by channel, then those of pass 1, each by a row that the channel's shift in
pass 0 chooses.

Shapes: M channels, N dimensions of a section, K = 9 symbols, B bins of |e|, S scale indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptStream
from recbatch.rec import Tables, ans
from recbatch.rec.coders.score import observation_nats, shift_costs
from recbatch.rec.tables import normalise

STEP, REACH = 3, 4  # scale indices of a shift; the largest shift either way
SYMBOLS = 2 * REACH + 1
CHUNK = 1 << 20  # dimensions that are moved at once
SECTION_NATS = 56 * np.log(
    2
)  # what a section costs beside its symbols: two lengths, a byte, the stack's first word
# Everything from here to ``_rows`` is part of the format: weights of 2**16, found by counting shifts of photographs.
OTHER = (
    32768,
    24576,
    18432,
    13824,
    10368,
    7776,
    5832,
    4374,
    3280,
    2460,
    1845,
    1384,
    1038,
    778,
    584,
    438,
)  # not 0
SPLIT = (1507, 1769, 5898, 23594, 0, 23594, 5898, 1769, 1507)  # of those among -4 .. 4
FOLLOW = (  # pass 1 after a shift of 1 .. 4 in pass 0: weights of -4 .. 4; after a negative one, mirrored
    (16, 16, 66, 459, 44892, 17760, 2163, 131, 33),
    (33, 33, 98, 328, 31719, 19071, 11207, 2392, 655),
    (66, 66, 131, 197, 32506, 7340, 13304, 9044, 2882),
    (66, 66, 197, 459, 20972, 4063, 7667, 12059, 19987),
)

Shifts = NDArray[np.int8]


def _row(weights: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(normalise(weights[None])[0], np.float32)


@cache
def _zero_row(level: int) -> NDArray[np.float32]:
    """Row of a shift about whose channel nothing is known."""
    weights = np.array(SPLIT, np.int64) * OTHER[level] >> 16
    weights[REACH] = (1 << 16) - OTHER[level]
    return _row(weights)


@cache
def _rows(level: int) -> ans.Rows:
    """Rows of pass 1, float32 [K, K], by the symbol of pass 0."""
    after = [_row(np.array(weights, np.int64)) for weights in FOLLOW]
    mirrored = [_row(np.array(weights[::-1], np.int64)) for weights in reversed(FOLLOW)]
    return np.stack([*mirrored, _zero_row(level), *after])


@dataclass(frozen=True, slots=True)
class Calibration:
    """Shifts of both parities, in steps: int8 [2, M]."""

    shift_PM: Shifts

    @classmethod
    def none(cls, channels: int) -> Calibration:
        return cls(np.zeros((2, channels), np.int8))

    def of(self, channels: slice) -> Calibration:
        """The part that is about some channels; a view, so that what is set in it is set here."""
        return Calibration(self.shift_PM[:, channels])

    def apply(
        self, index_N: NDArray[np.uint8], channel_N: NDArray[np.int16], parity: int
    ) -> NDArray[np.uint8]:
        """Scale indices of a pass as the coder shall see them."""
        if not self.shift_PM[parity].any():
            return index_N
        step_M = np.int16(STEP) * self.shift_PM[parity]
        out_N = np.zeros_like(index_N)
        for first in range(0, index_N.size, CHUNK):
            some = slice(first, first + CHUNK)
            moved = np.clip(index_N[some] + step_M[channel_N[some]], 1, 150)
            np.copyto(out_N[some], moved, where=index_N[some] > 0, casting="unsafe")
        return out_N

    def pack(self) -> bytes:
        """The section's bytes; none where nothing is shifted."""
        if not self.shift_PM.any():
            return b""
        first_M, second_M = (self.shift_PM[p].astype(np.int32) + REACH for p in (0, 1))
        free = second_M[first_M == REACH]
        levels = [_best_level(first_M), _best_level(free)]
        stack = ans.Encoder()
        stack.push(second_M, first_M, _rows(levels[1]))
        stack.push(first_M, np.zeros_like(first_M), _zero_row(levels[0])[None])
        return bytes([levels[0] | levels[1] << 4]) + stack.finish()

    @classmethod
    def parse(cls, data: bytes, channels: int) -> Calibration:
        """Raises CorruptStream unless the section holds the shifts of so many channels, and not all zero."""
        if not data:
            return cls.none(channels)
        stack = ans.Decoder(data[1:], offset=1)
        first_M = stack.pop(np.zeros(channels, np.int32), _zero_row(data[0] & 15)[None])
        second_M = stack.pop(first_M, _rows(data[0] >> 4))
        stack.finish()
        found = cls((np.stack([first_M, second_M]) - REACH).astype(np.int8))
        if not found.shift_PM.any():
            raise CorruptStream("its calibration shifts nothing")
        return found


def _best_level(symbols: NDArray[np.int32]) -> int:
    """The level of zeros that codes these symbols in the fewest bits."""
    other = int((symbols != REACH).sum())
    share = np.array(OTHER) / 2**16
    return int(np.argmin(-other * np.log(share) - (symbols.size - other) * np.log(1 - share)))


def choose(
    e_N: NDArray[np.float32],
    index_N: NDArray[np.uint8],
    channel_N: NDArray[np.int16],
    tables: Tables,
    channels: int,
    before_M: Shifts | None = None,
) -> Shifts:
    """The shifts of one pass that save more bits than they cost: int8 [M]; ``before_M``: those of pass 0.

    The loss of a dimension at an index is what an ideal coder with the tables' prior would need for it, in nats:
    minus the logarithm of the prior's mean of exp(-(z - e)^2 / 2). Nothing is shifted where all shifts together do not
    pay for the section that would begin with them, nor where a target is no number: that is for the coder to refuse.
    """
    if not np.isfinite(e_N).all():
        return np.zeros(channels, np.int8)
    cost_MK = np.zeros((channels, SYMBOLS), np.float64)
    shift_costs(e_N, index_N, channel_N, observation_nats(tables), STEP, cost_MK)
    level = 10
    for _ in range(3):
        if before_M is None:
            rows_MK = np.broadcast_to(_zero_row(level), cost_MK.shape)
        else:
            rows_MK = _rows(level)[before_M.astype(np.int64) + REACH]
        price_MK = -np.log((rows_MK + 1) / 2.0**ans.PRECISION)
        symbol_M = (cost_MK + price_MK).argmin(1)
        level = _best_level(symbol_M if before_M is None else symbol_M[before_M == 0])
    loss_MK = cost_MK + price_MK
    gain = float((loss_MK[:, REACH] - loss_MK.min(1)).sum())
    begun = before_M is not None and bool(before_M.any())
    if not begun and gain < SECTION_NATS:
        return np.zeros(channels, np.int8)
    return np.asarray(symbol_M - REACH, np.int8)
