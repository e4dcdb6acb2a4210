"""Scratch folders: gone at the end, and of killed processes as soon as another one comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recbatch.engine import scratch as scratches
from recbatch.engine.scratch import LOCK, UNLOCKED_S, scratch

OWNER = """
import sys
from recbatch.engine.scratch import scratch
with scratch() as folder:
    (folder / "rows").write_bytes(b"x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it keeps what it has found once
    return tmp_path


@pytest.fixture
def owner() -> Iterator[Callable[[], tuple[subprocess.Popen[str], Path]]]:
    """Starts processes that each hold a folder."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_folder_of_a_killed_process_is_swept_and_that_of_a_living_one_stays(owner) -> None:
    killed, left = owner()
    _, held = owner()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert (left / "rows").exists()
    with scratch() as mine:
        assert not left.exists()
        assert (held / "rows").exists()
        with scratch():
            assert mine.exists()  # of this very process
    assert not mine.exists()
    assert held.exists()


def test_folders_of_other_machines_and_of_others_hands_stay(place: Path, monkeypatch) -> None:
    monkeypatch.setattr(scratches, "_machine", lambda: "another")
    folder, lock = scratches._made("recbatch-another-")
    os.close(lock)  # as if its process had died
    strange = place / "recbatch-notes"
    strange.mkdir()
    monkeypatch.undo()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with scratch():
        pass
    assert folder.exists()
    assert strange.exists()
    monkeypatch.setattr(os, "getuid", lambda: 1 << 20)
    scratches.sweep(place, "recbatch-another-")
    assert folder.exists()  # another user's
    monkeypatch.undo()
    scratches.sweep(place, "recbatch-another-")
    assert not folder.exists()


def test_a_link_is_not_followed(place: Path) -> None:
    (place / "photos").mkdir()
    (place / "photos" / LOCK).write_bytes(b"")
    (place / "recbatch-x-link").symlink_to(place / "photos")
    scratches.sweep(place, "recbatch-x-")
    assert (place / "photos" / LOCK).exists()


def test_a_folder_that_is_just_being_made_stays_and_an_old_one_without_a_lock_goes(place: Path) -> None:
    folder = place / "recbatch-x-1"
    folder.mkdir()
    scratches.sweep(place, "recbatch-x-")
    assert folder.exists()
    then = folder.stat().st_mtime - 2 * UNLOCKED_S
    os.utime(folder, (then, then))
    scratches.sweep(place, "recbatch-x-")
    assert not folder.exists()


@pytest.mark.parametrize("moment", ["before the lock", "after it"])
def test_a_maker_whose_folder_was_swept_midway_makes_another(monkeypatch, moment: str) -> None:
    opened, taken = os.open, []

    def late(path, flags, mode=0o777):
        if flags & os.O_CREAT and not taken:
            taken.append(Path(path).parent)
            if moment == "before the lock":
                Path(path).parent.rmdir()
                return opened(path, flags, mode)
            lock = opened(path, flags, mode)
            Path(path).unlink()
            Path(path).parent.rmdir()
            return lock
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", late)
    with scratch() as folder:
        assert folder.exists()
        assert folder not in taken
