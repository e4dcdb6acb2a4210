"""A run's journal: what it has done so far, kept in the archive while it works, readable after all of it is gone.

``_recbatch/jobs/<run>/status.json`` tells how far the run is, ``_recbatch/jobs/<run>.json`` how it ended. Nothing
needs either to go on: a store that refuses them costs the journal, never the job.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import TYPE_CHECKING, Any

from recbatch import __version__
from recbatch.engine import events
from recbatch.engine.report import Report
from recbatch.engine.runs import JOBS, WAITS, History, RunStatus, status_name
from recbatch.errors import RecbatchError

if TYPE_CHECKING:
    from recbatch.archive import Archive

EVERY_S = 20.0  # between two heartbeats
COMMIT_EVERY_S = 5.0  # a commit is told sooner, but small shards must not make each one a write
LAST_WRITE_S = 15.0  # how long the end of a job waits for a store that does not answer
SUBMISSION_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's own name, set for the driver of a submitted job


class Journal:
    """Follows one run's events and keeps its status; use as a context manager around all that emits them.

    Args:
        archive: where the journal is kept.
        job: what the run does, such as "compress".
        plan: the plan's digest, where it is known already; the first event's report has it else.
        source: what is archived.
        settings: how, as values that JSON can say.
        executor: "ray", "processes" or "inline".
        every_s: seconds between two heartbeats.
        now: seconds since 1970; tests give their own.

    Writing is a thread's work: a store that hangs delays no shard.
    """

    def __init__(
        self,
        archive: Archive,
        *,
        job: str,
        plan: str = "",
        source: str = "",
        settings: Mapping[str, Any] | None = None,
        executor: str = "",
        every_s: float = EVERY_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._archive, self._now, self._every_s = archive, now, every_s
        self._start = self._working_since = now()
        self._history = History()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._over = False
        self._thread: threading.Thread | None = None
        started = datetime.fromtimestamp(self._start, UTC)
        self._status = RunStatus(
            run=run_name(started, plan),
            job=job,
            plan=plan,
            state="planning",
            started=started,
            heartbeat=started,
            host=socket.gethostname(),
            pid=os.getpid(),
            submission=submission_id(os.environ),
            source=source,
            settings=dict(settings or {}),
            executor=executor,
            versions=versions_here(),
        )

    @property
    def run(self) -> str:
        """The run's name: its start in UTC and the plan."""
        return self._status.run

    @property
    def status(self) -> RunStatus:
        """As of now, whether it is written yet or not."""
        with self._lock:
            return self._present()

    def __enter__(self) -> Journal:
        self._write(first=True)
        self._thread = threading.Thread(target=self._beat, name="journal", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if error is not None:
                stopped = isinstance(error, KeyboardInterrupt)
                self._change(state="stopped" if stopped else "failed", error=sentence(error))
            elif self._status.state not in ("finished", "stopped"):
                self._change(state="finished")
            if self._status.finished is None:
                self._change(finished=self._time(), underway=0)
        self._over = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(LAST_WRITE_S)

    def __call__(self, event: events.Event) -> None:
        """Take one event in. Never raises, never waits for the store."""
        with self._lock:
            self._take(event)
            if isinstance(event, events.Working):
                return
            now = self._status
            self._history.add(
                self._now() - self._start,
                (now.archived + now.quarantined, now.bytes_in, now.bytes_out, now.pixels),
                last=isinstance(event, events.Finished),
            )
        if isinstance(event, events.Committed | events.Stopping | events.Finished):
            self._wake.set()

    def _take(self, event: events.Event) -> None:
        old = self._status
        match event:
            case events.Planned():
                self._change(
                    state="running",
                    planned=event.images,
                    planned_bytes=event.bytes,
                    known=event.known,
                    workers=event.workers,
                )
            case events.WorkersReady():
                self._working_since = self._now()
                waited = old.error.startswith(WAITS)
                self._change(state="running", workers=event.workers, error="" if waited else old.error)
            case events.Working():
                self._change(underway=event.images)
            case events.ShardDone():
                self._change(
                    archived=old.archived + event.images,
                    quarantined=old.quarantined + event.quarantined,
                    bytes_in=old.bytes_in + event.bytes_in,
                    bytes_out=old.bytes_out + event.bytes_out,
                    pixels=old.pixels + event.pixels,
                    error="" if old.error.startswith(WAITS) else old.error,
                )
            case events.ActorDied():
                self._change(
                    deaths=old.deaths + 1,
                    retries=old.retries + (event.action != "quarantine"),
                    error=f"shard {event.shard}: {event.reason}",
                )
            case events.NodeLeft():
                self._change(error=f"node {event.node} is used no more: {event.reason}")
            case events.WaitingForWorkers():
                self._change(error=f"{WAITS} for {event.seconds:.0f} s")
            case events.Committed():
                self._change(version=event.version)
            case events.Stopping():
                self._change(state="stopping")
            case events.Finished():
                self._finish(event.report)
            case _:
                pass

    def _finish(self, report: Report) -> None:
        self._change(
            state="stopped" if report.interrupted else "finished",
            finished=self._time(),
            underway=0,
            plan=report.plan or self._status.plan,
            archived=report.images,
            quarantined=report.quarantined,
            known=report.known,
            bytes_in=report.bytes_in,
            bytes_out=report.bytes_out,
            pixels=report.pixels,
            deaths=report.deaths,
            retries=report.retries,
            workers=report.workers or self._status.workers,
            version=report.version,
            report=report.to_dict(),
        )

    # --- under the lock

    def _change(self, **values: Any) -> None:
        self._status = replace(self._status, **values)

    def _present(self) -> RunStatus:
        status, now = self._status, self._now()
        done = status.archived + status.quarantined + status.underway
        rate = done / max(now - self._working_since, 1e-6) if done else 0.0
        left = max(0, status.planned - done)
        if status.finished is not None:
            rate = done / max((status.finished - status.started).total_seconds(), 1e-6)
        return replace(
            status,
            heartbeat=self._time(),
            rate=round(rate, 3),
            eta_s=round(left / rate, 1) if rate and status.finished is None else None,
            history=self._history.points(),
        )

    def _time(self) -> datetime:
        return datetime.fromtimestamp(self._now(), UTC)

    # --- the thread

    def _beat(self) -> None:
        while not self._over:
            self._wake.wait(self._every_s)
            self._wake.clear()
            if not self._over:
                self._write()
                self._rest()
        self._write(last=True)

    def _rest(self) -> None:
        """However many commits come, but the end is told at once."""
        until = time.monotonic() + min(COMMIT_EVERY_S, self._every_s)
        while not self._over and (left := until - time.monotonic()) > 0:
            time.sleep(min(0.05, left))

    def _write(self, *, first: bool = False, last: bool = False) -> None:
        status = self.status
        with self._writing, contextlib.suppress(Exception):  # see the top: it costs the journal, not the job
            self._archive.put_object(status_name(status.run), encoded(status.to_dict()))
            if first or last:
                self._archive.put_object(f"{JOBS}/{status.run}.json", encoded(summary(status)))


def summary(status: RunStatus) -> dict[str, Any]:
    """The object that names a run in the ledger's listing: its report, or as much as there is of one."""
    head = {"run": status.run, "job": status.job, "plan": status.plan, "state": status.state}
    times = {
        "started": status.started.isoformat(),
        "finished": status.finished.isoformat() if status.finished else None,
    }
    return {**head, **times, "error": status.error, **status.report}


def encoded(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def run_name(started: datetime, plan: str = "") -> str:
    """Sorts by time; two runs of one second differ by their plans, or by chance."""
    return f"{started:%Y%m%dT%H%M%SZ}-{plan[:16] or secrets.token_hex(8)}"


def submission_id(environ: Mapping[str, str]) -> str:
    """The id under which this process was submitted to Ray, "" where it was not."""
    with contextlib.suppress(ValueError, AttributeError):
        config = json.loads(environ.get(SUBMISSION_VARIABLE, "{}"))
        return str(config.get("metadata", {}).get("job_submission_id") or "")
    return ""


def versions_here() -> dict[str, str]:
    """Of what makes a stream or runs it; a package that is not installed is left out."""
    found = {"recbatch": __version__, "python": platform.python_version()}
    for name in ("ray", "torch", "numpy", "pyarrow", "deltalake"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, RecbatchError) and text else f"{type(error).__name__}: {text}"
