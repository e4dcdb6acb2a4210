"""How a worker's C library holds freed memory.

Networks ask for the same few megabytes again and again. glibc gives such blocks back to the system at once and has to
get them anew, page by page, which costs a worker between a seventh and a quarter of its time in the networks.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # options of mallopt, see malloc.h
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
KEPT_BYTES = 256 << 20  # of free memory at the heap's end that stay with the process
LARGEST_BYTES = (
    32 << 20
)  # of a block from the heap, the most that older releases take; larger ones are mapped


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to a limit; False where nothing was changed.

    Only glibc is asked, and only where the user's environment says nothing of the matter.
    """
    if not sys.platform.startswith("linux") or any(os.environ.get(name) for name in _VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # the first alone would fix the other at its start of 128 KiB
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_BYTES)) and bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES))
