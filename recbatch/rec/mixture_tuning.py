"""Fitting the laws of a block to its symbols: a gain and a bias for each of the nine parameters.

A network that predicts well on average may be off on one image in a way that all of its pixels share: a scanner's
noise, colour that was stored at half resolution. The encoder fits 18 numbers by Fisher scoring and sends them; the
decoder only multiplies and adds (``recbatch.rec.mixtures``). Floating point is used here: nothing here must be exact.

Shapes: N symbols, 9 parameters, 18 numbers: nine gains, then nine biases.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recbatch.rec.mixture_float import RAW_UNIT, nats
from recbatch.rec.mixtures import BIAS_UNITS, GAIN_UNIT, LOGISTICS, PARAMETERS

Floats = NDArray[np.float64]
Numbers = NDArray[np.int8]  # [18]

ROUNDS, TRIES = 6, 3
FIRST_DAMPING = 0.1
ENOUGH = 2e-4  # nats a symbol that another round must promise
PRIOR_DEVIATION = 0.3


@njit(cache=True, nogil=True, fastmath=True)
def _nats(
    raw_N9: Any, base_N: Any, value_N: Any, low: Any, high: Any, numbers_18: Any, slope_N18: Any
) -> Any:
    """Mean nats a symbol; each symbol's gradient by the numbers goes to ``slope_N18``, unless that is empty."""
    total = 0.0
    tuned, slope = np.empty(9), np.empty(9 if slope_N18.size > 0 else 0)
    for n in range(raw_N9.shape[0]):
        for k in range(9):
            tuned[k] = raw_N9[n, k] * (1 + numbers_18[k]) + numbers_18[9 + k]
        total += nats(tuned, base_N[n], value_N[n], low, high, slope)
        for k in range(slope.size):
            slope_N18[n, k] = slope[k] * raw_N9[n, k]
            slope_N18[n, 9 + k] = slope[k]
    return total / raw_N9.shape[0]


@njit(cache=True, nogil=True, fastmath=True)
def _fisher(slope_N18: Any) -> Any:
    """Mean outer product. In a loop of its own: a BLAS would wake its threads for a matrix this small."""
    found = np.zeros((18, 18))
    for n in range(slope_N18.shape[0]):
        for k in range(18):
            slope = slope_N18[n, k]
            for m in range(18):
                found[k, m] += slope * slope_N18[n, m]
    return found / slope_N18.shape[0]


def fit(
    raw_N9: NDArray[Any], base_N: NDArray[np.int32], value_N: NDArray[np.int32], low: int, high: int
) -> tuple[Numbers, float]:
    """The 18 numbers as a stream holds them, and the bits a symbol that they save on these symbols.

    Fisher scoring as Levenberg and Marquardt damp it, with a Gaussian prior that keeps a few symbols from saying much.
    """
    raw = np.ascontiguousarray(raw_N9, np.float64) / RAW_UNIT
    base, value = base_N.astype(np.float64), value_N.astype(np.float64)
    count = len(value)
    slope, nothing = np.empty((count, 18)), np.empty((0, 18))
    prior = 1 / (PRIOR_DEVIATION**2 * count)

    def cost(numbers: Floats, slopes: Floats) -> float:
        nats = float(_nats(raw, base, value, low, high, numbers, slopes))
        return nats + 0.5 * prior * float(numbers @ numbers)

    best, damping = np.zeros(18), FIRST_DAMPING
    first = least = cost(best, slope)
    for _ in range(ROUNDS):
        gradient = slope.mean(axis=0) + prior * best
        fisher = _fisher(slope)
        gained = 0.0
        for _ in range(TRIES):
            step = np.linalg.solve(fisher + np.diag(damping * np.diag(fisher) + prior + 1e-9), gradient)
            found = cost(best - step, nothing)
            if found < least:
                gained, best, least, damping = least - found, best - step, found, damping / 4
                break
            damping *= 6
        if gained < ENOUGH:
            break
        cost(best, slope)
    numbers = _stored(best)
    return numbers, (first - cost(_real(numbers), nothing)) / math.log(2)


def _units() -> Floats:
    """Real size of a step of each number."""
    gains = np.full(PARAMETERS, 1 / GAIN_UNIT)
    biases = np.repeat(np.array(BIAS_UNITS) / RAW_UNIT, LOGISTICS)
    return np.concatenate([gains, biases])


def _stored(numbers_18: Floats) -> Numbers:
    stored: Numbers = np.clip(np.rint(numbers_18 / _units()), -127, 127).astype(np.int8)
    return stored


def _real(numbers_18: Numbers) -> Floats:
    real: Floats = numbers_18 * _units()
    return real
