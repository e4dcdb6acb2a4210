"""Calls into native libraries that fail on some of what they are given: what to check before, what to make of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from recbatch.errors import CorruptStream, UsageError
from recbatch.stream import StreamTooLarge

MAX_PIXELS_PER_BYTE = 2**14  # of a stream: what a library allocates is bounded by what it was given


class MissingRecoder(UsageError):
    """A stream needs a package that is not installed here."""

    code = "missing-recoder"

    def __init__(self, package: str, requirement: str) -> None:
        super().__init__(package, requirement)
        self.package, self.requirement = package, requirement  # the requirement: what pip is told

    def __str__(self) -> str:
        return f"The stream needs the package {self.package}. Install it: pip install '{self.requirement}'."


def check_size(width: int, height: int, *, stream_bytes: int, max_pixels: int) -> None:
    """Raises CorruptStream or StreamTooLarge for a size that no library should allocate for."""
    if width * height > MAX_PIXELS_PER_BYTE * stream_bytes:
        raise CorruptStream(f"{stream_bytes} bytes can't hold {width} x {height} pixels")
    if width * height > max_pixels:
        raise StreamTooLarge(width, height, max_pixels)


@cache
def library(name: str) -> Any:
    """A module by name, imported when it is first needed; None where it is missing or can't be loaded here."""
    try:
        return import_module(name)
    except ImportError:
        return None


def attempt(call: Callable[[], bytes]) -> bytes | None:
    """What a call gives; None where it fails in any way but for want of memory or by an interrupt.

    A Rust panic arrives as a class of its own below BaseException that no package exports, so it goes by name.
    """
    try:
        return bytes(call())
    except MemoryError:
        raise  # says something about this machine, nothing about the bytes
    except Exception:
        return None
    except BaseException as e:
        if type(e).__name__ != "PanicException":
            raise
        return None
