"""The lossy model's latents as an input of the lossless one: an integer linear synthesis.

The lossy model's own synthesis is a float network, whose pixels differ from machine to machine, so it can't be what
probabilities depend on. This one is a single matrix, fitted by least squares, from the latents of a 16 x 16 block to
its pixels. All its sums are integers below 2**53, hence exact in float64 in any order, on any machine.

Shapes: M latent channels on h x w blocks, 16 h x 16 w pixels, 3 components Y, Co, Cg.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.models.lossless.geometry import COMPONENTS, HIGHEST, LOWEST, Integers

BLOCK = 16
OUTPUTS = COMPONENTS * BLOCK * BLOCK
CHUNK_BLOCKS = 4096  # worked on at a time: bounds memory
FLOAT64_EXACT = 2**53 - 2**32


@dataclass(frozen=True, slots=True)
class PreviewSynthesis:
    """Pixels = (weight . samples + bias) / 2**shift, rounded half up, clamped."""

    weight: NDArray[np.int8]  # [768, M]; outputs in order component, row, column
    bias: NDArray[np.int32]  # [768]
    shift: NDArray[np.int8]  # [M]: a channel's weights are times 2**shift
    total_shift: int
    level: int  # the rate level of the lossy model that it is fitted to
    latents_of: bytes  # [8] head of the digest of the lossy model

    def planes(self, samples_Mhw: NDArray[np.int32]) -> Integers:
        """Planes int16 [3, 16 h, 16 w] from latent samples in 1/64."""
        _, height, width = samples_Mhw.shape
        out = np.empty((3, BLOCK * height, BLOCK * width), np.int16)
        rows = max(1, CHUNK_BLOCKS // width)
        for top in range(0, height, rows):
            part = self._rows(samples_Mhw[:, top : top + rows])
            out[:, BLOCK * top : BLOCK * top + part.shape[1]] = part
        return out

    def _rows(self, samples_Mhw: NDArray[np.int32]) -> Integers:
        channels, height, width = samples_Mhw.shape
        matrix = self.weight.astype(np.int64) << self.shift.astype(np.int64)
        offset = self.bias.astype(np.int64) + (1 << (self.total_shift - 1))
        samples = samples_Mhw.reshape(channels, -1).astype(np.int64)
        most = int(np.abs(samples).max(initial=0)) * int(np.abs(matrix).sum(axis=1).max())
        if most < FLOAT64_EXACT:  # all partial sums are integers that float64 holds
            sums = (matrix.astype(np.float64) @ samples.astype(np.float64)).astype(np.int64)
        else:  # no encoder makes such samples
            sums = matrix @ samples
        pixels = (sums + offset[:, None]) >> self.total_shift
        pixels = pixels.reshape(COMPONENTS, BLOCK, BLOCK, height, width).transpose(0, 3, 1, 4, 2)
        lowest = np.array(LOWEST)[:, None, None]
        clipped = np.clip(pixels.reshape(COMPONENTS, BLOCK * height, BLOCK * width), lowest, HIGHEST)
        rows: Integers = clipped.astype(np.int16)
        return rows

    def tensors(self) -> dict[str, Tensor]:
        """For a model file."""
        return {
            "synthesis.weight": torch.from_numpy(self.weight),
            "synthesis.bias": torch.from_numpy(self.bias),
            "synthesis.shift": torch.from_numpy(self.shift),
            "synthesis.scalars": torch.tensor([self.total_shift, self.level], dtype=torch.int32),
            "synthesis.latents_of": torch.from_numpy(np.frombuffer(self.latents_of, np.uint8).copy()),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> PreviewSynthesis:
        total_shift, level = (int(v) for v in tensors["synthesis.scalars"])
        return cls(
            tensors["synthesis.weight"].numpy(),
            tensors["synthesis.bias"].numpy(),
            tensors["synthesis.shift"].numpy(),
            total_shift,
            level,
            tensors["synthesis.latents_of"].numpy().tobytes(),
        )
