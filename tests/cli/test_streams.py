"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cli.conftest import Run
from recbatch.cli.streams import FileExists, NoSuchFile, read_bytes, write_bytes


def test_a_file_appears_whole_with_ordinary_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        write_bytes(str(tmp_path / "a.rec"), b"abc", overwrite=False)
    finally:
        os.umask(mask)
    assert (tmp_path / "a.rec").read_bytes() == b"abc"
    assert stat.S_IMODE((tmp_path / "a.rec").stat().st_mode) == 0o644
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    target = tmp_path / "a.rec"
    target.write_bytes(b"old")
    with pytest.raises(FileExists, match="--overwrite"):
        write_bytes(str(target), b"new", overwrite=False)
    assert target.read_bytes() == b"old"
    write_bytes(str(target), b"new", overwrite=True)
    assert target.read_bytes() == b"new"


def test_a_failed_write_leaves_the_old_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.rec"
    target.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(str(target), b"new", overwrite=True)
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_pipe_is_written_in_place(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_bytes(str(pipe), b"abc", overwrite=True)
        assert os.read(reader, 10) == b"abc"
    finally:
        os.close(reader)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFile, match=r"gone\.png can't be read"):
        read_bytes(str(tmp_path / "gone.png"))


@pytest.mark.parametrize("command", ["encode", "decode", "report"])
def test_a_file_that_is_there_is_told_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    import recbatch.api

    for work in ("encode_measured", "decode_file", "run_page"):
        monkeypatch.setattr(recbatch.api, work, None, raising=False)  # a call would be a TypeError
    (tmp_path / "in").write_bytes(b"-")
    (tmp_path / "out.png").write_bytes(b"old")
    option = ["-o"] if command == "report" else []
    outcome = run(command, tmp_path / "in", *option, tmp_path / "out.png")
    assert (outcome.status, "exists" in outcome.err) == (2, True)
