"""Two small images, and the model that training starts from, fitted to them: enough to measure, not to boast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from recbatch.models.lossy import LossyConfig, LossyNet
from recbatch.models.photo import export
from recbatch.train.klt import klt_start


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(3)
    for name, size in (("a.png", (176, 192)), ("b.png", (192, 176))):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 11, 3), np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + rng.integers(-6, 7, smooth.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(root / name)
    return root


class Crops:
    """The images as training data."""

    def __init__(self, folder: Path) -> None:
        self._images = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]

    def crops(self, count: int, side: int, rng: np.random.Generator) -> np.ndarray:
        out = []
        for n in range(count):
            image = self._images[n % len(self._images)]
            i, j = rng.integers(0, np.array(image.shape[:2]) - side)
            out.append(image[i : i + side, j : j + side])
        return np.stack(out)


@pytest.fixture(scope="session")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a weight file."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = LossyNet(LossyConfig(latent=96, hyper=4, widths=(8, 8, 8)))
    klt_start(net, Crops(folder), np.random.default_rng(1))  # type: ignore[arg-type]
    net.set_quantised(True)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    path.write_bytes(export(net, name="tiny"))
    return str(path)
