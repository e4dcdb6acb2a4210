"""Coders that write no stream: they draw the sample a real coder would send, and say how many bits that takes ideally.

They go through the codec as any coder does, so that each sample meets its own context and its own synthesis.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import UsageError
from recbatch.rec.base import SCALES, UNIT, Bits, Reader, Samples, Scales, Targets, Writer
from recbatch.rec.tables import sigma

LN2 = math.log(2)
SIGMA_S = np.array([sigma(index) for index in range(SCALES)])  # prior deviation by scale index

Floats = NDArray[np.float64]


class NoStream(UsageError):
    """A stream was asked of a coder that has none."""

    code = "no-stream"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"The coder {self.name} only tells ideal code lengths. Use 'trellis' or 'irec' for streams."


@dataclass(slots=True)
class IdealWriter:
    """Adds up ideal bits; its payload is as long as they are, and empty of meaning."""

    ideal_bits: float = 0.0
    sections: int = 0

    def finish(self) -> bytes:
        return bytes(math.ceil(self.ideal_bits / 8))

    @property
    def bits(self) -> Bits:
        total = 8 * math.ceil(self.ideal_bits / 8)
        return Bits(symbols=math.ceil(self.ideal_bits), side=total - math.ceil(self.ideal_bits))


class IdealCoder:
    """Base of the coders without a stream."""

    number: ClassVar[int] = 0  # never in a header
    name: ClassVar[str]

    @property
    def parameters(self) -> bytes:
        return b""

    def writer(self, *, seed: int = 0) -> IdealWriter:
        return IdealWriter()

    def reader(self, payload: bytes, *, seed: int = 0) -> Reader:
        raise NoStream(self.name)

    def encode(
        self, writers: Sequence[Writer], targets: Sequence[Targets], scales: Sequence[Scales]
    ) -> list[Samples]:
        """Samples of the next section of each writer, its bits added."""
        out = []
        for writer, e_N, index_N in zip(writers, targets, scales, strict=True):
            if not isinstance(writer, IdealWriter):
                raise UsageError(f"The coder {self.name} was given another coder's writer. Use its own.")
            z_N, bits = self.draw(e_N.astype(np.float64), index_N, section=writer.sections)
            writer.ideal_bits += bits
            writer.sections += 1
            out.append(np.where(index_N > 0, np.rint(z_N * UNIT), 0).astype(np.int32))
        return out

    @abstractmethod
    def draw(self, e_N: Floats, index_N: Scales, *, section: int) -> tuple[Floats, float]:
        """Samples in units of noise, and their bits."""


class PosteriorCoder(IdealCoder):
    """Exact draws from the Gaussian posterior, at the price of its KL from the prior.

    No coder with this prior can do better on average; a coder with a better prior can.
    """

    name: ClassVar[str] = "posterior"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def draw(self, e_N: Floats, index_N: Scales, *, section: int) -> tuple[Floats, float]:
        a_N, mean_N, kl_bits_N = posterior(e_N, index_N)
        normals_N = np.random.default_rng((self._seed, section)).standard_normal(e_N.size)
        return mean_N + np.sqrt(a_N) * normals_N, float(kl_bits_N.sum())


def posterior(e_N: Floats, index_N: Scales) -> tuple[Floats, Floats, Floats]:
    """Variance and mean of each posterior, and its KL from the prior in bits (``rec.base``: the channel)."""
    variance_N = SIGMA_S[index_N] ** 2
    a_N = variance_N / (1 + variance_N)
    nats_N = 0.5 * np.log1p(variance_N) + 0.5 * (a_N * (1 - a_N) * e_N**2 - a_N)
    return a_N, a_N * e_N, nats_N / LN2
