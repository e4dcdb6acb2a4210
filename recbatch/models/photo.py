"""A trained ``photo`` model as encoder and decoder use it: folded, integer where it must be.

Shapes: B images, H x W pixels (multiples of 64), M latent channels at 1/16, N hyper channels at 1/64. Samples are
int32 in 1/64 of the observation noise, means int32 in 1/16, scale indices uint8: those are what a stream holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recbatch.models import weights
from recbatch.models.exact import FoldedConv2d, compand, exact_mode
from recbatch.models.lossy import LossyConfig, LossyNet, level_features, pass_mask
from recbatch.models.prior import SAMPLES_PER_MEAN, mean_and_index

STRIDE = 64  # images are padded to multiples of this
STRIP_PIXELS = 4_000_000
GRADIENT_PIXELS = 1_000_000  # of a strip where gradients are kept: they need several times the memory
HALO = 128  # rows; analysis reaches 70 pixels to each side, synthesis 76
ARCHITECTURE = "photo/1"
EXACT_LAYERS = ("up1", "up2", "features", "first", "context", "mix", "second")
CODER_PRIOR = ("density", "mass", "centroid")
FLOAT_PARTS = ("analysis.", "synthesis.", "hyper_analysis.", "gain.", "ungain.")


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows low..high of a large picture; after the first ``skip``, ``rows`` of them are the strip's own."""

    low: int
    high: int
    skip: int
    rows: int


def strips(height: int, width: int, pixels: int | None = None) -> Iterator[Strip]:
    """Cut a picture so that the float networks need bounded memory; one strip where it is small enough.

    Strips overlap by more than the networks reach, so the cut changes nothing but rounding.
    """
    own = max(STRIDE, (pixels or STRIP_PIXELS) // width // STRIDE * STRIDE)
    for top in range(0, height, own):
        low, bottom = max(0, top - HALO), min(height, top + own)
        yield Strip(low, min(height, bottom + HALO), top - low, bottom - top)


@dataclass(frozen=True, slots=True)
class Prior:
    """Prior of one pass: means [B, M, h, w] and scale indices [B, M, h, w]."""

    mean: Tensor
    index: Tensor


class PhotoModel:
    """Analysis and synthesis in float, the prior in integers."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        digest: bytes,
        *,
        device: str = "cpu",
    ) -> None:
        config = dict(json.loads(metadata["config"]))
        config["widths"], config["blocks"] = tuple(config["widths"]), tuple(config["blocks"])
        self.name = metadata["name"]
        self.config = LossyConfig(**config)
        self.device = torch.device(device)
        self.digest = digest
        self._exact = {
            name: FoldedConv2d.from_state(dict(tensors), f"exact.{name}.") for name in EXACT_LAYERS
        }
        self._hyper_mean = tensors["exact.hyper_mean"].to(torch.int32)
        self._hyper_index = tensors["exact.hyper_index"]
        # a trained entropy prior for the coders, by name; the codec knows what they mean
        self.coder_prior = {
            name: tensors[f"exact.{name}"].numpy() for name in CODER_PRIOR if f"exact.{name}" in tensors
        }
        self._net = LossyNet(self.config)
        floats = {k: v.float() for k, v in tensors.items() if k.startswith(FLOAT_PARTS)}
        missing, _ = self._net.load_state_dict(floats, strict=False)
        lost = [k for k in missing if k.startswith(FLOAT_PARTS)]
        if lost:
            raise weights.BadWeights(self.name, f"lacks {lost[0]}")
        self._net = self._net.eval().requires_grad_(False).to(self.device)
        self._net = self._net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_bytes(cls, data: bytes, *, device: str = "cpu") -> PhotoModel:
        """Load from a safetensors file's bytes. Raises BadWeights."""
        tensors, metadata = weights.parse(data)
        if metadata.get("architecture") != ARCHITECTURE:
            raise weights.BadWeights(metadata.get("name", "?"), f"architecture is not {ARCHITECTURE}")
        try:
            return cls(tensors, metadata, weights.digest(data), device=device)
        except (KeyError, TypeError, ValueError, RuntimeError) as e:
            raise weights.BadWeights(metadata.get("name", "?"), str(e).splitlines()[0]) from e

    # -- encoder only: float ------------------------------------------------------------------------------

    @torch.inference_mode()
    def analyse(self, pixels: NDArray[np.uint8], level: int) -> tuple[Tensor, Tensor]:
        """Latents y [B, M, H/16, W/16] and z [B, N, H/64, W/64] of pixels [B, H, W, 3], in noise units."""
        levels = self._levels(level, len(pixels))
        parts = []
        for strip in strips(*pixels.shape[1:3]):
            x = torch.from_numpy(pixels[:, strip.low : strip.high].copy()).to(self.device)
            x = x.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
            y = self._net.latents(x, levels)
            parts.append(y[:, :, strip.skip // 16 : (strip.skip + strip.rows) // 16])
        y = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        return y.cpu(), self._net.hyper_analysis(y).cpu()

    def error_gradient(
        self, y: Tensor, pixels: NDArray[np.uint8], size: tuple[int, int], level: int
    ) -> Tensor:
        """Gradient by latents y (float32 [1, M, H/16, W/16]) of the error that their synthesis leaves.

        The error is squared, in grey levels, averaged over colours and summed over the ``size`` (height, width) of
        the picture proper; ``pixels`` [1, H, W, 3] are padded.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(
            1
        )  # sums of more threads are rounded otherwise, and a stream would depend on them
        try:
            return self._error_gradient(y, pixels, size, level)
        finally:
            torch.set_num_threads(threads)

    def _error_gradient(
        self, y: Tensor, pixels: NDArray[np.uint8], size: tuple[int, int], level: int
    ) -> Tensor:
        gradient = torch.zeros_like(y)
        height, width = size
        for strip in strips(pixels.shape[1], pixels.shape[2], GRADIENT_PIXELS):
            rows = slice(strip.low // 16, strip.high // 16)
            part = (
                y[:, :, rows]
                .to(self.device)
                .contiguous(memory_format=torch.channels_last)
                .requires_grad_(True)
            )
            top = strip.low + strip.skip
            bottom = min(top + strip.rows, height)
            if bottom <= top:
                continue
            x = (
                torch.from_numpy(pixels[:, top:bottom, :width].copy())
                .to(self.device)
                .permute(0, 3, 1, 2)
                .float()
            )
            with torch.enable_grad():
                restored = self._net.pixels(part, self._levels(level, 1))
                restored = restored[:, :, strip.skip : strip.skip + bottom - top, :width]
                error = ((255 * restored - x) ** 2).sum() / 3
                (found,) = torch.autograd.grad(error, part)
            gradient[:, :, rows] += found.cpu()
        return gradient

    # -- both sides: integers -----------------------------------------------------------------------------

    def hyper_prior(self, batch: int, height: int, width: int) -> Prior:
        """Prior of the hyper latents: constant per channel."""
        shape = (batch, self.config.hyper, height, width)
        return Prior(
            self._hyper_mean[None, :, None, None].expand(shape),
            self._hyper_index[None, :, None, None].expand(shape),
        )

    def first_prior(self, z: Tensor, level: int) -> tuple[Prior, Tensor, Tensor]:
        """Prior of pass 0 from hyper samples z [B, N, h/4, w/4] (int32, in 1/64), and what pass 1 needs."""
        with exact_mode():
            h = F.pixel_shuffle(self._exact["up1"](compand(z).float()), 2)
            h = F.pixel_shuffle(self._exact["up2"](h), 2)
            h = self._exact["features"](h, level)
            raw = self._exact["first"](h)
        return Prior(*mean_and_index(raw, level)), h, raw

    def second_prior(self, y: Tensor, h: Tensor, raw: Tensor, level: int) -> Prior:
        """Prior of pass 1 from samples y [B, M, h, w] (int32, in 1/64; zero where pass 1 codes)."""
        with exact_mode():
            c = self._exact["context"](compand(y).float())
            mixed = self._exact["mix"](torch.cat([c, h], dim=1))
            refined = self._exact["second"](mixed, accumulate=raw)
        return Prior(*mean_and_index(refined, level))

    def mask(self, height: int, width: int) -> Tensor:
        """bool [M, h, w]: coded in pass 0."""
        return pass_mask(self.config.latent, height, width)

    # -- decoder: float -----------------------------------------------------------------------------------

    @torch.inference_mode()
    def synthesise(self, y: Tensor, level: int) -> NDArray[np.uint8]:
        """Pixels [B, H, W, 3] from samples y [B, M, H/16, W/16] (int32, in 1/64)."""
        height, width = 16 * y.shape[2], 16 * y.shape[3]
        out = np.empty((len(y), height, width, 3), np.uint8)
        for strip in strips(height, width):
            part = y[:, :, strip.low // 16 : strip.high // 16].to(self.device).float().div_(64)
            x = self._net.pixels(
                part.contiguous(memory_format=torch.channels_last), self._levels(level, len(y))
            )
            grey = x[:, :, strip.skip : strip.skip + strip.rows].mul(255).round_().clamp_(0, 255)
            top = strip.low + strip.skip
            out[:, top : top + strip.rows] = grey.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return out

    def _levels(self, level: int, batch: int) -> Tensor:
        return torch.full((batch,), float(level), device=self.device)


def export(
    net: LossyNet, *, name: str, coder_prior: Mapping[str, NDArray[np.int64]] | None = None, **metadata: str
) -> bytes:
    """Fold a trained model and pack it into safetensors bytes: integers where exact, float16 elsewhere."""
    prior = net.prior
    levels = torch.arange(32, dtype=torch.float32)
    tensors: dict[str, Tensor] = {}
    with torch.no_grad():
        for layer in EXACT_LAYERS:
            bias = prior.level(level_features(levels)) if layer == "features" else None
            tensors.update(getattr(prior, layer).fold(bias).state(f"exact.{layer}."))
        mean = torch.floor(net.hyper_mean.flatten() * 16 + 0.5)
        index = torch.floor(net.hyper_index.flatten() + 0.5).clamp(1, 150)
        tensors["exact.hyper_mean"] = mean.to(torch.int16)
        tensors["exact.hyper_index"] = index.to(torch.uint8)
        for key, table in (coder_prior or {}).items():
            signed = bool((table < 0).any())
            tensors[f"exact.{key}"] = torch.from_numpy(table.astype(np.int32 if signed else np.uint32))
        for key, value in net.state_dict().items():
            if key.startswith(FLOAT_PARTS):
                tensors[key] = value.to(torch.float16).contiguous()
    config: dict[str, Any] = net.config.to_json()
    return weights.pack(
        tensors, {"name": name, "architecture": ARCHITECTURE, "config": json.dumps(config), **metadata}
    )


def samples(prior: Prior, residual: Tensor) -> Tensor:
    """Samples in 1/64 from a prior's means in 1/16 and coded residuals in 1/64."""
    return prior.mean * SAMPLES_PER_MEAN + residual
