"""Of workers that start together one compiles; no one waits for what was compiled before, nor for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from recbatch.engine import compiling
from recbatch.engine.compiling import one_compiles

WORKER = """
import os, sys, time
from recbatch.engine.compiling import one_compiles
with one_compiles("lossless"):
    os.write(1, b"[")
    time.sleep(0.2)  # long enough for the others to come between, if they could
    os.write(1, b"]")
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it keeps what it has found once
    monkeypatch.setattr(compiling, "PATIENCE_S", 0.3)
    return tmp_path


def test_the_first_one_has_finished_before_another_one_begins(tmp_path: Path) -> None:
    with open(tmp_path / "told", "wb") as told:
        command = [sys.executable, "-c", WORKER]
        workers = [subprocess.Popen(command, stdout=told) for _ in range(3)]
        assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert (tmp_path / "told").read_text().startswith("[]")


def test_after_the_first_time_no_one_waits() -> None:
    with one_compiles("lossless"):
        pass
    with one_compiles("lossless"), one_compiles("lossless"):  # at once
        pass
    (place,) = Path(tempfile.gettempdir()).glob("recbatch-kernels-*")
    assert len(list(place.iterdir())) == 2  # the lock, the mark


def test_one_that_fails_leaves_it_to_the_next_one() -> None:
    with pytest.raises(ZeroDivisionError), one_compiles("lossless"):
        _ = 1 / 0
    (place,) = Path(tempfile.gettempdir()).glob("recbatch-kernels-*")
    assert [file.name for file in place.iterdir()] == ["lock"]


def test_who_hangs_is_not_waited_for_for_ever() -> None:
    done = []
    with one_compiles("lossless"), one_compiles("lossless"):
        done.append(True)
    assert done == [True]


@pytest.mark.parametrize("change", ["sources", "cache"])
def test_what_must_be_compiled_anew_is_waited_for_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    before = compiling._digest("lossless")
    assert compiling._digest("lossless") == before
    assert compiling._digest("lossy") != before
    if change == "cache":
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    else:
        monkeypatch.setattr(compiling, "KERNELS", ("rec",))
    assert compiling._digest("lossless") != before


@pytest.mark.parametrize("trouble", ["a file", "a link", "another user's"])
def test_without_a_place_for_locks_each_compiles_for_itself(
    place: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    folder = place / f"recbatch-kernels-{os.getuid()}"
    if trouble == "a file":
        folder.write_bytes(b"")
    elif trouble == "a link":
        (place / "else").mkdir()
        folder.symlink_to(place / "else")
    else:
        monkeypatch.setattr(os, "getuid", lambda: 1 << 20)
    with one_compiles("lossless"), one_compiles("lossless"):
        pass
    assert not (place / "else").exists() or not list((place / "else").iterdir())
