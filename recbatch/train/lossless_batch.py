"""From crops to what a stage's network is trained on, through the very kernels that the codec uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.models.lossless import geometry
from recbatch.models.lossless.geometry import STAGES, Integers
from recbatch.models.lossless.network import LosslessNet
from recbatch.train.mixture_loss import mixture_bits

COMPAND_D = geometry.make_compand()


@dataclass(frozen=True, slots=True)
class Batch:
    """One stage of one level. Shapes as in ``geometry``."""

    planes: Tensor  # float32 [B, I, h, w], integers
    base: NDArray[np.int32]  # [B, 3, h, w] in 1/16
    values: NDArray[np.int32]  # [B, 3, h, w]
    level: int
    stage: int


def batch(
    net: LosslessNet, level_B3HW: Integers, preview_B3HW: Integers | None, level: int, stage: int
) -> Batch:
    """Inputs, bases and true values of a stage."""
    s = STAGES[stage]
    b, _, height, width = level_B3HW.shape
    rows, columns = geometry.phase_size(height, width, s.phase)
    base = np.empty((b, 3, rows, columns), np.int32)
    weights = net.weights[level, stage].numpy()
    geometry.bases(level_B3HW, s.taps_T4, weights, 0, base)
    planes = np.empty((b, s.inputs(preview=preview_B3HW is not None), rows, columns), np.float32)
    if preview_B3HW is not None:
        guess = np.empty_like(base)
        geometry.bases(preview_B3HW, s.taps_T4, weights, 0, guess)
        geometry.add_preview(preview_B3HW, *s.phase, guess, net.gains[level, stage].numpy(), 0, base)
        offset = 3 * len(s.taps) + 3
        geometry.preview_inputs(preview_B3HW, *s.phase, guess, base, 0, COMPAND_D, offset, planes)
    geometry.inputs(level_B3HW, s.taps_T4, base, 0, COMPAND_D, planes)
    values = level_B3HW[:, :, s.phase[0] :: 2, s.phase[1] :: 2].astype(np.int32)
    # channels last: the backward pass of small convolutions takes two thirds of the time
    return Batch(
        torch.from_numpy(planes).contiguous(memory_format=torch.channels_last), base, values, level, stage
    )


def bits(net: LosslessNet, b: Batch, *, grid: bool) -> Tensor:
    """Bits of a batch's symbols, Y, Co and Cg: float32 [3]."""
    network = net.stage(b.stage)
    features = network.trunk(b.planes, b.level)
    difference = b.values - ((b.base + 8) >> 4)
    earlier = torch.from_numpy(COMPAND_D[difference + geometry.LARGEST_DIFFERENCE].astype(np.float32))
    parts = []
    for c in range(3):
        raw = network.head(features, earlier[:, :c], c)
        base, values = np.ascontiguousarray(b.base[:, c]), np.ascontiguousarray(b.values[:, c])
        parts.append(
            mixture_bits(
                raw,
                torch.from_numpy(base),
                torch.from_numpy(values),
                low=geometry.LOWEST[c],
                high=geometry.HIGHEST,
                grid=grid,
            )
        )
    return torch.stack(parts)


def fit_predictors(net: LosslessNet, level_batches: list[list[tuple[Integers, Integers | None]]]) -> None:
    """Set the linear predictors, and the gains of the preview, by least squares.

    Args:
        level_batches: for each level, levels of crops [B, 3, H, W] and of their previews.
    """
    for level, batches in enumerate(level_batches):
        for stage, s in enumerate(STAGES):
            for c in range(3):
                net.weights[level, stage, c, : len(s.taps)] = torch.from_numpy(_least_squares(s, c, batches))
            if batches[0][1] is not None:
                net.gains[level, stage] = torch.from_numpy(_gains(net, level, stage, batches))


def _least_squares(
    s: geometry.Stage, c: int, batches: list[tuple[Integers, Integers | None]]
) -> NDArray[np.int32]:
    taps = len(s.taps)
    gram, moment = np.eye(taps) * 1e3, np.zeros(taps)
    moment[:] = 1e3 / taps
    for x, _ in batches:
        margin = 3
        height, width = x.shape[2] // 2, x.shape[3] // 2
        inner = (slice(margin, height - margin), slice(margin, width - margin))
        target = x[:, c, s.phase[0] :: 2, s.phase[1] :: 2][(slice(None), *inner)].astype(np.float64).ravel()
        columns = []
        for p, q, dy, dx in s.taps:
            plane = x[:, c, p::2, q::2]
            columns.append(
                plane[:, margin + dy : height - margin + dy, margin + dx : width - margin + dx].ravel()
            )
        a = np.array(columns, np.float64)
        # edges count for less, as they do in bits: weights by the spread of the taps
        weight = 1 / (4 + a.std(axis=0) ** 2)
        gram += (a * weight) @ a.T
        moment += (a * weight) @ target
    solution = np.linalg.solve(gram, moment)
    weights: NDArray[np.int32] = np.rint(solution * (1 << geometry.WEIGHT_BITS)).astype(np.int32)
    return weights


def _gains(
    net: LosslessNet, level: int, stage: int, batches: list[tuple[Integers, Integers | None]]
) -> NDArray[np.int32]:
    s = STAGES[stage]
    over, under = np.zeros(3), np.full(3, 1.0)
    for x, preview in batches:
        if preview is None:
            continue
        rows, columns = geometry.phase_size(x.shape[2], x.shape[3], s.phase)
        base, guess = (np.empty((len(x), 3, rows, columns), np.int32) for _ in range(2))
        weights = net.weights[level, stage].numpy()
        geometry.bases(x, s.taps_T4, weights, 0, base)
        geometry.bases(preview, s.taps_T4, weights, 0, guess)
        error = x[:, :, s.phase[0] :: 2, s.phase[1] :: 2].astype(np.float64) - base / 16
        news = preview[:, :, s.phase[0] :: 2, s.phase[1] :: 2].astype(np.float64) - guess / 16
        weight = 1 / (4 + error**2)  # the same, by what is left
        over += (weight * error * news).sum((0, 2, 3))
        under += (weight * news * news).sum((0, 2, 3))
    gains: NDArray[np.int32] = np.rint(over / under * (1 << geometry.WEIGHT_BITS)).astype(np.int32)
    return gains
