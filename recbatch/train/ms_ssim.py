"""MS-SSIM as training needs it: of batches, with a gradient. ``recbatch.codec.quality.ms_ssim`` is what is reported.

Source: Wang, Simoncelli, Bovik 2003; window and constants as in Wang et al. 2004.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recbatch.codec.quality import MIN_SIDE, MS_SSIM_WEIGHTS, SIGMA, WINDOW

C1, C2 = 0.01**2, 0.03**2  # of values in 0..1
LEAST = 1e-4  # of a scale's similarity: below, the power of it would have no finite gradient


def ms_ssim(x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
    """Multi-scale structural similarity of each image [B], values in about 0..1; sides of at least MIN_SIDE."""
    if min(x_BCHW.shape[2:]) < MIN_SIDE:
        raise ValueError(f"MS-SSIM needs {MIN_SIDE} pixels a side, got {tuple(x_BCHW.shape[2:])}")
    offsets = torch.arange(WINDOW, device=x_BCHW.device) - WINDOW // 2
    window = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    window = (window / window.sum()).to(x_BCHW.dtype)
    x, y = (t.flatten(0, 1)[:, None] for t in (x_BCHW, y_BCHW))  # every channel an image of its own
    result = torch.ones_like(x[:, 0, 0, 0])
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        similarity, contrast = _means(x, y, window)
        result = result * (similarity if last else contrast).clamp(min=LEAST) ** weight
        if not last:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return result.reshape(x_BCHW.shape[:2]).mean(1)


def _means(x: Tensor, y: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Mean SSIM and mean contrast-structure of each plane [N, 1, H, W], windows inside the plane only."""
    n = len(x)
    planes = torch.cat([x, y, x * x, y * y, x * y])
    # a product with a banded matrix: on CPU several times as fast as a convolution of one channel
    blurred = _band(planes.shape[2], window).T @ planes @ _band(planes.shape[3], window)
    mu, nu, xx, yy, xy = (blurred[i * n : (i + 1) * n] for i in range(5))
    contrast = (2 * (xy - mu * nu) + C2) / (xx - mu * mu + yy - nu * nu + C2)
    luminance = (2 * mu * nu + C1) / (mu * mu + nu * nu + C1)
    return (luminance * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))


def _band(side: int, window: Tensor) -> Tensor:
    """Matrix [side, side - WINDOW + 1] that filters a row of so many values."""
    inside = side - WINDOW + 1
    band = torch.zeros(side, inside, dtype=window.dtype, device=window.device)
    for k, tap in enumerate(window):
        band.diagonal(-k)[:inside] = tap
    return band
