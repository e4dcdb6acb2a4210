"""Small lossless models that no one trained: any integers will do where only exactness is asked."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from recbatch.models import weights
from recbatch.models.exact import selftest
from recbatch.models.lossless.folded import LAW, LosslessModel, export
from recbatch.models.lossless.geometry import STAGES
from recbatch.models.lossless.network import LosslessConfig, LosslessNet
from recbatch.models.lossless.preview import OUTPUTS, PreviewSynthesis
from recbatch.rec.mixtures import Law

TINY_PHOTO = Path(__file__).parent / "golden" / "model" / "tiny.safetensors"
PREVIEW_LEVEL = 12


def random_net(seed: int, *, preview: bool = False, width: int = 8) -> LosslessNet:
    """Random layers, biases and gains; predictors that are a mean of the taps, more or less."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = LosslessNet(LosslessConfig(width=width, preview=preview))
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if name.endswith((".bias", ".level")):
                    parameter.add_(0.2 * torch.randn_like(parameter))
                elif ".out." in name:
                    parameter.mul_(4)
    rng = np.random.default_rng(seed)
    for stage, s in enumerate(STAGES):
        shape = (*net.weights.shape[:1], 3, len(s.taps))
        mean = rng.normal(4096 / len(s.taps), 120, shape)
        net.weights[:, stage, :, : len(s.taps)] = torch.from_numpy(np.rint(mean).astype(np.int32))
    net.gains.copy_(torch.from_numpy(rng.integers(-500, 3000, net.gains.shape, np.int32)))
    return net


def random_synthesis(seed: int, channels: int, latents_of: bytes) -> PreviewSynthesis:
    """Planes of no likeness to the image, which is all that exactness needs."""
    rng = np.random.default_rng(seed)
    return PreviewSynthesis(
        weight=rng.integers(-127, 128, (OUTPUTS, channels)).astype(np.int8),
        bias=np.concatenate(
            [rng.integers(90, 160, OUTPUTS // 3), rng.integers(-40, 40, 2 * OUTPUTS // 3)]
        ).astype(np.int32)
        << 22,
        shift=rng.integers(4, 11, channels).astype(np.int8),
        total_shift=22,
        level=PREVIEW_LEVEL,
        latents_of=latents_of,
    )


@lru_cache
def model_file(*, small: bool = True, preview: bool = True, seed: int = 0) -> bytes:
    """A model file with the variants ``plain`` and, where asked for, ``small`` and ``preview``.

    Cached, because safetensors orders metadata by chance: the same nets give another file, and digest, each time.
    """
    law = Law.make()
    nets = {"plain": random_net(seed)}
    if small:
        nets["small"] = random_net(seed + 1)
    synthesis = None
    if preview:
        nets["preview"] = random_net(seed + 2, preview=True)
        photo = TINY_PHOTO.read_bytes()
        synthesis = random_synthesis(seed, 24, weights.digest(photo)[: weights.DIGEST_HEAD])
    return export(nets, {key: getattr(law, key) for key in LAW}, name="tiny-exact", preview=synthesis)


@lru_cache
def random_model() -> LosslessModel:
    """All three variants, loaded."""
    return LosslessModel.from_bytes(model_file())


def trust_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the trial that each new shape of a layer gets: for tests that draw many sizes, it is most of the time.

    What the trials are for is tested in tests/models; ``at_least`` means what it meant.
    """
    monkeypatch.setattr(selftest, "_climb", lambda *args: (selftest.RUNGS[args[-1]], ()))
