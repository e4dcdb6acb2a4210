"""Megapixels a second of the whole job and of the way back beside other codecs, peak memory, where the time goes.

The job is what ``recbatch compress`` does: Ray started, images read, encoded, decoded again from their bytes,
measured, written and committed. The way back is ``recbatch restore``, to PNG files. Run it on an idle machine:
everything else that runs is in the figures, though less in the processor's seconds.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recbatch import api
from recbatch.archive import Archive
from recbatch.bench.extras import need
from recbatch.bench.inputs import load_images
from recbatch.bench.memory import Peak, PeakMemory, ProcessorTime
from recbatch.bench.others import OtherCodec, run_others
from recbatch.bench.others_decode import OtherDecoder, decode_others
from recbatch.bench.profile import profile
from recbatch.codec import quality_of_level
from recbatch.errors import RecbatchError
from recbatch.models import weights

Progress = Callable[[str], None]


class JobFailed(RecbatchError):
    """The job that was to be timed did not archive every image."""

    code = "job-failed"

    def __init__(self, quarantined: int, first: str) -> None:
        super().__init__(quarantined, first)
        self.quarantined, self.first = quarantined, first

    def __str__(self) -> str:
        return f"{self.quarantined} images were quarantined ({self.first}). Give a folder of good images."


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of the whole job."""

    seconds: float  # from the call to its return
    startup_seconds: float  # of these until the first worker was ready: Ray, processes, model
    megapixels_per_second: float  # all included
    megapixels_per_second_started: float  # without the start
    bpp: float
    psnr: float
    cpu_s_per_mp: float = 0.0  # processor seconds of all processes from the first worker's being ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """One run of the way back."""

    seconds: float  # from the call to its return
    startup_seconds: float  # of these until the first worker was ready; the model is loaded later
    megapixels_per_second: float  # all included
    megapixels_per_second_started: float  # without the start
    cpu_s_per_mp: float  # processor seconds of all processes from the first worker's being ready


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedResult:
    """Everything of one run on one machine."""

    model: str
    level: int
    coder: str
    effort: int
    images: int
    megapixels: float
    workers: int
    load_average: float  # before the run: how idle the machine was
    jobs: tuple[Job, ...]
    memory: Peak  # of one more job, since watching takes time
    others: tuple[OtherCodec, ...]
    stages: Mapping[str, float]  # seconds per megapixel, one thread
    restores: tuple[Restore, ...] = ()
    other_decoders: tuple[OtherDecoder, ...] = ()

    @property
    def best(self) -> Job:
        return min(self.jobs, key=lambda job: job.seconds)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def speed_benchmark(
    folder: str | Path,
    *,
    model: str = "photo-s2",
    level: int = 16,
    coder: str = "trellis",
    effort: int = 5,
    workers: int = 2,
    repeats: int = 3,
    profile_images: int = 6,
    progress: Progress | None = None,
) -> SpeedResult:
    """Time the whole job ``repeats`` times, watch one more for its memory, then time the others, then the profile.

    Raises:
        NoImages, UnknownModel, JobFailed, MissingExtra.
    """
    need("pillow_jxl")
    say = progress or (lambda _: None)
    images = load_images(folder)
    megapixels = sum(image.pixels for image in images) / 1e6
    load = os.getloadavg()[0]
    jobs, restores = [], []
    for n in range(repeats):
        with tempfile.TemporaryDirectory(prefix="recbatch-bench-") as temporary:
            target = Path(temporary) / "bench.rba"
            jobs.append(run_job(folder, target, megapixels, model, level, coder, effort, workers))
            restores.append(run_restore(target, Path(temporary) / "restored", megapixels, workers))
        say(
            f"job {n + 1} of {repeats}: {jobs[-1].megapixels_per_second:.2f} MP/s, "
            f"back {restores[-1].megapixels_per_second:.2f} MP/s"
        )
    with tempfile.TemporaryDirectory(prefix="recbatch-bench-") as temporary, PeakMemory() as memory:
        run_job(folder, Path(temporary) / "bench.rba", megapixels, model, level, coder, effort, workers)
    others = run_others(folder, images, workers)
    decoders = decode_others(folder, images, workers)
    for other, back in zip(others, decoders, strict=True):
        say(
            f"{other.name}: {other.megapixels_per_second:.2f} MP/s, back {back.megapixels_per_second:.2f} MP/s"
        )
    some = load_images(folder, profile_images)
    stages = profile(some, weights.read(model), level=level, coder=coder, effort=effort)
    return SpeedResult(
        model=model,
        level=level,
        coder=coder,
        effort=effort,
        images=len(images),
        megapixels=megapixels,
        workers=workers,
        load_average=load,
        jobs=tuple(jobs),
        memory=memory.peak,
        others=tuple(others),
        stages=stages,
        restores=tuple(restores),
        other_decoders=tuple(decoders),
    )


class _Watch:
    """Sees a job's events: when the first worker was ready, and the processor's seconds from then on."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self._time = ProcessorTime()
        self._before = self._last = self._time.look()
        self.startup_seconds = 0.0

    def __call__(self, event: Any) -> None:
        self._last = self._time.look()  # each shard's end is an event, and the workers still stand
        if type(event).__name__ == "WorkersReady" and not self.startup_seconds:
            self.startup_seconds = time.perf_counter() - self.start
            self._before = self._last

    @property
    def cpu_seconds(self) -> float:
        return self._last - self._before


def run_job(
    folder: str | Path,
    target: Path,
    megapixels: float,
    model: str,
    level: float,
    coder: str,
    effort: int,
    workers: int,
) -> Job:
    """One job into a fresh archive on a Ray of its own. Raises JobFailed."""
    watch = _Watch()
    report = api.compress(
        folder,
        target,
        quality=quality_of_level(level),
        model=model,
        coder=coder,
        effort=effort,
        keep_originals="never",
        workers=workers,
        progress=watch,
    )
    seconds = time.perf_counter() - watch.start
    records = list(Archive.open(target).records(["psnr"]))
    if report.quarantined:
        raise JobFailed(report.quarantined, report.failures[0][2])
    psnrs = [record.psnr for record in records if record.psnr is not None]
    return Job(
        seconds=seconds,
        startup_seconds=watch.startup_seconds,
        megapixels_per_second=megapixels / seconds,
        megapixels_per_second_started=megapixels / (seconds - watch.startup_seconds),
        bpp=8 * report.bytes_out / report.pixels,
        psnr=sum(psnrs) / len(psnrs) if psnrs else float("nan"),
        cpu_s_per_mp=watch.cpu_seconds / megapixels,
    )


def run_restore(archive: Path, target: Path, megapixels: float, workers: int) -> Restore:
    """All images of an archive to PNG files in a fresh folder. Raises JobFailed."""
    watch = _Watch()
    report = api.restore(archive, target, format="png", workers=workers, progress=watch)
    seconds = time.perf_counter() - watch.start
    if report.quarantined:
        raise JobFailed(report.quarantined, report.failures[0][2])
    return Restore(
        seconds=seconds,
        startup_seconds=watch.startup_seconds,
        megapixels_per_second=megapixels / seconds,
        megapixels_per_second_started=megapixels / (seconds - watch.startup_seconds),
        cpu_s_per_mp=watch.cpu_seconds / megapixels,
    )
