"""What one commit costs as an archive's log grows: files added in bulk, then real commits of 32 shards between."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recbatch.archive import Archive, DataFile
from recbatch.archive import commit as commits

FILES = (1_000, 10_000, 100_000)
BULK = 1_000  # of a commit that only fills the log
SHARDS = 32  # of a measured commit, as jobs make them
REPEATS = 11  # one of them writes a checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A log of so many files."""

    files: int
    open_ms: float
    commit_ms: float  # the median
    slowest_commit_ms: float
    log_bytes: int


def log_growth_benchmark(*, files: tuple[int, ...] = FILES, progress: Callable[[str], None]) -> list[Growth]:
    """Milliseconds of opening and of commits at these numbers of files."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="recbatch-log-") as name:
        folder = Path(name) / "archive"
        archive = Archive.create(folder)
        epoch = archive.claim_epoch("compress")
        made = 0
        for target in files:
            progress(f"a log of {target:,} files")
            while made < target:
                count = min(BULK, target - made)
                fill(archive, made, count)
                made += count
            archive.refresh()
            seconds = []
            for _ in range(REPEATS):
                batch = [
                    (f"measured/{made + place}", data_file(made + place, folder)) for place in range(SHARDS)
                ]
                start = time.perf_counter()
                archive.commit(batch, job="compress", epoch=epoch, absent_at=archive.version)
                seconds.append(time.perf_counter() - start)
                made += SHARDS
            start = time.perf_counter()
            Archive.open(folder)
            open_s = time.perf_counter() - start
            rows.append(
                Growth(
                    files=target,
                    open_ms=1000 * open_s,
                    commit_ms=1000 * statistics.median(seconds),
                    slowest_commit_ms=1000 * max(seconds),
                    log_bytes=sum(path.stat().st_size for path in (folder / "_delta_log").iterdir()),
                )
            )
    return rows


def data_file(number: int, folder: Path | None = None) -> DataFile:
    name = f"compress-{number:08d}-00000000.parquet"
    if folder is not None:
        (folder / name).write_bytes(b"\0")
    low = f"photos/{number:010d}"
    return DataFile(path=name, size=1, rows=100, min_key=f"{low}/a.jpg", max_key=f"{low}/z.jpg", sha256="")


def fill(archive: Archive, start: int, count: int) -> None:
    """One commit of so many files, as shards have made them."""
    numbers = range(start, start + count)
    commits.transact(
        archive.store,
        archive.store.table(),
        [commits.add_action(data_file(number)) for number in numbers],
        {commits.shard_transaction(f"{'0' * 32}/{number:06d}"): 1 for number in numbers},
        {},
    )
