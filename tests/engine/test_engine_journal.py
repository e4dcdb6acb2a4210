"""The journal of a run: written while it works, readable when all of it is gone, and never in its way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from engine_fakes import fill
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbatch.archive import Archive
from recbatch.engine import Report, events
from recbatch.engine.journal import Journal, run_name, submission_id
from recbatch.engine.runs import (
    LOST_AFTER_S,
    POINTS,
    History,
    RunStatus,
    UnknownRun,
    read_run,
    read_runs,
    status_name,
)
from recbatch.errors import StoreError

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # no test depends on speed
PLANNED = events.Planned(images=10, bytes=4_000, shards=3, known=3, skipped=1, workers=2)
DONE = events.ShardDone(
    shard="000000", images=4, quarantined=1, bytes_in=2_000, bytes_out=500, pixels=9_000, seconds=2.0
)
DEATH = events.ActorDied(shard="000001", attempt=1, reason="worker died: SIGKILL", action="retry")
COMMIT = events.Committed(version=7, shards=1, images=4, seconds=0.1)
REPORT = Report(
    images=9, quarantined=1, bytes_in=4_000, bytes_out=900, pixels=20_000, version=8, plan="ab" * 32
)


@pytest.fixture
def archive(tmp_path):
    return Archive.create(tmp_path / "archive")


class Clock:
    def __init__(self, seconds=1_700_000_000.0):
        self.seconds = seconds

    def __call__(self):
        return self.seconds


def test_a_run_tells_how_far_it_is(archive):
    clock = Clock()
    with Journal(archive, job="compress", plan="cd" * 32, source="photos/", now=clock) as journal:
        assert read_run(archive).state == "planning"  # told at once, not only when something happened
        journal(PLANNED)
        clock.seconds += 10
        journal(events.WorkersReady(workers=2, seconds=10.0))
        clock.seconds += 5
        for event in (DONE, DEATH, COMMIT):
            journal(event)
        found = journal.status
        assert (found.state, found.planned, found.known, found.done) == ("running", 10, 3, 5)
        assert (found.archived, found.quarantined, found.bytes_in, found.bytes_out) == (4, 1, 2_000, 500)
        assert (found.rate, found.eta_s) == (1.0, 5.0)  # since the workers were ready
        assert (found.deaths, found.retries, found.version) == (1, 1, 7)
        assert found.error == "shard 000001: worker died: SIGKILL"
        journal(events.NodeLeft(node="n1", reason="3 workers died on it"))
        assert journal.status.error == "node n1 is used no more: 3 workers died on it"
        journal(events.WaitingForWorkers(wanted=2, seconds=30.0, patience_s=600.0))
        assert journal.status.error == "no worker has found a place for 30 s"
        late = datetime.fromtimestamp(clock.seconds + 1_000, UTC)
        assert (journal.status.trouble_at(late), journal.status.state_at(late)) == ("", "lost")
        journal(events.WorkersReady(workers=2, seconds=30.0))
        assert journal.status.error == ""
        journal(events.Stopping(signal="SIGTERM"))
        assert journal.status.state == "stopping"
        journal(events.Finished(report=replace(REPORT, interrupted=True)))
    (last,) = read_runs(archive)
    assert (last.state, last.version, last.archived) == ("stopped", 8, 9)
    assert last.run == "20231114T221320Z-" + "cd" * 8
    assert (last.finished - last.started).total_seconds() == 15
    assert last.report["images"] == 9
    assert [point[1] for point in last.history] == [0, 0, 5, 10]
    assert json.loads(archive.object(f"jobs/{last.run}.json"))["bytes_out"] == 900


def test_a_run_that_raises_has_failed_and_says_why(archive):
    class NoStore(StoreError):
        def __str__(self):
            return "The store is gone. Look for it."

    def run(error):
        with Journal(archive, job="compress") as journal:
            journal(PLANNED)
            raise error

    with pytest.raises(NoStore):
        run(NoStore())
    assert (read_run(archive).state, read_run(archive).error) == ("failed", "The store is gone. Look for it.")
    with pytest.raises(KeyboardInterrupt):
        run(KeyboardInterrupt())
    assert sorted(run.state for run in read_runs(archive)) == ["failed", "stopped"]


def test_a_store_that_refuses_costs_the_journal_and_not_the_job(archive, monkeypatch):
    def refuse(name, data):
        raise OSError(f"no place for {name}")

    monkeypatch.setattr(archive, "put_object", refuse)
    with Journal(archive, job="compress", every_s=0.001) as journal:
        for event in (PLANNED, DONE, COMMIT, events.Finished(report=REPORT)):
            journal(event)
    monkeypatch.undo()
    assert read_runs(archive) == []


def test_a_store_that_hangs_delays_no_event(archive, monkeypatch):
    asked, answer = threading.Event(), threading.Event()
    put = archive.put_object

    def slow(name, data):
        if json.loads(data).get("state") == "running":
            asked.set()
            answer.wait(60)
        put(name, data)

    monkeypatch.setattr(archive, "put_object", slow)
    with Journal(archive, job="compress") as journal:
        journal(PLANNED)
        journal(COMMIT)  # wakes the writer
        assert asked.wait(60)
        journal(DONE)  # the writer hangs now, and this returns
        assert journal.status.archived == 4
        answer.set()
    assert read_run(archive).archived == 4


def test_a_silent_run_reads_as_lost_with_its_age(archive):
    with Journal(archive, job="compress") as journal:
        journal(PLANNED)
        running = journal.status
    later = running.heartbeat + timedelta(seconds=LOST_AFTER_S + 1)
    assert running.state_at(running.heartbeat) == "running"
    assert running.state_at(later) == "lost"
    assert running.age_s(later) == LOST_AFTER_S + 1
    assert running.age_s(running.heartbeat - timedelta(hours=1)) == 0  # the other clock is behind
    assert read_run(archive).state_at(later) == "finished"  # what has ended is not lost


def test_a_driver_that_is_killed_leaves_its_last_status(archive):
    script = (
        "import sys, time\n"
        "from recbatch.archive import Archive\n"
        "from recbatch.engine import events\n"
        "from recbatch.engine.journal import Journal\n"
        "with Journal(Archive.open(sys.argv[1]), job='compress', every_s=0.01) as journal:\n"
        "    journal(events.Planned(images=5, bytes=1, shards=1, known=0, skipped=0, workers=1))\n"
        "    while journal._archive.object(f'jobs/{journal.run}/status.json').find(b'running') < 0:\n"
        "        time.sleep(0.01)\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, archive.url], stdout=subprocess.PIPE, text=True
    ) as driver:
        try:
            assert driver.stdout.readline() == "ready\n"
        finally:
            os.kill(driver.pid, signal.SIGKILL)
    found = read_run(archive)
    assert (found.state, found.pid, found.planned) == ("running", driver.pid, 5)
    assert found.state_at(datetime.now(UTC) + timedelta(hours=1)) == "lost"


def test_reports_of_earlier_releases_are_runs_too(archive):
    old = {"finished": "2025-03-01T10:00:30+00:00", **replace(REPORT, seconds=30.0, deaths=2).to_dict()}
    archive.put_object("jobs/20250301T100030Z-abababababababab.json", json.dumps(old).encode())
    archive.put_object("jobs/20250302T000000Z-torn.json", b'{"finished": "2025-')
    archive.put_object("jobs/notes.txt", b"what is this")
    with Journal(archive, job="compress") as journal:
        journal(events.Finished(report=REPORT))
    new, found = read_runs(archive)
    assert new.run == journal.run
    assert (found.started.isoformat(), found.seconds) == ("2025-03-01T10:00:00+00:00", 30.0)
    assert (found.state, found.done, found.deaths, found.rate) == ("finished", 10, 2, 0.333)
    assert len(read_runs(archive, limit=1)) == 1


def test_a_run_is_named_by_the_beginning_of_its_name(archive):
    for plan in ("aa" * 32, "ab" * 32):
        with Journal(archive, job="compress", plan=plan, now=Clock()):
            pass
    assert read_run(archive, "20231114T221320Z-ab").plan == "ab" * 32
    with pytest.raises(UnknownRun, match="2 runs begin so"):
        read_run(archive, "2023")
    with pytest.raises(UnknownRun, match="there is none"):
        read_run(archive, "1999")
    with pytest.raises(UnknownRun, match="there is none"):
        read_run(Archive.create(archive.url + "-empty"))


def test_two_runs_of_one_second_have_two_names():
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert run_name(at, "0123456789abcdef" * 4) == "20260102T030405Z-0123456789abcdef"
    assert run_name(at) != run_name(at)


def test_the_submission_is_known_by_what_ray_tells_its_driver():
    config = json.dumps({"metadata": {"job_submission_id": "recbatch-1"}, "runtime_env": {}})
    assert submission_id({"RAY_JOB_CONFIG_JSON_ENV_VAR": config}) == "recbatch-1"
    assert submission_id({}) == ""
    assert submission_id({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{"}) == ""
    assert submission_id({"RAY_JOB_CONFIG_JSON_ENV_VAR": "[]"}) == ""


@UNHURRIED
@given(st.lists(st.integers(0, 1000), max_size=60), st.integers(4, 12))
def test_a_history_is_bounded_and_keeps_both_ends(times, most):
    history = History(points=most, interval_s=0.5)
    for done, tenths in enumerate(sorted(times), 1):
        history.add(tenths / 10, (done, done, done, done))
    history.add(101.0, (99, 99, 99, 99), last=True)
    points = history.points()
    assert len(points) <= most
    assert points[0] == (0.0, 0, 0, 0, 0)
    assert points[-1] == (101.0, 99, 99, 99, 99)
    assert list(points) == sorted(points)


def test_a_long_job_has_no_long_status(archive):
    clock = Clock()
    with Journal(archive, job="compress", now=clock, every_s=600) as journal:
        for _ in range(20_000):
            clock.seconds += 1.5
            journal(DONE)
    assert len(read_run(archive).history) <= POINTS
    assert len(archive.object(status_name(journal.run))) < 40_000


@UNHURRIED
@given(st.text(), st.text(), st.integers(0, 2**60), st.floats(allow_nan=False, allow_infinity=False))
def test_a_status_survives_its_json(source, error, count, number):
    start = datetime(2026, 1, 2, tzinfo=UTC)
    status = RunStatus(
        run="r",
        state="running",
        started=start,
        heartbeat=start,
        source=source,
        error=error,
        settings={"psnr": number, "model": None},
        bytes_in=count,
        history=((0.0, 0, 0, 0, 0), (1.5, count, 2, 3, 4)),
    )
    assert RunStatus.from_dict({**json.loads(json.dumps(status.to_dict())), "later": 1}) == status


def test_a_real_job_is_followed(archive, tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png", "b.png", "bad.png"])
    quick_compress(tmp_path / "in", archive.url)
    (found,) = read_runs(archive)
    assert (found.state, found.planned, found.archived, found.quarantined) == ("finished", 3, 2, 1)
    assert (found.settings["mode"], found.executor, found.source) == (
        "original",
        "inline",
        str(tmp_path / "in"),
    )
    assert found.versions["recbatch"]
    assert found.history[-1][1] == 3
