"""The driver: hands shards to workers and owns every retry.

A worker may die, hang, raise or refuse. Its shard is tried again; after some attempts it is cut in halves,
down to the one image that does it, which is given up alone. What a finished shard means, the caller knows.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic

from recbatch.engine import events
from recbatch.engine.errors import (
    InternalFailure,
    PoisonImage,
    SourceUnreadable,
    UnreadableFile,
    WorkerSetupFailed,
    WorkersKeepFailing,
)
from recbatch.engine.plan import Shard, T
from recbatch.engine.pools import Handle, Hello, Job, Pool, Ticket, WorkerDied, WorkerRaised
from recbatch.engine.signals import StopFlag
from recbatch.errors import ImageError, RecbatchError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Numbers that users need not know; tests make them small."""

    attempts: int = 2  # of a shard before it is cut in halves, and of an image before it is given up
    in_flight: int = 2  # calls per worker: one runs, one waits
    poll_s: float = 0.25  # also the longest wait of a signal
    setup_s: float = 300.0  # a cold start may load a model from afar
    deadline_s: float = 600.0  # of a shard, and beside it:
    deadline_image_s: float = 5.0
    deadline_bytes_s: float = 10_000.0  # bytes a second that the slowest worker must manage
    backoff_s: float = 0.5  # doubled with every failure in a row, up to 30 s
    failures: int = (
        10  # in a row, with nothing done between, for each worker and once more, before the job ends
    )
    commit_shards: int = 32
    commit_s: float = 30.0
    commit_rest: float = 9.0  # times a commit's seconds, until the next: a tenth of the time at most

    def deadline(self, shard: Shard[Any]) -> float:
        return (
            self.deadline_s + len(shard.items) * self.deadline_image_s + shard.bytes / self.deadline_bytes_s
        )


@dataclass(slots=True)
class Task(Generic[T]):
    shard: Shard[T]
    attempt: int = 1
    not_before: float = 0.0


@dataclass(slots=True, eq=False)
class Seat(Generic[T]):
    """A worker and what it has to do, the running task first."""

    handle: Handle
    setup: Ticket | None
    since: float  # when the call that runs now began
    calls: deque[tuple[Ticket, Task[T]]] = field(default_factory=deque)

    def head(self) -> Ticket | None:
        if self.setup is not None:
            return self.setup
        return self.calls[0][0] if self.calls else None


class Driver(Generic[T]):
    """Runs shards to their end, or until ``stop`` is set.

    ``on_result(value, shard)`` gets what a worker returned; ``on_failed(item, error, shard)`` an item that is
    given up; ``on_tick()`` is called between events, several times a second.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        job: Job,
        workers: int,
        tuning: Tuning,
        on_result: Callable[[Any, Shard[T]], None],
        on_failed: Callable[[T, ImageError, str], None],
        on_tick: Callable[[], None],
        progress: events.Progress,
        stop: StopFlag,
    ) -> None:
        self._pool, self._job, self._workers, self._tuning = pool, job, max(1, workers), tuning
        self._on_result, self._on_failed, self._on_tick = on_result, on_failed, on_tick
        self._progress, self._stop = progress, stop
        self._queue: deque[Task[T]] = deque()
        self._coming: Iterator[Shard[T]] = iter(())
        self._seats: list[Seat[T]] = []
        self._failures_in_a_row = 0
        self._next_start = self._next_feed = 0.0
        self._welcomed = False
        self.deaths = 0
        self.retries = 0

    def add(self, shard: Shard[T]) -> None:
        """One more shard; also while the driver runs."""
        self._queue.append(Task(shard))

    @property
    def pending(self) -> bool:
        return bool(self._queue)

    def run(self, shards: Iterable[Shard[T]] = ()) -> None:
        """Do these shards and the added ones; a shard is taken from the iterable when its turn is near.

        Raises the RecbatchError that ends the job, where one does.
        """
        self._began = time.monotonic()
        self._coming = iter(shards)
        try:
            while not self._stop.is_set():
                self._look_ahead()
                self._start_workers()
                self._feed()
                if not self._queue and not any(seat.calls for seat in self._seats):
                    return
                self._collect()
                self._check_deadlines()
                self._on_tick()
        finally:
            for seat in list(self._seats):
                self._dismiss(seat)

    # --- giving out

    def _look_ahead(self) -> None:
        """Enough in the queue to tell plenty from the last few; a plan of millions never stands in it."""
        missing = self._workers * (self._tuning.in_flight + 1) - len(self._queue)
        if missing > 0:
            self._queue.extend(Task(shard) for shard in itertools.islice(self._coming, missing))

    def _start_workers(self) -> None:
        if time.monotonic() < self._next_start:
            return
        busy = sum(1 for seat in self._seats if seat.calls)
        wanted = min(self._workers, busy + len(self._queue))
        while len(self._seats) < wanted:
            handle, ticket = self._pool.start(self._job)
            self._seats.append(Seat(handle, ticket, time.monotonic()))

    def _feed(self) -> None:
        """First one call for every worker, then a second one, while there is plenty."""
        for depth in range(1, self._tuning.in_flight + 1):
            for seat in self._seats:
                if depth > 1 and len(self._queue) <= len(self._seats):
                    return  # the last shards go to whoever is free first
                if seat.setup is None and len(seat.calls) < depth and (task := self._take()) is not None:
                    if not seat.calls:
                        seat.since = time.monotonic()
                    seat.calls.append((self._pool.submit(seat.handle, task.shard), task))

    def _take(self) -> Task[T] | None:
        now = time.monotonic()
        if now < self._next_feed:
            return None
        for number, task in enumerate(self._queue):
            if task.not_before <= now:
                del self._queue[number]
                return task
        return None

    # --- taking in

    def _collect(self) -> None:
        seats = {head: seat for seat in self._seats if (head := seat.head()) is not None}
        if not seats:
            time.sleep(self._tuning.poll_s)  # all wait for their backoff
            return
        for ticket in self._pool.wait(list(seats), self._tuning.poll_s):
            seat = seats[ticket]
            if seat.setup is not None:
                self._welcome(seat)
            else:
                self._finish(seat)

    def _welcome(self, seat: Seat[T]) -> None:
        ticket, seat.setup = seat.setup, None
        assert ticket is not None  # for the type checker: _collect asked
        try:
            answer = self._pool.result(ticket)
        except (WorkerDied, WorkerRaised) as error:
            self._lose_idle(seat, f"it ended while it started: {error}")
            return
        if isinstance(answer, RecbatchError):
            raise answer  # every other worker would say the same
        if not isinstance(answer, Hello):
            raise WorkerSetupFailed(f"it answered {type(answer).__name__}")
        if not self._welcomed:
            self._welcomed = True
            seconds = time.monotonic() - self._began
            self._progress(events.WorkersReady(workers=self._workers, seconds=seconds))

    def _finish(self, seat: Seat[T]) -> None:
        ticket, task = seat.calls[0]
        try:
            value = self._pool.result(ticket)
        except WorkerDied as error:
            self._lose(seat, f"worker died: {error}")
            return
        except WorkerRaised as error:
            seat.calls.popleft()
            seat.since = time.monotonic()
            self._failed(task, str(error), None, died=False)
            return
        seat.calls.popleft()
        seat.since = time.monotonic()
        if isinstance(value, RecbatchError):
            if not value.retryable:
                raise value
            self._failed(task, str(value), value, died=False)
            return
        self._failures_in_a_row = 0
        self._on_result(value, task.shard)

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for seat in list(self._seats):
            if seat.setup is not None and now - seat.since > self._tuning.setup_s:
                self._lose_idle(seat, f"it was not ready after {self._tuning.setup_s:.0f} s")
            elif seat.calls:
                limit = self._tuning.deadline(seat.calls[0][1].shard)
                if now - seat.since > limit:
                    self._lose(seat, f"no answer within {limit:.0f} s")

    # --- losses

    def _lose(self, seat: Seat[T], reason: str) -> None:
        """Only the first call ran: only its shard is under suspicion."""
        _, guilty = seat.calls.popleft()
        self._queue.extendleft(task for _, task in reversed(seat.calls))
        seat.calls.clear()
        self._dismiss(seat)
        self.deaths += 1
        self._failed(guilty, reason, None)

    def _lose_idle(self, seat: Seat[T], reason: str) -> None:
        self._dismiss(seat)
        self.deaths += 1
        self._count_failure(reason, WorkerSetupFailed(reason))
        self._next_start = time.monotonic() + self._backoff()

    def _dismiss(self, seat: Seat[T]) -> None:
        self._seats.remove(seat)
        self._pool.kill(seat.handle)

    def _failed(self, task: Task[T], reason: str, error: RecbatchError | None, *, died: bool = True) -> None:
        shard, attempt = task.shard, task.attempt
        if attempt < self._tuning.attempts:
            action = "retry"
        else:
            action = "split" if len(shard.items) > 1 else "quarantine"
        self._progress(events.ActorDied(shard=shard.name, attempt=attempt, reason=reason, action=action))
        self._count_failure(reason, error)
        if action == "quarantine":
            if error is not None and not isinstance(error, SourceUnreadable):
                raise error  # the archive's store: no image's fault
            item = shard.items[0]
            problem: ImageError
            if error is not None:
                problem = UnreadableFile(item.key, error.problem)
            elif died:
                problem = PoisonImage(item.key, attempt, reason)
            else:
                problem = InternalFailure(item.key, reason)
            self._on_failed(item, problem, shard.name)
            return
        self.retries += 1
        later = time.monotonic() + self._backoff()
        if error is not None:
            self._next_feed = later  # a store that fails: it fails for all
        if action == "retry":
            self._queue.appendleft(Task(shard, attempt + 1, later))
        else:
            # One failure more is enough to cut a half again; one image alone gets all its attempts.
            for half in reversed(shard.split()):
                first = 1 if len(half.items) == 1 else self._tuning.attempts
                self._queue.appendleft(Task(half, first, later))

    def _count_failure(self, reason: str, error: RecbatchError | None) -> None:
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self._tuning.failures * (1 + self._workers):
            raise error or WorkersKeepFailing(self._failures_in_a_row, reason)

    def _backoff(self) -> float:
        """None after a first failure: most deaths are one image's fault, and waiting does not help it."""
        row = self._failures_in_a_row
        return 0.0 if row <= 1 else min(30.0, self._tuning.backoff_s * 2.0 ** min(row - 2, 6))
