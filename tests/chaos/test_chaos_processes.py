"""Processes are killed at any moment; the next run completes the archive as if nothing had been."""

import os
import random
import signal
import time

import psutil
import pytest
from engine_fakes import CODEC, FakeSettings

from recbatch.archive import Archive
from recbatch.engine import compress, events
from recbatch.engine.driver import Tuning

pytestmark = pytest.mark.chaos


def complete(drive, source, archive, executor="processes"):
    run = drive(source, archive, executor)
    status = run.wait()
    assert status == 1, run.lines  # one image is bad
    return run


def kill_again_and_again(drive, source, archive, moments):
    for event, count, later_s, number in moments:
        run = drive(source, archive)
        run.until(event, count)
        time.sleep(later_s)
        run.popen.send_signal(number)  # nothing, where it has ended already
        status = run.wait()
        assert status in (-number, 130, 1, 0), run.lines
        assert run.sweep() == 0  # no worker outlives its driver for long


def test_a_driver_killed_at_three_moments_loses_nothing(tmp_path, drive, photographs, check):
    source, _ = photographs
    archive = tmp_path / "archive"
    rng = random.Random(6)
    moments = [
        ("Planned", 1, rng.uniform(0, 0.3), signal.SIGKILL),
        ("ShardDone", rng.randint(2, 8), rng.uniform(0, 0.05), signal.SIGKILL),
        ("Committed", 2, 0.0, signal.SIGKILL),
    ]
    kill_again_and_again(drive, source, archive, moments)
    committed = len(Archive.open(str(archive)))
    run = complete(drive, source, archive)
    assert committed == 200 or "ShardDone" in run.lines
    check(archive)
    assert compress(str(source), str(archive), settings=FakeSettings(), executor="inline").known == 200


def test_a_driver_that_is_asked_to_stop_commits_and_says_130(tmp_path, drive, photographs, check):
    source, _ = photographs
    archive = tmp_path / "archive"
    run = drive(source, archive, sleep_s=0.05)
    run.until("ShardDone", 4)
    os.killpg(run.popen.pid, signal.SIGINT)  # as a terminal does
    assert run.wait(timeout_s=30) == 130
    assert "Stopping" in run.lines
    assert 0 < len(Archive.open(str(archive))) < 200
    complete(drive, source, archive)
    check(archive)


def test_workers_killed_and_frozen_in_one_run_lose_nothing(tmp_path, photographs, check):
    source, _ = photographs
    rng = random.Random(7)
    hits = {3: signal.SIGKILL, 9: signal.SIGSTOP, 15: signal.SIGKILL}
    seen, hit = [], []

    def progress(event):
        if not isinstance(event, events.ShardDone):
            return
        seen.append(event.shard)
        if number := hits.pop(len(seen), None):
            workers = [p for p in psutil.Process().children() if "serve" in " ".join(p.cmdline())]
            victim = rng.choice(sorted(workers, key=lambda process: process.pid))
            hit.append(victim)
            victim.send_signal(number)

    report = compress(
        str(source),
        str(tmp_path / "archive"),
        settings=FakeSettings(sleep_s=0.004),
        workers=2,
        executor="processes",
        shard_bytes=500,
        codec_factory=CODEC,
        tuning=Tuning(poll_s=0.05, backoff_s=0.01, commit_shards=3, deadline_s=3.0, deadline_image_s=0.0),
        progress=progress,
    )
    assert (report.images, report.quarantined) == (199, 1)
    assert len(hit) == 3
    assert report.deaths >= 2
    assert not any(process.is_running() for process in hit)
    check(tmp_path / "archive")


def test_two_drivers_at_once_archive_every_image_once(tmp_path, drive, photographs, check):
    source, _ = photographs
    archive = tmp_path / "archive"
    runs = [drive(source, archive), drive(source, archive)]
    statuses = [run.wait() for run in runs]
    assert set(statuses) <= {0, 1, 3}
    for run, status in zip(runs, statuses, strict=True):
        assert status != 3 or run.lines[-1].startswith("superseded"), run.lines
    compress(str(source), str(archive), settings=FakeSettings(), executor="inline", codec_factory=CODEC)
    check(archive)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_a_driver_killed_at_random_moments_loses_nothing(tmp_path, drive, photographs, check, seed):
    source, _ = photographs
    archive = tmp_path / "archive"
    rng = random.Random(seed)
    moments = [
        (
            rng.choice(["Planned", "WorkersReady", "ShardDone", "Committed"]),
            rng.randint(1, 5),
            rng.choice([0.0, rng.uniform(0, 1.0)]),
            rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]),
        )
        for _ in range(6)
    ]
    kill_again_and_again(drive, source, archive, moments)
    run = drive(source, archive)
    assert run.wait() in (0, 1)
    check(archive)
