"""The calibration section: by how much the scale indices of each channel move.

Shapes: M latent channels, K symbols of a row.
"""

from collections.abc import Sequence

import numpy as np

from .entropy import Stack, weighted_starts
from .errors import require

SYMBOLS = 9
NONE = 4  # the symbol that stands for no shift
INDICES_PER_SHIFT, LAST_INDEX = 3, 150
SPLIT = (1507, 1769, 5898, 23594, 0, 23594, 5898, 1769, 1507)
OTHER = (32768, 24576, 18432, 13824, 10368, 7776, 5832, 4374, 3280, 2460, 1845, 1384, 1038, 778, 584, 438)
FOLLOW = (
    (16, 16, 66, 459, 44892, 17760, 2163, 131, 33),
    (33, 33, 98, 328, 31719, 19071, 11207, 2392, 655),
    (66, 66, 131, 197, 32506, 7340, 13304, 9044, 2882),
    (66, 66, 197, 459, 20972, 4063, 7667, 12059, 19987),
)


def starts_from(weight_K: Sequence[int]) -> list[int]:
    """A row of weights, made as coder 1 makes its rows."""
    return weighted_starts(np.array([weight_K], np.int64))[0].tolist()


def plain_starts(chance: int) -> list[int]:
    """Z: the row where nothing is known; `chance` says how likely it is that there is a shift."""
    weight_K = [(share * OTHER[chance]) >> 16 for share in SPLIT]
    weight_K[NONE] = (1 << 16) - OTHER[chance]
    return starts_from(weight_K)


def following_starts(first: int) -> list[int]:
    """F: the row for parity 1 of a channel whose shift for parity 0 is `first`, which is not 0."""
    weight_K = FOLLOW[abs(first) - 1]
    return starts_from(weight_K if first > 0 else weight_K[::-1])


def read_shifts(section: bytes | None, latent: int) -> np.ndarray:
    """Shifts by parity [2, M]; `section` is None where the stream has none."""
    if section is None:
        return np.zeros((2, latent), np.int64)
    require(len(section) > 0, "calibration: empty")
    chances, stack = section[0], Stack(section[1:])
    plain = plain_starts(chances & 15)
    first_M = [stack.pop(plain) - NONE for _ in range(latent)]
    rows = {shift: following_starts(shift) for shift in range(-NONE, NONE + 1) if shift}
    rows[0] = plain_starts(chances >> 4)
    second_M = [stack.pop(rows[first]) - NONE for first in first_M]
    stack.finish()
    shift_2M = np.array([first_M, second_M], np.int64)
    require(bool(shift_2M.any()), "calibration: shifts nothing")
    return shift_2M


def calibrated(index_MHW: np.ndarray, shift_M: np.ndarray) -> np.ndarray:
    """Scale indices [M, H, W] after their channels' shifts; what is not coded stays so."""
    moved_MHW = index_MHW + INDICES_PER_SHIFT * shift_M[:, None, None]
    return np.where(index_MHW > 0, np.clip(moved_MHW, 1, LAST_INDEX), 0)
