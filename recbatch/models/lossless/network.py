"""The networks of the lossless model, as trained: a stage's input planes to parameters of logistic mixtures.

Shapes: B images, I input planes, h x w positions, C features, K logistics a mixture; 3 K raw outputs a component:
logits in 1/128 nat, means in 1/16 grey level from the base, log scales in 1/128.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from recbatch.models.exact import ExactConv2d
from recbatch.models.lossless.geometry import STAGES

LEVELS = 4  # rows of biases and of predictors: levels 0, 1, 2, and all coarser ones
HIDDEN, HIDDEN_EXP = (0, 255), 5
SIGNED, MIXED = (-128, 127), (-128, 255)
RAW, RAW_EXP = (-2048, 2047), 7


@dataclass(frozen=True, slots=True, kw_only=True)
class LosslessConfig:
    """Sizes of a lossless model."""

    width: int = 32  # C
    blocks: int = 2
    mixtures: int = 3  # K
    preview: bool = False  # whether it knows a lossy preview

    def to_json(self) -> dict[str, object]:
        return asdict(self)


class StageNet(nn.Module):
    """One stage's network: a trunk on the phase's grid, then a head for Y, Co and Cg in turn.

    Each head sees the true differences from the base of the components before it.
    """

    def __init__(self, inputs: int, config: LosslessConfig) -> None:
        super().__init__()
        c, k = config.width, config.mixtures
        self.enter = _layer(inputs, c, 1, SIGNED, levels=LEVELS)
        self.level = nn.Parameter(torch.zeros(LEVELS, c))  # becomes a bias vector for each level
        self.wide = nn.ModuleList(_layer(c, c, 3, HIDDEN) for _ in range(config.blocks))
        self.narrow = nn.ModuleList(_layer(c, c, 1, HIDDEN) for _ in range(config.blocks))
        self.mix = nn.ModuleList(_layer(c + n, c, 1, MIXED) for n in range(3))
        self.out = nn.ModuleList(_output(c, 3 * k) for _ in range(3))
        with torch.no_grad():
            for narrow in self.narrow:
                _weight(narrow).mul_(0.3)
            spread = torch.cat([torch.zeros(2 * k), torch.linspace(-1, 1, k)])
            for out in self.out:
                _weight(out).mul_(0.1)
                assert isinstance(out, ExactConv2d)
                assert out.bias is not None
                out.bias.copy_(spread)

    def trunk(self, planes: Tensor, level: int) -> Tensor:
        """Features [B, C, h, w] of input planes [B, I, h, w] (integers)."""
        f: Tensor = self.enter(planes * 2.0**-HIDDEN_EXP, self.level[level][None, :, None, None])
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            f = narrow(wide(f), accumulate=f)
        return f

    def head(self, features: Tensor, earlier: Tensor, component: int) -> Tensor:
        """Raw parameters [B, 3 K, h, w], real; ``earlier`` [B, component, h, w] companded differences (integers)."""
        if component:
            features = torch.cat([features, earlier * 2.0**-HIDDEN_EXP], dim=1)
        out: Tensor = self.out[component](self.mix[component](features))
        return out


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer, ExactConv2d)
    return layer.weight


def _layer(
    inputs: int, outputs: int, kernel: int, in_range: tuple[int, int], *, levels: int = 0
) -> ExactConv2d:
    return ExactConv2d(
        inputs,
        outputs,
        kernel,
        in_exp=HIDDEN_EXP,
        in_range=in_range,
        out_exp=HIDDEN_EXP,
        out_range=HIDDEN,
        level_bias=levels,
    )


def _output(inputs: int, outputs: int) -> ExactConv2d:
    return ExactConv2d(inputs, outputs, 1, in_exp=HIDDEN_EXP, in_range=HIDDEN, out_exp=RAW_EXP, out_range=RAW)


class LosslessNet(nn.Module):
    """The three stages, with their linear predictors."""

    weights: Tensor
    gains: Tensor

    def __init__(self, config: LosslessConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(StageNet(s.inputs(preview=config.preview), config) for s in STAGES)
        most = max(len(s.taps) for s in STAGES)
        # integers in 2**-12, fitted by least squares before training: [LEVELS, stages, 3, taps], [LEVELS, stages, 3]
        self.register_buffer("weights", torch.zeros(LEVELS, len(STAGES), 3, most, dtype=torch.int32))
        self.register_buffer("gains", torch.zeros(LEVELS, len(STAGES), 3, dtype=torch.int32))

    def stage(self, place: int) -> StageNet:
        """One stage's network."""
        network = self.stages[place]
        assert isinstance(network, StageNet)
        return network
