"""Looking back, and sweeping what no version needs."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any

from recbatch.archive.archive import Archive
from recbatch.archive.errors import UnsafeGrace

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


def _days(span: dt.timedelta) -> str:
    return f"{span.total_seconds() / 86400:g} days"
