"""A trial run: some images of a source, encoded by the workers of a real job into an archive that is thrown away.

What it measures: bytes and seconds of each image, what the table, its log and the ledger take beside the streams,
and how long the workers need to start.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbatch.engine import events, ledger
from recbatch.engine.actor import EncodeJob, quarantined, stem
from recbatch.engine.driver import Driver, Tuning
from recbatch.engine.journal import Journal
from recbatch.engine.plan import Plan, Shard
from recbatch.engine.pools import open_pool
from recbatch.engine.report import Report
from recbatch.engine.results import ShardResult
from recbatch.engine.runs import JOBS
from recbatch.engine.sampling import Sample
from recbatch.engine.signals import stop_on_signals
from recbatch.engine.source import Item
from recbatch.engine.spool import Row, Spool, item_of
from recbatch.errors import ImageError

if TYPE_CHECKING:
    from recbatch.archive import Archive, DataFile, Record
    from recbatch.codec import Settings

JOB = "pilot"
CALL_IMAGES = 3  # of one stratum, so that how their time is shared out does not matter
CALL_BYTES = 16 << 20
OVERTIME_S = 30.0  # beyond twice the seconds given, calls under way are not waited for
# A call that waits behind another one would run after the time is up; and nothing is kept of one that is cut short.
TUNING = Tuning(in_flight=1, poll_s=0.05, stop_s=0.0)
FILE_BYTES = 32 << 20  # of streams, in the file that shows what rows take beside them
SLIM = ("key", "status", "codec", "stream_size", "width", "height", "psnr", "error_code")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One image of the pilot."""

    stratum: int
    size: int  # of its file, as listed
    seconds: float  # of a worker
    codec: str  # "" where it was quarantined
    bytes: int = 0  # of its stream
    pixels: int = 0
    psnr: float | None = None
    error_code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Bytes of an archive beside its streams, measured on the pilot's own rows."""

    row: float
    group: float  # of a Parquet row group, with its share of the footer
    new_log: int  # of a new archive: the entries that make it and claim it
    log_file: float  # a data file's share of the log
    plan_row: float  # of the plan that a run leaves in the ledger
    report: int
    models: Mapping[str, int] = field(default_factory=dict)  # by digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    looks: tuple[Look, ...]
    wanted: int
    workers: int
    startup_s: float  # until the first worker was ready
    seconds: float  # of encoding
    write_s: float  # of one data file
    out_of_time: bool
    costs: Costs


def run_pilot(
    sample: Sample[Row],
    scratch: Path,
    *,
    settings: Settings,
    models: Sequence[tuple[bytes, bytes]],
    workers: int,
    threads: int,
    device: str,
    seconds: float,
    executor: str,
    codec_factory: str,
    progress: events.Progress,
) -> Pilot:
    """Encode the sample in its order, until it is at its end or the time is up.

    Args:
        scratch: an empty folder; the throw-away archive takes as much room as the pilot's streams.
        seconds: of encoding. No call begins later; those that run come to their end.

    Raises KeyboardInterrupt on SIGINT and SIGTERM; UsageError, StoreError as compress does.
    """
    from recbatch.archive import Archive

    table = Archive.create(scratch / "archive")
    for digest, weights in models:
        table.put_model(digest.hex(), weights)
    epoch = table.claim_epoch(JOB)
    run = _Run(table, calls_of(sample), seconds, progress)
    job = EncodeJob(
        archive=table.url,
        settings=settings,
        job=JOB,
        model_digests=tuple(digest.hex() for digest, _ in models),
        device=device,
        threads=threads,
        codec_factory=codec_factory,
    )
    with (
        open_pool(executor, workers) as pool,
        stop_on_signals(lambda name: progress(events.Stopping(signal=name))) as stop,
    ):
        driver: Driver[Item] = Driver(
            pool=pool,
            job=job,
            workers=workers,
            tuning=TUNING,
            on_result=run.on_result,
            on_failed=run.on_failed,
            on_tick=lambda: stop.set("time") if run.overdue else None,
            progress=run.on_event,
            stop=stop,
        )
        driver.run(run.calls())
        if stop.is_set() and stop.signal != "time":
            raise KeyboardInterrupt
    looks, records = run.looks(epoch)
    return Pilot(
        looks=looks,
        wanted=len(sample.drawn),
        workers=workers,
        startup_s=run.startup_s,
        seconds=run.spent_s,
        write_s=statistics.fmean(
            result.stages.get("write", 0.0) for result in run.results.values() or [EMPTY]
        ),
        out_of_time=len(looks) < len(sample.drawn),
        costs=_costs(table, records, [row for _, row in sample.drawn], models, files=len(run.results)),
    )


EMPTY = ShardResult(shard="")


def calls_of(sample: Sample[Row]) -> list[tuple[int, list[Row]]]:
    """Images that go to a worker together, from one stratum each; in the sample's order of their first ones."""
    calls: list[tuple[int, list[Row]]] = []
    under_way: dict[int, list[Row]] = {}
    for stratum, row in sample.drawn:
        mine = under_way.get(stratum)
        if mine is None or len(mine) == CALL_IMAGES or sum(each[2] for each in mine) + row[2] > CALL_BYTES:
            mine = under_way[stratum] = []
            calls.append((stratum, mine))
        mine.append(row)
    return calls


class _Run:
    """What comes back, and when to stop."""

    def __init__(
        self,
        table: Archive,
        calls: Sequence[tuple[int, list[Row]]],
        seconds: float,
        progress: events.Progress,
    ) -> None:
        self._table, self._calls, self._seconds, self._progress = table, calls, seconds, progress
        self._ready_at: float | None = None
        self._ended_at = 0.0
        self.startup_s = 0.0
        self.results: dict[str, ShardResult] = {}  # one image that fails may be more than one of a call
        self._stratum: dict[str, int] = {}

    def calls(self) -> Iterator[Shard[Item]]:
        for number, (stratum, rows) in enumerate(self._calls):
            if self._late(self._seconds):
                return
            self._stratum.update((row[0], stratum) for row in rows)
            yield Shard(name=f"{number:06d}", items=tuple(map(item_of, rows)))

    def _late(self, limit_s: float) -> bool:
        return self._ready_at is not None and time.monotonic() - self._ready_at >= limit_s

    @property
    def overdue(self) -> bool:
        return self._late(2 * self._seconds + OVERTIME_S)

    @property
    def spent_s(self) -> float:
        return max(0.0, self._ended_at - self._ready_at) if self._ready_at is not None else 0.0

    def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.WorkersReady):
            self._ready_at, self.startup_s = time.monotonic(), event.seconds
        self._progress(event)

    def on_result(self, value: Any, shard: Shard[Item]) -> None:
        self._ended_at = time.monotonic()
        result: ShardResult = value
        self.results[result.shard] = result
        events.tell_result(self._progress, result)

    def on_failed(self, item: Item, error: ImageError, name: str) -> None:
        file = self._table.write_file([quarantined(item, error, shard=name)], stem=stem(JOB, name))
        result = ShardResult(shard=name, file=file).failed(item.key, error)
        self.on_result(result, Shard(name=name, items=(item,)))

    def looks(self, epoch: int) -> tuple[tuple[Look, ...], list[Record]]:
        """The images as they came out; also as many whole rows as ``FILE_BYTES`` hold."""
        files = [(name, result.file) for name, result in self.results.items() if result.file is not None]
        if not files:
            return (), []
        self._table.commit(files, job=JOB, epoch=epoch)
        seconds = {name: _seconds(result) for name, result in self.results.items()}
        sizes = {row[0]: row[2] for _, rows in self._calls for row in rows}
        looks: list[Look] = []
        whole: list[Record] = []
        room = FILE_BYTES
        for file in self._table.files():
            columns = None if room > 0 else (*SLIM, "shard")
            for record in self._table.records(columns=columns, files=[file.path]):
                if columns is None:
                    whole.append(record)
                    room -= record.stream_size or 0
                looks.append(
                    Look(
                        stratum=self._stratum[record.key],
                        size=sizes[record.key],
                        seconds=seconds[record.shard or ""],
                        codec=record.codec or "",
                        bytes=record.stream_size or 0,
                        pixels=(record.width or 0) * (record.height or 0),
                        psnr=record.psnr,
                        error_code=record.error_code or "",
                    )
                )
        return tuple(looks), whole


def _seconds(result: ShardResult) -> float:
    """Of one image: a real job's shards are long enough for reading to hide behind encoding, or the other way."""
    images = max(1, result.images + len(result.failures))
    return max(result.stages.get("read", 0.0), result.stages.get("encode", 0.0)) / images


def _costs(
    table: Archive,
    records: Sequence[Record],
    rows: Sequence[Row],
    models: Sequence[tuple[bytes, bytes]],
    *,
    files: int,
) -> Costs:
    root = Path(table.url)
    entries = [os.path.getsize(path) for path in sorted((root / "_delta_log").glob("*.json"))]
    spool = Spool.of(sorted(rows), root.parent)
    plan = Plan(todo=spool, shard_bytes=1 << 20, digest="0" * 64)
    plan_bytes = os.path.getsize(root / "_recbatch" / ledger.store_plan(table, plan, settings="{}"))
    with Journal(table, job=JOB) as journal:
        journal(events.Finished(report=Report(job=JOB)))
    jobs = root / "_recbatch" / JOBS
    report = sum(os.path.getsize(path) for path in jobs.rglob("*.json"))
    row, group = _row_costs(table, records)
    return Costs(
        row=row,
        group=group,
        new_log=sum(entries[:2]),
        log_file=sum(entries[2:]) / max(1, files),
        plan_row=plan_bytes / max(1, len(rows)),
        report=report,
        models={digest.hex(): len(weights) for digest, weights in models},
    )


def _row_costs(table: Archive, records: Sequence[Record]) -> tuple[float, float]:
    """Bytes beside the stream of a row and of a row group, from two data files: of one row, and of all."""
    if not records:
        return 0.0, 0.0
    one = _beside(table, records[:1])
    if len(records) == 1:
        return 0.0, float(one[0])
    all_bytes, groups = _beside(table, records)
    if len(records) == groups:  # large images: each has a group of its own
        return 0.0, all_bytes / groups
    row = max(0.0, (all_bytes - one[0] * groups) / (len(records) - groups))
    return row, max(0.0, one[0] - row)


def _beside(table: Archive, records: Sequence[Record]) -> tuple[int, int]:
    """Bytes of a data file beside its streams, and its row groups."""
    import pyarrow.parquet as pq

    file: DataFile = table.write_file(records, stem="measured")
    path = Path(table.url) / file.path
    groups = int(pq.read_metadata(path).num_row_groups)
    path.unlink()
    return file.size - sum(record.stream_size or 0 for record in records), groups


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
