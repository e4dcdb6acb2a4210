"""Training that begins with a trained model's weights: a network whose export gives the same model back."""

from __future__ import annotations

import torch
from torch import Tensor

from recbatch.models import weights
from recbatch.models.exact import ExactConv2d, FoldedConv2d
from recbatch.models.float_weights import restored
from recbatch.models.lossy import LEVELS, LossyConfig, LossyNet, level_features
from recbatch.models.photo import exact_layers


def net_from_weights(data: bytes) -> LossyNet:
    """The network of a ``photo`` weight file, its integers as real numbers. Raises BadWeights, WrongModel."""
    tensors, metadata = weights.parse(data)
    weights.check_kind(data, "photo", name=metadata.get("name", "?"))
    net = LossyNet(LossyConfig.from_json(metadata["config"]))
    net.load_state_dict(restored(tensors), strict=False)
    with torch.no_grad():
        for name in exact_layers(net.config):
            folded = FoldedConv2d.from_state(tensors, f"exact.{name}.")
            layer = net.prior.get_submodule(name)
            assert isinstance(layer, ExactConv2d)
            bias = unfold(layer, folded)
            if name == "features":
                _level_bias(net, bias)
        net.hyper_mean.copy_(tensors["exact.hyper_mean"].float()[None, :, None, None] / 16)
        net.hyper_index.copy_(tensors["exact.hyper_index"].float()[None, :, None, None])
    return net


def unfold(layer: ExactConv2d, folded: FoldedConv2d) -> Tensor:
    """Set a layer to the real numbers of a folded one; returns the biases [L, O], of which it gets the first row."""
    exponent = folded.shift.double() + layer.out_exp - layer.in_exp
    grid = 2.0**-exponent
    layer.weight.copy_((folded.weight.double() * grid[:, None, None, None]).float())
    bias = folded.bias.double() * grid * 2.0**-layer.in_exp
    assert layer.bias is not None
    layer.bias.copy_(bias[0].float())
    return bias


def _level_bias(net: LossyNet, bias_LO: Tensor) -> None:
    """Split a table of biases by level into a constant and a linear map of the level's features, by least squares."""
    features = level_features(torch.arange(LEVELS, dtype=torch.float64))
    design = torch.cat([torch.ones(LEVELS, 1, dtype=torch.float64), features], dim=1)
    solution = torch.linalg.lstsq(design, bias_LO).solution
    assert net.prior.features.bias is not None
    net.prior.features.bias.copy_(solution[0].float())
    net.prior.level.weight.copy_(solution[1:].T.float())
    net.prior.level.bias.zero_()
