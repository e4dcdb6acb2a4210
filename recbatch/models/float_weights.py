"""How a weight file stores the float networks: most convolutions as 8-bit integers, with a scale for each channel.

Half the bytes of float16; on held-out photographs the same rate, and PSNR to 0.004 dB (docs/decisions/0007). Layers
that make latents or pixels with no other layer behind them keep float16: their rounding would be seen.

Shapes: O output channels, I input channels; a scale is [O, 1, 1, 1], or [1, I, 1, 1] for the layer that reads latents,
whose channels differ most.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

FLOAT_PARTS = ("analysis.", "synthesis.", "hyper_analysis.", "gain.", "ungain.")
KEPT = (".linear.", ".out.")  # parts of names that stay float16
BY_INPUT = ("synthesis.up.0.",)
SCALE = ".scale"
LARGEST = 127


def stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a weight file, from a network's: its float parts only."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if not name.startswith(FLOAT_PARTS):
            continue
        if value.dim() == 4 and not any(part in name for part in KEPT):
            over = (0, 2, 3) if name.startswith(BY_INPUT) else (1, 2, 3)
            scale = value.abs().amax(over, keepdim=True).clamp_min(2.0**-24).float() / LARGEST
            out[name] = torch.round(value / scale).to(torch.int8)
            out[name + SCALE] = scale
        else:
            out[name] = value.to(torch.float16)
    return {name: tensor.contiguous() for name, tensor in out.items()}


def restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's float parts, float32, from a weight file's tensors; also of files that hold float16 only."""
    out: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.startswith(FLOAT_PARTS) and not name.endswith(SCALE):
            scale = tensors.get(name + SCALE)
            out[name] = value.float() if scale is None else value.float() * scale
    return out
