"""Make irec_tables.npz, the integer literals of the iREC coder: run once, shipped, never run by a decoder.

    python -m recbatch.rec.make_irec_tables

normal:  int16 [4096]; entry i is the standard normal quantile at (i + 1/2) / 4096, scaled to unit variance, times
         2**13, rounded. Symmetric: entry i is minus entry 4095 - i.
ratio:   uint32 [8192]; entry i - 1 is i**-0.79 times 2**18, rounded: the share of the remaining prior variance that
         the auxiliary variable takes when i steps are left (Flamich, Havasi & Hernandez-Lobato 2020).
sigma:   uint32 [151]; prior deviation of a scale index, in units of observation noise, times 2**16.
rate:    uint16 [151]; expected KL of a scale index, bits, times 2**8.

The script prints the digest that recbatch/rec/coders/irec.py pins. Another libm could move a last digit, hence
literals and a digest, not a computation at start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbatch.rec.base import SCALES

LEVELS = 4096
NORMAL_BITS = 13
MAX_STEPS = 8192
RATIO_BITS = 18
POWER = -0.79
SIGMA_BITS = 16
RATE_BITS = 8
PATH = Path(__file__).with_name("irec_tables.npz")


def normal_table() -> NDArray[np.int16]:
    """int16 [4096], ascending."""
    upper = np.array([NormalDist().inv_cdf((i + 0.5) / LEVELS) for i in range(LEVELS // 2, LEVELS)])
    upper = np.rint(upper / np.sqrt(np.mean(upper**2)) * 2**NORMAL_BITS).astype(np.int16)
    return np.concatenate([-upper[::-1], upper])


def ratio_table() -> NDArray[np.uint32]:
    """uint32 [8192]; the first entry is exactly 1, so that the last step takes all that remains."""
    left = np.arange(1, MAX_STEPS + 1, dtype=np.float64)
    return np.asarray(np.rint(left**POWER * 2**RATIO_BITS), np.uint32)


def digest(tables: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the tables in this order, as little-endian bytes."""
    names = ("normal", "ratio", "sigma", "rate")
    return hashlib.sha256(
        b"".join(tables[n].astype(tables[n].dtype.newbyteorder("<")).tobytes() for n in names)
    ).hexdigest()


def sigma_table() -> NDArray[np.uint32]:
    """uint32 [151]; index 0 is "not coded", each further one 8.5 % wider."""
    sigma = 0.083 * 1.085 ** (np.arange(SCALES) - 1.0)
    sigma[0] = 0
    return np.asarray(np.rint(sigma * 2**SIGMA_BITS), np.uint32)


def rate_table() -> NDArray[np.uint16]:
    """uint16 [151], from the deviations as rounded."""
    rate = 0.5 * np.log2(1 + (sigma_table() / 2**SIGMA_BITS) ** 2)
    return np.asarray(np.rint(rate * 2**RATE_BITS), np.uint16)


def main() -> None:
    tables: dict[str, NDArray[Any]] = {
        "normal": normal_table(),
        "ratio": ratio_table(),
        "sigma": sigma_table(),
        "rate": rate_table(),
    }
    np.savez_compressed(PATH, **tables)  # type: ignore[arg-type]
    print(digest(tables))


if __name__ == "__main__":
    main()
