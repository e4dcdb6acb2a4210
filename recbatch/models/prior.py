"""The integer law from raw network outputs to prior parameters (normative; docs/format.md).

A rate level moves every scale index by its number and multiplies every mean: one level is one step of the scale
table. All of it is integer arithmetic; ``recbatch.models.lossy.prior_parameters`` is its training twin.
"""

from __future__ import annotations

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
SAMPLES_PER_MEAN = 4  # means are in 1/16 of the observation noise, samples in 1/64


def mean_and_index(raw: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """Prior means (int32, in 1/16) and scale indices (uint8) from raw outputs [B, 2M, h, w], int-valued."""
    mean, scale = raw.to(torch.int32).chunk(2, dim=1)  # 16 bits times 15: no product overflows
    mean = (mean * MEAN_MULTIPLIERS[level] + (1 << (MULTIPLIER_BITS - 1))) >> MULTIPLIER_BITS
    index = ((scale + (1 << (INDEX_SHIFT - 1))) >> INDEX_SHIFT) + (INDEX_OFFSET + level)
    return mean, index.clamp(0, SCALE_MAX).to(torch.uint8)
