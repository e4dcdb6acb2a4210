from __future__ import annotations

import numpy as np
import pytest

from recbatch.codec.quality import C1, C2, MIN_SIDE, MS_SSIM_WEIGHTS, PSNR_OF_EQUAL, ms_ssim, psnr


def test_psnr_by_hand():
    a = np.zeros((4, 4, 3), np.uint8)
    b = a.copy()
    b[0, 0, 0] = 48  # 48^2 / 48 values
    assert psnr(a, b) == pytest.approx(10 * np.log10(255**2 / 48))
    assert psnr(a, a) == PSNR_OF_EQUAL
    assert psnr(np.zeros((1, 1, 1), np.uint8), np.full((1, 1, 1), 255, np.uint8)) == pytest.approx(0)


def reference(a, b):
    """The definition in float64, with full two-dimensional windows."""
    g = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window = np.outer(g, g) / g.sum() ** 2

    def blur(x):
        views = np.lib.stride_tricks.sliding_window_view(x, (11, 11))
        return np.einsum("ijkl,kl->ij", views, window)

    results = []
    for c in range(a.shape[2]):
        x, y = a[..., c].astype(float), b[..., c].astype(float)
        value = 1.0
        for scale, weight in enumerate(MS_SSIM_WEIGHTS):
            mx, my = blur(x), blur(y)
            vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
            cs = (2 * cov + C2) / (vx + vy + C2)
            value *= (
                cs * (2 * mx * my + C1) / (mx * mx + my * my + C1) if scale == 4 else cs
            ).mean() ** weight
            h, w = (s // 2 * 2 for s in x.shape)
            x, y = (p[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3)) for p in (x, y))
        results.append(value)
    return np.mean(results)


def test_ms_ssim_is_the_definition():
    rng = np.random.default_rng(0)
    a = np.kron(rng.integers(0, 256, (19, 20, 3)), np.ones((10, 10, 1)))[:177, :190].astype(np.uint8)
    b = np.clip(a + rng.integers(-20, 21, a.shape), 0, 255).astype(np.uint8)
    assert ms_ssim(a, b) == pytest.approx(reference(a, b), abs=1e-5)
    assert ms_ssim(a, a) == pytest.approx(1.0, abs=1e-6)


def test_small_images_have_no_ms_ssim():
    a = np.zeros((MIN_SIDE - 1, 500, 3), np.uint8)
    assert ms_ssim(a, a) is None
    assert (
        ms_ssim(np.zeros((MIN_SIDE, MIN_SIDE, 1), np.uint8), np.zeros((MIN_SIDE, MIN_SIDE, 1), np.uint8))
        == 1.0
    )
