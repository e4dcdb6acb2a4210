"""What a run makes of the machine: its device, the number format of its networks, and what it can do at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbatch.errors import UsageError
from recbatch.models.lossy import LossyNet

TRIALS = 5  # the best of so many matrix products counts: others may use the machine as well


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            f"There is no device {name} that torch can use here. Give --device cpu, or leave it out."
        )
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where the hardware multiplies it: on a GPU, and on processors with AMX or AVX512_BF16."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" or _processor_has_bf16() else torch.float32
    return {"float32": torch.float32, "bf16": torch.bfloat16}[name]


def _processor_has_bf16() -> bool:
    # private names of torch: one that is gone means float32, which is never wrong
    known = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in known)


def mix_precision(net: LossyNet, device: torch.device) -> None:
    """Let the networks of analysis and synthesis compute in bfloat16; all else stays float32.

    So do their linear paths: a latent of 900 units of noise, which the first coefficient of a block is at a high
    rate, would be off by up to 2 of them in the 8 bits of bfloat16.
    """
    for part in (net.analysis, net.synthesis):
        _under_autocast(part, device, enabled=True)
        _under_autocast(part.linear, device, enabled=False)


def _under_autocast(module: nn.Module, device: torch.device, *, enabled: bool) -> None:
    plain: Callable[..., Tensor] = module.forward

    def forward(*inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            return plain(*(x.float() for x in inputs)).float()

    module.forward = forward  # type: ignore[method-assign]


@contextmanager
def computing(device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers of ``seed`` inside, the caller's afterwards; convolutions of a GPU in full float32.

    TF32, which cuDNN takes by default, has the 11 bits of float16: too few for latents, see ``mix_precision``.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng([torch.cuda.current_device()] if cuda else []):
        torch.manual_seed(seed)
        if cuda:
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
                yield
        else:
            yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What a step computes, and the least time that this machine can take for it."""

    step_flop: int  # of one worker; two for each multiplication
    peak_flop_s: float  # of plain matrix products, measured here
    device: str
    precision: str

    @property
    def least_s(self) -> float:
        return self.step_flop / self.peak_flop_s

    def sentence(self) -> str:
        return (
            f"{self.step_flop / 1e9:.3g} GFLOP a step; matrix products here ({self.device}, {self.precision}) reach "
            f"{self.peak_flop_s / 1e9:.3g} GFLOP/s, so no step can take under {seconds_text(self.least_s)}"
        )

    def share(self, seconds: float, steps: int) -> float:
        """How much of what matrix products reach was reached by some steps."""
        return self.step_flop * steps / seconds / self.peak_flop_s


def seconds_text(seconds: float) -> str:
    """Milliseconds where they say more."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1e3 * seconds:.2g} ms"


def measure_floor(
    net: nn.Module, gradients: Callable[[], Any], device: torch.device, precision: torch.dtype
) -> Floor:
    """The floor of a network's steps; ``gradients`` runs one forward and backward, whose gradients are dropped."""
    with computing(device, 0):
        step_flop = count_flops(gradients)
    net.zero_grad()
    return Floor(
        step_flop=step_flop,
        peak_flop_s=matmul_peak(device, precision),
        device=device.type,
        precision=str(precision).removeprefix("torch."),
    )


def count_flops(step: Callable[[], Any]) -> int:
    """Floating-point operations of the convolutions and matrix products in a call, two for each multiplication."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a plain matrix product, measured here and now."""
    side, repeats = (8192, 10) if device.type == "cuda" else (1024, 2)
    a = torch.ones(side, side, device=device, dtype=dtype)

    def seconds() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            torch.mm(a, a)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    seconds()  # the first loads libraries
    return 2 * side**3 * repeats / min(seconds() for _ in range(TRIALS))
