"""The start of training: the model as a calibrated Karhunen-Loeve transform coder."""

from __future__ import annotations

import math

import numpy as np
import torch

from recbatch.models.lossy import (
    INDEX_OFFSET,
    INDEX_SHIFT,
    NOISE_OF_LAMBDA,
    PARAMETER_EXP,
    SCALE_RATIO,
    SIGMA_MIN,
    LossyNet,
    level_lambda,
)
from recbatch.train.data import Photographs

BLOCK = 16
CROPS = 1500


def klt_start(net: LossyNet, photographs: Photographs, rng: np.random.Generator) -> float:
    """Set the linear paths to the leading eigenvectors of 16 x 16 x 3 blocks, the prior to their eigenvalues.

    The networks beside them start at zero, so that step 0 already codes. Returns the share of the variance that
    the kept eigenvectors leave out.
    """
    kept = net.config.latent
    crops = photographs.crops(CROPS, 64, rng).astype(np.float32) / 255 - 0.5
    blocks = crops.reshape(CROPS, 4, BLOCK, 4, BLOCK, 3).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 3 * BLOCK**2)
    values, vectors = np.linalg.eigh(blocks.T.astype(np.float64) @ blocks / len(blocks))
    values, vectors = values[::-1], vectors[:, ::-1]
    basis = torch.from_numpy(np.ascontiguousarray(vectors[:, :kept].T)).float()
    power = torch.from_numpy(values[:kept].copy()).float().clamp(min=1e-9)
    # the scale index of each channel at level 0, from its standard deviation in units of observation noise;
    # 0.3 of the variance is a guess at what the hyper networks leave
    sigma = torch.sqrt(0.3 * power * level_lambda(torch.zeros(1)) / NOISE_OF_LAMBDA)
    index = torch.log(sigma / SIGMA_MIN) / math.log(SCALE_RATIO) + 1
    raw = (index - INDEX_OFFSET) / 2.0 ** (PARAMETER_EXP - INDEX_SHIFT)
    with torch.no_grad():
        net.analysis.linear.weight.copy_(basis.reshape(kept, 3, BLOCK, BLOCK))
        net.analysis.linear.bias.zero_()  # type: ignore[union-attr]
        net.synthesis.linear.weight.copy_(basis.T.reshape(3 * BLOCK**2, kept, 1, 1))
        net.synthesis.linear.bias.zero_()  # type: ignore[union-attr]
        for layer, value in ((net.prior.first, raw), (net.prior.second, torch.zeros_like(raw))):
            layer.bias.copy_(torch.cat([torch.zeros_like(raw), value]))  # type: ignore[union-attr]
    return float(values[kept:].sum() / values.sum())
