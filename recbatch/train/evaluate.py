"""What a model under training costs on photographs that it never sees, and what JPEG costs on them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recbatch.codec.quality import MIN_SIDE
from recbatch.models.lossy import LossyNet, level_lambda
from recbatch.train import machine
from recbatch.train.data import Photographs
from recbatch.train.ms_ssim import ms_ssim
from recbatch.train.objective import Objective, decibels, distortion

LEVELS = (4, 11, 18, 25)
CURVE_LEVELS = (1, 5, 9, 13, 17, 21, 25, 29)
CROPS, SIDE = 12, 256
ROWS = 3  # of crops, where they lie side by side
JPEG_QUALITIES = (15, 25, 35, 50, 60, 70, 80, 88, 94)

# bits per pixel, PSNR and MS-SSIM in dB; without the last where the crops are too small for it
Curve = list[tuple[float, float, float | None]]


def held_out_crops(photographs: Photographs) -> NDArray[np.uint8]:
    """The fixed crops to measure on: uint8 [CROPS, S, S, 3], S = SIDE or what the largest photograph has room for."""
    side = min(SIDE, photographs.largest_crop() // 64 * 64)
    return photographs.crops(CROPS, side, np.random.default_rng(1))


@torch.no_grad()
def held_out_cost(
    net: LossyNet, photographs: Photographs, objective: Objective = Objective.mse
) -> dict[str, float]:
    """Mean loss, bits per pixel and quality at four rate levels, on fixed crops with fixed noise."""
    crops = held_out_crops(photographs)
    result: dict[str, float] = {}
    total = 0.0
    for q in LEVELS:
        rate, x, x_hat = _coded(net, crops, q)
        off = distortion(objective, x_hat, x)
        weight = float(level_lambda(torch.tensor(float(q))))
        total += (rate + weight * float(off.cost_B.mean())) / math.sqrt(weight / 0.01)
        result[f"bpp_{q}"] = rate
        result[f"psnr_{q}"] = float(off.psnr.mean())
        if off.ms_ssim_B is not None:
            result[f"ms_ssim_db_{q}"] = float(decibels(off.ms_ssim_B).mean())
    return {"held_out_loss": total / len(LEVELS), **result}


@torch.no_grad()
def held_out_curve(net: LossyNet, photographs: Photographs, levels: Sequence[float] = CURVE_LEVELS) -> Curve:
    """Rate, by relative entropy and not by files, and quality of pixels rounded to 8 bits; means over fixed crops."""
    crops = held_out_crops(photographs)
    curve: Curve = []
    for q in levels:
        rate, x, x_hat = _coded(net, crops, q)
        curve.append((rate, *_quality((x_hat * 255).round() / 255, x)))
    return curve


def _quality(x_hat_B3SS: Tensor, x_B3SS: Tensor) -> tuple[float, float | None]:
    """Mean PSNR and mean MS-SSIM, both in dB."""
    psnr = float(distortion(Objective.mse, x_hat_B3SS, x_B3SS).psnr.clamp(max=100).mean())
    if x_B3SS.shape[2] < MIN_SIDE:
        return psnr, None
    return psnr, float(decibels(ms_ssim(x_hat_B3SS, x_B3SS)).mean())


def jpeg_curve(photographs: Photographs) -> Curve:
    """The same crops by JPEG 4:2:0 with optimised tables.

    They lie side by side in one picture: a file each, a third of the bits at low rates would be headers. Seams cost
    nothing, for the sides of the crops are multiples of JPEG's blocks.
    """
    crops = held_out_crops(photographs)
    side = crops.shape[1]
    whole = Image.fromarray(_side_by_side(crops))
    curve: Curve = []
    for quality in JPEG_QUALITIES:
        file = io.BytesIO()
        whole.save(file, "JPEG", quality=quality, subsampling="4:2:0", optimize=True)
        decoded = _apart(np.asarray(Image.open(file).convert("RGB")), side)
        curve.append(
            (8 * len(file.getvalue()) / (CROPS * side**2), *_quality(_pixels(decoded), _pixels(crops)))
        )
    return curve


def _side_by_side(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    count, side = crops.shape[:2]
    rows = crops.reshape(ROWS, count // ROWS, side, side, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(rows.reshape(ROWS * side, count // ROWS * side, 3))


def _apart(whole: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The crops that lie side by side."""
    tiles = whole.reshape(ROWS, side, whole.shape[1] // side, side, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(tiles.reshape(-1, side, side, 3))


def _pixels(crops_BSS3: NDArray[np.uint8]) -> Tensor:
    """Crops as the networks take them."""
    return torch.from_numpy(crops_BSS3.copy()).permute(0, 3, 1, 2).float().div_(255)


@torch.no_grad()
def _coded(net: LossyNet, crops: NDArray[np.uint8], level: float) -> tuple[float, Tensor, Tensor]:
    """Mean bits per pixel, pixels and their reconstructions [B, 3, S, S] in 0..1, on the integer grid."""
    device = net.hyper_mean.device
    was_training, was_quantised = net.training, net.quantised
    net.eval()
    net.set_quantised(True)
    x_B3SS = _pixels(crops).to(device)
    rates, reconstructed = [], []
    with machine.computing(device, 1):  # the same noise for every model
        for x in x_B3SS[:, None]:  # one at a time: a GPU's memory may be full of training
            x_hat, kl_y, kl_z = net(x, torch.full((1,), float(level), device=device))
            rates.append(float(kl_y + kl_z) / (math.log(2) * x.shape[2] * x.shape[3]))
            reconstructed.append(x_hat.clamp(0, 1))
    net.train(was_training)
    net.set_quantised(was_quantised)
    return float(np.mean(rates)), x_B3SS, torch.cat(reconstructed)
