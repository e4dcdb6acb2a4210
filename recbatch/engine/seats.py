"""The workers of a driver, and what each has to do.

A thousand workers finish many shards a second. So they are kept by what they wait for, and a change costs the same
however many there are.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic

from recbatch.engine.plan import T
from recbatch.engine.pools import Handle, Ticket
from recbatch.engine.tasks import Task


@dataclass(slots=True, eq=False)
class Seat(Generic[T]):
    """A worker and what it has to do, the running task first."""

    handle: Handle
    setup: Ticket | None
    node: str | None = None  # None: it still waits for a place
    due: float = math.inf  # when the call that runs now must have ended
    limit_s: float = 0.0  # the time that it was given
    calls: deque[tuple[Ticket, Task[T]]] = field(default_factory=deque)

    def head(self) -> Ticket | None:
        if self.setup is not None:
            return self.setup
        return self.calls[0][0] if self.calls else None


class Seats(Generic[T]):
    """All workers. Whoever changes one says so here, by these methods only."""

    def __init__(self, in_flight: int) -> None:
        self.heads: dict[Ticket, Seat[T]] = {}  # by the ticket that is to be done next
        self.waiting: dict[Handle, Seat[T]] = {}  # for a place
        self._all: dict[Handle, Seat[T]] = {}
        self._free: list[dict[Seat[T], None]] = [{} for _ in range(in_flight)]  # set up, by their calls
        self._nodes: Counter[str] = Counter()  # placed workers, by node
        self._ready = self._busy = 0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Seat[T]]:
        return iter(list(self._all.values()))

    @property
    def ready(self) -> int:
        """Workers that are set up."""
        return self._ready

    @property
    def placed(self) -> int:
        """Workers that have found their place, set up or not."""
        return len(self._all) - len(self.waiting)

    @property
    def busy(self) -> int:
        """Workers that have calls."""
        return self._busy

    def with_calls(self, count: int) -> list[Seat[T]]:
        """The ready ones that have just so many, which is fewer than they may have."""
        return list(self._free[count])

    def alone(self, node: str) -> bool:
        """Whether no worker has its place on another node."""
        return self._nodes[node] == self.placed

    def add(self, handle: Handle, setup: Ticket) -> None:
        seat: Seat[T] = Seat(handle, setup)
        self._all[handle] = self.waiting[handle] = self.heads[setup] = seat

    def place(self, handle: Handle, node: str) -> Seat[T] | None:
        """It has found its place; None where it is gone by now."""
        seat = self.waiting.pop(handle, None)
        if seat is not None:
            seat.node = node
            self._nodes[node] += 1
        return seat

    def welcome(self, seat: Seat[T]) -> None:
        """It is set up."""
        if seat.setup is not None:
            del self.heads[seat.setup]
            seat.setup = None
        seat.due = math.inf
        self._free[0][seat] = None
        self._ready += 1

    def push(self, seat: Seat[T], ticket: Ticket, task: Task[T]) -> None:
        self._move(seat, len(seat.calls), len(seat.calls) + 1)
        seat.calls.append((ticket, task))
        if len(seat.calls) == 1:
            self.heads[ticket] = seat

    def pop(self, seat: Seat[T]) -> Task[T]:
        """The first call has ended."""
        self._move(seat, len(seat.calls), len(seat.calls) - 1)
        ticket, task = seat.calls.popleft()
        del self.heads[ticket]
        if seat.calls:
            self.heads[seat.calls[0][0]] = seat
        return task

    def remove(self, seat: Seat[T]) -> None:
        del self._all[seat.handle]
        seat.due = math.inf  # whoever still holds it has nothing to wait for
        self.waiting.pop(seat.handle, None)
        if (head := seat.head()) is not None:
            self.heads.pop(head, None)
        if seat.node is not None:
            self._nodes[seat.node] -= 1
        if seat.setup is None:
            self._ready -= 1
            self._move(seat, len(seat.calls), -1)

    def _move(self, seat: Seat[T], before: int, after: int) -> None:
        if 0 <= before < len(self._free):
            self._free[before].pop(seat, None)
        if 0 <= after < len(self._free):
            self._free[after][seat] = None
        self._busy += (after > 0) - (before > 0)
