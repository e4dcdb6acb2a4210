"""Every index coder on the same latents: overhead over the KL, rate at equal PSNR, speed.

Real latents are a model's, of a folder of images at several rate levels; synthetic ones are Gaussian, of a known law
(``synthetic``). Every coder gets the same pictures and networks, and its own samples go through its own context and
synthesis. All but exact posterior samples are measured by payloads that decode (``rec_measure``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch

from recbatch.bench import synthetic
from recbatch.bench.inputs import Image, load_images, load_weights
from recbatch.bench.rec_contestants import DEFAULT_EFFORTS as DEFAULT_EFFORTS
from recbatch.bench.rec_contestants import Contestant, Key, contestants
from recbatch.bench.rec_measure import Coders, Measured, Step, run_images, run_pieces
from recbatch.bench.rec_progress import Progress, Say
from recbatch.bench.rec_rows import RecResult, RecRow, rows_of
from recbatch.errors import UsageError
from recbatch.images import Metadata
from recbatch.models.photo import PhotoModel

DEFAULT_LEVELS = (4, 12, 20)
DEFAULT_MODEL = "photo-s2"
PIECES = 16  # of each kind of synthetic latents: excess within about a quarter of a point


class Latents(Protocol):
    """Something to measure on."""

    @property
    def name(self) -> str: ...

    @property
    def levels(self) -> Sequence[int | None]: ...

    @property
    def kind(self) -> str:
        """Latents of one kind take a coder about equally long."""
        ...

    def measure(self, contestant: Contestant, level: int | None, step: Step) -> Measured: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RealLatents:
    """Those of pictures."""

    name: str
    levels: Sequence[int]
    images: Sequence[Image]
    few: Sequence[Image]  # for slow coders
    net: PhotoModel
    coders: Coders
    containers: dict[tuple[int, str], int] = field(default_factory=dict)  # bytes by level and image

    @property
    def kind(self) -> str:
        return "real"

    def measure(self, contestant: Contestant, level: int | None, step: Step) -> Measured:
        images = self.few if contestant.few else self.images
        return run_images(self.coders, contestant, images, self.net, level or 0, self.containers, step)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticLatents:
    """Pieces of one law."""

    name: str
    pieces: int
    few: int
    size: int
    coders: Coders

    @property
    def levels(self) -> Sequence[None]:
        return (None,)

    @property
    def kind(self) -> str:
        return "synthetic"

    def measure(self, contestant: Contestant, level: int | None, step: Step) -> Measured:
        numbers = range(self.few if contestant.few else self.pieces)
        return run_pieces(self.coders, contestant, self.name, numbers, self.size, step)


def rec_benchmark(
    folder: str | Path | None = None,
    *,
    model: str = DEFAULT_MODEL,
    levels: Sequence[int] = DEFAULT_LEVELS,
    efforts: Sequence[int] = DEFAULT_EFFORTS,
    coders: Sequence[str] | None = None,
    images: int | None = None,
    slow_images: int = 3,
    with_synthetic: bool = True,
    piece_size: int = synthetic.SIZE,
    progress: Say | None = None,
) -> RecResult:
    """Measure the shipped coders, the baselines and exact posterior samples.

    Args:
        folder: images; smaller ones than 64 pixels a side say little. None: synthetic latents only.
        levels: rate levels; two at least for the comparisons at equal PSNR.
        efforts: of the shipped coders; iREC runs with its two published settings instead.
        coders: only these, and those that others are compared with; None means all.
        images: only so many, spread over the folder, and so many pieces of synthetic latents at most.
        slow_images: images, and pieces, for the slow coders; comparisons with them are on those. 0: leave them out.
        with_synthetic: measure on synthetic latents.
        piece_size: dimensions of a piece of them.

    Raises:
        NoImages, UnknownModel, UsageError (nothing to measure on, an unknown coder), BadEffort.
    """
    if folder is None and not with_synthetic:
        raise UsageError(
            "There are no latents to measure on. Give a folder of images, or allow synthetic latents."
        )
    everyone = contestants(efforts, coders, slow=slow_images > 0)
    load, ready = os.getloadavg()[0], Coders()
    sources: list[Latents] = []
    real = None
    if folder is not None:
        real = _real_latents(folder, images, slow_images, levels, model, ready)
        sources.append(real)
    pieces = min(PIECES, images or PIECES) if with_synthetic else 0
    few = min(slow_images, pieces)
    for name in synthetic.LAWS if with_synthetic else ():
        sources.append(SyntheticLatents(name=name, pieces=pieces, few=few, size=piece_size, coders=ready))
    return RecResult(
        model=real.net.name if real else None,
        digest=real.net.digest.hex() if real else None,
        images=len(real.images) if real else 0,
        slow_images=len(real.few) if real else few,
        pieces=pieces,
        load_average=load,
        cores=os.cpu_count() or 1,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        rows=tuple(_rows(sources, everyone, Progress(progress))),
    )


def _rows(sources: Sequence[Latents], everyone: Sequence[Contestant], progress: Progress) -> list[RecRow]:
    """Measure all that is to be measured, coder after coder at each level."""
    for latents in sources:
        for contestant in everyone:
            progress.expect((contestant.key, latents.kind), len(latents.levels))
    rows: list[RecRow] = []
    for latents in sources:
        measured: dict[Key, dict[int | None, Measured]] = {one.key: {} for one in everyone}
        for level in latents.levels:
            place = latents.name if level is None else f"{latents.name}, level {level}"
            for one in everyone:
                with progress.part((one.key, latents.kind), f"{place}: {one.label}") as step:
                    measured[one.key][level] = latents.measure(one, level, step)
        rows += rows_of(latents.name, everyone, measured)
    return rows


def _real_latents(
    folder: str | Path, images: int | None, slow: int, levels: Sequence[int], model: str, coders: Coders
) -> RealLatents:
    chosen = [  # latents only: alpha and metadata have no KL
        replace(one, picture=replace(one.picture, alpha=None, metadata=Metadata()))
        for one in load_images(folder, images)
    ]
    count = min(slow, len(chosen))
    return RealLatents(
        name=Path(folder).resolve().name,
        levels=list(dict.fromkeys(levels)),
        images=chosen,
        few=[chosen[n * len(chosen) // count] for n in range(count)],
        net=PhotoModel.from_bytes(load_weights(model)),
        coders=coders,
    )
