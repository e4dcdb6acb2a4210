"""What a cluster is asked to run, and what it tells of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LOG_FOLLOWS = ", last available logs"  # in Ray's message of a command that failed
OURS = "recbatch"  # of the job's metadata: the order as JSON; the environment itself comes back masked

SETTINGS = {
    "code": "--code",
    "image": "--image",
    "pip": "--pip",
    "env": "--env",
    "cpus": "--driver-cpus",
    "command": "the command",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a cluster is asked to run.

    ``name`` is the same for the same work; each attempt at it is a job ``name-1``, ``name-2`` and so on, because
    Ray does not support an id a second time, not even of a job that was deleted.
    """

    name: str
    command: tuple[str, ...]  # the program and its words, not quoted
    archive: str = ""
    code: str = "package"  # "package": this recbatch travels along; "image": the nodes have one
    image: str = ""  # of a container for driver and workers
    pip: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)  # no secrets: they are shown with the job
    cpus: float = 0  # of the driver; it takes a place among the workers

    @property
    def options(self) -> str:
        """Those of ``submit`` that nodes have to fulfil before the command runs, such as "--pip"."""
        return " and ".join(name for name, given in (("--image", self.image), ("--pip", self.pip)) if given)

    def differences(self, other: Order) -> tuple[str, ...]:
        """What makes this run otherwise than another order of the same name, as a user would write it."""
        found = [option for name, option in SETTINGS.items() if getattr(self, name) != getattr(other, name)]
        return tuple(option for option in found if option != "--code" or "--image" not in found)

    def to_json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Raises ValueError, TypeError for what is no order."""
        values = json.loads(text)
        return cls(**{**values, "command": tuple(values["command"]), "pip": tuple(values["pip"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job as the cluster tells it. Times are seconds since 1970."""

    id: str
    status: str  # PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED
    command: str
    message: str = ""
    started: float | None = None
    ended: float | None = None
    driver_exit: int | None = None
    error_type: str = ""
    order: Order | None = None  # of jobs that recbatch submitted

    @property
    def over(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def exit_status(self) -> int | None:
        """The job's own; 130 of one that was stopped, 3 of one whose driver was lost, None while it runs."""
        if not self.over:
            return None
        if self.status == "STOPPED":
            return 130
        if self.driver_exit is None:
            return 0 if self.status == "SUCCEEDED" else 3
        return 128 - self.driver_exit if self.driver_exit < 0 else self.driver_exit

    @property
    def outcome(self) -> str:
        """The status in our words: a command of ours that ends with 1 is "done", which Ray takes for a failure.

        Python itself ends with 1, too, where the command did not run.
        """
        broken = any(
            mark in self.message for mark in ("Traceback (most recent call last)", "No module named")
        )
        if self.status == "FAILED" and self.driver_exit == 1 and self.order is not None and not broken:
            return "done"
        return self.status.lower()

    @property
    def archive(self) -> str:
        return self.order.archive if self.order else ""

    @property
    def problem(self) -> str:
        """What went wrong, in one line: of a command's own log the error at its end."""
        head, cut, log = self.message.partition(LOG_FOLLOWS)
        if not cut:
            lines = [line.strip() for line in self.message.splitlines() if line.strip()]
            traced = any("Traceback" in line for line in lines)  # of Ray's own code: its end says what it was
            return " ".join(" ".join([f"{lines[0].rstrip('.')}:", lines[-1]] if traced else lines).split())
        told = last_error(log.partition("\n")[2])
        return " ".join(f"{head}{f': {told}' if told else ''}".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    job: JobState
    attached: bool  # it was running already
    differs: tuple[str, ...] = ()  # then: options that it runs with otherwise, and "the command"
    package_bytes: int = 0


def attempt_of(job: str, name: str) -> int | None:
    """2 of ``name-2``; None for a job of another name."""
    match = re.fullmatch(rf"{re.escape(name)}-([1-9]\d*)", job)
    return int(match[1]) if match else None


def last_error(log: str) -> str:
    """The sentence that recbatch ended with, as text or as JSON; of another log its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith("Error: "):
            return line.removeprefix("Error: ")
        if line.startswith("{") and '"error"' in line:
            try:
                found = json.loads(line)
            except ValueError:  # the log is cut
                continue
            if found.get("event") == "error" and isinstance(found.get("message"), str):
                return str(found["message"])
    return lines[-1] if lines else ""


def state_of(details: Any) -> JobState:
    """From Ray's own, whose fields have come and gone with its versions."""

    def get(name: str) -> Any:
        return getattr(details, name, None)

    def seconds(name: str) -> float | None:
        value = get(name)
        return value / 1000 if value else None

    status = get("status")
    metadata: Mapping[str, str] = get("metadata") or {}
    try:
        order = Order.from_json(metadata[OURS])
    except (KeyError, ValueError, TypeError):
        order = None
    return JobState(
        id=str(get("submission_id") or get("job_id") or ""),
        status=str(getattr(status, "value", status)),
        command=str(get("entrypoint") or ""),
        message=str(get("message") or ""),
        started=seconds("start_time"),
        ended=seconds("end_time"),
        driver_exit=get("driver_exit_code"),
        error_type=str(getattr(get("error_type"), "value", get("error_type")) or ""),
        order=order,
    )
