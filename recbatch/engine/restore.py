"""From an archive to files: same names, same times, and the same bytes wherever the archive holds them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from recbatch.engine import events
from recbatch.engine.driver import Driver, Tuning
from recbatch.engine.paths import SUFFIXES, make_root
from recbatch.engine.plan import MAX_SHARD_BYTES, MIN_SHARD_BYTES, SHARDS_PER_WORKER, Shard, cut
from recbatch.engine.pools import open_pool
from recbatch.engine.report import Account, Report
from recbatch.engine.resources import cpus_available
from recbatch.engine.restore_actor import DEFAULT_DECODER, RestoreJob
from recbatch.engine.results import ShardResult
from recbatch.engine.signals import stop_on_signals
from recbatch.engine.targets import Target, choose, sift
from recbatch.errors import ImageError, UsageError

FORMATS = ("original-or-png", "original", *SUFFIXES)
SMALL_PIXELS = 64_000_000  # to decode; starting Ray and loading a model per worker takes longer than these


def restore(
    archive: str,
    dest: str,
    *,
    where: str | None = None,
    format: str = "original-or-png",
    workers: int | None = None,
    overwrite: bool = False,
    previews: bool = False,
    version: int | None = None,
    progress: events.Progress | None = None,
    executor: str = "auto",
    decoder_factory: str = DEFAULT_DECODER,
    tuning: Tuning | None = None,
) -> Report:
    """Write images as files under ``dest``, named by their keys, with their sources' times.

    A file of another format than its key says gets that format's suffix. What is there already with the same
    name and time counts as restored before, so an interrupted restore goes on where it stopped.

    Args:
        where: an SQL condition over the archive's columns.
        format: "original-or-png": the source's own file where the archive holds it, or what gives it back byte for
            byte, else PNG; "original": such files only; "png", "webp", "jpeg", "tiff": converted, unless the file
            held is of that format.
        overwrite: replace files that are there.
        previews: write previews, in ``format`` or as JPEG. Where a row has one only that is read, else the image
            itself takes its place. They are a second newer than their sources, so that none passes for an image.
        version: of the archive; the newest by default.
        executor: "auto" takes Ray for much to decode and this process for little; or "ray", "processes", "inline".

    Returns:
        The report: ``quarantined`` counts images that could not be restored, ``skipped`` rows that hold none.

    Raises:
        UsageError, StoreError, CorruptData: the job as a whole can't be done.
    """
    from recbatch.archive import Archive

    start = time.monotonic()
    if format not in FORMATS:
        raise UsageError(f"There is no format {format!r}. Use one of {', '.join(FORMATS)}.")
    if "://" in dest and not dest.startswith("file://"):
        raise UsageError(
            f"{dest} is no folder of this machine. Restore to a local folder and copy it from there."
        )
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers can't work. Use at least one.")
    if previews and format == "original-or-png":
        format = "jpeg"
    if previews and format == "original":
        raise UsageError("Previews are no originals. Choose --format jpeg, png, webp or tiff for them.")
    progress = progress or events.ignore
    tuning = tuning or Tuning()
    opened = Archive.open(archive, version=version)
    report = Report(kind="restore", job="restore", version=opened.version)
    choice = choose(opened, where=where, format=format, previews=previews)
    root = make_root(dest.removeprefix("file://"))
    targets, known, taken = sift(choice.targets, root, overwrite=overwrite)
    before = ShardResult(
        shard="-",
        failures=(*choice.failures, *taken),
        unnamed=choice.unnamed,
        files_unnamed=choice.files_unnamed,
    )
    report = replace(report, skipped=choice.skipped, known=known)

    to_decode = sum(target.pixels for target in targets if target.format or target.codec == "lossless")
    if executor == "auto":
        executor = "ray" if to_decode > SMALL_PIXELS else "inline"
    count = 1 if executor == "inline" else workers or cpus_available()
    share = sum(target.size for target in targets) // (count * SHARDS_PER_WORKER)
    shards = cut(targets, min(max(share, MIN_SHARD_BYTES), MAX_SHARD_BYTES), max_items=256)
    count = max(1, min(count, len(shards)))
    progress(
        events.Planned(
            images=len(targets) + before.quarantined,
            bytes=sum(target.size for target in targets),
            shards=len(shards),
            known=known,
            skipped=choice.skipped,
            workers=count,
        )
    )
    account = Account()
    if before.failures:  # no worker needs to look at these
        account.add(before)
        events.tell_result(progress, before)
    interrupted, deaths, retries = False, 0, 0
    if shards:
        with open_pool(executor, count) as pool:
            count = min(count, pool.capacity)
            job = RestoreJob(
                archive=opened.url,
                version=opened.version,
                root=root,
                threads=pool.threads(count),
                decoder_factory=decoder_factory,
            )
            driver, interrupted = _drive(
                shards, account, pool=pool, job=job, workers=count, tuning=tuning, progress=progress
            )
            deaths, retries = driver.deaths, driver.retries
    report = account.onto(report, workers=count if shards else 0, deaths=deaths, retries=retries)
    report = replace(report, interrupted=interrupted, seconds=time.monotonic() - start)
    progress(events.Finished(report=report))
    return report


def _drive(
    shards: Iterable[Shard[Target]],
    account: Account,
    *,
    pool: Any,
    job: RestoreJob,
    workers: int,
    tuning: Tuning,
    progress: events.Progress,
) -> tuple[Driver[Target], bool]:
    def on_result(value: Any, shard: Shard[Target]) -> None:
        result: ShardResult = value
        if result.empty:  # a stop came before its first image
            return
        account.add(result)
        events.tell_result(progress, result)

    def on_failed(target: Target, error: ImageError, name: str) -> None:
        result = ShardResult(shard=name).failed(target.key, error)
        account.add(result)
        events.tell_result(progress, result)

    def stopping(name: str) -> None:
        progress(events.Stopping(signal=name, patience_s=tuning.stop_s))

    with stop_on_signals(stopping) as stop:
        driver: Driver[Target] = Driver(
            pool=pool,
            job=job,
            workers=workers,
            tuning=tuning,
            on_result=on_result,
            on_failed=on_failed,
            on_tick=lambda: None,
            progress=progress,
            stop=stop,
        )
        driver.run(shards)
    return driver, stop.is_set()
