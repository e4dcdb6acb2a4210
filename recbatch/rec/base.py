"""The contract of every coder.

The channel. Each latent dimension is a Gaussian with unit observation noise: prior N(0, sigma^2), where sigma is
named by a ``scale index`` that both sides know, and the encoder's ``target`` e, an observation with noise 1. The
exact posterior is N(a e, a) with a = sigma^2 / (1 + sigma^2), so the expected KL, log2(1 + sigma^2) / 2 bits, is
known to the decoder. Index 0 means "not coded": the sample is 0.

The law of the sample. A decoder returns integers, in units of 1/UNIT of the observation noise, computed from
integers only; the encoder returns the very same integers. Floats decide which sample is sent, never what it is.

Shapes: N dimensions of one section of one image, in the model's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

UNIT = 64  # sample integers per unit of observation noise
SCALES = 151  # scale indices 0..150; 0 is "not coded"

Targets = NDArray[np.float32]  # [N] e, in units of observation noise; finite
Scales = NDArray[np.uint8]  # [N] scale indices, < SCALES
Samples = NDArray[np.int32]  # [N] in units of 1/UNIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Bits:
    """Where one image's bits went, summed over its sections."""

    index: int = 0  # raw index bits (trellis steps, iREC indices)
    symbols: int = 0  # entropy-coded part, as written
    side: int = 0  # step counts, lengths: what neither of the above is


class Writer(Protocol):
    """Collects the sections of one image; ``finish`` packs them into one payload."""

    def finish(self) -> bytes: ...

    @property
    def bits(self) -> Bits:
        """Valid after ``finish``; sums to 8 * len(payload) up to padding, which counts as side."""
        ...


class Reader(Protocol):
    """Gives back the sections of one payload, in the order written."""

    def decode(self, scales_N: Scales) -> Samples:
        """Raises CorruptStream where the payload can't hold this section."""
        ...

    def finish(self) -> None:
        """Raises CorruptStream unless the payload was used up exactly."""
        ...


class Sender(Protocol):
    """The encoder's half of a coder: all that an encode needs."""

    number: ClassVar[int]  # in every stream header; a new meaning takes a new number
    name: ClassVar[str]

    @property
    def parameters(self) -> bytes:
        """What a decoder needs beside the number (for example L); at most 8 bytes, in the stream header."""
        ...

    def writer(self, *, seed: int = 0) -> Writer: ...

    def encode(
        self, writers: Sequence[Writer], targets: Sequence[Targets], scales: Sequence[Scales]
    ) -> list[Samples]:
        """Code the next section of each writer's image; batched over images and blocks.

        Returns the samples that ``Reader.decode`` will give. Raises InvalidPosterior.
        """
        ...


class Coder(Sender, Protocol):
    """A numbered way to send samples; number and parameters are part of the format."""

    def reader(self, payload: bytes, *, seed: int = 0) -> Reader: ...
