"""The same networks with quantisation and with relative entropy coding: whole curves from real files.

Every contestant codes the same pictures into complete files, and quality is of what is decoded from these. So the only
difference is how latents become bits: scalar quantisation with points, thresholds and probabilities designed for each
scale index (``ecsq``), trellis-coded quantisation (``tcq8``, ``tcq64``), and the index coders that archives have. All
get calibrated scale indices. The networks were trained for samples, that is under Gaussian noise: they are at home with
the coders of samples, not with the quantisers.

Seconds are the processor's, on one thread, of all of an encoder: networks, calibration, refinement, search, packing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbatch import stream
from recbatch.bench.bd import MS_SSIM_RANGES, PSNR_RANGES, BdRate, Curve, Point, bd_rate
from recbatch.bench.inputs import Image, load_weights
from recbatch.bench.lossy import DEFAULT_LEVELS, joined_images, jpeg_curve
from recbatch.bench.rec_contestants import ECSQ, IREC, Contestant, Key
from recbatch.bench.rec_measure import Coders, threads
from recbatch.bench.rec_progress import Progress, Say
from recbatch.codec import lossy
from recbatch.codec.quality import ms_ssim, psnr
from recbatch.errors import UsageError
from recbatch.images import Metadata
from recbatch.models.photo import PhotoModel

SCALAR: Key = (ECSQ, None)  # what the others are compared with, beside JPEG
CONTESTANTS = (
    Contestant(coder=ECSQ, effort=None, setting="scalar"),
    Contestant(coder="tcq8", effort=None, setting="8 states"),
    Contestant(coder="tcq64", effort=None, setting="64 states"),
    *(Contestant(coder="trellis", effort=n, setting=f"effort {n}") for n in (1, 5, 9)),
    Contestant(coder=IREC, effort=9, setting="lossless"),
)
LEAST_LEVELS = 3  # a curve of fewer points has no BD-rate


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """One image's file at one level by one contestant."""

    image: str
    level: float
    pixels: int
    file_bytes: int
    psnr: float
    ms_ssim: float | None
    encode_s: float
    decode_s: float

    @property
    def bpp(self) -> float:
        return 8 * self.file_bytes / self.pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestantResult:
    """One contestant's files, and its mean curve against those of others on its own images."""

    coder: str
    effort: int | None
    setting: str
    default: bool  # what archives are written by unless told otherwise
    images: int
    files: tuple[FileRow, ...]
    jpeg: tuple[BdRate | None, ...]  # against JPEG 4:2:0, for each of PSNR_RANGES
    scalar: tuple[BdRate | None, ...]  # against scalar quantisation, for each of PSNR_RANGES; None for itself
    scalar_ms_ssim: tuple[BdRate | None, ...]  # for each of MS_SSIM_RANGES

    @property
    def label(self) -> str:
        return f"{self.coder}, {self.setting}"

    @property
    def encode_s_per_mp(self) -> float:
        return sum(row.encode_s for row in self.files) / (sum(row.pixels for row in self.files) / 1e6)

    @property
    def decode_s_per_mp(self) -> float:
        return sum(row.decode_s for row in self.files) / (sum(row.pixels for row in self.files) / 1e6)

    def curve(self, images: Sequence[str] | None = None) -> Curve:
        """Means over its images, or over some of them, level by level."""
        kept = [row for row in self.files if images is None or row.image in images]
        levels = list(dict.fromkeys(row.level for row in kept))
        return Curve(
            name=self.label, points=tuple(_mean([r for r in kept if r.level == level]) for level in levels)
        )

    def to_dict(self) -> dict[str, Any]:
        more = {"label": self.label, "curve": asdict(self.curve())}
        speed = {"encode_s_per_mp": self.encode_s_per_mp, "decode_s_per_mp": self.decode_s_per_mp}
        return {**asdict(self), **more, **speed}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantiserResult:
    """All contestants, and JPEG on the same images."""

    model: str
    digest: str
    images: int
    slow_images: int
    levels: tuple[float, ...]
    jpeg: Curve
    contestants: tuple[ContestantResult, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "contestants": [one.to_dict() for one in self.contestants]}


def quantiser_benchmark(
    folders: str | Path | Sequence[str | Path],
    *,
    model: str = "photo-s2",
    levels: Sequence[float] = DEFAULT_LEVELS,
    contestants: Sequence[Contestant] = CONTESTANTS,
    images: int | None = None,
    slow_images: int = 3,
    progress: Say | None = None,
) -> QuantiserResult:
    """Code the images by every contestant at every level, decode the files, and compare the curves.

    Args:
        folders: of image files; alpha and metadata are left out.
        model: a model of the package, or the path of a .safetensors file.
        levels: three at least.
        contestants: scalar quantisation must be among them.
        images: only so many of each folder, spread over it.
        slow_images: images for iREC, compared with the others on those; 0 leaves it out.

    Raises:
        NoImages, UnknownModel, UsageError (too few levels).
    """
    chosen_levels = sorted(set(levels))
    if len(chosen_levels) < LEAST_LEVELS:
        raise UsageError(
            f"{len(chosen_levels)} rate levels make no curve. Give --level {LEAST_LEVELS} times or more, or not at all."
        )
    chosen = [
        replace(one, picture=replace(one.picture, alpha=None, metadata=Metadata()))
        for one in joined_images(folders, images)
    ]
    few = _spread(chosen, min(slow_images, len(chosen)))
    net, coders, report = PhotoModel.from_bytes(load_weights(model)), Coders(), Progress(progress)
    everyone = [one for one in contestants if few or not one.few]
    for one in everyone:
        report.expect(one.key, len(chosen_levels))
    files: dict[Key, list[FileRow]] = {one.key: [] for one in everyone}
    with _one_thread():
        _code(everyone[0], chosen[0], net, coders, chosen_levels[0])  # loads and compiles; not counted
        for level in chosen_levels:
            for one in everyone:
                mine = few if one.few else chosen
                with report.part(one.key, f"level {level:g}: {one.label}") as step:
                    for n, image in enumerate(mine):
                        files[one.key].append(_code(one, image, net, coders, level))
                        step(n + 1, len(mine))
    jpegs = {image.name: jpeg_curve(image) for image in chosen}
    results = [_result(one, files[one.key]) for one in everyone]
    scalar = next(done for done in results if (done.coder, done.effort) == SCALAR)
    return QuantiserResult(
        model=net.name,
        digest=net.digest.hex(),
        images=len(chosen),
        slow_images=len(few),
        levels=tuple(chosen_levels),
        jpeg=mean_jpeg(jpegs, list(jpegs)),
        contestants=tuple(_compared(done, scalar, jpegs) for done in results),
    )


def _code(contestant: Contestant, image: Image, net: PhotoModel, coders: Coders, level: float) -> FileRow:
    """One file, and what comes back from its bytes."""
    coder = coders.get(contestant, lossy.tables_of(net))
    start = time.process_time()
    (coded,) = lossy.encode([image.picture], net, coder, level, steps=contestant.steps)
    middle = time.process_time()
    restored = lossy.decode(stream.parse(coded.data), net, coder)
    end = time.process_time()
    return FileRow(
        image=image.name,
        level=level,
        pixels=image.pixels,
        file_bytes=len(coded.data),
        psnr=psnr(image.picture.pixels, restored.pixels),
        ms_ssim=ms_ssim(image.picture.pixels, restored.pixels),
        encode_s=middle - start,
        decode_s=end - middle,
    )


def _result(contestant: Contestant, files: Sequence[FileRow]) -> ContestantResult:
    return ContestantResult(
        coder=contestant.coder,
        effort=contestant.effort,
        setting=contestant.setting,
        default=contestant.default,
        images=len({row.image for row in files}),
        files=tuple(files),
        jpeg=(),
        scalar=(),
        scalar_ms_ssim=(),
    )


def _compared(
    mine: ContestantResult, scalar: ContestantResult, jpegs: Mapping[str, Curve]
) -> ContestantResult:
    """BD-rates of the mean curves over the images that this contestant coded."""
    names = list(dict.fromkeys(row.image for row in mine.files))
    curve, jpeg, other = mine.curve(), mean_jpeg(jpegs, names), scalar.curve(names)
    itself = mine is scalar
    return replace(
        mine,
        jpeg=tuple(bd_rate(curve, jpeg, bounds=bounds) for bounds in PSNR_RANGES),
        scalar=tuple(None if itself else bd_rate(curve, other, bounds=bounds) for bounds in PSNR_RANGES),
        scalar_ms_ssim=tuple(
            None if itself else bd_rate(curve, other, metric="ms_ssim_db", bounds=bounds)
            for bounds in MS_SSIM_RANGES
        ),
    )


def mean_jpeg(jpegs: Mapping[str, Curve], names: Sequence[str]) -> Curve:
    """Means of JPEG over some images, quality setting by quality setting."""
    settings = zip(*(jpegs[name].points for name in names), strict=True)
    points = tuple(
        Point(bpp=float(np.mean([p.bpp for p in own])), psnr=float(np.mean([p.psnr for p in own if p.psnr])))
        for own in settings
    )
    return Curve(name="jpeg-420", points=points)


def _mean(rows: Sequence[FileRow]) -> Point:
    known = [row.ms_ssim for row in rows if row.ms_ssim is not None]
    return Point(
        bpp=float(np.mean([row.bpp for row in rows])),
        psnr=float(np.mean([row.psnr for row in rows])),
        ms_ssim=float(np.mean(known)) if len(known) == len(rows) else None,
    )


def _spread(images: Sequence[Image], count: int) -> list[Image]:
    return [images[n * len(images) // count] for n in range(count)]


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threads(1):
            yield
    finally:
        torch.set_num_threads(before)
