"""Looking back, and sweeping what no version needs."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from recbatch.archive.archive import Archive
from recbatch.archive.errors import UnsafeGrace
from recbatch.archive.store import LEDGER, LOG, Store

T = TypeVar("T")
LEAST_GRACE = dt.timedelta(days=7)  # files of a running job are orphans until their commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One commit."""

    version: int
    committed_at: dt.datetime
    operation: str
    job: str | None  # of the run that made it; None for commits that are not recbatch's
    epoch: int | None
    shards: int
    rows: int
    replaced: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "committed_at": self.committed_at.isoformat()}


def versions(archive: Archive, *, limit: int | None = None) -> list[Version]:
    """The archive's commits, newest first, as far back as its log reaches."""
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
                epoch=ours.get("epoch"),
                shards=int(ours.get("shards", 0)),
                rows=int(ours.get("rows", 0)),
                replaced=int(ours.get("replaced", 0)),
            )
        )
    return found


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
    if grace < LEAST_GRACE and not force:
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
        UnsafeGrace: ``grace`` is shorter than 7 days, and not forced.
        StoreError: the store fails; what is deleted by then stays so, and the next call goes on.
    """
    store = archive.store
    files = vacuum(archive, grace=grace, dry_run=True, force=force)
    # Delta names files that an earlier vacuum took, for as long as its log remembers that they were replaced.
    sizes = {
        name: size
        for name, size in zip(files, _in_threads(store.size, files), strict=True)
        if size is not None
    }
    files = sorted(sizes)
    removed, unreadable = _versions_with(store, set(files))
    plans = [name for name, old in _ledger_ages(store, "plans") if old > grace]
    plan_bytes = sum(size or 0 for size in _in_threads(store.size, plans))
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
        orphans=len(set(files) - removed),
        unreadable=tuple(unreadable),
        plans=tuple(plans),
        plan_bytes=plan_bytes,
    )


_ENTRY = re.compile(r"(\d{20})\.json")


def _versions_with(store: Store, files: Collection[str]) -> tuple[set[str], list[tuple[int, int]]]:
    """Which of the files a version names, and those versions as ranges, as far back as the log's entries reach.

    None of them may be in the newest version. Read backwards, a removal is where a file came to be needed.
    """
    named: set[str] = set()
    ranges: list[tuple[int, int]] = []
    needed, last = 0, -1
    if not files:
        return named, ranges
    entries = sorted(name for name in store.names(LOG) if _ENTRY.fullmatch(name))[::-1]
    first = int(entries[-1][:20]) if entries else 0

    def changes(name: str) -> list[tuple[str, str]]:
        return [change for change in _file_changes(store.read(f"{LOG}/{name}") or b"") if change[1] in files]

    for name, found in zip(entries, _in_threads(changes, entries), strict=True):
        version = int(name[:20])  # the entry leads to it from the one before
        before = needed
        for action, path in found:
            named.add(path)
            needed += 1 if action == "remove" else -1
        if needed and not before:
            last = version - 1
        elif before and not needed:
            ranges.append((version, last))
    if needed and last >= first:
        ranges.append((first, last))  # and earlier ones, whose entries are gone
    return named, ranges[::-1]


def _file_changes(entry: bytes) -> Iterator[tuple[str, str]]:
    for line in entry.splitlines():
        if line.startswith((b'{"add"', b'{"remove"')):
            ((action, fields),) = json.loads(line).items()
            yield action, str(fields["path"])


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


def _in_threads(work: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """On an object store most of the time is waiting."""
    with ThreadPoolExecutor(16, thread_name_prefix="vacuum") as threads:
        return list(threads.map(work, names))


def _days(span: dt.timedelta) -> str:
    return f"{span.total_seconds() / 86400:g} days"
