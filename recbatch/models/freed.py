"""Memory that the C library holds after large temporaries were freed, handed back to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def return_freed_memory() -> None:
    """Give back what this process has freed, in the middle of the heap too; does nothing where that can't be asked.

    It costs some milliseconds and the pages have to be got anew, so it is for what follows a large picture's networks.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    """glibc's ``malloc_trim``, None under another system or C library."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
