"""Of the workers that start on a machine together, one compiles the kernels, and the others load what it kept.

Compiling takes half a minute of a core, once for each installation. Without this every worker of the first job would
do it at the same time, and on a node of many cores they would hold each other up.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import recbatch

PATIENCE_S = 90.0  # then one compiles as well: whoever holds the lock may hang
ASK_EVERY_S = 0.2
KERNELS = ("codec", "images", "models", "rec")  # the packages that have some


def warm_up(codec: Any, settings: Any) -> None:
    """A codec's own warm-up, after that of the first worker that needs the same kernels."""
    kinds = (getattr(settings, name, None) for name in ("mode", "preview", "auto", "coder"))
    with one_compiles(f"{type(codec).__qualname__} {list(kinds)}"):
        codec.warm_up()


@contextlib.contextmanager
def one_compiles(what: str) -> Iterator[None]:
    """Around a warm-up: it waits for the first of its kind on this machine and for this user, and then runs freely.

    Args:
        what: the settings that decide which kernels are needed.
    """
    with contextlib.ExitStack() as stack:
        mark = None
        with contextlib.suppress(
            OSError, ImportError
        ):  # without a place for locks each compiles for itself, as ever
            place = _place()
            mark = place / _digest(what)
            if not mark.exists():
                held = stack.enter_context(_locked(place / "lock"))
                if not held or mark.exists():
                    stack.close()
                    mark = None
            else:
                mark = None
        yield
        if mark is not None:
            with contextlib.suppress(OSError):
                mark.touch()


def _place() -> Path:
    """A folder of this user's, for a lock and for a mark of each kind that was compiled here."""
    place = Path(tempfile.gettempdir()) / f"recbatch-kernels-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    state = place.lstat()
    if state.st_uid != os.getuid() or place.is_symlink():
        raise PermissionError(f"{place} is another user's")
    return place


def _digest(what: str) -> str:
    """Changes with all that numba keeps its files by: the sources, the place of the cache, the versions."""
    root = Path(recbatch.__file__).parent
    parts = [what, str(root), sys.version, metadata.version("numba"), os.environ.get("NUMBA_CACHE_DIR", "")]
    for package in KERNELS:
        for source in sorted((root / package).rglob("*.py")):
            state = source.stat()
            parts.append(f"{source} {state.st_size} {state.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether the lock was got in time. The system lets go of it when its process ends, however that is."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    yield False
                    return
                time.sleep(ASK_EVERY_S)
        yield True
    finally:
        os.close(lock)
