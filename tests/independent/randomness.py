"""Words that writer and reader both know, by counter: no state but a key."""

import numpy as np

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
STEP, SIGN, STATE_MAP, COLUMN, DRAWS, PATHS = 1, 2, 3, 4, 16, 17


def mix(x: int) -> int:
    """A bijection of 64-bit words."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def make_key(seed: int, part: int, purpose: int) -> int:
    """The key of one use of randomness."""
    state = 0
    for value in (seed, part, purpose):
        state = mix((state + GOLDEN + value) & MASK)
    return state


def word(key: int, index: int) -> int:
    """Word number `index` of a key."""
    return mix((key + (index + 1) * GOLDEN) & MASK)


def words(key: int, index_I: np.ndarray) -> np.ndarray:
    """The same for many indices at once [I], uint64; numpy's arrays wrap as the law wants."""
    x_I = np.uint64(key) + (index_I.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN)
    x_I = (x_I ^ (x_I >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x_I = (x_I ^ (x_I >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x_I ^ (x_I >> np.uint64(31))


def octets(key: int, count: int) -> np.ndarray:
    """The first bytes of a key [count], uint8."""
    return words(key, np.arange((count + 7) // 8)).astype("<u8").view(np.uint8)[:count]
