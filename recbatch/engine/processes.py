"""A pool of plain subprocesses. For tests, and where Ray is not wanted; one machine only.

A worker ends when its connection does: no parent, however it dies, leaves one behind.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from multiprocessing.connection import wait as wait_connections
from typing import Any

from recbatch.engine.pools import (
    HERE,
    Handle,
    Host,
    Job,
    Listener,
    OneMachine,
    Ticket,
    WorkerDied,
    WorkerRaised,
)
from recbatch.engine.watch import Part, Watch

_START = "import sys; from recbatch.engine.processes import serve; serve(int(sys.argv[1]))"


class Call:
    """A ticket. ``value`` is set once it is done."""

    __slots__ = ("done", "error", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: Exception | None = None


class Process:
    """A handle."""

    def __init__(self, job: Job) -> None:
        self.connection, theirs = Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.popen = subprocess.Popen(
            # -P: a folder named recbatch where the job was started must not stand for the package
            [sys.executable, "-P", "-c", _START, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is the driver's business
        )
        theirs.close()
        self.calls: deque[Call] = deque()
        self.setup = self.send(pickle.dumps(job))

    @property
    def pid(self) -> int:
        return self.popen.pid

    def send(self, message: Any) -> Call:
        call = Call()
        self.calls.append(call)
        try:
            self.connection.send(("call", message))
        except OSError:  # it died; its tickets say so
            self.fail()
        return call

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(("stop", None))

    def receive(self, listener: Listener | None) -> None:
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self.fail()
            return
        if kind == "part":
            if listener is not None:
                listener(self, value)
            return
        call = self.calls.popleft()
        call.done, call.value = True, value
        if kind == "raised":
            call.error = WorkerRaised(value)

    def fail(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout=5)
        status = self.popen.returncode
        how = "its connection broke"
        if status is not None:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
        while self.calls:
            call = self.calls.popleft()
            call.done, call.error = True, WorkerDied(how)


class ProcessPool(OneMachine):
    def __init__(self) -> None:
        super().__init__()
        self._processes: list[Process] = []

    def start(self, job: Job) -> tuple[Handle, Ticket]:
        process = Process(job)
        self._processes.append(process)
        self._arrived.append((process, HERE))
        return process, process.setup

    def submit(self, handle: Handle, task: Any) -> Ticket:
        ticket: Call = handle.send(task)
        return ticket

    def wait(self, tickets: Sequence[Ticket], timeout_s: float) -> list[Ticket]:
        done = _done(tickets)
        if done:
            return done
        waiting = {process.connection: process for process in self._processes if process.calls}
        for connection in wait_connections(list(waiting), timeout_s):
            assert isinstance(connection, Connection)
            waiting[connection].receive(self._listener)
        return _done(tickets)

    def result(self, ticket: Ticket) -> Any:
        assert isinstance(ticket, Call)
        if ticket.error is not None:
            raise ticket.error
        return ticket.value

    def stop(self, handle: Handle) -> None:
        assert isinstance(handle, Process)
        handle.stop()

    def kill(self, handle: Handle) -> None:
        assert isinstance(handle, Process)  # our own; for the type checker
        with contextlib.suppress(ProcessLookupError):
            handle.popen.send_signal(signal.SIGKILL)
        handle.fail()
        handle.connection.close()
        if handle in self._processes:
            self._processes.remove(handle)

    def close(self) -> None:
        for process in list(self._processes):
            self.kill(process)


def _done(tickets: Sequence[Ticket]) -> list[Ticket]:
    return [ticket for ticket in tickets if isinstance(ticket, Call) and ticket.done]


def serve(descriptor: int) -> None:
    """The worker's side: the first call is the job, each further one a task."""
    connection = Connection(descriptor)

    def tell(part: Part) -> None:
        with contextlib.suppress(OSError):  # nobody is there any more: the end of the task will tell
            connection.send(("part", part))

    watch = Watch(tell=tell)
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, calls, watch), daemon=True).start()
    if (job := calls.get()) is None:
        return
    try:
        host = Host(job, watch)
        connection.send(("value", host.setup()))
        while (task := calls.get()) is not None:
            try:
                message = ("value", host.run(task))
            except Exception as error:  # the driver decides what it means
                message = ("raised", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            connection.send(message)
    except OSError:
        return


def _listen(connection: Connection, calls: queue.SimpleQueue[Any], watch: Watch) -> None:
    """What comes is heard while a task runs; where nobody is there any more, the task is not ended for nobody."""
    while True:
        try:
            kind, value = connection.recv()
        except Exception:  # its end, or what can't be unpickled here: the driver hears that the process ended
            watch.stop()
            calls.put(None)
            return
        if kind == "stop":
            watch.stop()
        else:
            calls.put(value)
