"""MS-SSIM of training against the one that is reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbatch.codec import quality
from recbatch.train.ms_ssim import ms_ssim


def picture(seed: int, height: int = 193, width: int = 208) -> np.ndarray:
    """Smooth shapes, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 40
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(0.5, 3, (3, 3))]
    return (127 + 90 * np.stack(waves, axis=2)).astype(np.uint8)


def batch(*pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def test_it_is_the_figure_that_is_reported():
    rng = np.random.default_rng(5)
    sources = [picture(1), picture(2)]
    others = [
        np.clip(s + rng.normal(0, d, s.shape), 0, 255).round().astype(np.uint8)
        for s, d in zip(sources, (4, 25), strict=True)
    ]
    expected = [quality.ms_ssim(a, b) for a, b in zip(sources, others, strict=True)]
    assert ms_ssim(batch(*sources), batch(*others)).tolist() == pytest.approx(expected, abs=2e-5)


def test_equal_images_have_all_of_it():
    x = batch(picture(3))
    assert float(ms_ssim(x, x)) == pytest.approx(1, abs=1e-5)


def test_its_gradient_is_finite_even_where_nothing_agrees():
    x = batch(picture(4))
    y = (1 - x).requires_grad_(True)  # every structure inverted
    ms_ssim(x, y).sum().backward()
    assert torch.isfinite(y.grad).all()


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="176"):
        ms_ssim(torch.zeros(1, 3, 175, 300), torch.zeros(1, 3, 175, 300))
