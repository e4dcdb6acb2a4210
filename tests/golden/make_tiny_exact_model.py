"""Makes ``model/tiny-exact.safetensors``: a lossless model of some tens of KiB for the golden files, never trained.

    python tests/golden/make_tiny_exact_model.py OUT

Its networks are random but busy, so that every input and every level decides what is read; its predictors lean on the
nearest taps. The synthesis of previews belongs to ``tiny.safetensors``. As with that file, the committed one is never
made again.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch

from recbatch.models.exact import ExactConv2d, quantise
from recbatch.models.lossless.folded import LAW, export
from recbatch.models.lossless.geometry import STAGES
from recbatch.models.lossless.network import LosslessConfig, LosslessNet
from recbatch.models.lossless.preview import OUTPUTS, PreviewSynthesis
from recbatch.rec.mixtures import Law

PHOTO = Path(__file__).parent / "model" / "tiny.safetensors"
CONFIGS = {
    "plain": LosslessConfig(width=8),
    "preview": LosslessConfig(width=8, preview=True),
    "small": LosslessConfig(width=4, blocks=1),
}
PREVIEW_LEVEL, TOTAL_SHIFT, CHANNELS = 10, 22, 24


def main(out: str) -> None:
    torch.set_num_threads(1)
    variants = {name: make_net(config, seed) for seed, (name, config) in enumerate(CONFIGS.items())}
    law = Law.make()
    tables = {name: getattr(law, name) for name in LAW}
    head = hashlib.sha256(PHOTO.read_bytes()).digest()[:8]
    data = export(variants, tables, name="tiny-exact", preview=make_synthesis(head, seed=9))
    Path(out).write_bytes(data)


def make_net(config: LosslessConfig, seed: int) -> LosslessNet:
    """Random networks and predictors."""
    rng = np.random.default_rng(seed)
    net = LosslessNet(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, ExactConv2d):
                terms = layer.weight[0].numel()
                layer.weight.normal_(0, 0.9 * terms**-0.5, generator=generator)
                assert layer.bias is not None
                layer.bias.add_(torch.empty_like(layer.bias).normal_(0, 0.2, generator=generator))
        for place in range(len(STAGES)):
            stage = net.stage(place)
            stage.level.normal_(0, 0.5, generator=generator)
            for out in stage.out:
                assert isinstance(out, ExactConv2d)
                out.weight.mul_(0.2)  # near enough to the base, so that streams stay small
        for place, s in enumerate(STAGES):
            # half a pixel to the right or below where phases differ so: the nearest weigh most
            p, q = s.phase
            away = np.array([abs(2 * a + tp - p) + abs(2 * b + tq - q) for tp, tq, a, b in s.taps])
            share = np.exp(-1.5 * away) / np.exp(-1.5 * away).sum()
            noise = rng.integers(-60, 61, (*net.weights.shape[:1], 3, len(s.taps)))
            fitted = (
                np.rint(4096 * share).astype(np.int64) + noise - noise.mean(axis=-1, keepdims=True).round()
            )
            net.weights[:, place, :, : len(s.taps)] = torch.from_numpy(fitted.astype(np.int32))
        net.gains.copy_(torch.from_numpy(rng.integers(200, 3000, tuple(net.gains.shape)).astype(np.int32)))
    quantise(net)
    return net


def make_synthesis(latents_of: bytes, seed: int) -> PreviewSynthesis:
    """Random, of the size that moves a pixel by some grey levels."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, (OUTPUTS, CHANNELS)).astype(np.int8)
    bias = np.repeat(np.array([128, 3, -4], np.int32) << TOTAL_SHIFT, OUTPUTS // 3)
    bias += rng.integers(-(1 << 20), 1 << 20, OUTPUTS).astype(np.int32)
    shift = rng.integers(3, 9, CHANNELS).astype(np.int8)
    return PreviewSynthesis(weight, bias, shift, TOTAL_SHIFT, PREVIEW_LEVEL, latents_of)


if __name__ == "__main__":
    main(*sys.argv[1:])
