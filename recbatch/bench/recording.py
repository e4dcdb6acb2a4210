"""A coder that passes everything on, and keeps what went through: latents, samples, and the seconds it took.

What was recorded can be searched again, on other threads or another device, without the networks around it.

Shapes: N dimensions of one section of one image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from recbatch.rec.base import Bits, Coder, Reader, Samples, Scales, Targets, Writer

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Section:
    """One section of one image."""

    target_N: Targets
    scale_N: Scales
    sample_N: Samples


@dataclass(slots=True)
class Clock:
    """Seconds of the encoder (search, then entropy coding of the payload) and of the decoder."""

    encode_s: float = 0.0
    decode_s: float = 0.0

    def encoding(self, work: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        out = work()
        self.encode_s += time.perf_counter() - start
        return out

    def decoding(self, work: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        out = work()
        self.decode_s += time.perf_counter() - start
        return out

    def add(self, other: Clock) -> None:
        self.encode_s += other.encode_s
        self.decode_s += other.decode_s


@dataclass(slots=True)
class _Writer:
    """Times the packing of a payload."""

    inner: Writer
    clock: Clock

    def finish(self) -> bytes:
        return self.clock.encoding(self.inner.finish)

    @property
    def bits(self) -> Bits:
        return self.inner.bits


@dataclass(slots=True)
class _Reader:
    """Times the decoding of samples."""

    inner: Reader
    clock: Clock

    def decode(self, scales_N: Scales) -> Samples:
        return self.clock.decoding(lambda: self.inner.decode(scales_N))

    def finish(self) -> None:
        self.clock.decoding(self.inner.finish)


@dataclass(slots=True)
class RecordingCoder:
    """Stands in for ``coder``, in the header too; ``images[i]`` are the sections of the i-th image of the last call."""

    coder: Coder
    clock: Clock = field(default_factory=Clock)
    images: list[list[Section]] = field(default_factory=list)

    @property
    def number(self) -> int:
        return self.coder.number

    @property
    def name(self) -> str:
        return self.coder.name

    @property
    def parameters(self) -> bytes:
        return self.coder.parameters

    def writer(self, *, seed: int = 0) -> Writer:
        return _Writer(self.coder.writer(seed=seed), self.clock)

    def reader(self, payload: bytes, *, seed: int = 0) -> Reader:
        return _Reader(self.clock.decoding(lambda: self.coder.reader(payload, seed=seed)), self.clock)

    def encode(
        self, writers: Sequence[Writer], targets: Sequence[Targets], scales: Sequence[Scales]
    ) -> list[Samples]:
        own = [writer.inner if isinstance(writer, _Writer) else writer for writer in writers]
        samples = self.clock.encoding(lambda: self.coder.encode(own, targets, scales))
        while len(self.images) < len(samples):
            self.images.append([])
        for sections, e, index, sample in zip(self.images, targets, scales, samples, strict=True):
            sections.append(Section(e, index, sample))
        return samples

    def take(self) -> list[list[Section]]:
        """The sections of each image of the last call; forgets them."""
        out, self.images = self.images, []
        return out


def joined(sections: Sequence[Section]) -> Section:
    """All dimensions of an image as one section."""
    return Section(
        np.concatenate([s.target_N for s in sections]),
        np.concatenate([s.scale_N for s in sections]),
        np.concatenate([s.sample_N for s in sections]),
    )
