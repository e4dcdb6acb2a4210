"""Where an encode's time goes: one process, one thread, image by image, each stage's seconds added up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch import rec, stream
from recbatch.bench.inputs import Image
from recbatch.codec import lossy
from recbatch.codec.quality import ms_ssim, psnr
from recbatch.codec.refine import STEPS_OF_EFFORT
from recbatch.images import read_picture
from recbatch.models.photo import Context, PhotoModel, Prior
from recbatch.rec.base import Coder, Reader, Samples, Scales, Targets, Writer


@dataclass(slots=True)
class Clock:
    """Seconds by stage. A stage inside another is taken off the outer one."""

    seconds: dict[str, float] = field(default_factory=dict)
    phase: str = ""
    _inner: list[float] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        label = f"{self.phase}: {name}" if self.phase else name
        self._inner.append(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            inner = self._inner.pop()
            self.seconds[label] = self.seconds.get(label, 0.0) + spent - inner
            if self._inner:
                self._inner[-1] += spent


class ClockedModel(PhotoModel):
    """The model with its stages timed; ``clock`` is set after loading."""

    clock: Clock

    def analyse(self, pixels: NDArray[np.uint8], level: float) -> tuple[Tensor, Tensor]:
        with self.clock.stage("analysis"):
            return super().analyse(pixels, level)

    def error_gradient(
        self, y: Tensor, pixels: NDArray[np.uint8], size: tuple[int, int], level: float
    ) -> Tensor:
        with self.clock.stage("refinement"):
            return super().error_gradient(y, pixels, size, level)

    def begin(self, z: Tensor, level: float) -> Context:
        with self.clock.stage("prior"):
            return super().begin(z, level)

    def pass_prior(self, context: Context, which: int, y: Tensor) -> Prior:
        with self.clock.stage("prior"):
            return super().pass_prior(context, which, y)

    def synthesise(self, y: Tensor, level: float) -> NDArray[np.uint8]:
        with self.clock.stage("synthesis"):
            return super().synthesise(y, level)


class ClockedCoder:
    """The coder with its sections timed, searching and decoding."""

    def __init__(self, coder: Coder, clock: Clock) -> None:
        self._coder, self._clock = coder, clock
        self.number, self.name = coder.number, coder.name
        self._is_begun = False

    @property
    def parameters(self) -> bytes:
        return self._coder.parameters

    def writer(self, *, seed: int = 0) -> Writer:
        self._is_begun = False
        return self._coder.writer(seed=seed)

    def encode(
        self, writers: Sequence[Writer], targets: Sequence[Targets], scales: Sequence[Scales]
    ) -> list[Samples]:
        section = (
            "passes" if self._is_begun else "hyper"
        )  # the first section of a stream is of the hyper latents
        self._is_begun = True
        with self._clock.stage(f"search, {section}"):
            return self._coder.encode(writers, targets, scales)

    def reader(self, payload: bytes, *, seed: int = 0) -> Reader:
        return ClockedReader(self._coder.reader(payload, seed=seed), self._clock)


class ClockedReader:
    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader, self._clock = reader, clock

    def decode(self, scales_N: Scales) -> Samples:
        with self._clock.stage("entropy decoding"):
            return self._reader.decode(scales_N)

    def finish(self) -> None:
        self._reader.finish()


def profile(
    images: Sequence[Image], data: bytes, *, level: float, coder: str, effort: int
) -> dict[str, float]:
    """Seconds per megapixel of each stage of what a worker does with an image, on one thread."""
    clock = Clock()
    model = ClockedModel.from_bytes(data)
    assert isinstance(model, ClockedModel)  # for the type checker: from_bytes makes its own class
    model.clock = clock
    inner = rec.coder(coder, effort=effort, tables=lossy.tables_of(model))
    clocked = cast(Coder, ClockedCoder(inner, clock))  # its number and name are its coder's
    steps = STEPS_OF_EFFORT.get(effort, 0)
    threads = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    try:
        one_image(images[0], model, clocked, level, steps)  # compiles and warms up; not counted
        clock.seconds.clear()
        for image in images:
            one_image(image, model, clocked, level, steps)
    finally:
        torch.set_num_threads(threads[0])
        numba.set_num_threads(threads[1])
    megapixels = sum(image.pixels for image in images) / 1e6
    return {name: seconds / megapixels for name, seconds in clock.seconds.items()}


def one_image(image: Image, model: ClockedModel, coder: Coder, level: float, steps: int = 0) -> None:
    clock = model.clock
    clock.phase = "encode"
    with clock.stage("read image file"):
        picture = read_picture(image.data, convert=True)
    with clock.stage("rest and packing"):
        (coded,) = lossy.encode([picture], model, coder, level, steps=steps)
    clock.phase = "verify"
    with clock.stage("rest and parsing"):
        restored = lossy.decode(stream.parse(coded.data), model, coder)
    clock.phase = "measure"
    with clock.stage("PSNR"):
        psnr(picture.pixels, restored.pixels)
    with clock.stage("MS-SSIM"):
        ms_ssim(picture.pixels, restored.pixels)
