"""Upkeep of an archive: what its versions were, and sweeping what none of them needs."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from recbatch.api.common import Location
from recbatch.errors import UsageError

if TYPE_CHECKING:
    from recbatch.archive import Sweep, Version
    from recbatch.engine.runs import RunStatus

DEFAULT_GRACE_DAYS = 14.0
NEWEST_RUNS = 50  # one that goes on for longer than so many others took is hardly one of this archive


class BadGrace(UsageError):
    """A grace period that is no length of time."""

    code = "bad-grace"

    def __init__(self, days: str) -> None:
        super().__init__(days)
        self.days = days

    def __str__(self) -> str:
        return f"{self.days} days are no grace period. Give 0 or more, such as --older-than 14d."


def versions(archive: Location, limit: int | None = None) -> list[Version]:
    """The archive's commits, newest first; all that its log still knows, or ``limit`` of them.

    Each can be opened by ``recbatch.open(archive, version)`` until a vacuum takes its files: ``readable`` says so.
    """
    from recbatch import archive as table

    return table.versions(table.Archive.open(os.fspath(archive)), limit=limit, look=True)


def vacuum(
    archive: Location,
    *,
    older_than_days: float = DEFAULT_GRACE_DAYS,
    delete: bool = False,
    force: bool = False,
) -> Sweep:
    """Find, or delete, data files that no commit names or that were replaced, once they are old enough.

    Versions that need such a file can't be read any more; the report names them. Plans of runs long past go too.

    Args:
        older_than_days: since a file was replaced, or written and never committed; at least 7, so that no running
            job loses what it has not committed yet.
        delete: without it nothing is deleted.
        force: fewer than 7 days; only when no job runs on the archive.

    Raises BadGrace, UnsafeGrace, StoreError, CorruptData.
    """
    from recbatch import archive as table

    if not 0 <= older_than_days < 1e6:
        raise BadGrace(f"{older_than_days:g}")
    grace = timedelta(days=older_than_days)
    return table.sweep(table.Archive.open(os.fspath(archive)), grace=grace, dry_run=not delete, force=force)


def live_runs(archive: Location) -> list[RunStatus]:
    """Runs that have shown a sign of life in the last two minutes, by the ledger of the archive."""
    from recbatch import archive as table
    from recbatch.engine.runs import ACTIVE, read_runs

    opened = table.Archive.open(os.fspath(archive))
    return [run for run in read_runs(opened, limit=NEWEST_RUNS) if run.state_at() in ACTIVE]
