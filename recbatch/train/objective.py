"""What a run makes small beside the rate: the squared error, or mostly what MS-SSIM lacks of 1.

Shapes: B crops, S their side.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from recbatch.errors import UsageError
from recbatch.train.ms_ssim import ms_ssim

GRID = 64  # crops are multiples of it, as the networks need them
GREY_LEVELS = 255.0**2  # a squared error of pixels in 0..1, in grey levels
LACKING = 1430.0  # with this weight a rate level costs about the bits that it costs with the squared error
ANCHOR = 0.1  # share of the squared error that stays: MS-SSIM alone is nearly blind to colour and brightness
LEAST = 1e-6  # lack of MS-SSIM that is still told apart, 60 dB


class Objective(StrEnum):
    mse = "mse"
    ms_ssim = "ms-ssim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Crops of a step: how many, their side by default, and the smallest side that can be measured."""

    batch: int
    crop: int
    smallest: int


SIZES = {
    Objective.mse: Sizes(batch=8, crop=128, smallest=GRID),
    Objective.ms_ssim: Sizes(batch=4, crop=192, smallest=192),  # MS-SSIM needs 176 pixels for its five scales
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Distortion:
    """How far reconstructions are off, for each crop."""

    cost_B: Tensor  # what lambda weighs against bits per pixel
    mse_B: Tensor  # of pixels in 0..1
    ms_ssim_B: Tensor | None  # only where it is the objective

    @property
    def psnr(self) -> Tensor:
        return -10 * torch.log10(self.mse_B)


def distortion(objective: Objective, x_hat_B3SS: Tensor, x_B3SS: Tensor) -> Distortion:
    """What an objective charges for reconstructions of pixels in 0..1."""
    mse_B = ((x_hat_B3SS - x_B3SS) ** 2).mean((1, 2, 3))
    if objective is Objective.mse:
        return Distortion(cost_B=GREY_LEVELS * mse_B, mse_B=mse_B, ms_ssim_B=None)
    similarity_B = ms_ssim(x_hat_B3SS, x_B3SS)
    cost_B = LACKING * (1 - similarity_B) + ANCHOR * GREY_LEVELS * mse_B
    return Distortion(cost_B=cost_B, mse_B=mse_B, ms_ssim_B=similarity_B)


def decibels(ms_ssim_B: Tensor) -> Tensor:
    """-10 log10(1 - MS-SSIM), as papers plot it."""
    return -10 * torch.log10((1 - ms_ssim_B).clamp(min=LEAST))


def check_crop(objective: Objective, crop: int) -> None:
    """Raises UsageError where crops of this side can't be trained on."""
    if crop % GRID:
        raise UsageError(f"Crops of {crop} pixels don't fit the networks. Give a multiple of {GRID}.")
    smallest = SIZES[objective].smallest
    if crop < smallest:
        raise UsageError(
            f"Crops of {crop} pixels are too small for the five scales of MS-SSIM. Give at least {smallest}."
        )
