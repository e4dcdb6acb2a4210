"""The seam to processes: three kinds of pool behind one interface, so that most fault tests need no Ray.

A pool starts workers, hands them tasks in order, and tells what became of each. It retries nothing.
"""

from __future__ import annotations

import math
import os
import pickle
import socket
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from recbatch.engine.errors import WorkerSetupFailed
from recbatch.engine.resources import cpus_available
from recbatch.engine.signals import stop_asked
from recbatch.engine.watch import Part, Watch
from recbatch.errors import RecbatchError


class Worker(Protocol):
    def run(self, task: Any, watch: Watch) -> Any:
        """Do the task. It tells ``watch`` what is done, and hands in that much where it is asked to stop."""
        ...


class Job(Protocol):
    """What a worker is made from. Pickled to where the worker lives and built there."""

    def build(self) -> Worker: ...


Handle: TypeAlias = Any  # one worker; each pool has its own
Ticket: TypeAlias = Hashable  # one call in flight
Listener: TypeAlias = Callable[[Handle, Part], None]
HERE = "here"  # the one node of a pool without others
ON_A_CLUSTER = 64  # workers, to cut a plan into shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A worker's answer once it has loaded all it needs."""

    pid: int
    host: str


class WorkerDied(Exception):
    """The process is gone, or nobody can say whether it is.

    ``with_node``: its machine went, or the way to it: no image's fault.
    """

    def __init__(self, reason: str, *, with_node: bool = False) -> None:
        super().__init__(reason)
        self.with_node = with_node


class WorkerRaised(Exception):
    """The call raised what it should not; the process lives."""


class Pool(Protocol):
    elastic: bool  # places come and go
    patience_s: float  # how long the first worker may wait for a place

    @property
    def capacity(self) -> int:
        """Workers that may be started; where a pool is elastic, those without a place wait for one."""
        ...

    @property
    def places(self) -> int:
        """Workers that would find a place now, were none there; at least one."""
        ...

    def threads(self, workers: int) -> int:
        """Threads for each of so many workers; 0: each finds out where it stands."""
        ...

    def start(self, job: Job) -> tuple[Handle, Ticket]:
        """A new worker and the ticket of its setup; the result is Hello or a RecbatchError."""
        ...

    def arrived(self) -> list[tuple[Handle, str]]:
        """Workers that have found their place since the last call, and on which node."""
        ...

    def leave(self, node: str) -> None:
        """Start no worker there any more."""
        ...

    def shortage(self, workers: int) -> RecbatchError:
        """What to tell where not one of so many workers found a place."""
        ...

    def submit(self, handle: Handle, task: Any) -> Ticket: ...

    def listen(self, listener: Listener) -> None:
        """Have it called, within ``wait`` or ``result``, with what is done of the call that a worker is at."""
        ...

    def stop(self, handle: Handle) -> None:
        """Ask a worker to end its calls early, and to answer with what it has."""
        ...

    def wait(self, tickets: Sequence[Ticket], timeout_s: float) -> list[Ticket]:
        """Those that are done, in any order; empty after the timeout."""
        ...

    def result(self, ticket: Ticket) -> Any:
        """Of a ticket that is done; a RecbatchError is a value. Raises WorkerDied, WorkerRaised."""
        ...

    def kill(self, handle: Handle) -> None:
        """At once, whatever it does; also when it is dead already."""
        ...

    def close(self) -> None: ...


class Host:
    """Lives in the worker's process. Our own errors return as values: they keep their class that way."""

    def __init__(self, job: bytes, watch: Watch | None = None) -> None:
        self._job = job  # pickled: what it needs may be missing here, which is for setup to tell
        self._watch = watch or Watch()
        self._worker: Worker | None = None

    def setup(self) -> Hello | RecbatchError:
        try:
            job: Job = pickle.loads(self._job)
            self._worker = job.build()
        except RecbatchError as error:
            return error
        except Exception as error:  # an import, a missing library, a broken file: the user must read which
            return WorkerSetupFailed(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return Hello(pid=os.getpid(), host=socket.gethostname())

    def run(self, task: Any) -> Any:
        if self._worker is None:
            return WorkerSetupFailed("it was given work before it was set up")
        self._watch.begin()
        try:
            return self._worker.run(task, self._watch)
        except RecbatchError as error:
            return error


class OneMachine:
    """What the pools share whose workers all stand here, from the moment that they are started."""

    elastic = False
    patience_s = math.inf
    capacity = 1024

    def __init__(self) -> None:
        self._arrived: list[tuple[Handle, str]] = []
        self._listener: Listener | None = None

    @property
    def places(self) -> int:
        return cpus_available()

    def threads(self, workers: int) -> int:
        return max(1, cpus_available() // workers)

    def arrived(self) -> list[tuple[Handle, str]]:
        found, self._arrived = self._arrived, []
        return found

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    def stop(self, handle: Handle) -> None:
        pass

    def leave(self, node: str) -> None:
        pass  # there is no other

    def shortage(self, workers: int) -> RecbatchError:
        return WorkerSetupFailed(f"none of {workers} found a place")


class InlinePool(OneMachine):
    """Everything in this process, when its result is asked for: nothing parallel, nothing protected."""

    capacity = 1

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[int, tuple[Host, Any]] = {}
        self._next = 0

    def start(self, job: Job) -> tuple[Handle, Ticket]:
        host: Host

        def tell(part: Part) -> None:
            if self._listener is not None:
                self._listener(host, part)

        host = Host(pickle.dumps(job), Watch(tell=tell, asked=stop_asked))
        self._arrived.append((host, HERE))
        return host, self._ticket(host, None)

    def submit(self, handle: Handle, task: Any) -> Ticket:
        return self._ticket(handle, task)

    def _ticket(self, host: Host, task: Any) -> int:
        self._next += 1
        self._calls[self._next] = (host, task)
        return self._next

    def wait(self, tickets: Sequence[Ticket], timeout_s: float) -> list[Ticket]:
        return list(tickets[:1])

    def result(self, ticket: Ticket) -> Any:
        assert isinstance(ticket, int)
        host, task = self._calls.pop(ticket)
        if task is None:
            return host.setup()
        try:
            return host.run(task)
        except Exception as error:
            raise WorkerRaised(f"{type(error).__name__}: {error}") from error

    def kill(self, handle: Handle) -> None:
        pass

    def close(self) -> None:
        self._calls.clear()


def expected_workers(executor: str) -> int:
    """How many there will be where nobody said so; a guess for a cluster, which is not asked yet."""
    return ON_A_CLUSTER if executor == "ray" and os.environ.get("RAY_ADDRESS") else cpus_available()


@contextmanager
def open_pool(
    executor: str, workers: int, gpus_per_worker: float = 0, wait_s: float | None = None
) -> Iterator[Pool]:
    """Workers' processes, and their end. ``wait_s``: how long a cluster may take to find the first one a place."""
    pool: Pool
    close: Callable[[], None] | None = None
    if executor == "inline":
        pool = InlinePool()
    elif executor == "processes":
        from recbatch.engine.processes import ProcessPool

        pool = ProcessPool()
    else:
        from recbatch.engine import ray_local, ray_pool

        if ray_local.connect(workers):
            close = ray_local.disconnect
        try:
            pool = ray_pool.RayPool(workers=workers, gpus_per_worker=gpus_per_worker, wait_s=wait_s)
        except BaseException:
            if close is not None:
                close()
            raise
    try:
        yield pool
    finally:
        pool.close()
        if close is not None:
            close()
