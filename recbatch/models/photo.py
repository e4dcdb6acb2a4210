"""A trained ``photo`` model as encoder and decoder use it: folded, integer where it must be.

Shapes: B images, H x W pixels (multiples of 64), M latent channels at 1/16, N hyper channels at 1/64. Samples are
int32 in 1/64 of the observation noise, means integers in 1/16, scale indices uint8: those are what a stream holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recbatch.models import weights
from recbatch.models.exact import ExactConv2d, FoldedConv2d, compand, exact_mode
from recbatch.models.float_weights import FLOAT_PARTS, restored, stored
from recbatch.models.freed import return_freed_memory
from recbatch.models.lossy import LossyConfig, LossyNet, later_name, level_features, of_channels, pass_mask
from recbatch.models.prior import (
    MULTIPLIER_BITS,
    mean_and_index,
    mean_multiplier,
    whole_level,
)
from recbatch.models.tiles import BAND_CELLS, Tile, banded, tiles

STRIDE = 64  # images are padded to multiples of this
STRIP_PIXELS = 4_000_000  # a picture of fewer is never cut
TILE_PIXELS = 2_000_000  # of a tile of one that is
GRADIENT_PIXELS = 1_000_000  # of a tile where gradients are kept: they need several times the memory
EXACT_REACH = 1  # rows that the exact networks look at to each side
HYPER_REACH = 4  # latents that hyper analysis looks at to each side, and how much coarser its grid is
ARCHITECTURES = ("photo/1", "photo/2")  # the first: one channel group, float16 only
EXACT_LAYERS = ("up1", "up2", "features", "first", "context", "mix", "second")
LATER_LAYERS = ("context", "mix", "second")  # of each pass of a later channel group
CODER_PRIOR = ("density", "mass", "centroid")


def strips(height: int, width: int, pixels: int | None = None) -> list[Tile]:
    """Cut a picture so that the float networks need bounded memory; one tile where it is small enough."""
    if pixels is None:
        pixels = STRIP_PIXELS if height * width <= STRIP_PIXELS else min(TILE_PIXELS, STRIP_PIXELS)
    return tiles(height, width, pixels)


@dataclass(frozen=True, slots=True)
class Prior:
    """Prior of one pass: means [B, M, h, w], int16 or int32, and scale indices [B, M, h, w]."""

    mean: Tensor
    index: Tensor


@dataclass(slots=True)
class Context:
    """What the prior of the next pass depends on beside the samples sent so far; ``pass_prior`` moves it on."""

    level: float
    features: Tensor  # int16 [B, 2N, h, w] of the parity at hand
    raw: Tensor  # raw parameters, int16 [B, 2M, h, w], of the parity at hand


def exact_layers(config: LossyConfig) -> list[str]:
    """Names of all exact layers, as modules of ``PriorNet`` and in a weight file."""
    later = [later_name(*which) for which in config.later_passes]
    return [*EXACT_LAYERS, *(f"later.{name}.{layer}" for name in later for layer in LATER_LAYERS)]


class PhotoModel:
    """Analysis and synthesis in float, the prior in integers.

    A level is a number 0..31 in steps of 1/8: the float networks take it as it is, the exact ones the nearest integer.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        digest: bytes,
        *,
        device: str = "cpu",
    ) -> None:
        self.name = metadata["name"]
        self.config = LossyConfig.from_json(metadata["config"])
        self.device = torch.device(device)
        self.digest = digest
        self._exact = {
            name: FoldedConv2d.from_state(dict(tensors), f"exact.{name}.")
            for name in exact_layers(self.config)
        }
        self._hyper_mean = tensors["exact.hyper_mean"].to(torch.int32)
        self._hyper_index = tensors["exact.hyper_index"]
        # a trained entropy prior for the coders, by name; the codec knows what they mean
        self.coder_prior = {
            name: tensors[f"exact.{name}"].numpy() for name in CODER_PRIOR if f"exact.{name}" in tensors
        }
        self._net = LossyNet(self.config)
        missing, _ = self._net.load_state_dict(restored(tensors), strict=False)
        lost = [k for k in missing if k.startswith(FLOAT_PARTS)]
        if lost:
            raise weights.BadWeights(self.name, f"lacks {lost[0]}")
        self._net = self._net.eval().requires_grad_(False).to(self.device)
        self._net = self._net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_bytes(cls, data: bytes, *, device: str = "cpu") -> PhotoModel:
        """Load from a safetensors file's bytes. Raises BadWeights."""
        tensors, metadata = weights.parse(data)
        if metadata.get("architecture") not in ARCHITECTURES:
            raise weights.BadWeights(
                metadata.get("name", "?"), f"architecture is not {' or '.join(ARCHITECTURES)}"
            )
        try:
            return cls(tensors, metadata, weights.digest(data), device=device)
        except (KeyError, TypeError, ValueError, RuntimeError) as e:
            raise weights.BadWeights(metadata.get("name", "?"), str(e).splitlines()[0]) from e

    # -- encoder only: float ------------------------------------------------------------------------------

    @torch.inference_mode()
    def analyse(self, pixels: NDArray[np.uint8], level: float) -> tuple[Tensor, Tensor]:
        """Latents y [B, M, H/16, W/16] and z [B, N, H/64, W/64] of pixels [B, H, W, 3], in noise units."""
        levels = self._levels(level, len(pixels))
        cut = strips(*pixels.shape[1:3])
        shape = (len(pixels), self.config.latent, pixels.shape[1] // 16, pixels.shape[2] // 16)
        y = torch.empty(shape if len(cut) > 1 else 0, device=self.device)
        for tile in cut:
            x = torch.from_numpy(pixels[:, tile.y.window, tile.x.window].copy()).to(self.device)
            x = x.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
            part, of = self._net.latents(x, levels), tile.over(16)
            if len(cut) == 1:
                y = part
            else:
                y[:, :, of.y.own, of.x.own] = part[:, :, of.y.inner, of.x.inner]
            del x, part  # before the next tile
        (z,) = banded(lambda y: (self._net.hyper_analysis(y),), [y], halo=HYPER_REACH, stride=HYPER_REACH)
        if len(cut) > 1:
            return_freed_memory()
        return y.cpu(), z.cpu()

    def error_gradient(
        self, y: Tensor, pixels: NDArray[np.uint8], size: tuple[int, int], level: float
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
        self, y: Tensor, pixels: NDArray[np.uint8], size: tuple[int, int], level: float
    ) -> Tensor:
        gradient = torch.zeros_like(y)
        for tile in strips(pixels.shape[1], pixels.shape[2], GRADIENT_PIXELS):
            of, rows, columns = tile.over(16), tile.y.until(size[0]), tile.x.until(size[1])
            part = y[:, :, of.y.window, of.x.window].to(self.device)
            part = part.contiguous(memory_format=torch.channels_last).requires_grad_(True)
            own = pixels[:, rows.own, columns.own]
            if not own.size:
                continue
            x = torch.from_numpy(own.copy()).to(self.device).permute(0, 3, 1, 2).float()
            with torch.enable_grad():
                restored = self._net.pixels(part, self._levels(level, 1))[:, :, rows.inner, columns.inner]
                error = ((255 * restored - x) ** 2).sum() / 3
                (found,) = torch.autograd.grad(error, part)
            gradient[:, :, of.y.window, of.x.window] += found.cpu()
        return gradient

    # -- both sides: integers -----------------------------------------------------------------------------

    def hyper_prior(self, batch: int, height: int, width: int) -> Prior:
        """Prior of the hyper latents: constant per channel."""
        shape = (batch, self.config.hyper, height, width)
        return Prior(
            self._hyper_mean[None, :, None, None].expand(shape),
            self._hyper_index[None, :, None, None].expand(shape),
        )

    def begin(self, z: Tensor, level: float) -> Context:
        """Where the passes start: from hyper samples z [B, N, h/4, w/4] (int32, in 1/64)."""

        def network(z: Tensor) -> tuple[Tensor, Tensor]:
            h = F.pixel_shuffle(self._exact["up1"](compand(z).float()), 2)
            h = F.pixel_shuffle(self._exact["up2"](h), 2)
            h = self._exact["features"](h, whole_level(level))
            return h.to(torch.int16), self._exact["first"](h).to(torch.int16)

        with exact_mode():
            return Context(level, *banded(network, [z], halo=EXACT_REACH, cells=BAND_CELLS // 16))

    @property
    def passes(self) -> int:
        return 2 * len(self.config.group_channels)

    def parity(self, which: int) -> int:
        return which // len(self.config.group_channels)

    def pass_channels(self, which: int) -> slice:
        """The channels of a pass: all groups in turn for parity 0, then all for parity 1."""
        return slice(*self.config.group_channels[which % len(self.config.group_channels)])

    def pass_mask(self, which: int, height: int, width: int) -> Tensor:
        """bool [channels of the pass, h, w]: what it codes of them."""
        channels = self.pass_channels(which)  # a channel further on is the other parity
        return pass_mask(channels.stop - channels.start, height, width, channels.start + self.parity(which))

    def pass_prior(self, context: Context, which: int, y: Tensor) -> Prior:
        """Prior of the channels of a pass, from samples y [B, M, h, w] of those before it (int32, in 1/64, else zero).

        Passes come in their order: the first of parity 1 moves the context on, unless it is the last of all.
        """
        channels = self.pass_channels(which)
        parity, group = divmod(which, len(self.config.group_channels))
        second = "second" if not group else f"later.{later_name(parity, group)}.second"
        # raw parameters are int16, so means are too unless the level makes them larger
        means = torch.int16 if mean_multiplier(context.level) <= 1 << MULTIPLIER_BITS else torch.int32

        def mixed(y: Tensor, base: Tensor) -> Tensor:
            c = self._exact[second.replace("second", "context")](compand(y).float())
            found: Tensor = self._exact[second.replace("second", "mix")](torch.cat([c, base.float()], dim=1))
            return found

        def move_on(y: Tensor, features: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
            features = mixed(y, features)
            return features.to(torch.int16), self._exact[second](features, accumulate=raw).to(torch.int16)

        def parameters(y: Tensor, features: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
            raw = of_channels(raw, channels.start, channels.stop)
            if group:
                raw = self._exact[second](mixed(y[:, : channels.start], features), accumulate=raw)
            mean, index = mean_and_index(raw, context.level)
            return mean.to(means), index

        def last(y: Tensor, features: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
            return parameters(y, *move_on(y, features, raw))

        with exact_mode():
            network = parameters
            if parity and not group and which == self.passes - 1:
                network = last  # no pass comes after it that would need a context
            elif parity and not group:
                context.features, context.raw = banded(
                    move_on, [y, context.features, context.raw], halo=EXACT_REACH
                )
            return Prior(*banded(network, [y, context.features, context.raw], halo=EXACT_REACH))

    # -- decoder: float -----------------------------------------------------------------------------------

    @torch.inference_mode()
    def synthesise(self, y: Tensor, level: float) -> NDArray[np.uint8]:
        """Pixels [B, H, W, 3] from samples y [B, M, H/16, W/16] (int32, in 1/64)."""
        height, width = 16 * y.shape[2], 16 * y.shape[3]
        out = np.empty((len(y), height, width, 3), np.uint8)
        for tile in strips(height, width):
            of = tile.over(16)
            part = y[:, :, of.y.window, of.x.window].to(self.device).float().div_(64)
            x = self._net.pixels(
                part.contiguous(memory_format=torch.channels_last), self._levels(level, len(y))
            )
            grey = x[:, :, tile.y.inner, tile.x.inner].mul(255).round_().clamp_(0, 255)
            out[:, tile.y.own, tile.x.own] = grey.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
            del part, x, grey  # before the next tile
        if height * width > STRIP_PIXELS:
            return_freed_memory()
        return out

    def _levels(self, level: float, batch: int) -> Tensor:
        return torch.full((batch,), float(level), device=self.device)


def export(
    net: LossyNet, *, name: str, coder_prior: Mapping[str, NDArray[np.int64]] | None = None, **metadata: str
) -> bytes:
    """Fold a trained model and pack it into safetensors bytes: integers where exact, else see ``float_weights``."""
    prior = net.prior
    levels = torch.arange(32, dtype=torch.float32)
    tensors: dict[str, Tensor] = {}
    with torch.no_grad():
        for path in exact_layers(net.config):
            bias = prior.level(level_features(levels)) if path == "features" else None
            layer = prior.get_submodule(path)
            assert isinstance(layer, ExactConv2d)
            tensors.update(layer.fold(bias).state(f"exact.{path}."))
        mean = torch.floor(net.hyper_mean.flatten() * 16 + 0.5)
        index = torch.floor(net.hyper_index.flatten() + 0.5).clamp(1, 150)
        tensors["exact.hyper_mean"] = mean.to(torch.int16)
        tensors["exact.hyper_index"] = index.to(torch.uint8)
        for key, table in (coder_prior or {}).items():
            signed = bool((table < 0).any())
            tensors[f"exact.{key}"] = torch.from_numpy(table.astype(np.int32 if signed else np.uint32))
        tensors.update(stored(net.state_dict()))
    config = net.config.to_json()
    return weights.pack(
        tensors,
        {
            "name": name,
            "architecture": ARCHITECTURES[-1],
            "config": json.dumps(config),
            **metadata,
        },
    )
