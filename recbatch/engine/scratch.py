"""Scratch folders that outlive no run for long: what a killed process left behind, the next one of its user sweeps.

Each holds a lock file, locked as long as its process lives: the system lets go of it however that ends. A process
number would not do, as another process may have it by now. The name tells the machine, since other machines may share
the folder for temporary files, and not all of these see each other's locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LOCK = "owner.lock"
UNLOCKED_S = 3600  # a folder without a lock file is being made, unless it is as old as this


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder of one's own below TMPDIR, gone at the end; first, those of dead processes are swept.

    Raises OSError where no folder can be made.
    """
    prefix = f"recbatch-{_machine()}-"
    sweep(Path(tempfile.gettempdir()), prefix)
    folder, lock = _made(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(place: Path, prefix: str) -> None:
    """Remove the folders of this prefix whose owners are dead; what can't be judged or removed stays."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if not entry.name.startswith(prefix):
                continue
            with contextlib.suppress(OSError):
                state = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False) and state.st_uid == os.getuid():
                    _sweep_one(Path(entry.path), age_s=time.time() - state.st_mtime)


def _sweep_one(folder: Path, *, age_s: float) -> None:
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if age_s > UNLOCKED_S:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its owner lives
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _made(prefix: str) -> tuple[Path, int]:
    """A new folder and its lock, held. A sweeper that came between the two may have taken it: then another one."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # a file system without locks: no sweeper gets one either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)


def _machine() -> str:
    """Which machine this is, in a few letters."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        name += Path("/etc/machine-id").read_text()
    return hashlib.sha256(name.encode()).hexdigest()[:8]
