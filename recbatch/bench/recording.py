"""A coder that passes everything on, and keeps what went through: latents, samples, and the time the search took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbatch.rec.base import Coder, Reader, Samples, Scales, Targets, Writer


@dataclass(frozen=True, slots=True)
class Section:
    """One section of one image."""

    target_N: Targets
    scale_N: Scales
    sample_N: Samples


class RecordingCoder:
    """Stands in for ``coder``, in the header too; ``images[i]`` are the sections of the i-th image of the last call."""

    def __init__(self, coder: Coder) -> None:
        self._coder = coder
        self.number = coder.number
        self.name = coder.name
        self.images: list[list[Section]] = []
        self.seconds = 0.0

    @property
    def parameters(self) -> bytes:
        return self._coder.parameters

    def writer(self, *, seed: int = 0) -> Writer:
        return self._coder.writer(seed=seed)

    def reader(self, payload: bytes, *, seed: int = 0) -> Reader:
        return self._coder.reader(payload, seed=seed)

    def encode(
        self, writers: Sequence[Writer], targets: Sequence[Targets], scales: Sequence[Scales]
    ) -> list[Samples]:
        start = time.perf_counter()
        samples = self._coder.encode(writers, targets, scales)
        self.seconds += time.perf_counter() - start
        while len(self.images) < len(samples):
            self.images.append([])
        for sections, e, index, sample in zip(self.images, targets, scales, samples, strict=True):
            sections.append(Section(e, index, sample))
        return samples

    def take(self) -> list[Section]:
        """One section per image, all its dimensions joined; forgets them."""
        out = [
            Section(
                np.concatenate([s.target_N for s in sections]),
                np.concatenate([s.scale_N for s in sections]),
                np.concatenate([s.sample_N for s in sections]),
            )
            for sections in self.images
        ]
        self.images = []
        return out
