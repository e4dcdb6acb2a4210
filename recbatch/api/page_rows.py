"""Which rows of an archive a run wrote, and whether they still stand.

A row does not name its run. The log does: each commit carries the run's job and epoch, and the number of its rows.
The run's data files are those that came between its first commit and its last; files that were only written anew,
because another key of theirs was replaced, hold older rows, which their time of creation tells apart. What is found
is compared with the number in the log, and the page says so where the two differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from recbatch.errors import RecbatchError

if TYPE_CHECKING:
    import pyarrow as pa

    from recbatch.archive import Archive, Version
    from recbatch.engine.runs import RunStatus

CLOCKS_S = 1.0  # by how much a worker's clock may be behind the driver's


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRows:
    """Where a run's rows are read, and how many the log promises."""

    table: Archive  # at the run's last version; the newest, where that one can't be read any more
    files: frozenset[str] | None  # None: any file
    since: datetime
    until: datetime | None  # needed where later rows may be among them
    expected: int
    is_old: bool  # the rows are read as they were, not as they are

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The run's rows with these columns, a row group at a time."""
        if not self.expected:
            return
        for table in self.table.tables([*columns, "created_at"], files=self.files):
            yield self._own(table)

    def _own(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        at = table.column("created_at")
        mask = pc.greater_equal(at, pa.scalar(self.since, at.type))
        if self.until is not None:
            mask = pc.and_(mask, pc.less_equal(at, pa.scalar(self.until, at.type)))
        return table.filter(mask)


def find(newest: Archive, status: RunStatus) -> RunRows:
    """The rows of a run, read as far as the archive still has them."""
    from recbatch import archive as package

    own = commits_of(package.versions(newest), status)
    expected = sum(commit.rows for commit in own)
    since = status.started - timedelta(seconds=CLOCKS_S)
    now = RunRows(table=newest, files=None, since=since, until=None, expected=expected, is_old=False)
    now = current(now, newest, status)
    if not own:
        return now
    first, last = own[-1], own[0]  # the newest comes first
    try:
        then = package.Archive.open(newest.url, version=last.version)
        before = package.Archive.open(newest.url, version=max(0, first.version - bool(first.rows)))
        files = frozenset(file.path for file in then.files()) - {file.path for file in before.files()}
        if any(newest.store.size(path) is None for path in files):
            return now  # vacuumed: what was replaced is gone
    except RecbatchError:
        return now
    return replace(now, table=then, files=files, until=None, is_old=True)


def current(rows: RunRows, newest: Archive, status: RunStatus) -> RunRows:
    """The same rows as far as the newest version has them."""
    until = status.finished + timedelta(seconds=CLOCKS_S) if status.finished else None
    return replace(rows, table=newest, files=None, until=until, is_old=False)


def commits_of(history: Sequence[Version], status: RunStatus) -> list[Version]:
    """The commits that carry the epoch of the run's last one; none for a run that wrote no row."""
    if not status.done:
        return []
    last = next((entry for entry in history if entry.version == status.version), None)
    if last is None or last.epoch is None:
        return []
    return [entry for entry in history if (entry.job, entry.epoch) == (last.job, last.epoch)]


def replaced_since(newest: Archive, rows: RunRows, written: int, until: datetime | None) -> int:
    """How many of the run's ``written`` rows another run has replaced."""
    if not rows.expected:
        return 0
    if not rows.is_old:
        return max(0, rows.expected - written)
    if newest.version == rows.table.version:
        return 0
    now = replace(rows, table=newest, files=None, until=until, is_old=False)
    left = sum(int(table.num_rows) for table in now.tables(["key"]))
    return max(0, written - left)
