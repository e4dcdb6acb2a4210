"""The whole job with source and archive in a bucket, beside the same job on the local disk.

The same images, the same machine, turn and turn about; the ratio is what S3 costs. Objects are put below a name of
their own and deleted at the end.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from recbatch import api, s3
from recbatch.bench.inputs import load_images
from recbatch.bench.speed import JobFailed

MODES = ("original", "lossless")
Place = Literal["local", "s3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRun:
    """One job from one place to the same place."""

    mode: str
    place: Place
    seconds: float  # from the first worker's being ready to the end
    megapixels_per_second: float
    megabytes_per_second: float  # of the source's files


@dataclass(frozen=True, slots=True, kw_only=True)
class StoresResult:
    images: int
    megapixels: float
    megabytes: float
    workers: int
    executor: str
    url: str
    runs: tuple[StoreRun, ...]

    def median(self, mode: str, place: Place) -> StoreRun | None:
        """The run of median speed, the slower of the middle two."""
        found = [run for run in self.runs if (run.mode, run.place) == (mode, place)]
        found.sort(key=lambda run: run.seconds)
        return found[len(found) // 2] if found else None

    def ratio(self, mode: str) -> float:
        """Speed on S3 over speed on the local disk, median over the turns."""
        turns = {
            place: [run.seconds for run in self.runs if (run.mode, run.place) == (mode, place)]
            for place in ("local", "s3")
        }
        return statistics.median(a / b for a, b in zip(turns["local"], turns["s3"], strict=True))

    def to_dict(self) -> dict[str, Any]:
        modes = dict.fromkeys(run.mode for run in self.runs)
        return {**asdict(self), "ratio": {mode: self.ratio(mode) for mode in modes}}


def stores_benchmark(
    folder: str | Path,
    url: str,
    *,
    modes: tuple[str, ...] = MODES,
    workers: int = 2,
    repeats: int = 3,
    executor: Literal["ray", "processes"] = "processes",
    progress: Callable[[str], None] | None = None,
) -> StoresResult:
    """Time the job ``repeats`` times in each mode and place.

    Args:
        folder: of images.
        url: ``s3://bucket/prefix``, where objects may be made.

    Raises:
        NoImages, JobFailed, StoreError.
    """
    say = progress or (lambda _: None)
    images = load_images(folder)
    megapixels = sum(image.pixels for image in images) / 1e6
    files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    runs: list[StoreRun] = []
    with _prefix(url) as base, tempfile.TemporaryDirectory(prefix="recbatch-bench-") as scratch:
        _upload(Path(folder), files, f"{base}/source")
        megabytes = 0.0
        for number in range(repeats):
            for mode in modes:
                places: tuple[tuple[Place, str, str], ...] = (
                    ("local", str(folder), f"{scratch}/{mode}-{number}"),
                    ("s3", f"{base}/source", f"{base}/{mode}-{number}"),
                )
                for place, source, target in places:
                    seconds, bytes_in = _time(source, target, mode, workers, executor)
                    megabytes = bytes_in / 1e6
                    run = StoreRun(
                        mode=mode,
                        place=place,
                        seconds=seconds,
                        megapixels_per_second=megapixels / seconds,
                        megabytes_per_second=megabytes / seconds,
                    )
                    runs.append(run)
                    say(f"{mode}, {place}: {run.megapixels_per_second:.2f} MP/s")
    return StoresResult(
        images=len(images),
        megapixels=megapixels,
        megabytes=megabytes,
        workers=workers,
        executor=executor,
        url=url,
        runs=tuple(runs),
    )


def _time(
    source: str, target: str, mode: str, workers: int, executor: Literal["ray", "processes"]
) -> tuple[float, int]:
    ready: list[float] = []

    def watch(event: Any) -> None:
        if type(event).__name__ == "WorkersReady" and not ready:
            ready.append(time.perf_counter())

    report = api.compress(
        source,
        target,
        original=mode == "original",
        lossless=mode == "lossless",
        workers=workers,
        executor=executor,
        progress=watch,
    )
    seconds = time.perf_counter() - ready[0]
    if report.quarantined:
        raise JobFailed(report.quarantined, report.failures[0][2])
    return seconds, report.bytes_in


@contextlib.contextmanager
def _prefix(url: str) -> Iterator[str]:
    """A fresh place below the URL; whatever was put there goes at the end."""
    bucket, prefix = s3.split(url)
    place = "/".join(part for part in (prefix.strip("/"), f"bench-{uuid.uuid4().hex[:8]}") if part)
    try:
        yield f"s3://{bucket}/{place}"
    finally:
        store = s3.account().bucket(bucket, place)
        for page in store.list():
            store.delete([entry["path"] for entry in page])


def _upload(folder: Path, files: list[Path], target: str) -> None:
    store = s3.account().bucket(*s3.split(target))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: store.put(path.relative_to(folder).as_posix(), path), files))


def stores_table(result: StoresResult) -> str:
    """Markdown: a row for each mode."""
    lines = [
        "| mode | local MP/s | S3 MP/s | local MB/s | S3 MB/s | S3 / local |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for mode in dict.fromkeys(run.mode for run in result.runs):
        local, remote = result.median(mode, "local"), result.median(mode, "s3")
        if local is not None and remote is not None:
            lines.append(
                f"| {mode} | {local.megapixels_per_second:.2f} | {remote.megapixels_per_second:.2f} "
                f"| {local.megabytes_per_second:.2f} | {remote.megabytes_per_second:.2f} "
                f"| {result.ratio(mode):.2f} |"
            )
    return "\n".join(lines)
