from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from recbatch.train import klt, machine, prior_fit
from recbatch.train.data import Photographs, prepare

EIGH = np.linalg.eigh


@pytest.fixture(scope="session")
def photographs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two smooth pictures of 340 x 330 pixels."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(2):
        coarse = Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
        coarse.resize((340, 330), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def photographs(photographs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    return prepare(photographs_folder, tmp_path_factory.mktemp("prepared") / "train.u8")


@cache
def eigenvectors(data: bytes, side: int) -> tuple:
    """Of a symmetric matrix, remembered: most runs of these tests begin with the same one."""
    return EIGH(np.frombuffer(data).reshape(side, side))


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and what begins and ends a run made of less: as good here."""
    torch.set_num_threads(1)
    monkeypatch.setattr(klt, "CROPS", 100)
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: eigenvectors(matrix.tobytes(), len(matrix)))
    monkeypatch.setattr(prior_fit, "CROPS", 2)
    monkeypatch.setattr(prior_fit, "ROUNDS", 3)
    monkeypatch.setattr(machine, "matmul_peak", lambda device, dtype: 1e11)
