"""Stand-ins for what schedules meet: a store in memory with a clock of its own, a clock that leaps, idle jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from recbatch.archive.conditional import Tagged
from recbatch.archive.errors import StoreUnreachable
from recbatch.engine.schedule.book import Book
from recbatch.engine.schedule.job import Outcome
from recbatch.engine.schedule.runner import Job, Runner
from recbatch.engine.schedule.spec import Schedule, Tick

START = datetime(2027, 1, 1, tzinfo=UTC)


class Memory:
    """Objects in memory, under the rules of a store. ``now_s`` is the store's clock."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str, float]] = {}
        self.now_s = 0.0
        self.down = False
        self.written = 0
        self._lock = threading.Lock()

    def _check(self) -> None:
        if self.down:
            raise StoreUnreachable("memory", "it is down")

    def read(self, name: str) -> Tagged | None:
        self._check()
        with self._lock:
            if name not in self.objects:
                return None
            data, etag, at_s = self.objects[name]
            return Tagged(data=data, etag=etag, age_s=self.now_s - at_s)

    def put_if(self, name: str, data: bytes, *, etag: str | None) -> str | None:
        self._check()
        with self._lock:
            present = self.objects.get(name, (b"", None, 0.0))[1]
            if present != etag:
                return None
            self.written += 1
            self.objects[name] = (data, f"tag-{self.written}", self.now_s)
            return f"tag-{self.written}"

    def names(self, folder: str) -> Sequence[str]:
        self._check()
        start = f"{folder}/"
        return [name.removeprefix(start) for name in self.objects if name.startswith(start)]

    def delete(self, name: str) -> None:
        self._check()
        self.objects.pop(name, None)


class LeapingClock:
    """A time of day that goes where a test says; waiting takes no time but moves it on."""

    def __init__(self, now: datetime = START) -> None:
        self.time = now
        self.waits: list[float] = []

    def now(self) -> datetime:
        return self.time

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += timedelta(seconds=seconds)


class FakeJob:
    """A job that ends as it is told; ``during`` is called while it runs."""

    def __init__(self, exit_status: int = 0, during: Callable[[], None] = lambda: None) -> None:
        self.outcome = Outcome(exit_status=exit_status, report={"images": 3})
        self.during = during
        self.stopped = 0

    def wait(self) -> Outcome:
        self.during()
        return self.outcome

    def stop(self) -> None:
        self.stopped += 1


class Launches:
    """Starts fake jobs and remembers for which ticks."""

    def __init__(self, make: Callable[[], Job] = FakeJob) -> None:
        self.make = make
        self.ticks: list[Tick] = []

    def __call__(self, schedule: Schedule, tick: Tick) -> Job:
        self.ticks.append(tick)
        return self.make()

    @property
    def ids(self) -> list[str]:
        return [tick.id for tick in self.ticks]


def make_schedule(
    name: str = "nightly",
    *,
    cron: str = "0 3 * * *",
    timezone: str = "UTC",
    missed: str = "latest",
    command: Sequence[str] = ("compress", "--", "s3://photos", "s3://archive"),
    created: datetime = START,
    archive: str = "s3://archive",
) -> Schedule:
    return Schedule(
        name=name,
        archive=archive,
        cron=cron,
        timezone=timezone,
        missed=missed,  # type: ignore[arg-type]
        command=tuple(command),
        created=created,
    )


class Desk:
    """A book in memory, a clock and as many runners as a test asks for."""

    def __init__(self, *schedules: Schedule, now: datetime = START) -> None:
        self.memory, self.clock = Memory(), LeapingClock(now)
        self.book = Book(self.memory, "memory")
        self.lines: list[str] = []
        for schedule in schedules:
            self.book.add(schedule)

    def runner(self, launch: Launches) -> Runner:
        return Runner(self.book, clock=self.clock, launch=launch, say=self.lines.append)

    def ticks(self, name: str = "nightly") -> list[Tick]:
        """The oldest first."""
        return [entry.tick for entry in reversed(self.book.entries(name, 100))]


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2027-{text}+00:00")


class Died(BaseException):
    """Ends a runner as SIGKILL would: nothing more is written."""


def die(desk: Desk) -> None:
    desk.memory.down = True
    raise Died


def crash(desk: Desk) -> None:
    """A runner that dies in the middle of a run."""
    with suppress(Died):
        desk.runner(Launches(lambda: FakeJob(during=lambda: die(desk)))).run_due(["nightly"])
        raise AssertionError("it lives")
    desk.memory.down = False
