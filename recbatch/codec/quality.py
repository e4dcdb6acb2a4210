"""How far a restored image is from its source: PSNR and MS-SSIM over all 8-bit channels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # [H, W, C]

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
SIGMA = 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
MIN_SIDE = WINDOW * 2 ** (len(MS_SSIM_WEIGHTS) - 1)  # the coarsest scale still holds one window
SQUARED_AT_ONCE = 1 << 20  # samples; their squares take eight bytes each
PSNR_OF_EQUAL = 100.0  # dB, reported for identical images instead of infinity


def psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(255^2 / MSE), MSE over all pixels and channels."""
    rows = max(1, SQUARED_AT_ONCE // max(1, a[0].size))
    squares = 0
    for top in range(0, len(a), rows):
        error = a[top : top + rows].astype(np.int32) - b[top : top + rows]
        squares += int(np.square(error, dtype=np.int64).sum())
    mse = squares / a.size
    return PSNR_OF_EQUAL if mse == 0 else 10 * math.log10(255**2 / mse)


def ms_ssim(a: Pixels, b: Pixels) -> float | None:
    """Multi-scale structural similarity, 0..1: five scales, per channel, then averaged.

    None for images with a side under 176 pixels, which have no fifth scale. An odd last row or column is
    dropped between scales.

    Source: Wang, Simoncelli, Bovik 2003; window and constants as in Wang et al. 2004.
    """
    if min(a.shape[:2]) < MIN_SIDE:
        return None
    channels = [
        _ms_ssim_plane(a[..., c].astype(np.float32), b[..., c].astype(np.float32)) for c in range(a.shape[2])
    ]
    return float(np.mean(channels))


def _ms_ssim_plane(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    window = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    window = (window / window.sum()).astype(np.float32)
    result = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        similarity, contrast = _ssim_means(x, y, window)
        result *= max(similarity if last else contrast, 0.0) ** weight
        if not last:
            x, y = _halve(x), _halve(y)
    return result


def _halve(x: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = (s // 2 for s in x.shape)
    pairs = x[0 : 2 * height : 2] + x[1 : 2 * height : 2]
    out: NDArray[np.float32] = (pairs[:, 0 : 2 * width : 2] + pairs[:, 1 : 2 * width : 2]) * np.float32(0.25)
    return out


@njit(cache=True, fastmath=True)
def _ssim_means(x: Any, y: Any, window: Any) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure of one plane, windows inside the plane only."""
    height, width = x.shape
    taps = window.size
    rows = np.zeros((taps, 5, width - taps + 1), np.float32)  # ring of horizontally filtered rows
    products = np.empty((5, width), np.float32)
    sums = np.empty((5, width - taps + 1), np.float32)
    similarity: Any = 0.0  # float64: thousands of float32 rows are summed
    contrast: Any = 0.0
    for i in range(height):
        for j in range(width):
            u, v = x[i, j], y[i, j]
            products[0, j], products[1, j] = u, v
            products[2, j], products[3, j], products[4, j] = u * u, v * v, u * v
        row = rows[i % taps]
        for m in range(5):
            for j in range(width - taps + 1):
                row[m, j] = np.float32(0)
            for k in range(taps):
                g = window[k]
                for j in range(width - taps + 1):
                    row[m, j] += g * products[m, j + k]
        if i < taps - 1:
            continue
        for m in range(5):
            for j in range(width - taps + 1):
                sums[m, j] = np.float32(0)
            for k in range(taps):
                g = window[k]
                source = rows[(i + 1 + k) % taps]
                for j in range(width - taps + 1):
                    sums[m, j] += g * source[m, j]
        total_s = total_c = np.float32(0)
        for j in range(width - taps + 1):
            mu, nu = sums[0, j], sums[1, j]
            covariance = sums[4, j] - mu * nu
            variances = sums[2, j] - mu * mu + sums[3, j] - nu * nu
            c = (2 * covariance + np.float32(C2)) / (variances + np.float32(C2))
            total_c += c
            total_s += c * (2 * mu * nu + np.float32(C1)) / (mu * mu + nu * nu + np.float32(C1))
        similarity += total_s
        contrast += total_c
    count = (height - taps + 1) * (width - taps + 1)
    return similarity / count, contrast / count
