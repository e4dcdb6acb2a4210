"""``schedule run``: once, for cron, systemd and Kubernetes; or as a daemon in the foreground."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from recbatch.engine.schedule.book import Book
from recbatch.engine.schedule.decide import decide
from recbatch.engine.schedule.errors import DamagedSchedule, RunNotStarted, UnknownSchedule
from recbatch.engine.schedule.runner import Clock, Launch, Runner, Say, Step, local_launch
from recbatch.engine.schedule.spec import Schedule, Tick
from recbatch.engine.signals import stop_on_signals
from recbatch.errors import RecbatchError, StoreError

EARLY_S = 30.0  # a caller's clock may be that much ahead of ours: its tick is waited for
LONGEST_WAIT_S = 60.0  # between two looks: schedules come and go, and clocks are set
RETRY_S = 30.0  # while the store does not answer


class SystemClock:
    """The time of this machine; ``wake`` ends a wait."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait(self, seconds: float) -> None:
        self._woken.wait(max(0.0, seconds))

    def wake(self) -> None:
        self._woken.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A schedule as it stands."""

    schedule: Schedule
    next: datetime | None  # the planned time that comes next
    due: datetime | None  # the one that a run would take up now
    missed: int  # earlier ones that it would pass over
    again: bool  # the due one was begun before, by a runner that died or was interrupted
    running: str  # what holds the lease that it needs; empty where nothing does
    last: Tick | None


def status(book: Book, schedule: Schedule, now: datetime) -> Status:
    """What ``schedule run`` would do. Changes nothing."""
    newest, run = book.recent(schedule.name)
    due = decide(schedule, newest, run.tick if run else None, now)
    holder = book.holder(schedule)
    is_running = holder is not None and holder.purpose.partition("/")[0] == schedule.name
    is_due = due.action == "run" or (due.action == "again" and not is_running)
    return Status(
        schedule=schedule,
        next=schedule.next(now),
        due=due.tick if is_due else None,
        missed=due.passed_over,
        again=due.action == "again",
        running=holder.purpose if holder is not None else "",
        last=run.tick if run else newest,
    )


def run_once(
    archive: str,
    name: str | None = None,
    *,
    submit: str | None = None,
    shared_paths: bool = False,
    say: Say,
    launch: Launch | None = None,
    clock: Clock | None = None,
) -> list[Step]:
    """Run what is due, at most one tick of each schedule, and return.

    Raises UnknownSchedule, WrongClock, RunNotStarted, StoreError; KeyboardInterrupt where a signal came before
    anything was run.
    """
    book, clock = Book.open(archive), clock or SystemClock()
    runner = Runner(
        book, clock=clock, launch=launch or local_launch(submit, shared_paths=shared_paths), say=say
    )
    with stop_on_signals(_stopping(runner, clock, say)):
        steps = _each(runner, _names(book, name))
        if not runner.stopping and all(step.tick is None and not step.waits_for for step in steps):
            wait_s = _until_next(book, _names(book, name), clock)
            if wait_s is not None and wait_s <= EARLY_S:
                clock.wait(wait_s)
                steps = _each(runner, _names(book, name))
    if runner.stopping and all(step.tick is None for step in steps):
        raise KeyboardInterrupt
    return steps


def _each(runner: Runner, names: Sequence[str]) -> list[Step]:
    """One look at each; an error of one of them is raised when the others have had their turn."""
    steps: list[Step] = []
    problems: list[RecbatchError] = []
    for name in names:
        try:
            steps += runner.run_due([name])
        except RecbatchError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    return steps


def run_daemon(
    archive: str,
    name: str | None = None,
    *,
    submit: str | None = None,
    shared_paths: bool = False,
    say: Say,
    report: Callable[[Step], None] = lambda step: None,
    launch: Launch | None = None,
    clock: Clock | None = None,
) -> None:
    """Run each tick as it comes until SIGTERM or Ctrl-C, which is passed on to the job under way.

    A store that does not answer is asked again, and so is a schedule that is added later.

    Raises ArchiveNotFound, UnknownSchedule: at the start only.
    """
    book, clock = Book.open(archive), clock or SystemClock()
    if name is not None:
        book.schedule(name)
    runner = Runner(
        book, clock=clock, launch=launch or local_launch(submit, shared_paths=shared_paths), say=say
    )
    with stop_on_signals(_stopping(runner, clock, say)):
        say(f"watching the schedules of {book.archive}")
        while not runner.stopping:
            try:
                names = _names(book, name)
                for one in names:
                    try:
                        for step in runner.run_due([one]):
                            report(step)
                    except (UnknownSchedule, DamagedSchedule, RunNotStarted) as error:  # the others go on
                        say(f"{one}: {error}")
                wait_s = _until_next(book, names, clock)
            except StoreError as error:
                say(f"{error} Trying again in {RETRY_S:.0f} s.")
                wait_s = RETRY_S
            if not runner.stopping:
                clock.wait(LONGEST_WAIT_S if wait_s is None else min(wait_s, LONGEST_WAIT_S))
    say("stopped")


def _stopping(runner: Runner, clock: Clock, say: Say) -> Callable[[str], None]:
    def on_signal(name: str) -> None:
        say(f"{name}: the run under way is asked to stop" if runner.busy else f"{name}: stopping")
        runner.stop()
        if isinstance(clock, SystemClock):
            clock.wake()

    return on_signal


def _names(book: Book, name: str | None) -> Sequence[str]:
    return book.names() if name is None else [name]


def _until_next(book: Book, names: Sequence[str], clock: Clock) -> float | None:
    """Seconds until the next planned time of any of them."""
    now = clock.now()
    found = []
    for name in names:
        try:
            coming = book.schedule(name).next(now)
        except (UnknownSchedule, DamagedSchedule):
            continue
        if coming is not None:
            found.append((coming - now).total_seconds())
    return min(found, default=None)
