"""Negative log-likelihood of discretised logistic mixtures and its gradient, in one pass over the symbols.

Shapes: B images, h x w positions, 9 raw outputs (``recbatch.rec.mixture_float``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from recbatch.rec.mixture_float import nats
from recbatch.rec.mixtures import INDICES_PER_NAT


@njit(cache=True, nogil=True, fastmath=True)
def _likelihood(
    raw_B9hw: Any, base_Bhw: Any, value_Bhw: Any, low: Any, high: Any, grid: Any, grad_B9hw: Any
) -> Any:
    """Sum of nats; gradients by raw outputs go to ``grad_B9hw``."""
    batch, _, height, width = raw_B9hw.shape
    total = 0.0
    real, slope = np.empty(9), np.empty(9)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for k in range(9):
                    real[k] = raw_B9hw[b, k, i, j]
                if grid:
                    for k in range(6, 9):
                        real[k] = math.floor(real[k] * INDICES_PER_NAT + 0.5) / INDICES_PER_NAT
                total += nats(real, base_Bhw[b, i, j], value_Bhw[b, i, j], low, high, slope)
                for k in range(9):
                    grad_B9hw[b, k, i, j] = slope[k]
    return total


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, base: Tensor, value: Tensor, low: int, high: int, grid: bool
    ) -> Tensor:
        raw = raw.contiguous()
        gradient = torch.empty_like(raw)
        found = _likelihood(
            raw.detach().numpy(), base.numpy(), value.numpy(), low, high, grid, gradient.numpy()
        )
        ctx.save_for_backward(gradient)
        return torch.tensor(found / math.log(2), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (by_raw,) = ctx.saved_tensors
        return by_raw * (gradient / math.log(2)), None, None, None, None, None


def mixture_bits(raw: Tensor, base: Tensor, value: Tensor, *, low: int, high: int, grid: bool) -> Tensor:
    """Bits of all symbols together.

    Args:
        raw: float32 [B, 9, h, w]: logits, means, log scales (``recbatch.models.lossless.network``).
        base: int32 [B, h, w] in 1/16. value: int16 or int32 [B, h, w].
        low, high: range of values; the tails are theirs.
        grid: round scales as the coder does; gradients pass straight through.
    """
    bits: Tensor = _Mixture.apply(raw, base, value, low, high, grid)  # type: ignore[no-untyped-call]
    return bits
