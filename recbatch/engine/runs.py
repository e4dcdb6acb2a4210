"""Runs as the ledger of an archive knows them, newest first: also of a cluster that is gone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from recbatch.errors import UsageError

if TYPE_CHECKING:
    from recbatch.archive import Archive

JOBS = "jobs"  # folder of the ledger
LOST_AFTER_S = 120.0  # six heartbeats missed
POINTS = 500
WAITS = (
    "no worker has found a place"  # begins what is told of that trouble, which is none once workers are there
)
RUN_NAME = re.compile(r"\d{8}T\d{6}Z-\w+")
ACTIVE = frozenset({"planning", "running", "stopping"})

Sums: TypeAlias = tuple[int, int, int, int]  # images done, bytes in, bytes out, pixels: all since the start
Point: TypeAlias = tuple[float, int, int, int, int]  # seconds since the start, then the sums


class UnknownRun(UsageError):
    """The archive's ledger has no such run."""

    code = "unknown-run"

    def __init__(self, archive: str, run: str, problem: str) -> None:
        super().__init__(archive, run, problem)
        self.archive, self.run, self.problem = archive, run, problem

    def __str__(self) -> str:
        return (
            f"{self.archive}: no run {self.run!r}: {self.problem}. "
            "Leave it out for the newest one, or take a name from 'recbatch jobs status --archive'."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How far a run is, or how it ended. Counts are of this run alone."""

    run: str
    state: str  # planning, running, stopping; finished, stopped (can go on), failed
    started: datetime
    heartbeat: datetime  # by the clock of the run's machine
    finished: datetime | None = None
    job: str = ""
    plan: str = ""
    host: str = ""
    pid: int = 0
    submission: str = ""  # its id at Ray, where it was submitted
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    executor: str = ""
    workers: int = 0
    planned: int = 0
    planned_bytes: int = 0
    known: int = 0  # were archived before
    archived: int = 0
    quarantined: int = 0
    underway: int = 0  # images done of shards that are not
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0
    rate: float = 0.0  # images a second
    eta_s: float | None = None
    retries: int = 0
    deaths: int = 0
    error: str = ""  # the last trouble
    version: int = -1  # of the archive, after the last commit
    versions: Mapping[str, str] = field(default_factory=dict)  # of recbatch and what it stands on
    report: Mapping[str, Any] = field(default_factory=dict)  # of a run that came to its end
    history: tuple[Point, ...] = ()

    @property
    def done(self) -> int:
        return self.archived + self.quarantined

    @property
    def seconds(self) -> float:
        """From the start to the end, or to the last sign of life."""
        return max(0.0, ((self.finished or self.heartbeat) - self.started).total_seconds())

    def age_s(self, now: datetime | None = None) -> float:
        """Seconds since the last sign of life, as two clocks tell it; never negative."""
        return max(0.0, ((now or datetime.now(UTC)) - self.heartbeat).total_seconds())

    def state_at(self, now: datetime | None = None) -> str:
        """``lost`` for a run that ought to write its heartbeat and has not for two minutes, else its state."""
        silent = self.state in ACTIVE and self.age_s(now) > LOST_AFTER_S
        return "lost" if silent else self.state

    def trouble_at(self, now: datetime | None = None) -> str:
        """The last trouble, but not that a run waited for workers which does so no more."""
        waits = self.error.startswith(WAITS)
        return "" if waits and self.state_at(now) == "lost" else self.error

    def to_dict(self) -> dict[str, Any]:
        """For JSON; ``from_dict`` reads it."""
        return {
            "schema": 1,
            **asdict(self),
            "started": self.started.isoformat(),
            "heartbeat": self.heartbeat.isoformat(),
            "finished": self.finished.isoformat() if self.finished else None,
            "history": [[round(point[0], 3), *point[1:]] for point in self.history],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunStatus:
        """Raises ValueError, KeyError, TypeError for what is no status. Fields of a later version are left out."""
        known = {field.name for field in fields(cls)}
        taken = {name: value for name, value in values.items() if name in known}
        times = {name: when(taken[name]) for name in ("started", "heartbeat")}
        history = tuple((float(p[0]), int(p[1]), int(p[2]), int(p[3]), int(p[4])) for p in taken["history"])
        finished = when(taken["finished"]) if taken.get("finished") else None
        return cls(**{**taken, **times, "finished": finished, "history": history})


class History:
    """Sums over time in at most ``POINTS`` points: when they are full every second one goes."""

    def __init__(self, *, points: int = POINTS, interval_s: float = 1.0) -> None:
        self._most, self._interval_s = points, interval_s
        self._points: list[Point] = [(0.0, 0, 0, 0, 0)]

    def add(self, seconds: float, sums: Sums, *, last: bool = False) -> None:
        """Sums at a time; kept when enough time has passed, or as the ``last`` ones."""
        if not last and seconds < self._points[-1][0] + self._interval_s:
            return
        self._points.append((max(seconds, self._points[-1][0]), *sums))
        while len(self._points) > self._most:
            self._interval_s *= 2
            self._points = self._points[:-1:2] + self._points[-1:]

    def points(self) -> tuple[Point, ...]:
        return tuple(self._points)


def status_name(run: str) -> str:
    return f"{JOBS}/{run}/status.json"


def read_runs(archive: Archive, limit: int | None = None) -> list[RunStatus]:
    """The newest ``limit`` runs, or all, newest first; what can't be read as a run is left out."""
    found: list[RunStatus] = []
    for name in run_names(archive):
        if limit is not None and len(found) >= limit:
            break
        if (status := read_status(archive, name)) is not None:
            found.append(status)
    return found


def read_run(archive: Archive, run: str | None = None) -> RunStatus:
    """One run by its name or the beginning of it; the newest without. Raises UnknownRun."""
    names = list(run_names(archive))
    if run is not None and run not in names:
        names = [name for name in names if name.startswith(run)]
        if len(names) > 1:
            raise UnknownRun(archive.url, run, f"{len(names)} runs begin so")
    for name in [run] if run in names else names:
        if name is not None and (status := read_status(archive, name)) is not None:
            return status
    raise UnknownRun(archive.url, run or "", "there is none")


def run_names(archive: Archive) -> Iterator[str]:
    """Newest first. Every run has an object named after it; some stores list its folder as well."""
    names = {name.removesuffix("/").removesuffix(".json") for name in archive.objects(JOBS)}
    yield from sorted(filter(RUN_NAME.fullmatch, names), reverse=True)


def read_status(archive: Archive, run: str) -> RunStatus | None:
    """From its status, or from a report that was written before there were any."""
    try:
        if (data := archive.object(status_name(run))) is not None:
            return RunStatus.from_dict(json.loads(data))
        if (data := archive.object(f"{JOBS}/{run}.json")) is not None:
            return of_report(run, json.loads(data))
    except (ValueError, KeyError, TypeError, IndexError):
        return None  # torn, or another program's
    return None


def of_report(run: str, values: Mapping[str, Any]) -> RunStatus:
    """What a report alone tells of its run."""
    finished, seconds = when(values["finished"]), float(values["seconds"])
    names = ("quarantined", "known", "bytes_in", "bytes_out", "pixels", "workers", "retries", "deaths")
    counts: dict[str, Any] = {name: int(values.get(name, 0)) for name in names}
    done = int(values["images"]) + counts["quarantined"]
    return RunStatus(
        run=run,
        state="stopped" if values.get("interrupted") else "finished",
        started=finished - timedelta(seconds=seconds),
        heartbeat=finished,
        finished=finished,
        job=str(values.get("job", "")),
        plan=str(values.get("plan", "")),
        planned=done,
        archived=int(values["images"]),
        rate=round(done / seconds, 3) if seconds else 0.0,
        version=int(values.get("version", -1)),
        report=dict(values),
        **counts,
    )


def when(text: Any) -> datetime:
    """An aware time; raises ValueError for another text."""
    found = datetime.fromisoformat(str(text))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
