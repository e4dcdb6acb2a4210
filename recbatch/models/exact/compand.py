"""Latent samples as 8-bit inputs of exact networks: a logarithm made of integer comparisons.

A sample n is in 1/64 of the observation noise, y = n/64. Its companded value is
c = round(12 log2(1 + |y|)) with the sign of n, |c| <= 127; networks read it as c/16 (``in_exp=4``).
The decoder only counts thresholds, by a table of all counts up to the last. Thresholds are literals;
``make_thresholds`` derives them from integers alone.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

UNIT = 64  # sample integers per unit of observation noise
COMPAND_EXP = 4  # companded integers are real inputs times 2**4
COMPAND_RANGE = (-127, 127)
STEPS_PER_OCTAVE = 12

# fmt: off
THRESHOLDS: tuple[int, ...] = (
    2, 6, 10, 15, 19, 24, 30, 35, 41, 47, 54, 61, 68, 76, 84, 93, 102, 112, 123, 134, 146, 158, 171,
    185, 200, 216, 232, 250, 268, 288, 309, 331, 355, 380, 406, 434, 464, 495, 528, 563, 600, 640, 682,
    726, 773, 823, 876, 931, 991, 1053, 1120, 1190, 1264, 1343, 1427, 1516, 1610, 1709, 1815, 1926,
    2045, 2170, 2303, 2443, 2592, 2750, 2918, 3095, 3283, 3482, 3693, 3916, 4153, 4403, 4669, 4950,
    5248, 5564, 5899, 6253, 6629, 7027, 7449, 7895, 8369, 8870, 9401, 9964, 10560, 11192, 11861, 12570,
    13322, 14117, 14961, 15854, 16801, 17803, 18866, 19991, 21184, 22447, 23786, 25204, 26707, 28298,
    29985, 31772, 33665, 35670, 37795, 40046, 42431, 44958, 47635, 50472, 53477, 56660, 60033, 63607,
    67393, 71404, 75654, 80156, 84926, 89980, 95334,
)
# fmt: on


def make_thresholds() -> list[int]:
    """The least n with 12 log2(1 + n/64) >= c - 1/2, for c = 1..127; integers only, no ties exist."""
    found, n = [], 0
    for c in range(1, COMPAND_RANGE[1] + 1):
        wanted = UNIT ** (2 * STEPS_PER_OCTAVE) << (2 * c - 1)
        while (n + UNIT) ** (2 * STEPS_PER_OCTAVE) < wanted:
            n += 1
        found.append(n)
    return found


def compand(samples: Tensor) -> Tensor:
    """How many thresholds each |n| reaches, with the sign of n: int8, the shape of ``samples``.

    Args:
        samples: any integer dtype, in 1/64 of the observation noise.
    """
    if samples.is_floating_point():
        raise TypeError("compand takes integers; round samples to 1/64 first")
    last = THRESHOLDS[-1]
    wide = samples if samples.dtype == torch.int64 else samples.to(torch.int32)
    place = wide.clamp(-last, last) + last  # the clamp first: -2**31 has no absolute value in 32 bits
    return _counts(samples.device).index_select(0, place.flatten()).view(samples.shape)


@cache
def _counts(device: torch.device) -> Tensor:
    """What ``compand`` gives for every n from minus the last threshold to the last."""
    with torch.inference_mode(False):  # training may be the next to ask for it
        size = torch.arange(THRESHOLDS[-1] + 1)
        steps = torch.bucketize(size, torch.tensor(THRESHOLDS), right=True).to(torch.int8)
        return torch.cat([-steps[1:].flip(0), steps]).to(device)


class _Compand(torch.autograd.Function):
    """Value of the decoder, or its smooth form; always the smooth form's slope, also at 0."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, quantise: bool) -> Tensor:
        ctx.save_for_backward(y)
        if quantise:
            samples = torch.floor(y.clamp(-(2.0**20), 2.0**20) * UNIT + 0.5).to(torch.int64)
            steps = compand(samples).to(y.dtype)
        else:
            slope = STEPS_PER_OCTAVE / math.log(2)
            steps = (torch.log1p(y.abs()) * slope).clamp(max=COMPAND_RANGE[1]) * y.sign()
        return steps * 2.0**-COMPAND_EXP

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        size = y.abs()
        slope = STEPS_PER_OCTAVE / math.log(2) * 2.0**-COMPAND_EXP / (1 + size)
        inside = size < 2 ** (COMPAND_RANGE[1] / STEPS_PER_OCTAVE) - 1
        return gradient * slope * inside, None


def compand_train(y: Tensor, quantise: bool) -> Tensor:
    """Differentiable twin of ``compand``, as the real input c/16 of a network.

    Args:
        y: float, in units of the observation noise; rounded to 1/64 first where ``quantise``.
        quantise: True gives exactly ``compand(floor(64 y + 1/2)) / 16``, with a straight-through gradient.
    """
    result: Tensor = _Compand.apply(y.float(), quantise)  # type: ignore[no-untyped-call]
    return result
