"""The law of ``recbatch.rec.mixtures`` in floating point, with its slopes: for training and for tuning, never to code.

A symbol has nine real parameters, the integers over 128: three logits, three means (times 8 in grey levels, from a base
in 1/16), three log scales.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from recbatch.rec.mixtures import INDEX_AT_ZERO, INDICES_PER_NAT, LAST_INDEX, SMALLEST_SCALE

RAW_UNIT = 128.0  # integers in a real parameter of 1
MEAN_GREY = 8.0  # grey levels in a real mean of 1
LOG_SCALE_AT_ZERO = math.log(SMALLEST_SCALE) + INDEX_AT_ZERO / INDICES_PER_NAT  # of a real scale of 0
LEAST_SCALE = -INDEX_AT_ZERO / INDICES_PER_NAT  # real scales beyond are clamped
MOST_SCALE = (LAST_INDEX - INDEX_AT_ZERO) / INDICES_PER_NAT
FLOOR = 2.0**-24  # probability that every symbol keeps


@njit(cache=True, nogil=True, fastmath=True)
def nats(real_9: Any, base: Any, value: Any, low: Any, high: Any, slope_9: Any) -> Any:
    """-ln p of a value; its derivatives by the nine parameters go to ``slope_9``, unless that is empty."""
    weight, inside = np.empty(3), np.empty(3)
    by_mean, by_scale = np.empty(3), np.empty(3)
    largest = max(real_9[0], max(real_9[1], real_9[2]))
    norm = 0.0
    for k in range(3):
        weight[k] = math.exp(real_9[k] - largest)
        norm += weight[k]
    p = FLOOR
    for k in range(3):
        weight[k] /= norm
        mean = base / 16.0 + MEAN_GREY * real_9[3 + k]
        inverse = math.exp(-(min(max(real_9[6 + k], LEAST_SCALE), MOST_SCALE) + LOG_SCALE_AT_ZERO))
        lower, lower_slope, upper, upper_slope = 0.0, 0.0, 1.0, 0.0
        t_lower, t_upper = (value - 0.5 - mean) * inverse, (value + 0.5 - mean) * inverse
        if value > low:
            lower = 1 / (1 + math.exp(-t_lower))
            lower_slope = lower * (1 - lower)
        if value < high:
            upper = 1 / (1 + math.exp(-t_upper))
            upper_slope = upper * (1 - upper)
        inside[k] = upper - lower
        by_mean[k] = -(upper_slope - lower_slope) * inverse
        by_scale[k] = -(t_upper * upper_slope - t_lower * lower_slope)
        p += weight[k] * inside[k]
    if slope_9.size > 0:
        for k in range(3):
            w = weight[k] / p
            slope_9[k] = -w * (inside[k] - (p - FLOOR))
            slope_9[3 + k] = -w * by_mean[k] * MEAN_GREY
            slope_9[6 + k] = -w * by_scale[k]
    return -math.log(p)
