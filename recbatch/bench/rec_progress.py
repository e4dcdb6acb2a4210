"""What a long run says while it works: what is under way, for how long it has run, about how long it will."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

Say = Callable[[str], None]
LINE_EVERY_S = 30.0  # inside a part


class Progress:
    """Counts parts of several kinds; a kind takes as long as its parts took so far."""

    def __init__(self, say: Say | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say or (lambda _: None), clock
        self._start = clock()
        self._left: Counter[Hashable] = Counter()
        self._spent: dict[Hashable, list[float]] = {}
        self._done = 0

    def expect(self, kind: Hashable, parts: int = 1) -> None:
        """So many parts of a kind are to come."""
        self._left[kind] += parts

    @contextmanager
    def part(self, kind: Hashable, label: str) -> Iterator[Callable[[int, int], None]]:
        """Announce a part, hand out what reports its steps (done, of), and take its time."""
        begin = last = self._clock()
        number, total = self._done + 1, self._done + self._left.total()
        self._say(f"{number}/{total} {label}; {self._times()}")

        def step(done: int, of: int) -> None:
            nonlocal last
            if done < of and self._clock() - last >= LINE_EVERY_S:
                last = self._clock()
                self._say(f"{number}/{total} {label}: {done} of {of}; {self._times()}")

        yield step
        self._done += 1
        self._left[kind] -= 1
        self._spent.setdefault(kind, []).append(self._clock() - begin)

    def _times(self) -> str:
        so_far = f"{duration(self._clock() - self._start)} so far"
        to_come = [kind for kind, parts in self._left.items() if parts]
        if not all(kind in self._spent for kind in to_come):
            return so_far
        left = sum(self._left[kind] * sum(self._spent[kind]) / len(self._spent[kind]) for kind in to_come)
        return f"{so_far}, about {duration(left)} left"


def duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 07 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
