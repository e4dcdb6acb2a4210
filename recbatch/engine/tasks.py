"""The shards that wait for a worker: new ones in order, and before them those that are done again."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic

from recbatch.engine.plan import Shard, T


@dataclass(frozen=True, slots=True)
class Task(Generic[T]):
    shard: Shard[T]
    attempt: int = 1
    avoid: str = ""  # the node where it failed last
    losses: int = 0  # times that its worker's machine went, which says nothing about the shard


class TaskQueue(Generic[T]):
    """What it costs to add or take one does not depend on how many there are."""

    def __init__(self) -> None:
        self._coming: Iterator[Shard[T]] = iter(())
        self._new: deque[Task[T]] = deque()
        self._again: deque[Task[T]] = deque()
        self._later: list[tuple[float, int, Task[T]]] = []  # a heap, by when their turn may come
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._new) + len(self._again) + len(self._later)

    def add(self, shard: Shard[T]) -> None:
        self._new.append(Task(shard))

    def follow(self, shards: Iterable[Shard[T]]) -> None:
        """Shards to come; one is taken from the iterable when its turn is near."""
        self._coming = iter(shards)

    def look_ahead(self, count: int) -> None:
        """Have so many, where there are so many; a plan of millions never stands here."""
        missing = count - len(self)
        if missing > 0:
            self._new.extend(Task(shard) for shard in itertools.islice(self._coming, missing))

    def put_back(self, task: Task[T], *, delay_s: float = 0.0) -> None:
        """It comes before all others, once the delay is over."""
        if delay_s > 0:
            heapq.heappush(self._later, (time.monotonic() + delay_s, next(self._numbers), task))
        else:
            self._again.appendleft(task)

    def take(self, node: str, *, alone: bool) -> Task[T] | None:
        """The next for a worker on this node; ``alone``: there is no worker on another."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._again.append(heapq.heappop(self._later)[2])
        for number, task in enumerate(self._again):
            if alone or task.avoid != node:
                del self._again[number]
                return task
        return self._new.popleft() if self._new else None

    @property
    def ready(self) -> bool:
        """Whether some worker may take one now."""
        return bool(self._new or self._again or (self._later and self._later[0][0] <= time.monotonic()))


def again(task: Task[T], node: str) -> Task[T]:
    return replace(task, attempt=task.attempt + 1, avoid=node)


__all__ = ["Task", "TaskQueue", "again"]
