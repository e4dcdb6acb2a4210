"""What must hold of a lossless model's tensors before compiled code indexes by them. Archives carry models, too."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recbatch.models.exact import FoldedConv2d
from recbatch.models.lossless import geometry
from recbatch.models.lossless.geometry import STAGES
from recbatch.models.lossless.network import HIDDEN, LEVELS, MIXED, RAW, SIGNED, LosslessConfig

LAW = {"sigmoid": 24 * 64 + 1, "inverse": 256, "weight": 12 * 128 + 1}  # entries of the coder's tables
UNIT = 1 << 24
MIXTURES = 3


def need(holds: bool, what: str) -> None:
    """Raises ValueError, which loading turns into BadWeights."""
    if not holds:
        raise ValueError(what)


def check_law(tables: Mapping[str, NDArray[np.int32]], compand: NDArray[np.int8]) -> None:
    for name, size in LAW.items():
        table = tables[name]
        need(table.shape == (size,) and table.dtype == np.int32, f"its table {name} has another size or type")
        least = 1 if name == "inverse" else 0  # decoders divide by it
        need(int(table.min()) >= least, f"its table {name} has entries below {least}")
    sigmoid, weight = tables["sigmoid"], tables["weight"]
    need(
        bool((np.diff(sigmoid) >= 0).all()) and int(sigmoid[-1]) <= UNIT, "its table sigmoid does not ascend"
    )
    need(0 < int(weight[0]) <= 1 << 16 and int(weight.max()) <= 1 << 16, "its table weight is out of range")
    size = 2 * geometry.LARGEST_DIFFERENCE + 1
    need(
        compand.shape == (size,) and compand.dtype == np.int8, "its companding table has another size or type"
    )


def check_predictors(weights: NDArray[np.int32], gains: NDArray[np.int32]) -> None:
    most = max(len(s.taps) for s in STAGES)
    shape = (LEVELS, len(STAGES), geometry.COMPONENTS)
    need(weights.shape == (*shape, most) and weights.dtype == np.int32, "its predictors have another shape")
    need(gains.shape == shape and gains.dtype == np.int32, "its gains have another shape")
    largest = np.abs(weights.astype(np.int64)).sum(axis=-1).max()
    need(int(largest) * geometry.HIGHEST < 2**31 - 128, "its predictors overflow")
    # news, in 1/16, is below 2**14
    need(int(np.abs(gains.astype(np.int64)).max()) < 2**16, "its gains overflow")


def check_stage(layers: Mapping[str, FoldedConv2d], config: LosslessConfig, inputs: int) -> None:
    need(config.mixtures == MIXTURES, f"it mixes {config.mixtures} logistics")
    c = config.width
    wanted = {"enter": ((c, inputs, 1), SIGNED, HIDDEN)}
    for i in range(config.blocks):
        wanted[f"wide{i}"] = ((c, c, 3), HIDDEN, HIDDEN)
        wanted[f"narrow{i}"] = ((c, c, 1), HIDDEN, HIDDEN)
    for k in range(geometry.COMPONENTS):
        wanted[f"mix{k}"] = ((c, c + k, 1), MIXED, HIDDEN)
        wanted[f"out{k}"] = ((3 * MIXTURES, c, 1), HIDDEN, RAW)
    for name, (shape, in_range, out_range) in wanted.items():
        layer = layers[name]
        need(tuple(layer.weight.shape[:3]) == shape, f"its layer {name} has another shape")
        need((layer.in_range, layer.out_range) == (in_range, out_range), f"its layer {name} has other ranges")
        need(layer.levels == (LEVELS if name == "enter" else 1), f"its layer {name} has other biases")


def check_synthesis(tensors: Mapping[str, Tensor], outputs: int) -> None:
    weight, bias, shift = (tensors[f"synthesis.{name}"].numpy() for name in ("weight", "bias", "shift"))
    need(
        weight.ndim == 2 and weight.shape[0] == outputs and weight.dtype == np.int8,
        "its synthesis has another shape",
    )
    need(bias.shape == (outputs,) and bias.dtype == np.int32, "the bias of its synthesis has another shape")
    need(
        shift.shape == (weight.shape[1],)
        and shift.dtype == np.int8
        and shift.min() >= 0
        and shift.max() <= 16,
        "the shifts of its synthesis are out of range",
    )
    total_shift, _ = (int(v) for v in tensors["synthesis.scalars"])
    need(1 <= total_shift <= 40, "the shift of its synthesis is out of range")
    need(tuple(tensors["synthesis.latents_of"].shape) == (8,), "it does not name the model of its previews")
