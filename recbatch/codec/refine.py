"""Refinement of one image's latents by the loss that counts: bits plus what synthesis really makes of the samples.

The analysis network gives targets that are good for all photographs. A few steps of gradient descent through the
synthesis network make them better for this one: first for all latents; then, once pass 0 is coded, for those of
pass 1, which can make up for what the samples of pass 0 got wrong. Each step costs a synthesis forward and backward,
so only the higher efforts refine. Decoders know nothing of it.

The descent follows posterior means. With samples in their place, as in training, the gradient's noise of a few steps
costs more than they bring (docs/decisions/0005).

Shapes: M channels on the h x w grid of latents.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.models.lossy import level_lambda
from recbatch.models.photo import Context, PhotoModel, Prior
from recbatch.rec.base import SCALES
from recbatch.rec.tables import sigma

STEPS_OF_EFFORT = {6: 1, 7: 2, 8: 3, 9: 6}  # before each pass; none at lower efforts
RATE = 0.35  # of descent: in units of noise the loss has curvatures of about 1, so that little more is needed
_VARIANCES = torch.tensor([sigma(k) ** 2 for k in range(SCALES)])


def posterior(y: Tensor, prior: Prior) -> tuple[Tensor, Tensor, Tensor]:
    """Prior mean, posterior variance and posterior mean of latents y, all float32 of its shape."""
    variance = _VARIANCES[prior.index.long()].float()
    a = variance / (1 + variance)
    mean = prior.mean.float() / 16
    return mean, a, mean + a * (y - mean)


def expected_samples(y: Tensor, prior: Prior) -> Tensor:
    """Posterior means as samples, int32 in 1/64: what a coder sends on average."""
    return torch.round(64 * posterior(y, prior)[2]).to(torch.int32)


def expected_prior(model: PhotoModel, y: Tensor, context: Context, sent: Tensor, which: int) -> Prior:
    """Prior of all latents [1, M, h, w]: of pass ``which`` exact, of later ones from what will be sent on average.

    Where earlier passes have ``sent`` samples (zero elsewhere), it is no one's prior and of no use.
    """
    context, sent = replace(context), sent.clone()
    mean, index = torch.zeros_like(sent), torch.zeros_like(sent, dtype=torch.uint8)
    for later in range(which, model.passes):
        channels = model.pass_channels(later)
        mask = model.pass_mask(later, *y.shape[2:])
        prior = model.pass_prior(context, later, sent)
        sent[:, channels] += torch.where(mask, expected_samples(y[:, channels], prior), 0)
        mean[:, channels] += torch.where(mask, prior.mean, 0)
        index[:, channels] += torch.where(mask, prior.index, 0)
    return Prior(mean, index)


def refined(
    model: PhotoModel,
    y: Tensor,
    pixels: NDArray[np.uint8],
    size: tuple[int, int],
    level: float,
    prior: Prior,
    steps: int,
    fixed: Tensor | None = None,
    free: Tensor | None = None,
) -> Tensor:
    """Latents y [1, M, h, w] after so many steps under a frozen prior.

    Args:
        pixels: uint8 [1, H, W, 3], padded; ``size``: height and width without padding.
        fixed: samples already sent, int32 in 1/64, where ``free`` [1, M, h, w] is false.
    """
    mean, a, _ = posterior(y, prior)
    weight = float(level_lambda(torch.tensor(float(level)))) * math.log(2)  # loss in nats
    sent = None if fixed is None else fixed.float() / 64
    y = y.clone()
    for _ in range(steps):
        e = y - mean
        sample = mean + a * e
        if sent is not None and free is not None:
            sample = torch.where(free, sample, sent)
        gradient = weight * a * model.error_gradient(sample, pixels, size, level) + a * (1 - a) * e
        y -= RATE * (gradient if free is None else torch.where(free, gradient, 0.0))
    return y
