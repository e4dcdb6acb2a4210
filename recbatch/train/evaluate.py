"""What a model under training costs on photographs that it never sees."""

from __future__ import annotations

import math

import numpy as np
import torch

from recbatch.models.lossy import LossyNet, level_lambda
from recbatch.train.data import Photographs

LEVELS = (4, 11, 18, 25)
CROPS, SIDE = 12, 256


@torch.no_grad()
def held_out_cost(net: LossyNet, photographs: Photographs) -> dict[str, float]:
    """Mean loss, bits per pixel and PSNR at four rate levels, on fixed crops with fixed noise."""
    crops = photographs.crops(CROPS, SIDE, np.random.default_rng(1))
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(255)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    was_training, was_quantised = net.training, net.quantised
    net.eval()
    net.set_quantised(True)
    result: dict[str, float] = {}
    total = 0.0
    for q in LEVELS:
        level = torch.full((1,), float(q))
        rates, errors = [], []
        for image in x:
            x_hat, kl_y, kl_z = net(image[None], level)
            rates.append(float(kl_y + kl_z) / (math.log(2) * SIDE**2))
            errors.append(float(((x_hat.clamp(0, 1) - image) ** 2).mean()))
        weight = float(level_lambda(level))
        cost = float(np.mean(rates)) + weight * 65025 * float(np.mean(errors))
        total += cost / math.sqrt(weight / 0.01)
        result[f"bpp_{q}"] = float(np.mean(rates))
        result[f"psnr_{q}"] = float(np.mean([-10 * math.log10(e) for e in errors]))
    net.train(was_training)
    net.set_quantised(was_quantised)
    torch.set_rng_state(state)
    return {"held_out_loss": total / len(LEVELS), **result}
