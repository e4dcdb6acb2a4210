"""Schedules of an archive: commands that are run at the times of a cron expression, once each.

add_schedule("s3://archives/photos", "nightly", cron="0 3 * * *", timezone="Europe/Berlin",
             command=["compress", "s3://photos", "s3://archives/photos"])
run_schedules("s3://archives/photos")      # from cron, systemd or Kubernetes: what is due now, once
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from recbatch.api.common import Location

if TYPE_CHECKING:
    from recbatch.engine.schedule import Schedule, Status, Step, Tick

Missed: TypeAlias = Literal["latest", "skip"]
Target: TypeAlias = Literal["cron", "systemd", "cronjob", "raycronjob"]
HISTORY = 10


def add_schedule(
    archive: Location,
    name: str,
    *,
    cron: str,
    command: Sequence[str],
    timezone: str = "UTC",
    missed: Missed = "latest",
) -> Schedule:
    """Keep a schedule in the archive, which is made where there is none. Its first run is the next planned time.

    Args:
        name: up to 38 of a-z, 0-9 and "-".
        cron: five fields (minute, hour, day of month, month, day of week), or a name such as @daily.
        command: the words after ``recbatch``. They are not read here; the command line does that.
        timezone: an IANA name; the times of ``cron`` are those that a clock shows there.
        missed: whether the latest run that was missed is made up for, or none.

    Raises BadSchedule, ScheduleExists, UnconditionalStore, and what ``Archive.create`` does.
    """
    from datetime import UTC, datetime

    from recbatch.engine.schedule import Book, Schedule, written_out

    schedule = Schedule(
        name=name,
        archive=os.fspath(archive),
        cron=written_out(cron),
        timezone=timezone,
        missed=missed,
        command=tuple(command),
        created=datetime.now(UTC),
    )
    schedule.check()  # before an archive is made
    book = Book.open_or_create(os.fspath(archive))
    schedule = book.located(schedule)
    book.add(schedule)
    return schedule


def schedules(archive: Location) -> list[Status]:
    """All schedules of the archive: what is due, what comes next, how the last run went."""
    from datetime import UTC, datetime

    from recbatch.engine.schedule import Book, status

    book = Book.open(os.fspath(archive))
    now = datetime.now(UTC)
    return [status(book, schedule, now) for schedule in book.schedules()]


def schedule_history(archive: Location, name: str, count: int = HISTORY) -> list[Tick]:
    """The last ticks on record, the newest first. Raises UnknownSchedule."""
    from recbatch.engine.schedule import Book

    book = Book.open(os.fspath(archive))
    book.schedule(name)
    return [entry.tick for entry in book.entries(name, count)]


def schedule_status(archive: Location, name: str) -> Status:
    """One schedule as it stands. Raises UnknownSchedule."""
    from datetime import UTC, datetime

    from recbatch.engine.schedule import Book, status

    book = Book.open(os.fspath(archive))
    return status(book, book.schedule(name), datetime.now(UTC))


def remove_schedule(archive: Location, name: str) -> None:
    """No run begins any more; one that is going goes on, and its record stays. Raises UnknownSchedule."""
    from recbatch.engine.schedule import Book

    Book.open(os.fspath(archive)).remove(name)


def run_schedules(
    archive: Location,
    name: str | None = None,
    *,
    submit: str | None = None,
    shared_paths: bool = False,
    say: Callable[[str], None],
) -> list[Step]:
    """Run what is due now, at most one tick of each schedule (of one alone, with ``name``).

    Args:
        submit: address of a Ray cluster's job server that does the work, instead of this machine.
        shared_paths: the nodes of that cluster see the paths of this machine.
        say: is given each line of the log.

    Raises UnknownSchedule, WrongClock, RunNotStarted, StoreError, ClusterAddressUnusable.
    """
    from recbatch.engine.schedule import run_once

    submit = checked(submit)
    return run_once(os.fspath(archive), name, submit=submit, shared_paths=shared_paths, say=say)


def watch_schedules(
    archive: Location,
    name: str | None = None,
    *,
    submit: str | None = None,
    shared_paths: bool = False,
    say: Callable[[str], None],
    report: Callable[[Step], None] = lambda step: None,
) -> None:
    """Run each tick as it comes, until SIGTERM or Ctrl-C; ``report`` is given what each look led to."""
    from recbatch.engine.schedule import run_daemon

    submit = checked(submit)
    run_daemon(os.fspath(archive), name, submit=submit, shared_paths=shared_paths, say=say, report=report)


def checked(submit: str | None) -> str | None:
    """A cluster's address, before it stands in files and in this machine's list of processes.

    Raises ClusterAddressUnusable: it is none of a job server, or comes with a password.
    """
    from recbatch.engine.head import address_of

    return None if submit is None else address_of(submit, {})


def render_schedule(
    archive: Location,
    name: str,
    target: Target,
    *,
    image: str | None = None,
    submit: str | None = None,
    shared_paths: bool = False,
) -> str:
    """The schedule in the words of another scheduler, which then calls ``recbatch schedule run --once``.

    Raises UnknownSchedule, UnrenderableSchedule, ClusterAddressUnusable.
    """
    from recbatch.engine.schedule import Book, render

    submit = checked(submit)
    book = Book.open(os.fspath(archive))
    return render(book.schedule(name), target, image=image, submit=submit, shared_paths=shared_paths)
