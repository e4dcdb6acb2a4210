"""What can be wrong with a schedule.

UsageError
+-- BadSchedule            its name, times, zone or command
+-- ScheduleExists, UnknownSchedule
+-- UnrenderableSchedule   another scheduler can't do what it says
StoreError
+-- UnconditionalStore     the store does not refuse a second writer
+-- WrongClock             this machine's clock is ahead of the store's
+-- RunNotStarted          this machine can't start a command, or no cluster takes it
CorruptData
+-- DamagedSchedule        what lies in the archive is no schedule
"""

from __future__ import annotations

from recbatch.errors import CorruptData, StoreError, UsageError


class BadSchedule(UsageError):
    """A schedule's name, times, time zone or command can't be used."""

    code = "bad-schedule"

    def __init__(self, value: str, problem: str) -> None:
        super().__init__(value, problem)
        self.value, self.problem = value, problem

    def __str__(self) -> str:
        return f"{self.value!r} can't be scheduled: {self.problem}. See 'recbatch schedule add --help'."


class ScheduleExists(UsageError):
    """A schedule of that name is there already."""

    code = "schedule-exists"

    def __init__(self, name: str, archive: str) -> None:
        super().__init__(name, archive)
        self.name, self.archive = name, archive

    def __str__(self) -> str:
        return (
            f"{self.archive} has a schedule {self.name} already. "
            f"Remove it first with 'recbatch schedule rm {self.archive} {self.name}', or choose another name."
        )


class UnknownSchedule(UsageError):
    """The archive has no schedule of that name."""

    code = "unknown-schedule"

    def __init__(self, name: str, archive: str) -> None:
        super().__init__(name, archive)
        self.name, self.archive = name, archive

    def __str__(self) -> str:
        return (
            f"{self.archive} has no schedule {self.name}. "
            f"See those it has with 'recbatch schedule ls {self.archive}'."
        )


class UnrenderableSchedule(UsageError):
    """Another scheduler has no words for what a schedule says."""

    code = "unrenderable-schedule"

    def __init__(self, name: str, target: str, problem: str) -> None:
        super().__init__(name, target, problem)
        self.name, self.target, self.problem = name, target, problem

    def __str__(self) -> str:
        return (
            f"{self.name} can't be written as {self.target}: {self.problem}. "
            "Run 'recbatch schedule run ARCHIVE --daemon' instead, or change the schedule."
        )


class UnconditionalStore(StoreError):
    """The store does not refuse a second writer, so nothing keeps two runs apart."""

    code = "unconditional-store"

    def __init__(self, archive: str) -> None:
        super().__init__(archive)
        self.archive = archive

    def __str__(self) -> str:
        return (
            f"The store of {self.archive} let a conditional write overwrite an object. "
            "Schedules need a store that honours If-None-Match, as S3 and most others do."
        )


class WrongClock(StoreError):
    """This machine's clock is far ahead of the store's, so nothing it takes for due can be trusted."""

    code = "wrong-clock"

    def __init__(self, archive: str, ahead_s: int) -> None:
        super().__init__(archive, ahead_s)
        self.archive, self.ahead_s = archive, ahead_s

    def __str__(self) -> str:
        return (
            f"This machine's clock is {self.ahead_s} seconds ahead of that of {self.archive}. "
            "Set it right, best by NTP; until then no schedule is run here."
        )


class RunNotStarted(StoreError):
    """What was due could not be started on this machine, or no cluster took it."""

    code = "run-not-started"

    def __init__(self, run: str, problem: str) -> None:
        super().__init__(run, problem)
        self.run, self.problem = run, problem

    def __str__(self) -> str:
        return (
            f"{self.run} could not be started: {self.problem.rstrip('.')}. "
            "It stays due: mend that and call again, or call on another machine."
        )


class DamagedSchedule(CorruptData):
    """What lies in the archive under a schedule's name is none."""

    code = "damaged-schedule"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"{self.name} can't be read: {self.problem}. Remove the object and add the schedule again."
