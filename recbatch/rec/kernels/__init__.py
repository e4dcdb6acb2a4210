"""Compiled inner loops, a folder each: ``reference.py`` says what is right, ``cpu.py`` is fast.

``jit`` is numba's compiler with this package's settings: cached on disk, the interpreter lock released so that blocks
run on threads, and no fast maths, since a reordered sum could give the same image another index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Compile on first call; the type checker still sees the plain function."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
