"""``recbatch schedule`` as users call it, and the processes behind it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest
from schedule_fakes import make_schedule

from recbatch.cli import main
from recbatch.engine.schedule.book import Book
from recbatch.engine.schedule.errors import RunNotStarted
from recbatch.engine.schedule.job import CommandJob
from recbatch.engine.schedule.spec import Schedule

PHOTOGRAPH = Path(__file__).parents[2] / "docs" / "demo" / "photographs" / "rocket.jpg"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a source in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "rocket.jpg").write_bytes(PHOTOGRAPH.read_bytes())
    return tmp_path


def make_due(archive: str, name: str = "nightly") -> Schedule:
    """Let a schedule have been there for two days."""
    book = Book.open(archive)
    kept = book.schedule(name)
    book.remove(name)
    older = make_schedule(
        name,
        cron=kept.cron,
        command=kept.command,
        archive=kept.archive,
        created=datetime.now(UTC) - timedelta(days=2),
    )
    book.add(older)
    return older


ADD = ["schedule", "add", "nightly", "--cron", "0 3 * * *"]
COMMAND = ["compress", "photos", "photos.rba", "--original", "--executor", "inline"]


def test_a_nightly_archive_from_its_adding_to_its_record(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ADD, "--", *COMMAND]) == 0
    assert "first run is due" in capsys.readouterr().out
    make_due("photos.rba")
    os.chdir("/")  # as cron would
    archive = str(photos / "photos.rba")
    assert main(["schedule", "due", archive, "nightly"]) == 0
    assert "is due, 1 earlier tick missed" in capsys.readouterr().out
    assert main(["schedule", "run", archive, "--json"]) == 0
    shown = capsys.readouterr()
    tick = json.loads(shown.out)
    assert (tick["event"], tick["state"], tick["exit_status"], tick["report"]["images"]) == (
        "tick",
        "done",
        0,
        1,
    )
    assert "nightly/" in shown.err
    assert main(["schedule", "run", archive]) == 0
    assert "nothing is due" in capsys.readouterr().err
    assert main(["schedule", "show", archive, "nightly"]) == 0
    assert "done" in capsys.readouterr().out
    assert main(["ls", archive]) == 0
    assert "rocket.jpg" in capsys.readouterr().out


def test_list_render_and_remove(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ADD, "--timezone", "Europe/Berlin", "--missed", "skip", "--", *COMMAND]) == 0
    capsys.readouterr()
    assert main(["schedule", "ls", "photos.rba", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["schedule"]["command"][-3:] == ["--", str(photos / "photos"), str(photos / "photos.rba")]
    assert (found["schedule"]["missed"], found["due"], found["last"]) == ("skip", None, None)
    assert main(["schedule", "ls", "photos.rba"]) == 0
    assert "Europe/Berlin" in capsys.readouterr().out
    assert main(["schedule", "render", "photos.rba", "nightly", "--as", "systemd"]) == 0
    assert "OnCalendar=*-*-* 03:00:00 Europe/Berlin" in capsys.readouterr().out
    assert main(["schedule", "rm", "photos.rba", "nightly"]) == 0
    assert main(["schedule", "ls", "photos.rba", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([*ADD, "--", "compress", "photos", "photos.rba", "--quality", "101"], "usage"),
        ([*ADD, "--", "compress", "photos", "photos.rba", "--original", "--lossless"], "modes-conflict"),
        ([*ADD, "--", "schedule", "ls", "photos.rba"], "usage"),
        ([*ADD, "--", "vacuum", "photos.rba"], "usage"),
        ([*ADD, "--", *COMMAND, "--timezone", "UTC"], "usage"),
        ([*ADD[:4], "0 25 * * *", "--", *COMMAND], "bad-schedule"),
        ([*ADD, "--timezone", "Mars/Olympus", "--", *COMMAND], "bad-schedule"),
        (["schedule", "add", "Nightly!", *ADD[3:], "--", *COMMAND], "bad-schedule"),
        ([*ADD], "usage"),
    ],
)
def test_what_can_not_run_is_refused_before_an_archive_is_made(
    photos: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str
) -> None:
    at = words.index("--") if "--" in words else len(words)
    assert main([*words[:at], "--json", *words[at:]]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == code
    assert not (photos / "photos.rba").exists()


def test_a_schedule_that_is_there_or_is_not_is_said(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ADD, "--", *COMMAND]) == 0
    assert main([*ADD, "--", *COMMAND]) == 2
    assert main(["schedule", "show", "photos.rba", "weekly"]) == 2
    assert main(["schedule", "run", "photos.rba", "../nightly"]) == 2
    assert main(["schedule", "ls", "nowhere.rba"]) == 3
    assert "has a schedule nightly already" in capsys.readouterr().err


def test_a_traceback_can_be_asked_for_before_the_command(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--debug", "schedule", "ls"], ["schedule", "--debug", "ls"]):
        assert main([*words, "nowhere.rba"]) == 3
        assert "Traceback" in capsys.readouterr().err


# --- processes


def daemon_words(archive: Path) -> list[str]:
    return ["schedule", "run", str(archive), "--daemon"]


def wait_for(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sigterm_ends_a_daemon_that_waits(tmp_path: Path) -> None:
    archive = tmp_path / "photos.rba"
    Book.open_or_create(str(archive)).add(make_schedule(created=datetime.now(UTC), archive=str(archive)))
    process = subprocess.Popen(
        [sys.executable, "-m", "recbatch", *daemon_words(archive)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert "watching the schedules" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "SIGTERM" in rest
        assert "stopped" in rest
    finally:
        process.kill()
        process.wait()


def handles_sigterm(process: psutil.Process) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_job_is_asked_to_stop_by_sigterm_and_one_that_does_not_is_killed(tmp_path: Path) -> None:
    archive = tmp_path / "photos.rba"
    Book.open_or_create(str(archive))
    # a command that runs until it is told to stop
    willing, stubborn = (CommandJob(daemon_words(archive), run_id="x", stop_s=s) for s in (120, 0.2))
    children = [psutil.Process(job._process.pid) for job in (willing, stubborn)]
    try:
        for child in children:
            wait_for(partial(handles_sigterm, child))
        children[1].suspend()
        for job in (willing, stubborn):
            job.stop()
        assert willing.wait().exit_status in (
            0,
            130,
        )  # it waited for its next tick, or was still on its way there
        assert stubborn.wait().exit_status == 137
    finally:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def test_a_job_that_is_stopped_before_it_listens_was_interrupted(tmp_path: Path) -> None:
    job = CommandJob(daemon_words(tmp_path), run_id="x")
    job.stop()
    assert job.wait().exit_status == 130


def test_a_program_or_a_package_that_is_gone_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "python"  # without its packages
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for program in (bare, tmp_path / "gone"):
        monkeypatch.setattr(sys, "executable", str(program))
        with pytest.raises(RunNotStarted, match=r"It stays due"):
            CommandJob(["ls", str(tmp_path)], run_id="x").wait()


def test_a_job_starts_though_its_runners_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    outcome = CommandJob(["verify", "--level", "structure", "--", str(tmp_path)], run_id="x").wait()
    assert outcome.exit_status == 3
    assert "There is no archive at" in outcome.report["message"]


RUNNER = """
import sys
from recbatch.engine.schedule.job import CommandJob
job = CommandJob(sys.argv[1:], run_id="x")
print(job._process.pid, flush=True)
job.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_job_ends_when_its_runner_is_killed(tmp_path: Path) -> None:
    archive = tmp_path / "photos.rba"
    Book.open_or_create(str(archive))
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER, *daemon_words(archive)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert runner.stdout is not None
    child = psutil.Process(int(runner.stdout.readline()))
    try:
        wait_for(lambda: "child.py" not in " ".join(child.cmdline()))
        runner.kill()
        runner.communicate()
        _, alive = psutil.wait_procs([child], timeout=60)
        assert alive == []
    finally:
        runner.kill()
        if child.is_running():
            child.kill()


def test_a_tick_that_no_cluster_takes_stays_due_and_says_why(
    photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*ADD, "--", *COMMAND]) == 0
    make_due("photos.rba")
    run = ["schedule", "run", "photos.rba", "--submit", "http://127.0.0.1:1"]
    for words, reason in ((run, "say --shared-paths"), ([*run, "--shared-paths"], "can't be reached")):
        assert main(words) == 3
        assert reason in capfd.readouterr().err
        (entry,) = Book.open("photos.rba").entries("nightly", 5)
        assert entry.tick.state == "interrupted"
        assert reason in entry.tick.reason
        assert main(["schedule", "due", "photos.rba"]) == 0
        assert "is due again" in capfd.readouterr().out


def test_addresses_and_paths_of_clusters_are_looked_at_before_anything_is_run_or_written(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ADD, "--", *COMMAND]) == 0
    for words in (["run", "photos.rba"], ["render", "photos.rba", "nightly", "--as", "cron"]):
        assert main(["schedule", *words, "--submit", "http://me:hush@head:8265"]) == 2
        assert main(["schedule", *words, "--shared-paths"]) == 2
        told = capsys.readouterr()
        assert "password" in told.err
        assert "goes with --submit" in told.err
        assert "hush" not in told.out + told.err


def test_a_job_on_a_cluster_has_the_name_of_its_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    class Started:
        def __init__(self, words: list[str], **options: object) -> None:
            started.append(words)

    monkeypatch.setattr("recbatch.engine.schedule.job.subprocess.Popen", Started)
    CommandJob(["compress", "--", "s3://a", "s3://b"], run_id="recbatch-nightly-1", submit="http://head:8265")
    words = started[0][started[0].index("submit") :]
    assert words == [
        *["submit", "--address", "http://head:8265", "--wait", "--id", "recbatch-nightly-1"],
        *["compress", "--json", "--", "s3://a", "s3://b"],
    ]
