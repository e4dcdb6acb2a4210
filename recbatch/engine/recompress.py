"""Rows of an archive coded again with new settings: each new row takes its old one's place in one commit."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from recbatch.engine import events, metrics
from recbatch.engine.actor import DEFAULT_CODEC
from recbatch.engine.compress import JOB, check, encode_shards, models_of
from recbatch.engine.driver import Tuning
from recbatch.engine.journal import Journal
from recbatch.engine.kept import of_row, told_of_rows
from recbatch.engine.plan import MAX_SHARD_BYTES, MIN_SHARD_BYTES, SHARDS_PER_WORKER, runs, shards_of
from recbatch.engine.pools import expected_workers, open_pool
from recbatch.engine.recompress_actor import CHANGED, RecompressJob
from recbatch.engine.recompress_plan import (
    ArchivedItem,
    Outlook,
    RowCount,
    Rows,
    Wanted,
    look_at_rows,
    look_at_sources,
    parse_move,
)
from recbatch.engine.report import Report
from recbatch.engine.restore_actor import DEFAULT_DECODER
from recbatch.engine.source import Item
from recbatch.errors import UsageError

if TYPE_CHECKING:
    from recbatch.archive import Archive
    from recbatch.codec import Settings

KIND = "recompress"


def recompress(
    archive: str,
    *,
    settings: Settings,
    where: str | None = None,
    sources_moved: Sequence[str] = (),
    changed: str = "leave",
    from_archive: bool = False,
    lossy_again: bool = False,
    again: bool = False,
    workers: int | None = None,
    gpus_per_worker: float = 0,
    dry_run: bool = False,
    shard_bytes: int | None = None,
    progress: events.Progress | None = None,
    executor: str = "ray",
    codec_factory: str = DEFAULT_CODEC,
    decoder_factory: str = DEFAULT_DECODER,
    tuning: Tuning | None = None,
) -> Report:
    """Code rows again with new settings, from their sources.

    A new row takes the place of the old one in a single commit, so at every version each image has one row; versions
    before stay readable until a vacuum. A row whose source is gone, is another file by its SHA-256, or can't be coded
    keeps its place and is reported. Rows that have the settings are left alone, so the same call goes on after an
    end of any kind.

    Args:
        archive: where it lies.
        settings: how images are to be coded.
        where: an SQL condition over the archive's columns: only these rows.
        sources_moved: ``FROM=TO``, for sources that lie elsewhere now; the first that fits a source counts.
        changed: "leave" rows whose source is another file now, or "take" that file.
        from_archive: take the images from the archive itself instead of their sources: files that it gives back, and
            the exact pixels of lossless rows. Lossy rows stay, unless
        lossy_again: their decoded pixels may be coded again, which loses more each time.
        again: rows that have the settings too, as damaged ones may; each call codes all of them.
        workers, gpus_per_worker, shard_bytes, progress, executor, codec_factory, tuning: as of ``compress``.
        dry_run: count rows and bytes, and look which sources are gone or of another size or ETag; nothing is written.

    Returns:
        The report, of kind "recompress": ``images`` were coded again, ``kept`` stay as they were and have a failure
        each, ``known`` had the settings, ``skipped`` hold no image.

    Raises:
        UsageError, StoreError, CorruptData: the job as a whole can't be done. What was committed stays.
    """
    from recbatch.archive import Archive

    start = time.monotonic()
    check(workers=workers, shard_bytes=shard_bytes, executor=executor)
    if changed not in CHANGED:
        raise UsageError(f"A changed source can't be treated as {changed!r}. Use 'leave' or 'take'.")
    if lossy_again and not from_archive:
        raise UsageError("--lossy-again means nothing without --from-archive. Give both, or neither.")
    if from_archive and (sources_moved or changed != "leave"):
        raise UsageError("--from-archive reads no sources. Leave out --sources-moved and --changed.")
    moves = [parse_move(text) for text in sources_moved]
    progress, tuning = progress or events.ignore, tuning or Tuning()
    models = models_of(settings)
    digests = tuple(digest.hex() for digest, _ in models)
    wanted = Wanted(settings=settings, models=digests, lossy_again=lossy_again, again=again)

    def counted(rows: Rows) -> RowCount:
        for _ in rows:
            pass
        if moves and rows.count.todo and not rows.count.of_moves:
            raise UsageError(f"No row has a source below {sources_moved[0].partition('=')[0]}. Check FROM.")
        return rows.count

    def finish(report: Report) -> Report:
        report = replace(report, seconds=time.monotonic() - start)
        progress(events.Finished(report=report))
        return report

    table = Archive.open(archive)
    rows = Rows(table, wanted, where=where, moves=moves, from_archive=from_archive)
    count = counted(rows)
    if dry_run:
        outlook = look_at_rows(rows, lossy_again) if from_archive else look_at_sources(rows, changed)
        return finish(foreseen(count, outlook, table))
    if not count.todo:
        return finish(report_of(count, table))
    for digest, weights in models:
        table.put_model(digest.hex(), weights)
    version = table.version
    # The name is that of compress: of two runs that write to an archive the later one goes on alone, else one could put
    # an older state of an image in the place of a newer one.
    epoch = table.claim_epoch(JOB, kind=KIND)
    pinned = Archive.open(archive, version=table.version)  # the other one moves on with each commit
    rows = Rows(pinned, wanted, where=where, moves=moves, from_archive=from_archive)
    if table.version != version + 1:  # others committed meanwhile; they can't any more
        count = counted(rows)

    wanted_workers = 1 if executor == "inline" else workers or expected_workers(executor)
    if shard_bytes is None:
        share = count.bytes // max(1, wanted_workers * SHARDS_PER_WORKER)
        shard_bytes = min(max(share, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
    shards = sum(1 for _ in runs((item.size for item in rows), shard_bytes))
    plan = hashlib.sha256(json.dumps(["recbatch/recompress/1", wanted.mark, epoch]).encode()).hexdigest()
    report = replace(report_of(count, table), plan=plan)
    wanted_workers = max(1, min(wanted_workers, shards))
    journal = Journal(table, job=KIND, plan=plan, settings=asdict(settings), executor=executor)
    report = replace(report, run=journal.run)

    tell = told_of_rows(events.fan_out(journal, metrics.listener(executor, failures="kept"), progress))
    with journal, open_pool(executor, wanted_workers, gpus_per_worker) as pool:
        tell(
            events.Planned(
                images=count.todo,
                bytes=count.bytes,
                shards=shards,
                known=count.has,
                skipped=count.quarantined,
                workers=wanted_workers,
            )
        )
        wanted_workers = min(wanted_workers, pool.capacity)
        job = RecompressJob(
            archive=table.url,
            settings=settings,
            job=JOB,
            model_digests=digests,
            device="cuda" if gpus_per_worker else "cpu",
            threads=pool.threads(wanted_workers),
            codec_factory=codec_factory,
            version=table.version,
            mark=wanted.mark,
            changed=changed,
            from_archive=from_archive,
            lossy_again=lossy_again,
            decoder_factory=decoder_factory,
        )
        report = encode_shards(
            table,
            shards_of(iter_items(rows), shard_bytes),
            report,
            job=job,
            epoch=epoch,
            pool=pool,
            workers=None if workers is None and pool.elastic else wanted_workers,
            tuning=tuning,
            progress=tell,
            rows_of_failures=False,  # the old row is better than a note that there is none
        )
        report = replace(
            report,
            replaces=report.images,
            failures=tuple(of_row(*failure) for failure in report.failures),
            seconds=time.monotonic() - start,
        )
        tell(events.Finished(report=report))
    return report


def iter_items(rows: Iterable[ArchivedItem]) -> Iterator[Item]:
    """What the driver and the committer take: to them a row is any item."""
    yield from rows


def report_of(count: RowCount, table: Archive) -> Report:
    return Report(kind=KIND, job=KIND, known=count.has, skipped=count.quarantined, version=table.version)


def foreseen(count: RowCount, outlook: Outlook, table: Archive) -> Report:
    """What a run would do now."""
    left = sum(outlook.by_code.values())
    return replace(
        report_of(count, table),
        images=count.todo - left,
        bytes_in=count.bytes - outlook.bytes,
        quarantined=left,
        failures=tuple(of_row(*failure) for failure in outlook.failures),
        problems=outlook.problems(),
        dry_run=True,
    )
