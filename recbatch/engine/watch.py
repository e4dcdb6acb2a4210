"""What a worker tells while its task runs, and what it is asked meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

TELL_EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is done of a task that is not."""

    images: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def __bool__(self) -> bool:
        return bool(self.images)


def never() -> bool:
    return False


class Watch:
    """Stands between a worker and its pool.

    Args:
        tell: called with the part that is done, from the worker's thread, at most twice a second.
        asked: whether the task is to end early, beside ``stop``.
    """

    def __init__(
        self, *, tell: Callable[[Part], None] | None = None, asked: Callable[[], bool] = never
    ) -> None:
        self._tell, self._asked = tell, asked
        self._stop = False
        self._told_s = 0.0
        self.part = Part()  # replaced as a whole: another thread may read it at any time

    def begin(self) -> None:
        """A task begins."""
        self.part = Part()
        self._told_s = time.monotonic()

    def add(self, *, images: int, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """So much more of the task is done."""
        old = self.part
        self.part = Part(
            images=old.images + images, bytes_in=old.bytes_in + bytes_in, bytes_out=old.bytes_out + bytes_out
        )
        now_s = time.monotonic()
        if self._tell is not None and now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            self._tell(self.part)

    def stop(self) -> None:
        """Ask for an early end: what is done is to be handed in. It holds for all tasks to come."""
        self._stop = True

    @property
    def stopping(self) -> bool:
        """Whether a worker is to hand in what it has. To be looked at between images or batches."""
        return self._stop or self._asked()
