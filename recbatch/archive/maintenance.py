"""Looking back, and sweeping what no version needs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from recbatch.archive import gone
from recbatch.archive.archive import Archive
from recbatch.archive.errors import UnsafeGrace
from recbatch.archive.gone import in_threads
from recbatch.archive.store import LEDGER, Store

LEAST_GRACE = dt.timedelta(days=7)  # files of a running job are orphans until their commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One commit."""

    version: int
    committed_at: dt.datetime
    operation: str
    job: str | None  # of the run that made it; None for commits that are not recbatch's
    kind: str | None  # what that run does, where it says so; of one lineage with its job's other runs
    epoch: int | None
    shards: int
    rows: int
    replaced: int
    readable: bool | None = None  # False where a vacuum took files that it needs; None where nobody looked

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "committed_at": self.committed_at.isoformat()}


def versions(archive: Archive, *, limit: int | None = None, look: bool = False) -> list[Version]:
    """The archive's commits, newest first, as far back as its log reaches.

    With ``look`` they say which of them can still be read: that reads the same part of the log once more, and asks
    for each file that it says was replaced whether it is there; where these are many, by one listing.
    """
    with archive.store.errors():
        history = archive.store.table().history(limit)
    found = []
    for entry in history:
        ours = entry.get("recbatch") or {}
        found.append(
            Version(
                version=int(entry["version"]),
                committed_at=dt.datetime.fromtimestamp(entry.get("timestamp", 0) / 1000, dt.UTC),
                operation=str(entry.get("operation", "")),
                job=ours.get("job"),
                kind=ours.get("kind"),
                epoch=ours.get("epoch"),
                shards=int(ours.get("shards", 0)),
                rows=int(ours.get("rows", 0)),
                replaced=int(ours.get("replaced", 0)),
            )
        )
    if not look or not found:
        return found
    lost = gone.unreadable_versions(archive.store, oldest=found[-1].version)
    return [replace(entry, readable=entry.version not in lost) for entry in found]


def vacuum(
    archive: Archive,
    *,
    grace: dt.timedelta = dt.timedelta(days=14),
    dry_run: bool = True,
    force: bool = False,
) -> list[str]:
    """Delete data files that no commit names, and those that were replaced, when older than ``grace``.

    Versions whose files go can't be read any more. Returns the files' paths; a dry run deletes none of them.
    """
    if grace < LEAST_GRACE and not (force or dry_run):
        raise UnsafeGrace(_days(grace), _days(LEAST_GRACE))
    with archive.store.errors(writing=not dry_run):
        swept = archive.store.table().vacuum(
            retention_hours=max(0, round(grace.total_seconds() / 3600)),
            dry_run=dry_run,
            enforce_retention_duration=False,
            full=True,  # else files that were never committed stay for ever
        )
    if not dry_run:
        archive.refresh()
    return sorted(swept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What a vacuum deleted, or would delete."""

    version: int  # of the archive
    dry_run: bool
    grace_days: float
    files: tuple[str, ...]  # data files
    bytes: int  # of these
    orphans: int  # of these: never committed, as far as the log reaches
    unreadable: tuple[
        tuple[int, int], ...
    ]  # first and last version of each run of versions that need the files
    plans: tuple[str, ...] = ()  # of runs long past, in the ledger
    plan_bytes: int = 0

    @property
    def versions_lost(self) -> int:
        return sum(last - first + 1 for first, last in self.unreadable)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "versions_lost": self.versions_lost}


def sweep(
    archive: Archive,
    *,
    grace: dt.timedelta = dt.timedelta(days=14),
    dry_run: bool = True,
    force: bool = False,
) -> Sweep:
    """``vacuum``, the plans of runs long past, and log entries of more than 30 days; tells what that costs and gains.

    Raises:
        UnsafeGrace: ``grace`` is shorter than 7 days, and not forced; a dry run may look at any.
        StoreError: the store fails; what is deleted by then stays so, and the next call goes on.
    """
    store = archive.store
    files = vacuum(archive, grace=grace, dry_run=True, force=force)
    # Delta names files that an earlier vacuum took, for as long as its log remembers that they were replaced.
    sizes = {
        name: size
        for name, size in zip(files, in_threads(store.size, files), strict=True)
        if size is not None
    }
    files = sorted(sizes)
    log = list(gone.changes(store, only=set(files))) if files else []
    named = {path for change in log for path in (*change.added, *change.removed)}
    unreadable = gone.ranges(
        gone.versions_with(log[:-1], sizes)
    )  # no entry leads to one before the last of these
    plans = [name for name, old in _ledger_ages(store, "plans") if old > grace]
    plan_bytes = sum(size or 0 for size in in_threads(store.size, plans))
    if not dry_run:
        vacuum(archive, grace=grace, dry_run=False, force=force)
        for name in plans:
            store.delete(name)
        with store.errors(writing=True):
            store.table().cleanup_metadata()  # log entries of versions past their retention; commits never do it
    return Sweep(
        version=archive.version,
        dry_run=dry_run,
        grace_days=grace.total_seconds() / 86400,
        files=tuple(files),
        bytes=sum(sizes.values()),
        orphans=len(set(files) - named),
        unreadable=tuple(unreadable),
        plans=tuple(plans),
        plan_bytes=plan_bytes,
    )


def _ledger_ages(store: Store, folder: str) -> Iterator[tuple[str, dt.timedelta]]:
    """Names, from the root, and ages of a ledger folder's files, by the store's own times."""
    now = dt.datetime.now(dt.UTC)
    for name in (f"{LEDGER}/{folder}/{name}" for name in store.names(f"{LEDGER}/{folder}")):
        with store.errors():
            try:
                yield name, now - _changed_at(store, name)
            except FileNotFoundError:
                continue  # another vacuum was faster


def _changed_at(store: Store, name: str) -> dt.datetime:
    if store.local is not None:
        return dt.datetime.fromtimestamp((store.local / name).stat().st_mtime, dt.UTC)
    import obstore

    files: Any = store.files
    found: dt.datetime = obstore.head(files.store, name)["last_modified"]
    return found


def _days(span: dt.timedelta) -> str:
    days = span.total_seconds() / 86400
    return f"{days:g} day" if days == 1 else f"{days:g} days"
