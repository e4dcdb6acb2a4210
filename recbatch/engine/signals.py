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
def unchanged_sigterm() -> Iterator[None]:
    """Around what installs a handler of its own for SIGTERM, as the start of Ray does: one from before comes back.

    Ray's own leaves by SystemExit; here that is an interruption as any other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as leave:
        if leave.code == signal.SIGTERM:
            raise KeyboardInterrupt from leave
        raise
    finally:
        if callable(before):
            signal.signal(signal.SIGTERM, before)
