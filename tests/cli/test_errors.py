"""Every outcome has its status and its two sentences."""

from __future__ import annotations

import errno
import os

import pytest

from recbatch.cli.errors import describe
from recbatch.errors import CorruptStream, InvalidPosterior, RecbatchError, StoreError


def os_error(number: int, name: str | None = "some/file") -> OSError:
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (InvalidPosterior("NaN"), 2, "NaN"),
        (StoreError("a b"), 3, "a b"),
        (CorruptStream("torn", 7), 4, "byte 7"),
        (RecbatchError("odd"), 1, "odd"),
        (KeyboardInterrupt(), 130, "run the same command again"),
        (os_error(errno.ENOENT), 3, "some/file"),
        (os_error(errno.EACCES), 3, "permissions"),
        (os_error(errno.ENOSPC), 3, "Free some space"),
        (OSError("the wire was cut"), 3, "the wire was cut"),
        (MemoryError(), 3, "--workers"),
        (ZeroDivisionError("division by zero"), 70, "bug"),
        (ValueError(), 70, "ValueError"),
    ],
)
def test_an_error_has_a_status_and_sentences(error: BaseException, status: int, says: str) -> None:
    failure = describe(error)
    assert failure.exit_status == status
    assert says in failure.message
    assert "\n" not in failure.message
