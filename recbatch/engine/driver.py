"""The driver: hands shards to workers and owns every retry.

A worker may die, hang, raise or refuse. Its shard is tried again; after some attempts it is cut in halves,
down to the one image that does it, which is given up alone. What a finished shard means, the caller knows.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic

from recbatch.engine import events
from recbatch.engine.blame import Blame
from recbatch.engine.errors import (
    InternalFailure,
    PoisonImage,
    SourceUnreadable,
    UnreadableFile,
    WorkerSetupFailed,
    WorkersKeepFailing,
)
from recbatch.engine.plan import Shard, T
from recbatch.engine.pools import Handle, Hello, Job, Pool, WorkerDied, WorkerRaised
from recbatch.engine.seats import Seat, Seats
from recbatch.engine.signals import StopFlag
from recbatch.engine.tasks import Task, TaskQueue, again
from recbatch.engine.watch import Part
from recbatch.errors import ImageError, RecbatchError

TELL_EVERY_S = 15.0  # of a wait
WORKING_EVERY_S = 1.0  # between two events of what is done of unfinished shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Numbers that users need not know; tests make them small."""

    attempts: int = 2  # of a shard before it is cut in halves, and of an image before it is given up
    in_flight: int = 2  # calls per worker: one runs, one waits
    poll_s: float = 0.25  # also the longest wait of a signal
    setup_s: float = 300.0  # a cold start may load a model from afar
    losses: int = 3  # of a shard's machine that count for nothing: an image may be what brings them down
    places_s: float = 5.0  # between two looks at how many workers a cluster holds now
    deadline_s: float = 600.0  # of a shard, and beside it:
    deadline_image_s: float = 5.0
    deadline_bytes_s: float = 10_000.0  # bytes a second that the slowest worker must manage
    stop_s: float = 40.0  # for workers to hand in what they have, when a signal came
    backoff_s: float = 0.5  # doubled with every failure in a row, up to 30 s
    failures: int = (
        10  # in a row, with nothing done between, for each worker and once more, before the job ends
    )
    refusals: int = 3  # in a row, of workers that could not reach a store while they started
    commit_shards: int = 32
    commit_s: float = 30.0
    commit_rest: float = 9.0  # times a commit's seconds, until the next: a tenth of the time at most

    def deadline(self, shard: Shard[Any]) -> float:
        return (
            self.deadline_s + len(shard.items) * self.deadline_image_s + shard.bytes / self.deadline_bytes_s
        )


class Driver(Generic[T]):
    """Runs shards to their end, or until ``stop`` is set.

    ``workers``: how many there are to be; None: as many as find a place, which on a cluster may change.
    ``on_result(value, shard)`` gets what a worker returned; ``on_failed(item, error, shard)`` an item that is
    given up; ``on_tick()`` is called between events, several times a second.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        job: Job,
        workers: int | None,
        tuning: Tuning,
        on_result: Callable[[Any, Shard[T]], None],
        on_failed: Callable[[T, ImageError, str], None],
        on_tick: Callable[[], None],
        progress: events.Progress,
        stop: StopFlag,
    ) -> None:
        self._pool, self._job, self._tuning = pool, job, tuning
        self._follows, self._workers = workers is None, max(1, workers or 1)
        self._on_result, self._on_failed, self._on_tick = on_result, on_failed, on_tick
        self._progress, self._stop = progress, stop
        self._tasks: TaskQueue[T] = TaskQueue()
        self._seats: Seats[T] = Seats(tuning.in_flight)
        self._blame = Blame()
        self._left: set[str] = set()  # nodes that had their chances
        self._gone: set[str] = set()  # nodes that went by themselves
        self._failures_in_a_row = 0
        self._next_start = self._next_feed = self._next_check = self._next_places = 0.0
        self._parts: dict[Handle, Part] = {}  # what is done of the shard that a worker is at
        self._next_working = 0.0
        self._welcomed = False
        self._refusals = 0
        self.deaths = 0
        self.retries = 0
        self.most_workers = 0

    def add(self, shard: Shard[T]) -> None:
        """One more shard; also while the driver runs."""
        self._tasks.add(shard)

    @property
    def pending(self) -> bool:
        return bool(self._tasks)

    def run(self, shards: Iterable[Shard[T]] = ()) -> None:
        """Do these shards and the added ones; a shard is taken from the iterable when its turn is near.

        Raises the RecbatchError that ends the job, where one does.
        """
        self._began = self._without_since = self._told_of_wait = time.monotonic()
        self._tasks.follow(shards)
        self._pool.listen(self._heed)
        try:
            while not self._stop.is_set():
                self._tasks.look_ahead(self._workers * (self._tuning.in_flight + 1))
                self._start_workers()
                self._feed()
                if not self._tasks and not self._seats.busy:
                    return
                self._collect()
                self._check()
                self._on_tick()
            self._wind_down()
        finally:
            for seat in self._seats:
                self._dismiss(seat)

    def _wind_down(self) -> None:
        """A signal came: workers hand in what they have, for a while. What they don't is done by the next run."""
        until = time.monotonic() + self._tuning.stop_s
        for seat in self._seats:
            if seat.setup is not None or not seat.calls:
                self._dismiss(seat)
            else:
                self._pool.stop(seat.handle)
        while self._seats.busy and (left_s := until - time.monotonic()) > 0:
            heads = self._seats.heads
            for ticket in self._pool.wait(list(heads), min(left_s, self._tuning.poll_s)):
                seat = heads[ticket]
                task = self._seats.pop(seat)
                value: Any = None
                with contextlib.suppress(WorkerDied, WorkerRaised):
                    value = self._pool.result(ticket)
                if value is not None and not isinstance(value, RecbatchError):
                    self._hand_on(seat, value, task)
                if value is None or not seat.calls:
                    self._dismiss(seat)
            self._on_tick()

    # --- giving out

    def _start_workers(self) -> None:
        now = time.monotonic()
        if now < self._next_start:
            return
        if self._follows and now >= self._next_places:
            self._workers = self._pool.places
            self._next_places = now + self._tuning.places_s
        wanted = min(self._workers, self._seats.busy + len(self._tasks))
        if len(self._seats) < wanted:
            while len(self._seats) < wanted:
                self._seats.add(*self._pool.start(self._job))
            self._arrive()
        while len(self._seats) > wanted and self._seats.waiting:  # a cluster must not grow for these
            self._dismiss(next(reversed(self._seats.waiting.values())))

    def _feed(self) -> None:
        """First one call for every worker, then a second one, while there is plenty."""
        if time.monotonic() < self._next_feed:
            return
        for depth in range(self._tuning.in_flight):
            for seat in self._seats.with_calls(depth) if self._may_give(depth) else ():
                if not self._may_give(depth):
                    return
                node = seat.node or ""
                task = self._tasks.take(node, alone=self._seats.alone(node))
                if task is not None:
                    self._seats.push(seat, self._pool.submit(seat.handle, task.shard), task)
                    if not depth:
                        self._next_call(seat)

    def _may_give(self, depth: int) -> bool:
        """The last shards go to whoever is free first."""
        return self._tasks.ready and (not depth or len(self._tasks) > self._seats.placed)

    # --- taking in

    def _collect(self) -> None:
        heads = self._seats.heads
        if not heads:
            time.sleep(self._tuning.poll_s)  # all wait for their backoff
            return
        for ticket in self._pool.wait(list(heads), self._tuning.poll_s):
            seat = heads.get(ticket)
            if seat is None:  # it went with its node a moment ago
                continue
            if seat.setup is not None:
                self._welcome(seat)
            else:
                self._finish(seat)

    def _arrive(self) -> None:
        """The time for a setup begins when a worker has found its place."""
        for handle, node in self._pool.arrived():
            seat = self._seats.place(handle, node)
            if seat is None:
                continue
            if node in self._left:  # its pool could not help it
                self._dismiss(seat)
                self._next_start = time.monotonic() + self._tuning.places_s
            elif seat.setup is not None:
                seat.limit_s = self._tuning.setup_s
                seat.due = time.monotonic() + seat.limit_s

    def _welcome(self, seat: Seat[T]) -> None:
        if seat.node is None:
            self._arrive()
        assert seat.setup is not None  # for the type checker: _collect asked
        try:
            answer = self._pool.result(seat.setup)
        except (WorkerDied, WorkerRaised) as error:
            with_node = isinstance(error, WorkerDied) and error.with_node
            self._lose_idle(seat, f"it ended while it started: {error}", with_node=with_node)
            return
        if isinstance(answer, WorkerSetupFailed) and seat.node and not self._seats.alone(seat.node):
            self._leave(seat.node, str(answer))
            return
        if isinstance(answer, RecbatchError):
            self._refusals += 1
            if not answer.retryable or self._refusals > self._tuning.refusals:
                raise answer  # every other worker would say the same
            self._lose_idle(seat, str(answer))
            return
        if not isinstance(answer, Hello):
            raise WorkerSetupFailed(f"it answered {type(answer).__name__}")
        self._refusals = 0
        self._seats.welcome(seat)
        self.most_workers = max(self.most_workers, self._seats.ready)
        if not self._welcomed:
            self._welcomed = True
            seconds = time.monotonic() - self._began
            self._progress(events.WorkersReady(workers=self._workers, seconds=seconds))

    def _finish(self, seat: Seat[T]) -> None:
        ticket, task = seat.calls[0]
        try:
            value = self._pool.result(ticket)
        except WorkerDied as error:
            self._lose(seat, f"worker died: {error}", with_node=error.with_node)
            return
        except WorkerRaised as error:
            self._seats.pop(seat)
            self._next_call(seat)
            self._failed(task, str(error), None, died=False)
            return
        self._seats.pop(seat)
        self._next_call(seat)
        if isinstance(value, RecbatchError):
            if not value.retryable:
                raise value
            self._failed(task, str(value), value, died=False)
            return
        self._failures_in_a_row = 0
        self._blame.done(seat.node or "")
        self._hand_on(seat, value, task)

    def _hand_on(self, seat: Seat[T], value: Any, task: Task[T]) -> None:
        if self._parts.pop(seat.handle, None):
            self._tell_working()  # before it counts as done
        self._on_result(value, task.shard)

    def _next_call(self, seat: Seat[T]) -> None:
        """The first of its calls begins now."""
        seat.due = math.inf
        if seat.calls:
            seat.limit_s = self._tuning.deadline(seat.calls[0][1].shard)
            seat.due = time.monotonic() + seat.limit_s

    def _heed(self, handle: Handle, part: Part) -> None:
        """News of an unfinished shard, from within a call of the pool."""
        if not part and handle not in self._parts:
            return
        self._parts[handle] = part
        if (now := time.monotonic()) >= self._next_working:
            self._next_working = now + WORKING_EVERY_S
            self._tell_working()

    def _tell_working(self) -> None:
        parts = self._parts.values()
        self._progress(
            events.Working(
                images=sum(part.images for part in parts),
                bytes_in=sum(part.bytes_in for part in parts),
                bytes_out=sum(part.bytes_out for part in parts),
            )
        )

    def _check(self) -> None:
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + self._tuning.poll_s
        if self._seats.waiting:
            self._arrive()
        for seat in self._seats:
            if now > seat.due and seat.setup is not None:
                self._lose_idle(seat, f"it was not ready after {seat.limit_s:.0f} s")
            elif now > seat.due:
                self._lose(seat, f"no answer within {seat.limit_s:.0f} s")
        if self._seats.placed or not self._seats.waiting:
            self._without_since = self._told_of_wait = now
        else:
            self._wait_for_places(now)

    def _wait_for_places(self, now: float) -> None:
        """All nodes are full, or gone, or have not come yet."""
        waited_s = now - self._without_since
        if waited_s > self._pool.patience_s:
            raise self._pool.shortage(self._workers)
        if now - self._told_of_wait > TELL_EVERY_S:
            self._told_of_wait = now
            self._progress(
                events.WaitingForWorkers(
                    wanted=len(self._seats), seconds=waited_s, patience_s=self._pool.patience_s
                )
            )

    # --- losses

    def _lose(self, seat: Seat[T], reason: str, *, with_node: bool = False) -> None:
        """Only the first call ran: only its shard is under suspicion, and not where its machine went."""
        node = seat.node or ""
        guilty = self._seats.pop(seat)
        self._put_back(seat)
        self._dismiss(seat)
        self.deaths += 1
        if with_node and guilty.losses < self._tuning.losses:
            self._tell(guilty, reason, "retry")
            self.retries += 1
            self._tasks.put_back(replace(guilty, losses=guilty.losses + 1))
            if node not in self._gone:  # one failure, however many workers it had
                self._gone.add(node)
                self._count_failure(reason, None)
            return
        self._failed(guilty, reason, None, node=node)
        if self._blame.died(node, guilty.shard.name) and not self._seats.alone(node):
            self._leave(node, f"workers keep dying there, the last one so: {reason}")

    def _lose_idle(self, seat: Seat[T], reason: str, *, with_node: bool = False) -> None:
        node = seat.node or ""
        self._dismiss(seat)
        self.deaths += 1
        if not (with_node and node and node in self._gone):
            self._count_failure(reason, WorkerSetupFailed(reason))
        if with_node:
            self._gone.add(node)
        self._next_start = time.monotonic() + max(self._backoff(), self._tuning.backoff_s * with_node)

    def _leave(self, node: str, reason: str) -> None:
        """Its workers go, and none comes back; what they had to do, others do."""
        self._left.add(node)
        self._pool.leave(node)
        self._progress(events.NodeLeft(node=node, reason=reason))
        for seat in self._seats:
            if seat.node == node:
                self._put_back(seat)
                self._dismiss(seat)

    def _put_back(self, seat: Seat[T]) -> None:
        for _, task in reversed(seat.calls):
            self._tasks.put_back(task)

    def _dismiss(self, seat: Seat[T]) -> None:
        self._seats.remove(seat)
        self._parts.pop(seat.handle, None)
        self._pool.kill(seat.handle)

    def _tell(self, task: Task[T], reason: str, action: str) -> None:
        self._progress(
            events.ActorDied(shard=task.shard.name, attempt=task.attempt, reason=reason, action=action)
        )

    def _failed(
        self, task: Task[T], reason: str, error: RecbatchError | None, *, died: bool = True, node: str = ""
    ) -> None:
        shard, attempt = task.shard, task.attempt
        if attempt < self._tuning.attempts:
            action = "retry"
        else:
            action = "split" if len(shard.items) > 1 else "quarantine"
        self._tell(task, reason, action)
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
        delay_s = self._backoff()
        if error is not None:
            self._next_feed = time.monotonic() + delay_s  # a store that fails: it fails for all
        if action == "retry":
            self._tasks.put_back(again(task, node), delay_s=delay_s)
        else:
            # One failure more is enough to cut a half again; one image alone gets all its attempts.
            for half in reversed(shard.split()):
                first = 1 if len(half.items) == 1 else self._tuning.attempts
                self._tasks.put_back(Task(half, first, node), delay_s=delay_s)

    def _count_failure(self, reason: str, error: RecbatchError | None) -> None:
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self._tuning.failures * (1 + self._workers):
            raise error or WorkersKeepFailing(self._failures_in_a_row, reason)

    def _backoff(self) -> float:
        """None after a first failure: most deaths are one image's fault, and waiting does not help it."""
        row = self._failures_in_a_row
        return 0.0 if row <= 1 else min(30.0, self._tuning.backoff_s * 2.0 ** min(row - 2, 6))
