"""A tiny model, and a decoder that knows it."""

from __future__ import annotations

import pytest
import torch
from pictures import GOLDEN

from recbatch.codec import Decoder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights() -> bytes:
    return (GOLDEN / "model" / "tiny.safetensors").read_bytes()


@pytest.fixture(scope="session")
def decoder(weights: bytes) -> Decoder:
    return Decoder(lambda head: weights)
