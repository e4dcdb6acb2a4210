"""The page of one run: a single HTML file that needs no network, no other file and no script."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recbatch.api.common import Location

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbatch.api.page_pictures import Worst
    from recbatch.api.page_sums import Group, Histogram, Row
    from recbatch.engine.runs import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """All that the page shows, before it is markup."""

    url: str
    status: RunStatus
    now: datetime
    rows: int  # found in the archive
    expected: int  # by the log
    replaced: int  # of them, by a later run
    as_of: int  # the archive's version that the rows were read in
    is_old: bool  # it is the run's own version, not the newest
    groups: tuple[Group, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    quarantined: tuple[tuple[str, str, str], ...] = ()  # key, code, sentence: the first ones
    by_code: Mapping[str, int]
    worst: tuple[Worst, ...] = ()
    least_saved: tuple[Row, ...] = ()

    @property
    def is_recompression(self) -> bool:
        return self.status.job == "recompress"

    @property
    def kept(self) -> tuple[tuple[str, str, str], ...]:
        """Of a recompression: key, code and sentence of the first rows that stay as they were."""
        failures = self.status.report.get("failures", ()) if self.is_recompression else ()
        return tuple((str(key), str(code), str(error)) for key, code, error in failures)

    def html(self) -> str:
        """The whole document."""
        from recbatch.api.page_body import render

        return render(self)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: without the pictures."""
        from dataclasses import asdict

        run = self.status.to_dict() | {"state": self.status.state_at(self.now)}
        if self.is_recompression:
            run |= {"quarantined": 0, "kept": self.status.quarantined}
        return {
            "schema": 1,
            "archive": self.url,
            "run": run,
            "heartbeat_age_s": round(self.status.age_s(self.now), 1),
            "rows": self.rows,
            "rows_committed": self.expected,
            "rows_replaced": self.replaced,
            "version": self.as_of,
            "groups": [asdict(group) for group in self.groups],
            "histograms": [asdict(histogram) for histogram in self.histograms],
            "quarantined": [
                {"key": key, "code": code, "error": error} for key, code, error in self.quarantined
            ],
            "quarantined_by_code": dict(self.by_code),
            "kept": [{"key": key, "code": code, "error": error} for key, code, error in self.kept],
            "worst": [asdict(worst.row) for worst in self.worst],
            "least_saved": [asdict(row) for row in self.least_saved],
        }


def run_page(
    archive: Location,
    run: str | None = None,
    *,
    sources: bool = True,
    pictures: bool = True,
    now: datetime | None = None,
) -> RunPage:
    """What is known of a run.

    Args:
        archive: its path or URL.
        run: its name, or the beginning of it; the newest run by default.
        sources: read the sources of the worst images, to show them beside what is restored.
        pictures: decode the worst images at all.

    Raises ArchiveNotFound, UnknownRun.
    """
    from recbatch import archive as package
    from recbatch.api import archives, page_pictures, page_rows, page_sums
    from recbatch.engine.runs import read_run
    from recbatch.errors import CorruptData

    newest = package.Archive.open(os.fspath(archive))
    status = read_run(newest, run)
    rows = page_rows.find(newest, status)
    try:
        sums = page_sums.gather(rows)
    except (CorruptData, package.VersionGone):
        if not rows.is_old:
            raise
        rows = page_rows.current(rows, newest, status)  # a file of that version went while we looked
        sums = page_sums.gather(rows)
    for group in sums.groups.values():
        group.name = model_name(group.model)
    opened = archives.Archive(rows.table)
    return RunPage(
        url=newest.url,
        status=status,
        now=now or datetime.now(UTC),
        rows=sums.rows,
        expected=rows.expected,
        replaced=page_rows.replaced_since(newest, rows, sums.rows, sums.last_created),
        as_of=rows.table.version,
        is_old=rows.is_old,
        groups=tuple(sorted(sums.groups.values(), key=lambda group: -group.images)),
        histograms=tuple(sums.histograms()),
        quarantined=tuple(sums.quarantined),
        by_code=dict(sums.by_code.most_common()),
        worst=tuple(
            page_pictures.pictures(opened, sums.worst, sources=sources)
            if pictures
            else (page_pictures.Worst(row=row) for row in sums.worst)
        ),
        least_saved=tuple(sums.least_saved),
    )


def model_name(digest: str) -> str:
    """The package's own name of a model, "" for another's. The digest is the beginning of it in hex."""
    from recbatch.models import weights

    return next(
        (name for known, name in weights.zoo().items() if digest and known.hex().startswith(digest)), ""
    )


def report(archive: Location, run: str | None = None, *, sources: bool = True) -> str:
    """The page of a run as HTML in one piece: totals, quality, throughput, what is quarantined, the worst images.

    The newest run where ``run`` names none. ``sources=False`` reads no source. Raises ArchiveNotFound, UnknownRun.
    """
    return run_page(archive, run, sources=sources).html()


def keep_page(archive: Location, run: str | None = None, *, sources: bool = True) -> str | None:
    """Write a run's page beside its journal, as ``_recbatch/jobs/<run>/report.html``.

    For the end of a job: whatever goes wrong costs the page and not the job. Returns the object's name in the ledger,
    None where there is none now.
    """
    from recbatch import archive as package

    with contextlib.suppress(Exception):
        page = run_page(archive, run, sources=sources)
        name = f"jobs/{page.status.run}/report.html"
        package.Archive.open(os.fspath(archive)).put_object(name, page.html().encode())
        return name
    return None
