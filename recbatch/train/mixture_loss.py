"""Negative log-likelihood of discretised logistic mixtures and its gradient, in one pass over the symbols.

The float twin of ``recbatch.rec.mixtures``: same bases, same meaning of the raw outputs, same folded tails.
Shapes: B images, K logistics, h x w positions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

MEAN_UNITS = 8.0  # grey levels in a raw mean of 1
LOG_SMALLEST_SCALE = math.log(0.05)
LOG_SCALE_AT_ZERO = LOG_SMALLEST_SCALE + 4.0  # of a raw scale of 0
LOG_SCALE_RANGE = (-4.0, 255 / 32 - 4.0)  # raw scales beyond are clamped
FLOOR = 2.0**-24  # probability that every symbol keeps


@njit(cache=True, nogil=True, fastmath=True)
def _sigmoid(x: Any) -> Any:
    return 1 / (1 + math.exp(-x))


@njit(cache=True, nogil=True, fastmath=True)
def _likelihood(
    raw_B3Khw: Any, base_Bhw: Any, value_Bhw: Any, low: Any, high: Any, grid: Any, grad_B3Khw: Any
) -> Any:
    """Sum of nats; gradients by raw outputs go to ``grad_B3Khw``."""
    batch, channels, height, width = raw_B3Khw.shape
    count = channels // 3
    total = 0.0
    weight, inside = np.empty(count), np.empty(count)
    by_mean, by_scale = np.empty(count), np.empty(count)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                value, base = value_Bhw[b, i, j], base_Bhw[b, i, j] / 16.0
                largest = raw_B3Khw[b, 0, i, j]
                for k in range(1, count):
                    largest = max(largest, raw_B3Khw[b, k, i, j])
                norm = 0.0
                for k in range(count):
                    weight[k] = math.exp(raw_B3Khw[b, k, i, j] - largest)
                    norm += weight[k]
                p = FLOOR
                for k in range(count):
                    weight[k] /= norm
                    mean = base + MEAN_UNITS * raw_B3Khw[b, count + k, i, j]
                    raw = raw_B3Khw[b, 2 * count + k, i, j]
                    if grid:
                        raw = math.floor(raw * 32 + 0.5) / 32
                    raw = min(max(raw, LOG_SCALE_RANGE[0]), LOG_SCALE_RANGE[1])
                    inverse = math.exp(-(raw + LOG_SCALE_AT_ZERO))
                    lower, lower_slope, upper, upper_slope = 0.0, 0.0, 1.0, 0.0
                    t_lower, t_upper = (value - 0.5 - mean) * inverse, (value + 0.5 - mean) * inverse
                    if value > low:
                        lower = _sigmoid(t_lower)
                        lower_slope = lower * (1 - lower)
                    if value < high:
                        upper = _sigmoid(t_upper)
                        upper_slope = upper * (1 - upper)
                    inside[k] = upper - lower
                    by_mean[k] = -(upper_slope - lower_slope) * inverse
                    by_scale[k] = -(t_upper * upper_slope - t_lower * lower_slope)
                    p += weight[k] * inside[k]
                total -= math.log(p)
                for k in range(count):
                    w = weight[k] / p
                    grad_B3Khw[b, k, i, j] = -w * (inside[k] - (p - FLOOR))
                    grad_B3Khw[b, count + k, i, j] = -w * by_mean[k] * MEAN_UNITS
                    grad_B3Khw[b, 2 * count + k, i, j] = -w * by_scale[k]
    return total


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, base: Tensor, value: Tensor, low: int, high: int, grid: bool
    ) -> Tensor:
        raw = raw.contiguous()
        gradient = torch.empty_like(raw)
        nats = _likelihood(
            raw.detach().numpy(), base.numpy(), value.numpy(), low, high, grid, gradient.numpy()
        )
        ctx.save_for_backward(gradient)
        return torch.tensor(nats / math.log(2), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (by_raw,) = ctx.saved_tensors
        return by_raw * (gradient / math.log(2)), None, None, None, None, None


def mixture_bits(raw: Tensor, base: Tensor, value: Tensor, *, low: int, high: int, grid: bool) -> Tensor:
    """Bits of all symbols together.

    Args:
        raw: float32 [B, 3 K, h, w]: logits, means, log scales (``recbatch.models.lossless.network``).
        base: int32 [B, h, w] in 1/16. value: int16 or int32 [B, h, w].
        low, high: range of values; the tails are theirs.
        grid: round scales as the coder does; gradients pass straight through.
    """
    bits: Tensor = _Mixture.apply(raw, base, value, low, high, grid)  # type: ignore[no-untyped-call]
    return bits
