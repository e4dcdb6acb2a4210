"""Shared randomness: SplitMix64 words of a counter, the same on every machine.

A word is named by (seed, section, purpose, index); any word can be had without those before it. Encoder and decoder
draw the same words, so nothing of them is sent. Integers only: no float ever takes part.

    words(seed, section, index, purpose=...)    NumPy, any shape
    key(seed, section, purpose), word(key, i)   the same words inside compiled kernels

Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators" (the finaliser, used as a hash of
a counter).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recbatch.rec.kernels import jit

# A purpose keeps two users of one section apart. Part of the format: never renumber.
STEP = 1  # trellis: rotation of a step, eight steps a word
SIGN = 2  # trellis: sign of a dimension, 64 dimensions a word
STATE_MAP = 3  # trellis: rotation of a run of 256 states, eight runs a word
COLUMN = 4  # trellis: order of the codebook's columns (seed and section 0)
CANDIDATE = 16  # irec: 16..31 are that coder's own

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB

_GAMMA_U = np.uint64(_GAMMA)
_MIX1_U = np.uint64(_MIX1)
_MIX2_U = np.uint64(_MIX2)
_S27, _S30, _S31, _ONE = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(1)

Words = NDArray[np.uint64]


def _mix(x: int) -> int:
    x &= _MASK
    x = ((x ^ (x >> 30)) * _MIX1) & _MASK
    x = ((x ^ (x >> 27)) * _MIX2) & _MASK
    return x ^ (x >> 31)


def key(seed: int, section: int, purpose: int) -> np.uint64:
    """Hash of the three numbers that name a sequence of words; each is taken modulo 2**64."""
    state = 0
    for part in (seed, section, purpose):
        state = _mix(state + _GAMMA + int(part))
    return np.uint64(state)


def words(seed: int, section: int, index: ArrayLike, *, purpose: int) -> Words:
    """Words number ``index`` (integers >= 0, any shape) of the sequence (seed, section, purpose)."""
    x = key(seed, section, purpose) + (np.asarray(index).astype(np.uint64) + _ONE) * _GAMMA_U
    x = (x ^ (x >> _S30)) * _MIX1_U
    x = (x ^ (x >> _S27)) * _MIX2_U
    return np.asarray(x ^ (x >> _S31), dtype=np.uint64)


def octets(seed: int, section: int, count: int, *, purpose: int) -> NDArray[np.uint8]:
    """The first ``count`` bytes of the sequence, each word giving eight, lowest first."""
    drawn = words(seed, section, np.arange((count + 7) // 8), purpose=purpose)
    return np.frombuffer(drawn.astype("<u8").tobytes(), np.uint8)[:count]


@jit
def word(key: np.uint64, index: int) -> np.uint64:
    """Word number ``index`` of the sequence named by ``key``, inside a compiled kernel."""
    x = key + (np.uint64(index) + _ONE) * _GAMMA_U
    x = (x ^ (x >> _S30)) * _MIX1_U
    x = (x ^ (x >> _S27)) * _MIX2_U
    return x ^ (x >> _S31)
