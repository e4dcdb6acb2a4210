"""One run of a schedule's command, in a process of its own: what it prints, how it is asked to stop, how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from recbatch.engine.schedule.child import NOT_STARTED
from recbatch.engine.schedule.errors import RunNotStarted

INTERRUPTED = 130
NOT_TAKEN = (2, 3)  # of a submission: the line is refused here, or no cluster takes it
BUG = 70  # a command that ended as its interpreter does, not as it would itself
STOP_S = 120.0  # for committing what is finished; after that the process is killed
_WITH_JSON = frozenset({"compress", "verify", "restore", "recompress"})
_CHILD = Path(__file__).with_name("child.py")  # by its path: importing the engine first would take a second
_SCALARS = (str, int, float, bool)
_ENVELOPE = frozenset({"event", "schema"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    exit_status: int
    report: Mapping[str, Any] = field(default_factory=dict)  # counts and sizes of the command's own report


class Job(Protocol):
    """A run under way; the seam that tests replace."""

    def wait(self) -> Outcome:
        """Its end. Raises RunNotStarted."""
        ...

    def stop(self) -> None:
        """Ask it to commit what is finished and to end. From any thread or signal handler, more than once."""


class CommandJob:
    """``recbatch COMMAND`` in a child process, on this machine or handed to a cluster by ``recbatch submit``.

    Raises RunNotStarted.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        run_id: str,
        submit: str | None = None,
        shared_paths: bool = False,
        stop_s: float = STOP_S,
    ) -> None:
        words = list(command)
        self._run_id, self._reports = run_id, words[0] in _WITH_JSON and submit is None
        if words[0] in _WITH_JSON and "--json" not in words:
            words.insert(1, "--json")
        self._stop_words: list[str] | None = None
        if submit is not None:
            # an id by tick: a second runner of the same tick attaches to the job that the first one left behind
            self._stop_words = ["jobs", "stop", "--address", submit, run_id]
            shared = ["--shared-paths"] if shared_paths else []
            words = ["submit", "--address", submit, "--wait", "--id", run_id, *shared, *words]
        self._stop_s = stop_s
        self._killer: threading.Timer | None = None
        try:
            _CHILD.stat()  # without it Python itself would start, and end as if the command were wrong
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD), str(os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if submit is not None else None,
                text=True,
                encoding="utf-8",
                errors="replace",
                cwd=_folder(),
                start_new_session=True,  # Ctrl-C reaches the runner, which passes it on once
            )
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            raise RunNotStarted(run_id, f"{place}{error.strerror or error}") from error

    def wait(self) -> Outcome:
        report: dict[str, Any] = {}
        is_sent, errors = False, _Errors()
        with self._process as process:
            assert process.stdout is not None
            if process.stderr is not None:
                errors.follow(process.stderr)
            for line in process.stdout:
                is_sent = is_sent or line.startswith(self._run_id)  # a submission begins with the job's id
                report = _report(line) or report
            status = process.wait()
        errors.join()
        if self._stop_words is not None and not is_sent and status in NOT_TAKEN:
            raise RunNotStarted(self._run_id, errors.last or "the cluster did not take it")
        if self._killer is not None:
            self._killer.cancel()
        if self._stop_words is None and status == NOT_STARTED:
            raise RunNotStarted(self._run_id, "its program or its package is not there")
        if abs(status) == signal.SIGTERM and self._killer is not None:
            status = (
                INTERRUPTED  # asked before it could listen; Ray, while it starts, makes the number a status
            )
        elif status == 1 and self._reports and not report:
            status = BUG  # by itself it ends so with a report of what is quarantined
        return Outcome(exit_status=status if status >= 0 else 128 - status, report=report)

    def stop(self) -> None:
        if self._stop_words is not None:
            # ending the waiting client would leave the job running: the cluster ends it, and then the client ends
            threading.Thread(target=self._stop_on_cluster, name="jobs-stop", daemon=True).start()
        else:
            self._send(signal.SIGTERM)
        if self._killer is None:
            self._killer = threading.Timer(self._stop_s, self._send, (signal.SIGKILL,))
            self._killer.daemon = True
            self._killer.start()

    def _stop_on_cluster(self) -> None:
        assert self._stop_words is not None
        subprocess.run(
            [sys.executable, "-P", "-m", "recbatch", *self._stop_words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
        )

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


class _Errors:
    """What a child says to standard error: passed on as it comes, and of its errors the last one kept."""

    def __init__(self) -> None:
        self.last = ""
        self._thread: threading.Thread | None = None

    def follow(self, lines: Iterable[str]) -> None:
        self._thread = threading.Thread(target=self._pass_on, args=(lines,), name="errors", daemon=True)
        self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _pass_on(self, lines: Iterable[str]) -> None:
        for line in lines:
            with suppress(OSError, ValueError):  # ours may be closed
                sys.stderr.write(line)
                sys.stderr.flush()
            self.last = _error(line) or self.last


def _error(line: str) -> str:
    """The sentences of an error that a command told, as text or as JSON."""
    if line.startswith("Error: "):
        return line.removeprefix("Error: ").strip()
    with suppress(ValueError, AttributeError):
        found = json.loads(line)
        if found.get("event") == "error":
            return str(found.get("message", ""))
    return ""


def _folder() -> str | None:
    """Where the command runs: here, or at the root where this folder has been removed. Its paths are whole."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "/"
    return None


def _report(line: str) -> dict[str, Any]:
    """The scalars of a line that is one JSON object and tells of the whole: events of single shards do not."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(found, dict) or found.get("event", "report") not in ("report", "error"):
        return {}
    return {
        key: value for key, value in found.items() if isinstance(value, _SCALARS) and key not in _ENVELOPE
    }
