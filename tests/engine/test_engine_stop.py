"""A signal in the middle of a shard: what is done of it is handed in, committed, and not done again."""

import signal

import pytest
from engine_fakes import FakeSettings, fill

from recbatch.archive import Archive
from recbatch.engine import events, watch
from recbatch.engine.feed import WINDOW_IMAGES
from recbatch.engine.processes import ProcessPool
from recbatch.engine.signals import deferred_sigterm

IMAGES = 5 * WINDOW_IMAGES
NAMES = [f"{number:04d}.png" for number in range(IMAGES)]
NAMES[WINDOW_IMAGES] = f"{WINDOW_IMAGES:04d}-gate.png"  # the second batch waits there


@pytest.fixture
def interrupted(tmp_path, quick_compress, monkeypatch):
    """compress() that gets SIGTERM when the first batch of its one shard is told to be done."""
    monkeypatch.setattr(watch, "TELL_EVERY_S", 0.0)
    fill(tmp_path / "in", NAMES)
    (tmp_path / "once").mkdir()
    # another process tells no part sooner than half a second into a shard
    settings = FakeSettings(once=str(tmp_path / "once"), sleep_s=0.01)
    told = []

    def progress(event):
        told.append(event)
        if isinstance(event, events.Working) and event.images and not any(map(is_stop, told)):
            signal.raise_signal(signal.SIGTERM)

    def run(executor):
        if executor == "inline":
            (tmp_path / "once" / "open").touch()
        return quick_compress(
            tmp_path / "in",
            settings=settings,
            executor=executor,
            workers=1,
            shard_bytes=10**6,
            progress=progress,
        )

    return run, told


def is_stop(event):
    return isinstance(event, events.Stopping)


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_signal_commits_the_part_of_a_shard_that_is_done(
    tmp_path, quick_compress, interrupted, executor, monkeypatch
):
    run, told = interrupted
    stop = ProcessPool.stop

    def stop_and_open(pool, handle):
        stop(pool, handle)
        (tmp_path / "once" / "open").touch()

    monkeypatch.setattr(ProcessPool, "stop", stop_and_open)
    report = run(executor)
    assert report.interrupted
    assert report.exit_status == 130
    # a batch that had begun when the worker heard of it comes to its end
    assert report.images in (WINDOW_IMAGES, 2 * WINDOW_IMAGES)
    (done,) = [event for event in told if isinstance(event, events.ShardDone)]
    assert done.images == report.images
    archive = Archive.open(str(tmp_path / "archive"))
    assert sorted(archive) == sorted(NAMES)[: report.images]
    again = quick_compress(tmp_path / "in", settings=FakeSettings(), shard_bytes=10**6)
    assert (again.images, again.known) == (IMAGES - report.images, report.images)
    assert len(list(Archive.open(str(tmp_path / "archive")).records())) == IMAGES


def test_what_is_done_of_a_shard_is_told_and_counts_once(interrupted):
    run, told = interrupted
    run("inline")
    working = [event for event in told if isinstance(event, events.Working)]
    assert [event.images for event in working] == [WINDOW_IMAGES, 0]
    assert working[0].bytes_in == 100 * WINDOW_IMAGES
    done = next(place for place, event in enumerate(told) if isinstance(event, events.ShardDone))
    assert told.index(working[1]) < done  # no display ever shows both


def test_sigterm_waits_for_the_end_of_what_cant_be_left_midway():
    came, steps = [], []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with deferred_sigterm():
            signal.raise_signal(signal.SIGTERM)
            steps.append(list(came))
        assert (steps, came) == ([[]], [signal.SIGTERM])
        with deferred_sigterm():
            pass
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
