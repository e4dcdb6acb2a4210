"""The coder's entropy tables, fitted to a trained model's own latents.

The latents of a trained model are not Gaussian given their scale index: most are smaller, some far larger. A mixture
of ten Gaussians around the planned variance, one set of weights for every three scale indices, is fitted to training
photographs by expectation maximisation and turned into the integer tables of ``recbatch.rec.tables``.

Legend: N observations, J components, B knots of a density.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.models.lossy import (
    LEVELS,
    SCALE_RATIO,
    LossyNet,
    level_features,
    scale_of_index,
)
from recbatch.rec import tables
from recbatch.rec.base import SCALES
from recbatch.train import machine
from recbatch.train.data import Photographs

FACTORS_J = np.exp(np.linspace(math.log(0.02), math.log(64.0), 10))  # variances, in units of the planned one
POOL = 3  # scale indices that share weights
CROPS, SIDE = 160, 256
MOST = 60_000  # observations of a pool
PSEUDO = 20.0  # weight, in observations, of the average over all pools
ROUNDS = 150
SEED = 7
START_SPREAD = (
    0.7  # of the log factors: a few rounds say nothing of factors that noise hides, so begin near 1
)

Floats = NDArray[np.float64]


def fit_coder_prior(net: LossyNet, photographs: Photographs) -> Mapping[str, NDArray[np.int64]]:
    """The density table for ``Tables.with_prior``, from random crops at random rate levels."""
    return tables_from(*collect(net, photographs, np.random.default_rng(SEED)))


def tables_from(e: NDArray[np.float32], index: NDArray[np.uint8]) -> Mapping[str, NDArray[np.int64]]:
    """The tables, from targets and their scale indices."""
    pools = [_sample(e, index, first) for first in range(1, SCALES, POOL)]
    average = np.exp(-0.5 * (np.log(FACTORS_J) / START_SPREAD) ** 2)
    average /= average.sum()
    for _ in range(2):  # the second time with a prior of the data's own
        fitted = [fit_mixture(*pool, average) for pool in pools]
        counts = np.array([pool[0].size for pool in pools], float)
        average = counts @ np.array(fitted) / max(counts.sum(), 1.0)
    default = tables.Tables.default()
    density = default.arrays["density"].astype(np.int64)
    for k in range(1, SCALES):
        if default.kind_S[k] != tables.SCALAR:  # fitting those too changed no rate by more than 0.04 %
            density[k] = mixture_density(fitted[(k - 1) // POOL])
    return {"density": density}


@torch.no_grad()
def collect(
    net: LossyNet, photographs: Photographs, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Targets e and scale indices of all passes, as the encoder meets them; all randomness comes from ``rng``."""
    with machine.computing(torch.device("cpu"), int(rng.integers(2**63))):
        return _collect(net, photographs, rng)


def _collect(
    net: LossyNet, photographs: Photographs, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    targets, indices = [], []
    index_0 = scale_of_index(torch.zeros(1))
    step = scale_of_index(torch.ones(1)) - index_0

    def watch(y: Tensor, mean: Tensor, log_variance: Tensor, coded: Tensor) -> None:
        targets.append((y - mean)[coded].numpy())
        indices.append(torch.round((log_variance - index_0) / step)[coded].numpy().astype(np.uint8))

    for crop in photographs.crops(CROPS, SIDE, rng):
        x = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float().div_(255)
        level = torch.tensor([float(rng.integers(0, LEVELS))])
        y = net.latents(x, level)
        z = net.hyper_analysis(y)
        mean, log_variance = net.hyper_prior()
        a = torch.sigmoid(log_variance)
        z = mean + a * (z - mean) + torch.sqrt(a) * torch.randn_like(z)
        h, raw = net.prior.hyper(z, level_features(level), True)
        net.sample_latents(y, h, raw, level, watch)
    return np.concatenate(targets), np.concatenate(indices)


def _sample(e: NDArray[np.float32], index: NDArray[np.uint8], first: int) -> tuple[Floats, Floats]:
    """Observations of one pool and their planned variances."""
    chosen = np.flatnonzero((index >= first) & (index < first + POOL))
    if chosen.size > MOST:
        chosen = np.random.default_rng(first).choice(chosen, MOST, replace=False)
    sigma = 0.083 * SCALE_RATIO ** (index[chosen].astype(np.float64) - 1)
    return e[chosen].astype(np.float64), sigma**2


def fit_mixture(e_N: Floats, variance_N: Floats, prior_J: Floats) -> Floats:
    """Weights [J] of Gaussians with FACTORS_J times the planned variance, each seen with unit noise."""
    spread = 1 + variance_N[:, None] * FACTORS_J
    log_likelihood = -0.5 * (e_N[:, None] ** 2 / spread + np.log(spread))
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True, initial=-np.inf))
    weights = prior_J.copy()
    for _ in range(ROUNDS):
        joint = likelihood * weights
        share = joint / joint.sum(axis=1, keepdims=True)
        weights = share.sum(axis=0) + PSEUDO * prior_J
        weights /= weights.sum()
    return weights


def mixture_density(weights_J: Floats) -> NDArray[np.int64]:
    """The mixture at ``tables.knots()``, as integers with the peak at 2**32 - 1."""
    x = tables.knots()[:, None]
    density = (weights_J * np.exp(-0.5 * x**2 / FACTORS_J) / np.sqrt(FACTORS_J)).sum(axis=1)
    scaled: NDArray[np.int64] = np.rint(density / density.max() * (2**32 - 1)).astype(np.int64)
    return scaled
