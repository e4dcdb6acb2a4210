"""Which way of computing a convolution is exact here: tried out once per shape, remembered for the process.

Four rungs give the same integers where a machine keeps its promises: ``float32`` (torch's convolution),
``unfold`` (matrix product over gathered taps), ``float64`` (rounded sums) and ``int64`` (the definition).
A rung serves a shape only after it has given, on adversarial integers, the sums that int64 gives.

Tried once per device, layer shape, batch, plane and memory format, at the cost of about two forwards of the
layer on the trial's plane. That is the real plane up to PLANE positions (batch * height * width); of a larger one
it is the first rows, at least ROWS, with the real batch and width, so images of many heights share a trial.
Every sum is checked to lie on its grid, and at PLACES positions, corners included, a random combination of all
output channels is compared with int64: an error in one channel always shows, one in several at 15 of 16 places.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from recbatch.models.exact import arithmetic
from recbatch.models.exact.arithmetic import MAX_SHIFT, MAX_WEIGHT, SUM_LIMIT, Integers, Range
from recbatch.models.exact.errors import ExactLayerMisused

log = logging.getLogger(__name__)

RUNGS = ("float32", "unfold", "float64", "int64")
PLANE = 2**10
ROWS = 8
PLACES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the self-test found for one shape."""

    device: str
    weight_shape: tuple[int, ...]  # [O, I, K, K]
    in_range: Range
    input_shape: tuple[int, ...]  # [B, I, H, W] of the trial
    layout: str  # "NCHW" or "NHWC"
    rung: str
    failures: tuple[str, ...]  # why each rung above was left


_trials: dict[tuple[object, ...], Trial] = {}
_here = threading.local()


def ladder_report() -> list[Trial]:
    """Every shape tried in this process, in order, for ``recbatch doctor``."""
    return list(_trials.values())


def forget_trials() -> None:
    """Try every shape anew, for example after a switch of torch was changed."""
    _trials.clear()


@contextmanager
def at_least(rung: str) -> Iterator[None]:
    """In this thread use ``rung`` or a safer one; what a decoder tries before it calls a stream corrupt."""
    if rung not in RUNGS:
        raise ExactLayerMisused(f"there is no rung {rung!r}", f"Choose one of {', '.join(RUNGS)}")
    before = _first()
    _here.first = max(before, RUNGS.index(rung))
    try:
        yield
    finally:
        _here.first = before


def _first() -> int:
    return int(getattr(_here, "first", 0))


def choose(shape: Sequence[int], in_range: Range, x: Tensor) -> str:
    """The fastest rung that is exact for this layer shape on inputs like ``x``; call it in exact_mode."""
    first = _first()
    batch, channels, height, width = x.shape
    plane = (batch, channels, min(height, max(ROWS, PLANE // max(1, batch * width))), width)
    nhwc = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    key = (str(x.device), tuple(shape), in_range, plane, nhwc, first)
    trial = _trials.get(key)
    if trial is None:
        rung, failures = _climb(tuple(shape), in_range, plane, x.device, nhwc, first)
        trial = Trial(
            device=str(x.device),
            weight_shape=tuple(shape),
            in_range=in_range,
            input_shape=plane,
            layout="NHWC" if nhwc else "NCHW",
            rung=rung,
            failures=failures,
        )
        _trials[key] = trial
        if failures:
            shapes = f"{list(shape)} on {list(plane)}"
            log.warning("convolution %s: %s; using %s", shapes, "; ".join(failures), rung)
    return trial.rung


def _climb(
    shape: tuple[int, ...],
    in_range: Range,
    input_shape: tuple[int, ...],
    device: torch.device,
    nhwc: bool,
    first: int,
) -> tuple[str, tuple[str, ...]]:
    failures: list[str] = []
    probe = None
    for rung in RUNGS[first:-1]:
        if probe is None:
            probe = _Probe(shape, in_range, input_shape)
        try:
            problem = probe.problem(rung, device, nhwc)
        except (RuntimeError, TypeError, NotImplementedError) as error:  # a device without float64, no memory
            problem = f"{type(error).__name__}: {str(error)[:120]}"
        if problem is None:
            return rung, tuple(failures)
        failures.append(f"{rung}: {problem}")
    return RUNGS[-1], tuple(failures)


# -- the ways to compute ------------------------------------------------------------------------------------


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.conv2d(x, weight, bias, padding=weight.shape[2] // 2)


def _unfold(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    side = weight.shape[2]
    taps = x.flatten(2) if side == 1 else functional.unfold(x, side, padding=side // 2)
    y = torch.matmul(weight.flatten(1), taps).reshape(x.shape[0], weight.shape[0], x.shape[2], x.shape[3])
    return y if bias is None else y.add_(bias[:, None, None])


Kernel = Callable[[Tensor, Tensor, Tensor | None], Tensor]
KERNELS: dict[str, Kernel] = {"float32": _convolve, "unfold": _unfold}  # on weights times 2**-shift


def integer_sums(rung: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """int64 sums [B, O, H, W] by one of the two slow rungs; bias [1, O] or [B, O]."""
    if rung == "float64":
        sums = _convolve(x.to(torch.float64), weight.to(x.device, torch.float64), None)
        # rounded before the bias: right even where a library transforms, its error is far below 1/2
        return sums.round_().to(torch.int64) + bias.to(sums.device)[:, :, None, None]
    acc = arithmetic.accumulate(x.to(torch.int64).cpu().numpy(), weight.cpu().numpy(), bias.cpu().numpy())
    return torch.from_numpy(acc)


# -- the trial ----------------------------------------------------------------------------------------------


class _Probe:
    """Adversarial weights and inputs of one shape, and what int64 makes of them at some places."""

    def __init__(self, shape: tuple[int, ...], in_range: Range, input_shape: tuple[int, ...]) -> None:
        batch, _, height, width = input_shape
        self.weight, self.bias, self.shift = _adversarial_layer(shape, in_range)
        self.x = _adversarial_input(input_shape, in_range)
        self.mix = arithmetic.scattered((shape[0],), (1, 8), seed=4) * arithmetic.signs((shape[0],), seed=5)
        self.places = _places(batch, height, width)
        self.expected = self._mixed_sums()

    def _mixed_sums(self) -> Integers:
        """int64 [P]: mix . sums at each place; one filter instead of O, because convolution is linear."""
        mixed_IKK = np.tensordot(self.mix, self.weight.astype(np.int64), axes=1)
        pad = mixed_IKK.shape[1] // 2
        x = np.pad(self.x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        b, i, j = self.places
        total = np.full(b.shape, int((self.mix * self.bias).sum()), np.int64)
        for row in range(mixed_IKK.shape[1]):
            for column in range(mixed_IKK.shape[2]):
                total += x[b, :, i + row, j + column].astype(np.int64) @ mixed_IKK[:, row, column]
        return total

    def problem(self, rung: str, device: torch.device, nhwc: bool) -> str | None:
        """None, or what is wrong with the sums that a rung gives."""
        layout = torch.channels_last if nhwc else torch.contiguous_format
        x = torch.from_numpy(self.x).to(device, torch.float32, memory_format=layout)
        if rung in KERNELS:
            unit = torch.from_numpy(np.ldexp(np.float32(1), -self.shift).astype(np.float32)).to(device)
            weight = torch.from_numpy(self.weight).to(device, torch.float32) * unit[:, None, None, None]
            bias = torch.from_numpy(self.bias).to(device, torch.float32) * unit
            sums = KERNELS[rung](x, weight, bias).div_(unit[:, None, None])
            wrong = int(torch.count_nonzero(sums.frac()))  # infinities and NaN count, too
            if wrong:
                return f"{wrong} of {sums.numel()} sums off their grid"
        else:
            weight = torch.from_numpy(self.weight).to(device)
            sums = integer_sums(rung, x, weight, torch.from_numpy(self.bias)[None])
        b, i, j = (torch.from_numpy(place).to(device) for place in self.places)
        at_places = sums[b, :, i, j].to(torch.int64).cpu().numpy()
        wrong = int((at_places @ self.mix != self.expected).sum())
        return f"{wrong} of {len(self.expected)} places differ from int64" if wrong else None


@lru_cache(maxsize=16)
def _adversarial_layer(
    shape: tuple[int, ...], in_range: Range
) -> tuple[NDArray[np.int16], Integers, Integers]:
    """Weights whose sums come close to the bound, by turns positive, cancelling, scattered, negative."""
    out_channels, terms = shape[0], int(np.prod(shape[1:]))
    reach = max(abs(in_range[0]), abs(in_range[1]), 1)
    spare = 2 ** (MAX_SHIFT - 1) + 1000
    budget = (SUM_LIMIT - spare) // reach
    kind = (np.arange(out_channels) % 4)[:, None]
    size, more = divmod(min(budget, MAX_WEIGHT * terms), terms)
    even = np.broadcast_to(size + (np.arange(terms) < more), (out_channels, terms))
    halves = np.where(np.arange(terms) < terms // 2, 1, -1)
    scattered = arithmetic.scattered((out_channels, terms), (0, min(MAX_WEIGHT, 2 * size)), seed=1)
    scattered = scattered * arithmetic.signs((out_channels, terms), seed=2)
    excess = np.abs(scattered).sum(axis=1, keepdims=True) > budget
    scattered = np.where(excess, scattered // 2, scattered)
    weight = np.choose(kind, [even, even * halves, scattered, -even]).astype(np.int16)
    bias = arithmetic.scattered((out_channels,), (-1000, 1000), seed=3)
    shift = np.arange(out_channels, dtype=np.int64) * 5 % (MAX_SHIFT + 1)
    return weight.reshape(shape), bias + arithmetic.half(shift), shift


def _adversarial_input(shape: tuple[int, ...], in_range: Range) -> NDArray[np.int16]:
    """Bands of 4 rows, shifted from image to image: at the extremes, scattered, alternating between extremes."""
    lo, hi = in_range
    batch, channels, height, width = shape
    tile = (channels, 12, 16)
    scattered = arithmetic.scattered(tile, in_range, seed=6)
    far = lo if abs(lo) > abs(hi) else hi
    near_extreme = np.where(scattered % 8 == 0, far - np.sign(far), far)  # so that sums are odd and even
    alternating = np.where(np.indices(tile[1:]).sum(axis=0) % 2, lo, hi)
    band = (np.arange(tile[1]) // 4)[:, None]
    bands = np.where(band == 0, near_extreme, np.where(band == 1, scattered, alternating)).clip(lo, hi)
    rows = (np.arange(height) + 4 * np.arange(batch)[:, None]) % tile[1]
    columns = np.arange(width) % tile[2]
    small = bands.astype(np.int16)
    return np.ascontiguousarray(np.moveaxis(small[:, rows[:, :, None], columns], 1, 0))


def _places(batch: int, height: int, width: int) -> tuple[Integers, Integers, Integers]:
    """PLACES positions, or all; corners of the first and last image among them."""
    total = batch * height * width
    if total <= PLACES:
        flat = np.arange(total, dtype=np.int64)
    else:
        corners = [0, width - 1, (height - 1) * width, height * width - 1]
        last = (batch - 1) * height * width
        ends = np.array(corners + [last + corner for corner in corners], np.int64)
        flat = np.concatenate([ends, arithmetic.scattered((PLACES - len(ends),), (0, total - 1), seed=7)])
    return flat // (height * width), flat // width % height, flat % width
