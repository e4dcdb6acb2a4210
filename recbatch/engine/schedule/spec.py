"""A schedule, and what is known of one of its ticks: values that lie in the archive as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, get_args

from recbatch.engine.schedule import ticks
from recbatch.engine.schedule.errors import BadSchedule, DamagedSchedule

Missed: TypeAlias = Literal["latest", "skip"]
State: TypeAlias = Literal["running", "done", "failed", "interrupted", "lost", "skipped"]

# a name becomes part of object names, of units, and of Kubernetes objects, which allow the least
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,36}[a-z0-9])?")
_READERS = frozenset({"verify", "restore", "stats", "ls", "get", "info", "bench"})
_UNREADABLE = (ValueError, TypeError, AttributeError, KeyError)
_TICK = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A command that is run at the times of a cron expression."""

    name: str
    archive: str
    cron: str
    timezone: str = "UTC"
    missed: Missed = "latest"
    command: tuple[str, ...]  # the words after ``recbatch``
    created: datetime

    def check(self) -> None:
        """Raises BadSchedule."""
        if not _NAME.fullmatch(self.name):
            raise BadSchedule(self.name, "a name has up to 38 of a-z, 0-9 and '-', and no '-' at its ends")
        if self.missed not in get_args(Missed):
            raise BadSchedule(self.missed, "missed runs are treated by 'latest' or 'skip'")
        if not self.command:
            raise BadSchedule(self.name, "it has no command")
        ticks.check(self.cron, self.timezone)

    @property
    def writes(self) -> bool:
        """Whether its command may change the archive; one such command runs at a time."""
        return self.command[0] not in _READERS

    @property
    def lease(self) -> str:
        return "archive" if self.writes else f"schedule.{self.name}"

    def next(self, after: datetime) -> datetime | None:
        return ticks.next_tick(self.cron, self.timezone, after)

    def latest(self, since: datetime, until: datetime) -> tuple[datetime | None, int]:
        return ticks.latest_tick(self.cron, self.timezone, since, until)

    def to_json(self) -> bytes:
        return _to_json(self)

    @classmethod
    def from_json(cls, name: str, data: bytes) -> Schedule:
        """Raises DamagedSchedule."""
        try:
            made = cls(**_known(cls, data, times=("created",), tuples=("command",)))
            made.check()
        except _UNREADABLE as error:
            raise DamagedSchedule(name, _problem(error)) from error
        except BadSchedule as error:
            raise DamagedSchedule(name, error.problem) from error
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One planned run and what became of it."""

    schedule: str
    tick: datetime  # the planned time
    state: State
    attempt: int = 1
    spared: int = 0  # attempts that say nothing against the run: asked to stop, or never started
    passed_over: int = 0  # ticks before it, since the one on record before, that were never run
    owner: str = ""  # of the run: host, process and a random word
    lease_epoch: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    exit_status: int | None = None
    reason: str = ""  # of a tick that was not run, or not to its end
    during: str = ""  # of a tick that was skipped: the id of the run that was going
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.schedule}/{tick_name(self.tick)}"

    def to_json(self) -> bytes:
        return _to_json(self)

    @classmethod
    def from_json(cls, name: str, data: bytes) -> Tick:
        """Raises DamagedSchedule."""
        try:
            return cls(**_known(cls, data, times=("tick", "started", "finished"), tuples=()))
        except _UNREADABLE as error:
            raise DamagedSchedule(name, _problem(error)) from error


def tick_name(tick: datetime) -> str:
    """A planned time as the name of an object; sorted names are sorted times."""
    return tick.astimezone(UTC).strftime(_TICK)


def _problem(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _to_json(value: Schedule | Tick) -> bytes:
    plain = {
        name: item.astimezone(UTC).isoformat() if isinstance(item, datetime) else item
        for name, item in asdict(value).items()
    }
    return json.dumps(plain, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _known(
    kind: type[Any], data: bytes, *, times: tuple[str, ...], tuples: tuple[str, ...]
) -> dict[str, Any]:
    """The fields that this version knows; a later one may have written more."""
    found = json.loads(data)
    known = {item.name for item in fields(kind)}
    values = {name: value for name, value in found.items() if name in known}
    for name in times:
        if isinstance(values.get(name), str):
            values[name] = datetime.fromisoformat(values[name])
    for name in tuples:
        values[name] = tuple(map(str, values[name]))
    return values
