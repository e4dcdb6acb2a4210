"""A convolution that trains in float and ends as integers that every machine computes alike.

Shapes: B batch, I input channels, O output channels, H, W plane, K kernel side, L rate levels.

Both sides of a layer are integers times a power of two: real = integer * 2**-exp. A channel's weights lie on
the grid 2**-t, so its sums lie on 2**-(t + in_exp); shift = t + in_exp - out_exp brings them to the output's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from recbatch.models.exact import arithmetic, mode, selftest
from recbatch.models.exact.arithmetic import MAX_SHIFT, MAX_WEIGHT, SUM_LIMIT, Range
from recbatch.models.exact.errors import ExactLayerMisused, InexactArithmetic, MalformedExactLayer


class _Floor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return x.floor()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _RoundWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return (x + 0.5).floor().clamp(-MAX_WEIGHT, MAX_WEIGHT)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient  # also beyond the clamp, so that such a weight can come back


def _floor(x: Tensor) -> Tensor:
    result: Tensor = _Floor.apply(x)  # type: ignore[no-untyped-call]
    return result


def _power_of_two(exponent: Tensor) -> Tensor:
    """2**exponent as float32, built from its bits: exp2 and pow may be off in the last place."""
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


class ExactConv2d(nn.Module):
    """Convolution that trains in float and is, once quantised, an integer layer.

    Stride 1, no groups, zeros around the plane. ``quantised`` (see ``quantise``) means training on the grid.

    Args:
        in_exp, out_exp: real value = integer * 2**-exp, for inputs and outputs.
        in_range: integers that come in, within [-128, 255].
        out_range: integers that go out, within int16; [0, 255] in hidden layers: the lower clamp is the ReLU.
        level_bias: number of rate levels. > 0 keeps room for ``extra_bias`` up to the width of ``out_range``,
            beyond which it would only saturate; hidden layers of 8 bits have that room in any case.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        in_exp: int,
        out_exp: int,
        in_range: Range,
        out_range: Range,
        bias: bool = True,
        level_bias: int = 0,
    ) -> None:
        super().__init__()
        arithmetic.check_ranges(in_range, out_range)
        if kernel_size % 2 == 0:
            raise ExactLayerMisused(f"kernel size {kernel_size} is even", "Use an odd one, 1 or 3")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.in_exp, self.out_exp = in_exp, out_exp
        self.in_range, self.out_range = in_range, out_range
        self.level_bias = level_bias
        self.quantised = False
        self._reach = max(abs(in_range[0]), abs(in_range[1]))
        terms = in_channels * kernel_size**2
        # rounding moves each weight by up to 1/2; what is left is for the weights themselves
        self._budget = SUM_LIMIT - 0.5 * (self._reach * terms + 1)
        if self._budget < SUM_LIMIT / 2:
            raise ExactLayerMisused(
                f"{terms} terms a sum are too many", "Use fewer channels or a smaller kernel"
            )
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, in_exp={self.in_exp}, "
            f"out_exp={self.out_exp}, in_range={self.in_range}, out_range={self.out_range}"
        )

    @property
    def _extra_reach(self) -> float:
        """Real value beyond which an extra bias is clamped; 0 where none is allowed."""
        width = self.out_range[1] - self.out_range[0]
        return float(width * 2.0**-self.out_exp) if self.level_bias or width <= 255 else 0.0

    def _least_exponent(self) -> int:
        return self.out_exp - self.in_exp  # shift 0

    @torch.no_grad()
    def _mass(self) -> tuple[Tensor, Tensor]:
        """Per channel, float64: largest |weight|; largest partial sum at t = 0, before any rounding."""
        weight = self.weight.detach().abs().flatten(1)
        bias = 0.0 if self.bias is None else self.bias.detach().double().abs()
        steps = (bias + self._extra_reach) * 2.0**self.in_exp + 2.0 ** (self.in_exp - self.out_exp - 1)
        return weight.amax(1).double(), weight.sum(1, dtype=torch.float64) * self._reach + steps

    @torch.no_grad()
    def weight_exponents(self) -> Tensor:
        """t of each output channel, int32 [O]: the finest grid that the bound, 8 bits and shift 20 allow."""
        largest, mass = self._mass()
        cap = torch.minimum(MAX_WEIGHT / largest.clamp_min(2.0**-60), self._budget / mass)
        floor_log2 = torch.frexp(cap).exponent.to(torch.int32) - 1
        least = self._least_exponent()
        return floor_log2.clamp(least, least + MAX_SHIFT)

    @torch.no_grad()
    def project_(self) -> None:
        """Pull weights that no grid fits (the shift would be negative) back to where one does.

        Cheap; for use after optimiser steps if ``headroom`` comes near 1. Changes no layer that is below it.
        """
        finest = 2.0 ** self._least_exponent()
        limit = MAX_WEIGHT / finest
        self.weight.clamp_(-limit, limit)
        _, mass = self._mass()
        scale = (self._budget / finest / mass).clamp_max(1.0)
        scale = torch.where(scale < 1, scale * 0.99, scale).to(self.weight.dtype)
        self.weight.mul_(scale[:, None, None, None])
        if self.bias is not None:
            self.bias.mul_(scale)

    def headroom(self) -> float:
        """How much of the coarsest grid's room is used; above 1 the layer can't be folded without loss."""
        largest, mass = self._mass()
        finest = 2.0 ** self._least_exponent()
        return float((torch.maximum(largest / MAX_WEIGHT, mass / self._budget) * finest).max())

    def _real_bias(self, extra_bias: Tensor | None) -> Tensor | None:
        """[O, 1, 1], or [B, O, 1, 1] with an extra bias, real values."""
        bias = None if self.bias is None else self.bias[:, None, None]
        if extra_bias is None:
            return bias
        if self._extra_reach == 0:
            raise ExactLayerMisused(
                "extra_bias was given to a layer of wide output built with level_bias=0",
                "Build it with the number of levels",
            )
        extra = extra_bias.to(self.weight.dtype).clamp(-self._extra_reach, self._extra_reach)
        return extra if bias is None else bias + extra

    def _integers(self, extra_bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Weights [O, I, K, K] and biases [(B,) O, 1, 1] as integers in float32, and t [O]."""
        exponent = self.weight_exponents()
        weight: Tensor = _RoundWeight.apply(  # type: ignore[no-untyped-call]
            self.weight.float() * _power_of_two(exponent)[:, None, None, None]
        )
        real = self._real_bias(extra_bias)
        if real is None:
            bias = torch.zeros(self.out_channels, 1, 1, device=weight.device)
        else:
            grid = _power_of_two(exponent + self.in_exp)[:, None, None]
            bias = _floor(real.float() * grid + 0.5)
        return weight, bias, exponent

    def forward(
        self, x: Tensor, extra_bias: Tensor | None = None, *, accumulate: Tensor | None = None
    ) -> Tensor:
        """Real values in, real values out.

        Args:
            x: [B, I, H, W]; on the input's grid and in its range once quantised.
            extra_bias: [B, O, 1, 1], added before the rounding.
            accumulate: [B, O, H, W] on the output's grid, added after the rounding and before the clamp.
        """
        step = 2.0**-self.out_exp
        lo, hi = self.out_range
        if not self.quantised:
            pad = self.kernel_size // 2
            if extra_bias is None:
                y = functional.conv2d(x, self.weight, self.bias, padding=pad)
            else:
                bias = self._real_bias(extra_bias)
                y = functional.conv2d(x, self.weight, None, padding=pad)
                y = y if bias is None else y + bias
            if accumulate is not None:
                y = y + accumulate
            return y.clamp(lo * step, hi * step)
        with torch.autocast(x.device.type, enabled=False):
            weight, bias, exponent = self._integers(extra_bias)
            shift = exponent + (self.in_exp - self.out_exp)
            to_output = _power_of_two(-shift)[:, None, None]
            half = torch.where(shift > 0, 0.5, 0.0).to(torch.float32)[:, None, None]
            # real inputs, outputs in steps of the output's grid: each number is what folding makes of it
            scaled = weight * (to_output * 2.0**self.in_exp)[..., None]
            offset = bias * to_output + half
            y = functional.conv2d(x.float(), scaled, None, padding=self.kernel_size // 2) + offset
            y = _floor(y)
            if accumulate is not None:
                y = y + accumulate.float() * 2.0**self.out_exp
            return y.clamp(lo, hi) * step

    @torch.no_grad()
    def fold(self, extra_bias: Tensor | None = None) -> FoldedConv2d:
        """The integer layer that the quantised forward already computes.

        Args:
            extra_bias: [L, O] real values, one row per rate level.

        Raises:
            ExactBoundExceeded, ExactOperandTooWide: the weights fit no grid; see ``project_``.
        """
        weight, bias, exponent = self._integers(None if extra_bias is None else extra_bias[:, :, None, None])
        return FoldedConv2d(
            weight=weight.to(torch.int8),
            bias=bias.reshape(-1, self.out_channels).to(torch.int32),
            shift=(exponent + (self.in_exp - self.out_exp)).to(torch.int8),
            in_range=self.in_range,
            out_range=self.out_range,
        )


def quantise(module: nn.Module, on: bool = True) -> None:
    """Switch every exact layer of a network between float and fake-quant training."""
    for layer in module.modules():
        if isinstance(layer, ExactConv2d):
            layer.quantised = on


class FoldedConv2d(nn.Module):
    """An exact layer as integers: what a model file holds and every decoder computes.

    Args:
        weight: integers [O, I, K, K], |w| <= 127.
        bias: integers [L, O], a row per rate level; a single row serves all levels.
        shift: integers [O], 0..20.
        in_range, out_range: integers.

    Raises:
        ExactBoundExceeded, ExactOperandTooWide: the integers break the law of ``arithmetic``.
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor

    def __init__(
        self, *, weight: Tensor, bias: Tensor, shift: Tensor, in_range: Range, out_range: Range
    ) -> None:
        super().__init__()
        if any(tensor.is_floating_point() for tensor in (weight, bias, shift)):
            raise ExactLayerMisused("its integers came as floats", "Convert them with to(torch.int32) first")
        arithmetic.check_layer(
            weight.cpu().numpy(), bias.cpu().numpy(), shift.cpu().numpy(), in_range, out_range
        )
        self.in_range, self.out_range = in_range, out_range
        self.register_buffer("weight", weight.to(torch.int8))
        self.register_buffer("bias", bias.to(torch.int32))
        self.register_buffer("shift", shift.to(torch.int8))
        self._prepared: dict[Any, tuple[Tensor, Tensor]] = {}

    @property
    def levels(self) -> int:
        return self.bias.shape[0]

    def state(self, prefix: str) -> dict[str, Tensor]:
        """Plain integer tensors for a model file, named ``prefix`` + weight, bias, shift, ranges."""
        ranges = torch.tensor([*self.in_range, *self.out_range], dtype=torch.int32)
        tensors = {"weight": self.weight, "bias": self.bias, "shift": self.shift, "ranges": ranges}
        return {prefix + name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], prefix: str) -> FoldedConv2d:
        """Raises MalformedExactLayer, ExactBoundExceeded, ExactOperandTooWide."""
        kinds = {"weight": torch.int8, "bias": torch.int32, "shift": torch.int8, "ranges": torch.int32}
        found = {}
        for name, kind in kinds.items():
            tensor = tensors.get(prefix + name)
            if tensor is None:
                raise MalformedExactLayer(prefix, f"tensor {name!r} is missing")
            if tensor.dtype != kind:
                raise MalformedExactLayer(prefix, f"tensor {name!r} is {tensor.dtype}, expected {kind}")
            found[name] = tensor
        weight, bias, shift, ranges = found["weight"], found["bias"], found["shift"], found["ranges"]
        out_channels = weight.shape[0] if weight.ndim == 4 else -1
        if (
            weight.ndim != 4
            or 0 in weight.shape
            or weight.shape[2] != weight.shape[3]
            or weight.shape[2] % 2 == 0
            or bias.ndim != 2
            or bias.shape[0] < 1
            or bias.shape[1] != out_channels
            or shift.shape != (out_channels,)
            or ranges.shape != (4,)
        ):
            shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in found.items())
            raise MalformedExactLayer(prefix, f"shapes don't fit: {shapes}")
        in_lo, in_hi, out_lo, out_hi = (int(value) for value in ranges)
        return cls(weight=weight, bias=bias, shift=shift, in_range=(in_lo, in_hi), out_range=(out_lo, out_hi))

    def forward(self, x: Tensor, level: int | Tensor = 0, *, accumulate: Tensor | None = None) -> Tensor:
        """Integers in, integers out; enters ``exact_mode`` if the caller has not.

        Args:
            x: [B, I, H, W], integers in ``in_range``, as an integer dtype or as float32.
            level: row of the bias table, or an integer tensor [B] with a row per image.
            accumulate: integers [B, O, H, W] on the output's grid, added before the clamp.

        Returns:
            [B, O, H, W]; int32 for integer input, else integer-valued float32 (where a zero may be -0.0:
            ``to_int32`` before bytes are hashed or compared).
        """
        if not mode.active():
            with mode.exact_mode():
                return self.forward(x, level, accumulate=accumulate)
        if mode.paranoid():
            self._check_input(x)
        rung = selftest.choose(self.weight.shape, self.in_range, x)
        y = self._run(x, self._row(level, x), rung, accumulate)
        return y if x.is_floating_point() else y.to(torch.int32)

    def _row(self, level: int | Tensor, x: Tensor) -> Tensor:
        """Index of the bias row: [1], or [B]."""
        if self.levels == 1:
            return torch.zeros(1, dtype=torch.int64, device=self.bias.device)
        rows = torch.as_tensor(level, device=self.bias.device).to(torch.int64).reshape(-1)
        if bool(((rows < 0) | (rows >= self.levels)).any()) or rows.shape[0] not in (1, x.shape[0]):
            raise ExactLayerMisused(
                f"level {rows.tolist()} for {x.shape[0]} images",
                f"Give one level, or one per image, below {self.levels}",
            )
        return rows

    def _scaled(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Weights and biases times 2**-shift in float32, half a step included in the biases."""
        if device not in self._prepared:
            unit = _power_of_two(-self.shift.to(torch.int32))
            half = torch.where(self.shift > 0, 0.5, 0.0).to(torch.float32)
            weight = self.weight.to(torch.float32) * unit[:, None, None, None]
            bias = self.bias.to(torch.float32) * unit + half
            self._prepared[device] = weight.to(device), bias.to(device)
        return self._prepared[device]

    def _run(self, x: Tensor, row: Tensor, rung: str, accumulate: Tensor | None) -> Tensor:
        lo, hi = self.out_range
        if rung in ("float32", "unfold"):
            weight, bias = self._scaled(x.device)
            bias = bias[row.to(bias.device)]
            kernel = selftest.KERNELS[rung]
            if bias.shape[0] == 1:
                y = kernel(x.to(torch.float32), weight, bias[0])
            else:  # exact in any order, so the bias may come last
                y = kernel(x.to(torch.float32), weight, None).add_(bias[:, :, None, None])
            if mode.paranoid():
                self._check_grid(y)
            y = y.floor_()
            if accumulate is not None:
                y = y.add_(accumulate.to(torch.float32))
            return y.clamp_(lo, hi)
        bias = self.bias.to(torch.int64)[row]
        sums = selftest.integer_sums(rung, x, self.weight, bias)
        shift = self.shift.to(device=sums.device, dtype=torch.int64)[:, None, None]
        half_step = torch.where(shift > 0, torch.ones_like(shift) << (shift - 1).clamp_min(0), 0)
        y = (sums + half_step) >> shift
        if accumulate is not None:
            y = y + accumulate.to(device=y.device, dtype=torch.int64)
        return y.clamp(lo, hi).to(device=x.device, dtype=torch.float32)

    def _check_input(self, x: Tensor) -> None:
        lo, hi = self.in_range
        if bool(((x < lo) | (x > hi)).any()) or (x.is_floating_point() and bool((x != x.round()).any())):
            raise InexactArithmetic(f"a layer got inputs that are not integers in {lo}..{hi}")

    def _check_grid(self, sums: Tensor) -> None:
        scaled = sums * _power_of_two(self.shift.to(torch.int32)).to(sums.device)[:, None, None]
        wrong = int((scaled != scaled.round()).sum())
        if wrong:
            raise InexactArithmetic(f"{wrong} of {scaled.numel()} sums are off their grid")


def to_int32(values: Tensor) -> Tensor:
    """Integers as int32 in NCHW order: the form in which they are hashed, compared and coded."""
    return values.to(torch.int32).contiguous()


def integer_bytes(values: Tensor) -> bytes:
    """int32 little-endian bytes of integers, the same for every layout, dtype and device."""
    return bytes(to_int32(values).cpu().numpy().astype("<i4", copy=False).tobytes())
