"""``exact_mode()``: torch's process-wide switches as exact forwards need them, and back afterwards."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

log = logging.getLogger(__name__)

_lock = threading.RLock()  # the switches are the process's, so exact forwards of several threads take turns
_here = threading.local()  # which thread is inside, how deep, and how careful

_HARMLESS = {
    "ONEDNN_DEFAULT_FPMATH_MODE": ("", "STRICT"),
    "DNNL_DEFAULT_FPMATH_MODE": ("", "STRICT"),
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": ("", "0"),
    "NVIDIA_TF32_OVERRIDE": ("", "0"),
}


def guard_environment() -> tuple[str, ...]:
    """Unset variables that ask for reduced precision; say so in the log; return their names.

    Libraries read them at their first convolution and no switch of torch overrules them later, so this runs
    when the package is imported. Set too late, they still can't hurt: operands of 8 bits survive bf16.
    """
    removed = []
    for name, harmless in _HARMLESS.items():
        value = os.environ.get(name)
        if value is not None and value.upper() not in harmless:
            log.warning("%s=%s asks for reduced precision: unset for this process", name, value)
            del os.environ[name]
            removed.append(name)
    return tuple(removed)


def _precision_switches() -> list[Any]:
    """Objects with ``fp32_precision``. Only these: mixing them with allow_tf32 makes torch raise."""
    backends = torch.backends
    found = []
    for owner, member in (
        (backends.mkldnn, "conv"),
        (backends.mkldnn, "matmul"),
        (backends.cuda, "matmul"),
        (backends.cudnn, "conv"),
    ):
        switch = getattr(owner, member, None)
        if hasattr(switch, "fp32_precision"):  # torch before 2.9 has none: there the self-test alone guards
            found.append(switch)
    return found


@contextmanager
def _switches() -> Iterator[None]:
    with ExitStack() as undo:
        for switch in _precision_switches():
            undo.callback(setattr, switch, "fp32_precision", switch.fp32_precision)
            switch.fp32_precision = "ieee"
        set_nnpack: Any = torch.backends.nnpack.set_flags
        undo.callback(set_nnpack, *set_nnpack(False))
        # cuDNN picks Winograd and FFT by heuristics that no flag forbids; without it: im2col and cuBLAS
        undo.callback(setattr, torch.backends.cudnn, "enabled", torch.backends.cudnn.enabled)
        torch.backends.cudnn.enabled = False
        yield


@contextmanager
def exact_mode(*, paranoid: bool = False) -> Iterator[None]:
    """Around every forward whose integers a decoder must find again. Nests; other threads wait.

    Inside: inference mode, no autocast, full float32, no NNPACK, no cuDNN. All is restored on exit.

    Args:
        paranoid: check each layer's input range, and its sums' grid; they raise InexactArithmetic.
    """
    with _lock, ExitStack() as stack:
        depth: int = getattr(_here, "depth", 0)
        careful: bool = getattr(_here, "paranoid", False)
        if depth == 0:
            stack.enter_context(_switches())
        stack.enter_context(torch.inference_mode())
        devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        _here.depth, _here.paranoid = depth + 1, careful or paranoid
        try:
            yield
        finally:
            _here.depth, _here.paranoid = depth, careful


def active() -> bool:
    """Whether this thread is inside ``exact_mode``."""
    return getattr(_here, "depth", 0) > 0


def paranoid() -> bool:
    """Whether this thread asked for grid checks."""
    return bool(getattr(_here, "paranoid", False))
