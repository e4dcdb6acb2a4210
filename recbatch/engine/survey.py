"""What a source holds and an archive lacks: listed, sorted, compared. Nothing is written but scratch files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recbatch.engine.plan import Plan, make_plan
from recbatch.engine.scratch import scratch
from recbatch.engine.source import Tally, find_items
from recbatch.engine.spool import Spool, row_of

if TYPE_CHECKING:
    from recbatch.archive import Archive


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A source as it was listed. Lives as long as its scratch folder."""

    rows: Spool
    skipped: int
    problems: tuple[str, ...]
    remarks: tuple[str, ...]  # what is worth knowing, and no problem
    folder: Path

    def plan(
        self,
        table: Archive | None,
        *,
        settings: str,
        workers: int,
        shard_bytes: int | None = None,
        retry_quarantined: bool = False,
    ) -> Plan:
        """What ``table`` lacks; everything, where there is none."""
        return make_plan(
            self.rows,
            table.known_rows() if table is not None else (),
            self.folder,
            settings=settings,
            workers=workers,
            shard_bytes=shard_bytes,
            retry_quarantined=retry_quarantined,
        )


@contextmanager
def survey(
    source: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    archive: str | None = None,
    listing: str | None = None,
) -> Iterator[Survey]:
    """List a source; the arguments and errors are those of ``find_items``."""
    tally = Tally()
    with scratch() as folder:
        items = find_items(
            source, include=include, exclude=exclude, archive=archive, listing=listing, tally=tally
        )
        rows, twice = Spool.sorting(map(row_of, items), folder)
        remarks = []
        if twice:
            many = f"{twice:,} keys are" if twice > 1 else "1 key is"
            remarks.append(f"{source}: {many} listed more than once; the newest row of each counts")
        yield Survey(
            rows=rows,
            skipped=tally.skipped,
            problems=tuple(tally.problems),
            remarks=tuple(remarks),
            folder=folder,
        )
