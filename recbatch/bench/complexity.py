"""Multiply-accumulates per pixel of a model's networks, part by part, and how fast each part is on one core.

Counted while the codec encodes and decodes a picture: every module with a kernel that runs (convolutions, exact ones
too) adds outputs x weights per output to the part at work. So nothing here knows how a model is built, but for the
parts that it has. What is not a convolution (activations, the linear layers of a rate level, entropy coding) is not
counted; of it, what lies between the convolutions of a part is in its time.

Shapes: H x W pixels, C colours.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from recbatch import rec, stream
from recbatch.bench.inputs import load_weights
from recbatch.bench.rec_measure import threads
from recbatch.codec import lossy
from recbatch.images import Metadata, Picture
from recbatch.models import weights
from recbatch.models.lossy import HyperAnalysis
from recbatch.models.photo import Context, PhotoModel, Prior

ANALYSIS, HYPER_ANALYSIS = "analysis", "hyper analysis"
HYPER_SYNTHESIS, CONTEXT = "hyper synthesis", "context passes"
SYNTHESIS = "synthesis"
PARTS = (ANALYSIS, HYPER_ANALYSIS, HYPER_SYNTHESIS, CONTEXT, SYNTHESIS)
ENCODER = (
    ANALYSIS,
    HYPER_ANALYSIS,
    HYPER_SYNTHESIS,
    CONTEXT,
)  # before the file is decoded again for its quality
DECODER = (HYPER_SYNTHESIS, CONTEXT, SYNTHESIS)
SIZE = (512, 768)  # H, W: multiples of 64, so that no padding is counted
LEVEL = 14
REPEATS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a model."""

    name: str
    kmac_per_pixel: float
    mp_per_s: float  # one core, the fastest of the repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One model."""

    model: str
    digest: str
    weights_bytes: int
    passes: int
    parts: tuple[Part, ...]  # one for each of PARTS

    def together(self, names: Sequence[str]) -> Part:
        """Several parts as one."""
        mine = [part for part in self.parts if part.name in names]
        return Part(
            name=" + ".join(names),
            kmac_per_pixel=sum(part.kmac_per_pixel for part in mine),
            mp_per_s=1 / sum(1 / part.mp_per_s for part in mine),
        )

    @property
    def encoder(self) -> Part:
        return self.together(ENCODER)

    @property
    def decoder(self) -> Part:
        return self.together(DECODER)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComplexityResult:
    """A row for each model."""

    height: int
    width: int
    rows: tuple[ModelRow, ...]

    def to_dict(self) -> dict[str, Any]:
        rows = [{**asdict(r), "encoder": asdict(r.encoder), "decoder": asdict(r.decoder)} for r in self.rows]
        return {**asdict(self), "rows": rows}


@dataclass(slots=True)
class Tally:
    """Seconds of the processor and multiply-accumulates by part. A part inside another is taken off the outer one."""

    seconds: dict[str, float] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    _open: list[tuple[str, float]] = field(default_factory=list)
    _inner: list[float] = field(default_factory=list)

    def enter(self, name: str) -> None:
        self._open.append((name, time.process_time()))
        self._inner.append(0.0)

    def leave(self) -> None:
        name, start = self._open.pop()
        spent = time.process_time() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inner.pop()
        if self._inner:
            self._inner[-1] += spent

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def count(self, macs: int) -> None:
        """Add to the innermost part at work; outside of all parts nothing counts."""
        if self._open:
            name = self._open[-1][0]
            self.macs[name] = self.macs.get(name, 0) + macs


class TalliedModel(PhotoModel):
    """The model with its parts named; ``tally`` is set after loading."""

    tally: Tally

    def analyse(self, pixels: NDArray[np.uint8], level: float) -> tuple[Tensor, Tensor]:
        with self.tally.part(ANALYSIS):
            return super().analyse(pixels, level)

    def begin(self, z: Tensor, level: float) -> Context:
        with self.tally.part(HYPER_SYNTHESIS):
            return super().begin(z, level)

    def pass_prior(self, context: Context, which: int, y: Tensor) -> Prior:
        with self.tally.part(CONTEXT if which else HYPER_SYNTHESIS):
            return super().pass_prior(context, which, y)

    def synthesise(self, y: Tensor, level: float) -> NDArray[np.uint8]:
        with self.tally.part(SYNTHESIS):
            return super().synthesise(y, level)


def macs_of(module: nn.Module, output: Any) -> int:
    """Multiply-accumulates of a convolution that gave this output; 0 for a module that is none."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 4 or not isinstance(output, Tensor):
        return 0
    return output.numel() // weight.shape[0] * weight.numel()


@contextmanager
def counted(tally: Tally) -> Iterator[None]:
    """Every convolution that runs inside adds to the tally; hyper analysis is a part of its own in what calls it."""

    def before(module: nn.Module, _: Any) -> None:
        if isinstance(module, HyperAnalysis):
            tally.enter(HYPER_ANALYSIS)

    def after(module: nn.Module, _: Any, output: Any) -> None:
        tally.count(macs_of(module, output))
        if isinstance(module, HyperAnalysis):
            tally.leave()

    handles = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def complexity_benchmark(
    models: Sequence[str] | None = None, *, size: tuple[int, int] = SIZE, repeats: int = REPEATS
) -> ComplexityResult:
    """Count and time the networks of models.

    Args:
        models: names of the package or paths of .safetensors files; None: all lossy ones of the package.
        size: height and width of the picture, multiples of 64.
        repeats: runs after the first, which warms up; the fastest counts for each part.

    Raises:
        UnknownModel, BadWeights.
    """
    chosen = lossy_models() if models is None else list(dict.fromkeys(models))
    picture = _picture(*size)
    rows = tuple(_row(name, picture, repeats) for name in chosen)
    return ComplexityResult(height=size[0], width=size[1], rows=rows)


def lossy_models() -> list[str]:
    """Names of the lossy models of the package."""
    return [name for name in weights.names() if weights.architecture(weights.read(name)).startswith("photo/")]


def _row(name: str, picture: Picture, repeats: int) -> ModelRow:
    data = load_weights(name)
    model = TalliedModel.from_bytes(data)
    assert isinstance(model, TalliedModel)  # for the type checker: from_bytes makes its own class
    tallies = [_run(model, picture) for _ in range(1 + repeats)][1:]
    pixels = picture.width * picture.height
    return ModelRow(
        model=model.name,
        digest=model.digest.hex(),
        weights_bytes=len(data),
        passes=model.passes,
        parts=tuple(
            Part(
                name=part,
                kmac_per_pixel=tallies[0].macs.get(part, 0) / pixels / 1000,
                mp_per_s=pixels / 1e6 / max(min(tally.seconds[part] for tally in tallies), 1e-9),
            )
            for part in PARTS
        ),
    )


def _run(model: TalliedModel, picture: Picture) -> Tally:
    """Encode, then decode from the bytes, on one thread. The prior runs in both; it is counted once, in the decoder."""
    coder = rec.coder("trellis", effort=1, tables=lossy.tables_of(model))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threads(1):
            encoder = model.tally = Tally()
            with counted(encoder):
                (coded,) = lossy.encode([picture], model, coder, LEVEL)
            decoder = model.tally = Tally()
            with counted(decoder):
                lossy.decode(stream.parse(coded.data), model, coder)
    finally:
        torch.set_num_threads(before)
    return Tally(
        seconds={**encoder.seconds, **decoder.seconds},
        macs={**encoder.macs, **decoder.macs},
    )


def _picture(height: int, width: int) -> Picture:
    """Smooth colours with some noise; how long a network takes does not depend on them."""
    rng = np.random.default_rng(0)
    coarse_HWC = rng.integers(40, 216, (height // 64, width // 64, 3)).repeat(64, 0).repeat(64, 1)
    pixels_HWC = (coarse_HWC + rng.integers(-8, 9, coarse_HWC.shape)).astype(np.uint8)
    return Picture(pixels=pixels_HWC, alpha=None, metadata=Metadata(), notes=(), source_format="png")
