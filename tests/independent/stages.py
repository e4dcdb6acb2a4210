"""Levels, stages and the networks of a lossless stream: what a stage knows when it predicts.

Shapes: 3 components Y, Co, Cg, H x W pixels of a level, R x S positions of a phase, T taps.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .mixtures import FORM, Law
from .networks import Layer, load_layer
from .weights import read_file

VARIANTS = ("plain", "preview", "small")
LOWEST, HIGHEST = (0, -255, -255), 255
ROWS = 4  # of biases and predictors
REACH = 510
INPUT_RANGE = (-127, 127)


def block(phase: tuple[int, int], rows: range, columns: range) -> list[tuple[int, int, int, int]]:
    """Taps of one phase, row by row."""
    return [(*phase, a, b) for a in rows for b in columns]


CORNERS = [(0, 1, a, b) for a in (-1, 2) for b in (-2, 1)]
STAGES = (
    ("A", (1, 1), block((0, 0), range(-1, 3), range(-1, 3))),
    ("B", (0, 1), block((0, 0), range(-1, 2), range(-1, 3)) + block((1, 1), range(-2, 2), range(-1, 2))),
    (
        "C",
        (1, 0),
        block((0, 0), range(-1, 3), range(-1, 2))
        + block((1, 1), range(-1, 2), range(-2, 2))
        + [tap for tap in block((0, 1), range(-1, 3), range(-2, 2)) if tap not in CORNERS],
    ),
)


@dataclass(frozen=True)
class Synthesis:
    """Planes of a preview from its latents."""

    weight_NM: np.ndarray
    bias_N: np.ndarray
    shift_M: np.ndarray
    total_shift: int
    latents_of: bytes

    def planes(self, y_Mhw: np.ndarray) -> np.ndarray:
        """Y, Co, Cg [3, 16 h, 16 w]."""
        channels, height, width = y_Mhw.shape
        sums = self.weight_NM @ (y_Mhw.reshape(channels, -1) << self.shift_M[:, None])
        value = (sums + self.bias_N[:, None] + (1 << (self.total_shift - 1))) >> self.total_shift
        planes = value.reshape(3, 16, 16, height, width).transpose(0, 3, 1, 4, 2)
        lowest = np.array(LOWEST)[:, None, None]
        return planes.reshape(3, 16 * height, 16 * width).clip(lowest, HIGHEST)


@dataclass(frozen=True)
class Variant:
    """One set of networks and predictors."""

    blocks: int
    preview: bool
    layers: dict[str, Layer]  # by "A.enter" and the like
    weights: np.ndarray  # [ROWS, stages, 3, taps]
    gains: np.ndarray  # [ROWS, stages, 3]


@dataclass(frozen=True)
class LosslessWeights:
    """A weight file of a lossless model."""

    digest: bytes
    law: Law
    compand: np.ndarray
    variants: dict[str, Variant]
    synthesis: Synthesis | None

    def companded(self, difference: np.ndarray) -> np.ndarray:
        """Differences of any size to -127..127."""
        return self.compand[difference.clip(-REACH, REACH) + REACH]


def load_lossless(path: Path) -> LosslessWeights:
    """A model file, checked."""
    data = path.read_bytes()
    metadata, tensors = read_file(data)
    assert metadata["architecture"] == "exact/1"
    configs = json.loads(metadata["variants"])
    wide = {name: array.astype(np.int64) for name, array in tensors.items()}
    assert wide["compand"].shape == (2 * REACH + 1,)
    synthesis = None
    if any(config["preview"] for config in configs.values()):
        parts = (wide[f"synthesis.{name}"] for name in ("weight", "bias", "shift"))
        scalars, latents_of = wide["synthesis.scalars"], tensors["synthesis.latents_of"].tobytes()
        synthesis = Synthesis(*parts, int(scalars[0]), latents_of)
    return LosslessWeights(
        hashlib.sha256(data).digest(),
        Law(**{name: wide[f"law.{name}"].tolist() for name in FORM}),
        wide["compand"],
        {name: load_variant(wide, name, config) for name, config in configs.items()},
        synthesis,
    )


def load_variant(tensors: dict[str, np.ndarray], name: str, config: dict[str, int]) -> Variant:
    """A variant whose layers take what feeds them."""
    blocks, preview = config["blocks"], bool(config["preview"])
    assert config["mixtures"] == 3
    layers = {}
    for stage, _, taps in STAGES:
        chain = ["enter", *(f"{kind}{i}" for i in range(blocks) for kind in ("wide", "narrow"))]
        heads = [f"{kind}{c}" for c in range(3) for kind in ("mix", "out")]
        found = {layer: load_layer(tensors, f"{name}.{stage}.{layer}", ROWS) for layer in chain + heads}
        fed = dict(zip(chain[1:], chain, strict=False)) | {f"out{c}": f"mix{c}" for c in range(3)}
        fed |= {f"mix{c}": chain[-1] for c in range(3)}
        for layer, network in found.items():
            network.check()
            low, high = found[fed[layer]].ranges[2:] if layer in fed else INPUT_RANGE
            if layer in ("mix1", "mix2"):
                low, high = min(low, INPUT_RANGE[0]), max(high, INPUT_RANGE[1])
            assert network.ranges[0] <= low <= high <= network.ranges[1], layer
        assert found["enter"].weight_OIKK.shape[1] == 3 * len(taps) + 3 + 6 * preview
        assert all(len(found[f"out{c}"].shift_O) == 9 for c in range(3))
        layers |= {f"{stage}.{layer}": network for layer, network in found.items()}
    weights, gains = tensors[f"{name}.weights"], tensors[f"{name}.gains"]
    assert weights.shape == (ROWS, 3, 3, max(len(taps) for _, _, taps in STAGES))
    assert gains.shape == (ROWS, 3, 3)
    assert np.abs(weights).sum(axis=-1).max() * HIGHEST < 2**31 - 128
    return Variant(blocks, preview, layers, weights, gains)


def phase_of(level_3HW: np.ndarray, phase: tuple[int, int]) -> np.ndarray:
    """The pixels of a phase [3, R, S]."""
    return level_3HW[:, phase[0] :: 2, phase[1] :: 2]


def taps_of(level_3HW: np.ndarray, stage: int) -> np.ndarray:
    """What a stage sees around each position [T, 3, R, S]."""
    _, own, taps = STAGES[stage]
    rows, columns = phase_of(level_3HW, own).shape[1:]
    seen = []
    for p, q, a, b in taps:
        plane = phase_of(level_3HW, (p, q))
        if plane.size == 0:
            plane = phase_of(level_3HW, (0, 0))
        i = (np.arange(rows) + a).clip(0, plane.shape[1] - 1)
        j = (np.arange(columns) + b).clip(0, plane.shape[2] - 1)
        seen.append(plane[:, i[:, None], j[None, :]])
    return np.array(seen, np.int64)


def clamped(base_3RS: np.ndarray) -> np.ndarray:
    """Bases within their components' ranges."""
    return base_3RS.clip(16 * np.array(LOWEST)[:, None, None], 16 * HIGHEST)


def rounded(base: np.ndarray) -> np.ndarray:
    """From 1/16 to whole values."""
    return (base + 8) >> 4


class Stage:
    """One stage of one level: bases and features of its whole phase."""

    def __init__(
        self,
        weights: LosslessWeights,
        variant: Variant,
        level_3HW: np.ndarray,
        preview_3HW: np.ndarray | None,
        level: int,
        stage: int,
    ) -> None:
        self.weights, self.variant = weights, variant
        self.name, own, taps = STAGES[stage]
        row = min(level, ROWS - 1)
        predictor_3T = variant.weights[row, stage, :, : len(taps)]

        def linear(taps_T3RS: np.ndarray) -> np.ndarray:
            return clamped((128 + np.einsum("ct,tcrs->crs", predictor_3T, taps_T3RS)) >> 8)

        taps_T3RS = taps_of(level_3HW, stage)
        self.base_3RS = linear(taps_T3RS)
        more = []
        if preview_3HW is not None:
            pixel_3RS, guess_3RS = phase_of(preview_3HW, own), linear(taps_of(preview_3HW, stage))
            news_3RS = (16 * pixel_3RS - guess_3RS) * variant.gains[row, stage][:, None, None]
            self.base_3RS = clamped(self.base_3RS + ((news_3RS + 2**11) >> 12))
            more = [pixel_3RS - rounded(guess_3RS), pixel_3RS - rounded(self.base_3RS)]
        whole_3RS = rounded(self.base_3RS)
        differences = weights.companded((taps_T3RS - whole_3RS).reshape(-1, *whole_3RS.shape[1:]))
        centre_3RS = np.concatenate([whole_3RS[:1] - 128, whole_3RS[1:] >> 1])
        planes = np.concatenate([differences, centre_3RS, *map(weights.companded, more)])
        f = self.layer("enter")(planes, row)
        for i in range(variant.blocks):
            f = self.layer(f"narrow{i}")(self.layer(f"wide{i}")(f, 0), 0, f)
        self.features = f

    def layer(self, name: str) -> Layer:
        """A layer of this stage."""
        return self.variant.layers[f"{self.name}.{name}"]

    def raw(self, rows: slice, values: list[np.ndarray]) -> np.ndarray:
        """Raw values [9, r, S] of the component after those whose values in these rows are known."""
        known = [
            self.weights.companded(value - rounded(self.base_3RS[k, rows])) for k, value in enumerate(values)
        ]
        c = len(known)
        mixed = self.layer(f"mix{c}")(np.concatenate([self.features[:, rows], *(e[None] for e in known)]), 0)
        return self.layer(f"out{c}")(mixed, 0)
