"""From a source to an archive: list, plan, encode, commit."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

from recbatch.engine import events, ledger, metrics, ray_local
from recbatch.engine.actor import DEFAULT_CODEC, EncodeJob, quarantined, stem
from recbatch.engine.commit import Committer
from recbatch.engine.driver import Driver, Tuning
from recbatch.engine.journal import Journal
from recbatch.engine.plan import Plan, Shard
from recbatch.engine.pools import Job, Pool, expected_workers, open_pool
from recbatch.engine.report import Report
from recbatch.engine.results import ShardResult
from recbatch.engine.signals import stop_on_signals
from recbatch.engine.source import Item
from recbatch.engine.survey import survey
from recbatch.errors import ImageError, RecbatchError, UsageError

if TYPE_CHECKING:
    from recbatch.archive import Archive
    from recbatch.codec import Settings

JOB = "compress"  # one name for all runs into one archive: the epoch fences one run out by the next


def compress(
    source: str,
    archive: str,
    *,
    settings: Settings,
    workers: int | None = None,
    gpus_per_worker: float = 0,
    wait_s: float | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    listing: str | None = None,
    retry_quarantined: bool = False,
    dry_run: bool = False,
    shard_bytes: int | None = None,
    progress: events.Progress | None = None,
    executor: str = "ray",
    codec_factory: str = DEFAULT_CODEC,
    tuning: Tuning | None = None,
) -> Report:
    """Archive the images of ``source`` that ``archive`` does not hold in their present state.

    Args:
        source: a folder, a file, or an fsspec URL.
        archive: where the archive lies; it is made where there is none.
        settings: how images are coded.
        workers: processes that encode; by default as many as this machine has cores, or the cluster places.
        gpus_per_worker: may be a fraction; 0 encodes on the CPU.
        wait_s: how long a cluster may take to find the first worker a place.
        include: patterns of the files to take, instead of the known image extensions.
        exclude: patterns of files to leave out.
        listing: a file that names the source's objects (CSV, Parquet, S3 Inventory); the source is not listed then.
        retry_quarantined: try images again that failed before, though their files did not change.
        dry_run: list and plan only; nothing is written.
        shard_bytes: source bytes of one unit of work, from 256 KiB to 32 MiB by default, by the size of the source.
        progress: called with each event, in this thread.
        executor: "ray", "processes" or "inline" (in this process: no protection from crashes).
        codec_factory: ``module:name`` of what makes the codec in each worker.

    Returns:
        The report; ``interrupted`` where SIGINT or SIGTERM came: the same call goes on then.

    Raises:
        UsageError, StoreError, CorruptData: the job as a whole can't be done. What was committed stays.
    """
    from recbatch.archive import Archive

    check(workers=workers, shard_bytes=shard_bytes, executor=executor)
    start = time.monotonic()
    tuning = tuning or Tuning()
    tell: events.Progress = progress or events.ignore
    wanted = workers or expected_workers(executor)
    fingerprint = json.dumps(asdict(settings), sort_keys=True, default=str)

    with survey(source, include=include, exclude=exclude, archive=archive, listing=listing) as found:

        def plan_for(table: Archive | None) -> Plan:
            return found.plan(
                table,
                settings=fingerprint,
                workers=wanted,
                shard_bytes=shard_bytes,
                retry_quarantined=retry_quarantined,
            )

        def report_of(plan: Plan, table: Archive | None) -> Report:
            return Report(
                known=plan.known,
                known_bad=plan.known_bad,
                replaces=plan.replaces,
                skipped=found.skipped,
                problems=found.problems,
                remarks=found.remarks,
                job=JOB,
                plan=plan.digest,
                version=table.version if table is not None else -1,
                dry_run=dry_run,
                shards=plan.count_shards(),
            )

        def announce(report: Report, plan: Plan) -> Report:
            tell(
                events.Planned(
                    images=plan.images,
                    bytes=plan.bytes,
                    shards=report.shards,
                    known=plan.known,
                    skipped=found.skipped,
                    workers=min(wanted, report.shards),
                )
            )
            return report

        def finish(report: Report) -> Report:
            report = replace(report, seconds=time.monotonic() - start)
            tell(events.Finished(report=report))
            return report

        table = open_if_there(archive)
        plan = plan_for(table)
        if dry_run:
            report = replace(report_of(plan, table), images=plan.images, bytes_in=plan.bytes)
            return finish(announce(report, plan))
        if not plan.images:
            return finish(announce(report_of(plan, table), plan))

        models = models_of(settings)  # an unknown one is refused before an archive is made
        if executor == "ray":
            ray_local.look(os.environ.get("RAY_ADDRESS", ""))  # so is a cluster that is not there
        if table is None:
            table = Archive.create(archive, exist_ok=True)
        for digest, weights in models:
            table.put_model(digest.hex(), weights)
        version = table.version
        epoch = table.claim_epoch(JOB)
        if table.version != version + 1:
            # Others committed meanwhile. From here on they can't any more, so what is known now stays so.
            plan = plan_for(table)
        plan = plan.of_epoch(epoch)
        report = report_of(plan, table)
        if not plan.images:
            return finish(announce(report, plan))
        ledger.store_plan(table, plan, settings=fingerprint)

        journal = Journal(
            table,
            job=JOB,
            plan=plan.digest,
            source=source,
            settings=json.loads(fingerprint),
            executor=executor,
        )
        tell = events.fan_out(tell, journal, metrics.listener(executor))
        with journal:
            report = announce(replace(report, run=journal.run), plan)
            count = min(wanted, report.shards)
            with open_pool(executor, count, gpus_per_worker, wait_s) as pool:
                count = min(count, pool.capacity)
                job = EncodeJob(
                    archive=table.url,
                    settings=settings,
                    job=JOB,
                    model_digests=tuple(digest.hex() for digest, _ in models),
                    device="cuda" if gpus_per_worker else "cpu",
                    threads=pool.threads(count),
                    codec_factory=codec_factory,
                )
                report = encode_shards(
                    table,
                    plan.shards(),
                    report,
                    job=job,
                    epoch=epoch,
                    pool=pool,
                    workers=None if workers is None and pool.elastic else count,
                    tuning=tuning,
                    progress=tell,
                )
            return finish(report)


def check(*, workers: int | None, shard_bytes: int | None, executor: str) -> None:
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers can't work. Use at least one.")
    if shard_bytes is not None and shard_bytes < 1:
        raise UsageError(f"A shard of {shard_bytes} bytes holds nothing. Use at least 1, or leave it out.")
    if executor not in ("ray", "processes", "inline"):
        raise UsageError(f"There is no executor {executor!r}. Use 'ray', 'processes' or 'inline'.")


class NamedJob(Job, Protocol):
    @property
    def job(self) -> str: ...


def encode_shards(
    table: Archive,
    shards: Iterable[Shard[Item]],
    report: Report,
    *,
    job: NamedJob,
    epoch: int,
    pool: Pool,
    workers: int | None,
    tuning: Tuning,
    progress: events.Progress,
    rows_of_failures: bool = True,
) -> Report:
    """Drive shards to their commits. Whatever ends the job, what is finished is committed.

    Args:
        shards: of the plan that ``report`` names.
        workers: None for as many as a pool has places that come and go.
        rows_of_failures: an image that is given up gets a row which says so, in the place of any that it had.
    """

    def on_result(value: Any, shard: Shard[Item]) -> None:
        result: ShardResult = value
        if result.empty:  # a stop came before its first image
            return
        committer.add(result, shard)
        events.tell_result(progress, result)

    def on_failed(item: Item, error: ImageError, name: str) -> None:
        """The driver writes the row itself: no worker lived to do it."""
        file = None
        if rows_of_failures:
            file = table.write_file([quarantined(item, error, shard=name)], stem=stem(job.job, name))
        result = ShardResult(shard=name, file=file).failed(item.key, error)
        on_result(result, Shard(name=name, items=(item,)))

    committer = Committer(
        table,
        job=job.job,
        epoch=epoch,
        plan=report.plan,
        tuning=tuning,
        progress=progress,
        on_lost=lambda shard: driver.add(shard),
    )

    def stopping(name: str) -> None:
        progress(events.Stopping(signal=name, patience_s=tuning.stop_s))

    with stop_on_signals(stopping) as stop:
        driver: Driver[Item] = Driver(
            pool=pool,
            job=job,
            workers=workers,
            tuning=tuning,
            on_result=on_result,
            on_failed=on_failed,
            on_tick=committer.tick,
            progress=progress,
            stop=stop,
        )
        try:
            driver.run(shards)
            committer.flush()
            if driver.pending:  # a data file was lost between its writing and the last commit
                driver.run()
                committer.flush()
        except RecbatchError:
            committer.flush_quietly()
            raise
    report = committer.account.onto(
        report,
        workers=workers if workers is not None else driver.most_workers,
        deaths=driver.deaths,
        retries=driver.retries,
    )
    return replace(
        report,
        stages={**report.stages, "commit": committer.seconds},
        version=committer.version,
        interrupted=stop.is_set(),
    )


def open_if_there(url: str) -> Archive | None:
    from recbatch.archive import Archive, ArchiveNotFound

    try:
        return Archive.open(url)
    except ArchiveNotFound:
        return None


def models_of(settings: Settings) -> list[tuple[bytes, bytes]]:
    """Digests and bytes of the weights that a decoder will need; none where it needs none."""
    if settings.mode == "original":
        return []
    from recbatch.codec import models_of

    return models_of(settings)
