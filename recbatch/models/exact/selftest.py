"""Which way of computing a convolution is exact here: tried out once per shape, remembered for the process.

Four rungs give the same integers where a machine keeps its promises: ``float32`` (torch's convolution),
``unfold`` (matrix product over gathered taps), ``float64`` (rounded sums) and ``int64`` (the definition).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recbatch.models.exact import arithmetic
from recbatch.models.exact.arithmetic import Range
from recbatch.models.exact.errors import ExactLayerMisused

log = logging.getLogger(__name__)

RUNGS = ("float32", "unfold", "float64", "int64")


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.conv2d(x, weight, bias, padding=weight.shape[2] // 2)


def _unfold(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    side = weight.shape[2]
    taps = x.flatten(2) if side == 1 else functional.unfold(x, side, padding=side // 2)
    y = torch.matmul(weight.flatten(1), taps).reshape(x.shape[0], weight.shape[0], x.shape[2], x.shape[3])
    return y if bias is None else y.add_(bias[:, None, None])


KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "float32": _convolve,
    "unfold": _unfold,
}


def integer_sums(rung: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """int64 sums [B, O, H, W] by one of the two slow rungs; bias [1, O] or [B, O]."""
    if rung == "float64":
        sums = _convolve(x.to(torch.float64), weight.to(torch.float64), None)
        return sums.round_().to(torch.int64) + bias.to(sums.device)[:, :, None, None]
    acc = arithmetic.accumulate(x.to(torch.int64).cpu().numpy(), weight.cpu().numpy(), bias.cpu().numpy())
    return torch.from_numpy(acc)


def choose(shape: Sequence[int], in_range: Range, x: Tensor) -> str:
    return "float32"
