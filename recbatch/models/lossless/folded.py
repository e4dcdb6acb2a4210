"""A trained lossless model as encoder and decoder use it: integers throughout.

A file holds one or more variants, each a full set of networks: ``plain``, ``preview`` (which knows a lossy preview) and
``small`` (for images of a few thousand pixels). Shapes as in ``geometry`` and ``network``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.models import weights
from recbatch.models.exact import FoldedConv2d
from recbatch.models.lossless import checks, geometry
from recbatch.models.lossless.geometry import STAGES, Integers
from recbatch.models.lossless.network import LEVELS, LosslessConfig, LosslessNet
from recbatch.models.lossless.preview import OUTPUTS, PreviewSynthesis

ARCHITECTURE = "exact/1"
VARIANTS = ("plain", "preview", "small")  # a stream names a variant by its place here
LAW = ("sigmoid", "inverse", "weight")


@dataclass(frozen=True, slots=True)
class Variant:
    """One set of networks and predictors."""

    config: LosslessConfig
    stages: tuple[dict[str, FoldedConv2d], ...]
    weights: NDArray[np.int32]  # [LEVELS, stages, 3, taps] in 2**-12
    gains: NDArray[np.int32]  # [LEVELS, stages, 3] in 2**-12

    @property
    def halo(self) -> int:
        """Rows and columns that a feature depends on to each side."""
        return self.config.blocks


@dataclass(frozen=True, slots=True)
class Band:
    """Rows of a phase on their way through a stage."""

    base: NDArray[np.int32]  # [B, 3, h, w] in 1/16
    features: Tensor  # float32 [B, C, h, w], integers


class LosslessModel:
    """The networks, the integer tables of the coder's law, and the synthesis that makes previews an input."""

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], digest: bytes) -> None:
        self.name = metadata["name"]
        self.digest = digest
        self.law_tables = {name: tensors[f"law.{name}"].numpy() for name in LAW}
        self._compand = tensors["compand"].numpy()
        checks.check_law(self.law_tables, self._compand)
        self.variants: dict[str, Variant] = {}
        for name, config in json.loads(metadata["variants"]).items():
            c = LosslessConfig(**config)
            stages = tuple(
                {
                    layer: FoldedConv2d.from_state(dict(tensors), f"{name}.{s.name}.{layer}.")
                    for layer in layers(c)
                }
                for s in STAGES
            )
            for s, networks in zip(STAGES, stages, strict=True):
                checks.check_stage(networks, c, s.inputs(preview=c.preview))
            predictors = tensors[f"{name}.weights"].numpy(), tensors[f"{name}.gains"].numpy()
            checks.check_predictors(*predictors)
            self.variants[name] = Variant(c, stages, *predictors)
        self.preview: PreviewSynthesis | None = None
        if "synthesis.weight" in tensors:
            checks.check_synthesis(tensors, OUTPUTS)
            self.preview = PreviewSynthesis.from_tensors(tensors)
        knows = any(v.config.preview for v in self.variants.values())
        checks.need(not knows or self.preview is not None, "its preview variant has no synthesis")

    @classmethod
    def from_bytes(cls, data: bytes) -> LosslessModel:
        """Load from a safetensors file's bytes. Raises BadWeights."""
        tensors, metadata = weights.parse(data)
        if metadata.get("architecture") != ARCHITECTURE:
            raise weights.BadWeights(metadata.get("name", "?"), f"architecture is not {ARCHITECTURE}")
        try:
            return cls(tensors, metadata, weights.digest(data))
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as e:
            raise weights.BadWeights(metadata.get("name", "?"), str(e).splitlines()[0]) from e

    def band(
        self,
        variant: Variant,
        level_B3HW: Integers,
        preview_B3HW: Integers | None,
        level: int,
        stage: int,
        first: int,
        last: int,
    ) -> Band:
        """Bases and features of rows first .. last of a phase; what the stage knows must be in ``level_B3HW``."""
        s, networks, row = STAGES[stage], variant.stages[stage], min(level, LEVELS - 1)
        batch, _, height, width = level_B3HW.shape
        rows, columns = geometry.phase_size(height, width, s.phase)
        top, bottom = max(0, first - variant.halo), min(rows, last + variant.halo)
        base = np.empty((batch, 3, bottom - top, columns), np.int32)
        predictors = variant.weights[row, stage]
        geometry.bases(level_B3HW, s.taps_T4, predictors, top, base)
        shape = (batch, s.inputs(preview=preview_B3HW is not None), bottom - top, columns)
        planes = np.empty(shape, np.float32)
        if preview_B3HW is not None:
            guess = np.empty_like(base)
            geometry.bases(preview_B3HW, s.taps_T4, predictors, top, guess)
            geometry.add_preview(preview_B3HW, *s.phase, guess, variant.gains[row, stage], top, base)
            offset = 3 * len(s.taps) + 3
            geometry.preview_inputs(preview_B3HW, *s.phase, guess, base, top, self._compand, offset, planes)
        geometry.inputs(level_B3HW, s.taps_T4, base, top, self._compand, planes)
        f = networks["enter"](torch.from_numpy(planes), row)
        for i in range(variant.config.blocks):
            f = networks[f"narrow{i}"](networks[f"wide{i}"](f), accumulate=f)
        own = slice(first - top, last - top)
        return Band(np.ascontiguousarray(base[:, :, own]), f[:, :, own].contiguous())

    def head(
        self, variant: Variant, stage: int, band: Band, values: list[NDArray[np.int32]]
    ) -> NDArray[np.float32]:
        """Raw parameters [B, 9, h, w] (integers) of the component after those whose values [B, h, w] are given."""
        networks, c = variant.stages[stage], len(values)
        f = band.features
        if c:
            known = np.empty((f.shape[0], c, *f.shape[2:]), np.float32)
            for k, v in enumerate(values):
                geometry.compand_differences(v, band.base[:, k], self._compand, known[:, k])
            f = torch.cat([f, torch.from_numpy(known)], dim=1)
        raw: NDArray[np.float32] = networks[f"out{c}"](networks[f"mix{c}"](f)).contiguous().numpy()
        return raw


def layers(config: LosslessConfig) -> list[str]:
    """Names of a stage's layers in a model file."""
    blocks = [f"{kind}{i}" for i in range(config.blocks) for kind in ("wide", "narrow")]
    return ["enter", *blocks, *(f"{kind}{c}" for c in range(3) for kind in ("mix", "out"))]


def fold(net: LosslessNet, name: str) -> dict[str, Tensor]:
    """The tensors of a trained net as a variant of a model file."""
    tensors = {f"{name}.weights": net.weights.clone(), f"{name}.gains": net.gains.clone()}
    for place, s in enumerate(STAGES):
        stage = net.stage(place)
        parts = {"enter": stage.enter.fold(stage.level.detach())}
        for kind in ("wide", "narrow", "mix", "out"):
            parts |= {f"{kind}{i}": layer.fold() for i, layer in enumerate(getattr(stage, kind))}
        for layer, folded in parts.items():
            tensors |= folded.state(f"{name}.{s.name}.{layer}.")
    return tensors


def export(
    variants: Mapping[str, LosslessNet],
    law: Mapping[str, NDArray[np.int32]],
    *,
    name: str,
    preview: PreviewSynthesis | None = None,
    **metadata: str,
) -> bytes:
    """Pack trained nets into safetensors bytes. ``law``: the tables of the coder (``recbatch.rec.mixtures.Law``)."""
    tensors = {f"law.{key}": torch.from_numpy(table) for key, table in law.items()}
    tensors["compand"] = torch.from_numpy(geometry.make_compand())
    for key, net in variants.items():
        tensors |= fold(net, key)
    if preview is not None:
        tensors |= preview.tensors()
    configs = json.dumps({key: net.config.to_json() for key, net in variants.items()})
    return weights.pack(
        tensors, {"name": name, "architecture": ARCHITECTURE, "variants": configs, **metadata}
    )
