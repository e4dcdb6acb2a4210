"""Ctrl-C and SIGTERM as a flag. The first asks to stop, the second is obeyed at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_flags: list[StopFlag] = []  # of this process; the last one counts


class StopFlag:
    def __init__(self) -> None:
        self.signal = ""

    def set(self, name: str) -> None:
        self.signal = name

    def is_set(self) -> bool:
        return bool(self.signal)


def stop_asked() -> bool:
    """Whether a signal asked what runs in this process now to stop."""
    return bool(_flags) and _flags[-1].is_set()


@contextmanager
def stop_on_signals(notify: Callable[[str], None]) -> Iterator[StopFlag]:
    """A flag that SIGINT and SIGTERM set. Outside the main thread, where Python allows no handlers, none does.

    To be entered after Ray has started, which installs handlers of its own.
    """
    flag = StopFlag()

    def handle(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set(name)
        notify(name)

    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    _flags.append(flag)
    try:
        yield flag
    finally:
        _flags.remove(flag)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def deferred_sigterm() -> Iterator[None]:
    """Around what can't be left midway: SIGTERM does what it did before, once that is over; a second one ends it.

    Where nothing was to be made of SIGTERM, all stays as it is.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    if not main or not callable(before):
        yield
        return
    came: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    signal.signal(signal.SIGTERM, keep)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if came:
        signal.raise_signal(signal.SIGTERM)
