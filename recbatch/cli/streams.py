"""Files that may be standard streams: ``-`` reads standard input or writes standard output."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from recbatch.errors import StoreError, UsageError


class TerminalOutput(UsageError):
    """Binary data was about to be printed to a terminal."""

    code = "terminal-output"

    def __str__(self) -> str:
        return "Standard output is a terminal, and the result is binary. Redirect it, or name a file."


class FileExists(UsageError):
    """A file would be replaced."""

    code = "file-exists"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} exists. Name another file, or use --overwrite."


class NoSuchFile(StoreError):
    """An input file is not there, or can't be read."""

    code = "no-such-file"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path} can't be read: {self.problem}. Check the path and its permissions."


def read_bytes(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise NoSuchFile(path, error.strerror or str(error)) from error


def check_free(path: str, *, overwrite: bool) -> None:
    """Refuse a file that is there, before the work for it begins. Raises FileExists, TerminalOutput."""
    if path == "-" and sys.stdout.isatty():
        raise TerminalOutput
    if path != "-" and not overwrite and Path(path).exists():
        raise FileExists(path)


def write_bytes(path: str, data: bytes, *, overwrite: bool) -> None:
    """Write whole or not at all: a reader never sees half a file, a full disk leaves the old one."""
    check_free(path, overwrite=overwrite)
    if path == "-":
        sys.stdout.buffer.write(data)
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # /dev/stdout, a pipe
        target.write_bytes(data)
        return
    handle, part = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(part, 0o666 & ~umask())
        os.replace(part, target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def umask() -> int:
    """The process's mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
