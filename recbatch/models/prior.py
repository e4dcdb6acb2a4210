"""The integer law from raw network outputs to prior parameters (normative; docs/format.md).

A rate level moves every scale index by its number and multiplies every mean: one level is one step of the scale
table. All of it is integer arithmetic; ``recbatch.models.lossy.prior_parameters`` is its training twin.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recbatch.models.lossy import INDEX_OFFSET, INDEX_SHIFT, SCALE_MAX

MULTIPLIER_BITS = 15
# round(2**15 * 1.085**(level - 31)), level 0..31
MEAN_MULTIPLIERS = (
    2613,
    2835,
    3076,
    3337,
    3621,
    3929,
    4263,
    4625,
    5018,
    5445,
    5908,
    6410,
    6955,
    7546,
    8187,
    8883,
    9638,
    10458,
    11347,
    12311,
    13357,
    14493,
    15725,
    17061,
    18512,
    20085,
    21792,
    23645,
    25654,
    27835,
    30201,
    32768,
)
# round(2**15 * 1.085**(eighths / 8)), eighths -4..3: what a level between two integers adds
FRACTIONS_PER_LEVEL = 8
FRACTION_MULTIPLIERS = (31458, 31781, 32106, 32436, 32768, 33104, 33443, 33786)
SAMPLES_PER_MEAN = 4  # means are in 1/16 of the observation noise, samples in 1/64


def whole_level(level: float) -> int:
    """The integer level whose bias vectors and scale indices serve a level: the nearest, halves go up."""
    return math.floor(level + 0.5)


def eighths_of(level: float) -> int:
    """How many eighths a level is beside its whole level, -4..3."""
    return round(FRACTIONS_PER_LEVEL * (level - whole_level(level)))


def mean_multiplier(level: float) -> int:
    """What means are multiplied with at a level, a multiple of 1/8: integer / 2**15."""
    fraction = FRACTION_MULTIPLIERS[eighths_of(level) + FRACTIONS_PER_LEVEL // 2]
    product = MEAN_MULTIPLIERS[whole_level(level)] * fraction
    return (product + (1 << (MULTIPLIER_BITS - 1))) >> MULTIPLIER_BITS


def mean_and_index(raw: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Prior means (int32, in 1/16) and scale indices (uint8) from raw outputs [B, 2M, h, w], int-valued."""
    mean, scale = raw.to(torch.int32).chunk(2, dim=1)  # 16 bits times 16: no product overflows
    mean = (mean * mean_multiplier(level) + (1 << (MULTIPLIER_BITS - 1))) >> MULTIPLIER_BITS
    # a scale index is eight raw units, a level is one scale index: so an eighth of a level is one raw unit
    rounding = (1 << (INDEX_SHIFT - 1)) + eighths_of(level)
    index = ((scale + rounding) >> INDEX_SHIFT) + (INDEX_OFFSET + whole_level(level))
    return mean, index.clamp(0, SCALE_MAX).to(torch.uint8)
