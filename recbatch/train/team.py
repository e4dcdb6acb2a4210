"""The workers of a run, and what they tell each other: gradients, one clock, one decision to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Team(Protocol):
    """The workers of a run as one of them sees it. All call the same methods in the same order."""

    rank: int  # 0 writes the checkpoints
    size: int

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the tensors by those of worker 0."""

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Replace each gradient by its mean over the workers."""

    def agree(self, elapsed_s: float, stop: bool) -> tuple[float, bool]:
        """The time of worker 0, and whether any worker wants to stop."""
        ...


class Alone:
    """One process."""

    rank, size = 0, 1

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to do."""

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Nothing to do."""

    def agree(self, elapsed_s: float, stop: bool) -> tuple[float, bool]:
        return elapsed_s, stop


class ProcessGroup:
    """The workers of torch's process group, which must have begun."""

    def __init__(self, device: torch.device) -> None:
        from torch import distributed

        self._group = distributed
        self._device = device
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def share(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            whole = tensor.detach().contiguous()  # weights lie in channels_last, which no backend sends
            self._group.broadcast(whole, 0)
            with torch.no_grad():
                tensor.copy_(whole)

    def average(self, gradients: Sequence[Tensor]) -> None:
        flat = torch.cat(
            [g.flatten() for g in gradients]
        )  # one message: the first byte costs as much as many
        self._group.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view(gradient.shape))

    def agree(self, elapsed_s: float, stop: bool) -> tuple[float, bool]:
        said = torch.tensor(
            [elapsed_s if self.rank == 0 else 0.0, float(stop)], dtype=torch.float64, device=self._device
        )
        self._group.all_reduce(said)
        return float(said[0]), bool(said[1] > 0)
