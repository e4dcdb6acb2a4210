"""What a job's driver costs as images become millions: listing, sorting, comparing, cutting, committing.

The source and the workers are simulated: rows come from a formula, a shard's result is there at once, with a data
file of one byte. All between them is the code that real jobs run: scratch files, plan, driver, committer, Delta log.
Each size runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recbatch.archive import Archive, DataFile, Known
from recbatch.bench import log_growth
from recbatch.bench.log_growth import Growth
from recbatch.engine import events, ledger
from recbatch.engine.compress import encode_shards
from recbatch.engine.driver import Tuning
from recbatch.engine.plan import Shard, make_plan
from recbatch.engine.pools import HERE, Hello, OneMachine
from recbatch.engine.report import Report
from recbatch.engine.results import ShardResult, peak_rss_bytes
from recbatch.engine.spool import Row, Spool

SIZES = (100_000, 1_000_000, 10_000_000)
MEAN_BYTES = 300_000  # of an image
KNOWN_EVERY = 2  # of the source the archive holds every second image already


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What ``scale_benchmark`` measured."""

    workers: int
    planning: tuple[Planning, ...]
    growth: tuple[Growth, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"mean_bytes": MEAN_BYTES, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """One size. Seconds of one core; bytes of memory at the peak, of the whole process."""

    images: int
    order: str  # in which the listing comes: "sorted", as S3's, or "shuffled"
    list_s: float  # to sort and keep the listing
    compare_s: float  # with the archive's rows, and the plan's digest
    store_s: float  # the plan, as Parquet
    drive_s: float  # to cut shards, hand them out and commit them
    shards: int
    commits: int
    commit_s: float  # of drive_s
    slowest_commit_s: float
    scratch_bytes: int
    log_bytes: int  # of the Delta log at the end
    peak_rss_bytes: int
    base_rss_bytes: int  # before any of it: the interpreter and what is imported


def scale_benchmark(
    *,
    sizes: tuple[int, ...] = SIZES,
    files: tuple[int, ...] = log_growth.FILES,
    workers: int = 64,
    progress: Callable[[str], None],
) -> Scale:
    """Plan and commit jobs of these many images, and fill a log with these many files."""
    rows = []
    for size in sizes:
        for order in ("sorted", "shuffled"):
            progress(f"{size:,} images, listed {order}")
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                rows.append(pool.submit(measure, size, order, workers).result())
    growth = log_growth.log_growth_benchmark(files=files, progress=progress)
    return Scale(workers=workers, planning=tuple(rows), growth=tuple(growth))


def measure(images: int, order: str, workers: int) -> Planning:
    base_rss_bytes = peak_rss_bytes()
    with tempfile.TemporaryDirectory(prefix="recbatch-scale-") as name:
        folder = Path(name)
        scratch = folder / "scratch"
        scratch.mkdir()
        start = time.perf_counter()
        listing, _ = Spool.sorting(simulated(images, order), scratch)
        list_s, start = time.perf_counter() - start, time.perf_counter()
        plan = make_plan(listing, simulated_known(images), scratch, settings="", workers=workers).of_epoch(1)
        compare_s, start = time.perf_counter() - start, time.perf_counter()
        table = Archive.create(folder / "archive")
        epoch = table.claim_epoch("compress")
        ledger.store_plan(table, plan, settings="")
        store_s, start = time.perf_counter() - start, time.perf_counter()
        scratch_bytes = sum(path.stat().st_size for path in scratch.iterdir())
        commits: list[float] = []

        def progress(event: events.Event) -> None:
            if isinstance(event, events.Committed):
                commits.append(event.seconds)

        report = encode_shards(
            table,
            plan.shards(),
            Report(plan=plan.digest),
            job=SimulatedJob(),
            epoch=epoch,
            pool=InstantPool(folder / "archive"),
            workers=workers,
            tuning=Tuning(commit_s=1e9),
            progress=progress,
        )
        assert report.images == plan.images
        log = folder / "archive" / "_delta_log"
        return Planning(
            images=images,
            order=order,
            list_s=list_s,
            compare_s=compare_s,
            store_s=store_s,
            drive_s=time.perf_counter() - start,
            shards=report.shards,
            commits=len(commits),
            commit_s=sum(commits),
            slowest_commit_s=max(commits, default=0.0),
            scratch_bytes=scratch_bytes,
            log_bytes=sum(path.stat().st_size for path in log.iterdir()),
            peak_rss_bytes=peak_rss_bytes(),
            base_rss_bytes=base_rss_bytes,
        )


def simulated(images: int, order: str) -> Iterator[Row]:
    """Rows as an object store lists them; shuffled within blocks that no run holds whole, for the worst case."""
    stride = 1
    if order == "shuffled":
        stride = 7_919 if images % 7_919 else 7_907  # walks through all of them, far apart
    for number in range(images):
        yield row((number * stride) % images)


def row(number: int) -> Row:
    key = key_of(number)
    # sizes spread over two orders of magnitude, as a formula so that any row can be had alone
    size = int(MEAN_BYTES * (0.1 + 1.8 * ((number * 2_654_435_761) % 2**32) / 2**32))
    return (key, f"s3://corpus/{key}", size, 1_700_000_000_000_000_000 + number, f"{number:032x}")


def key_of(number: int) -> str:
    return f"photos/{2000 + number // 500_000}/{number:010d}.jpg"


def simulated_known(images: int) -> Iterator[tuple[str, Known]]:
    for number in range(0, images, KNOWN_EVERY):
        key, _, size, mtime_ns, etag = row(number)
        yield key, Known(size=size, etag=etag, mtime=mtime_ns, status="ok")


@dataclass(frozen=True, slots=True)
class SimulatedJob:
    job: str = "compress"

    def build(self) -> Any:
        """Never called: the workers are simulated, too."""


class InstantPool(OneMachine):
    """Workers that are done at once; each shard leaves a data file of one byte."""

    capacity = 1 << 20

    def __init__(self, archive: Path) -> None:
        super().__init__()
        self._archive = archive
        self._calls: dict[int, Shard[Any] | None] = {}
        self._next = 0
        self._random = random.Random(1)

    def start(self, job: Any) -> tuple[Any, int]:
        handle = object()
        self._arrived.append((handle, HERE))
        return handle, self._ticket(None)

    def submit(self, handle: Any, task: Any) -> int:
        return self._ticket(task)

    def _ticket(self, task: Any) -> int:
        self._next += 1
        self._calls[self._next] = task
        return self._next

    def wait(self, tickets: Sequence[Any], timeout_s: float) -> list[Any]:
        return [self._random.choice(tickets)]

    def result(self, ticket: Any) -> Any:
        shard = self._calls.pop(ticket)
        if shard is None:
            return Hello(pid=0, host="simulated")
        name = f"compress-{shard.name}-00000000.parquet"
        (self._archive / name).write_bytes(b"\0")
        keys = [item.key for item in shard.items]
        file = DataFile(path=name, size=1, rows=len(keys), min_key=keys[0], max_key=keys[-1], sha256="0" * 64)
        return ShardResult(shard=shard.name, images=len(keys), bytes_in=shard.bytes, file=file)

    def kill(self, handle: Any) -> None:
        pass

    def close(self) -> None:
        pass
