"""Real processes that really die."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from engine_fakes import BrokenSetup, FakeSettings, fill

from recbatch.archive import Archive
from recbatch.engine import errors, events
from recbatch.engine.driver import Tuning
from recbatch.engine.pools import WorkerDied, WorkerRaised
from recbatch.engine.processes import ProcessPool


class Echo:
    """A job whose worker answers, raises, or ends as it is told."""

    def build(self):
        return self

    def run(self, task, watch):
        if task == "raise":
            raise ValueError("as told")
        if task == "exit":
            os._exit(3)
        return task


@pytest.fixture
def pool():
    pool = ProcessPool()
    yield pool
    pool.close()


def answer(pool, ticket):
    deadline = time.monotonic() + 60
    while not pool.wait([ticket], 0.5):
        assert time.monotonic() < deadline
    return pool.result(ticket)


def test_calls_come_back_in_order_and_a_death_ends_those_that_wait(pool):
    handle, setup = pool.start(Echo())
    assert answer(pool, setup).pid == handle.pid
    tickets = [pool.submit(handle, task) for task in ("one", "raise", "two", "exit", "three")]
    assert answer(pool, tickets[0]) == "one"
    with pytest.raises(WorkerRaised, match="ValueError: as told"):
        answer(pool, tickets[1])
    assert answer(pool, tickets[2]) == "two"
    for ticket in tickets[3:]:
        with pytest.raises(WorkerDied, match="exit status 3"):
            answer(pool, ticket)
    with pytest.raises(WorkerDied):
        answer(pool, pool.submit(handle, "four"))


def test_a_killed_or_closed_worker_leaves_no_process(pool):
    handle, setup = pool.start(Echo())
    answer(pool, setup)
    pool.kill(handle)
    pool.kill(handle)
    with pytest.raises(WorkerDied):
        pool.result(pool.submit(handle, "x"))
    other, _ = pool.start(Echo())
    pool.close()
    assert not psutil.pid_exists(handle.pid)
    assert not psutil.pid_exists(other.pid)


def test_a_poison_image_is_found_and_the_rest_is_archived(tmp_path, quick_compress):
    names = [f"{number}.png" for number in range(6)]
    fill(tmp_path / "in", [*names, "x-kill.png"])
    told = []
    report = quick_compress(
        tmp_path / "in", executor="processes", workers=1, shard_bytes=10**6, progress=told.append
    )
    assert (report.images, report.quarantined) == (6, 1)
    assert report.deaths >= 4  # twice whole, then ever smaller, twice alone
    assert {event.action for event in told if isinstance(event, events.ActorDied)} == {
        "retry",
        "split",
        "quarantine",
    }
    archive = Archive.open(str(tmp_path / "archive"))
    row = archive["x-kill.png"]
    assert (row.status, row.error_code) == ("quarantined", "poison-image")
    assert "signal 9" in row.error
    assert sorted(archive) == sorted([*names, "x-kill.png"])
    assert quick_compress(tmp_path / "in", executor="processes").known == 7


def test_an_image_that_hangs_is_given_a_deadline(tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png", "b-hang.png", "c.png"])
    (tmp_path / "once").mkdir()
    tuning = Tuning(poll_s=0.05, backoff_s=0.01, deadline_s=3.0, deadline_image_s=0.0)
    report = quick_compress(
        tmp_path / "in",
        settings=FakeSettings(once=str(tmp_path / "once")),
        executor="processes",
        workers=1,
        tuning=tuning,
    )
    assert (report.images, report.quarantined) == (3, 0)
    assert report.deaths >= 1


@pytest.mark.parametrize(
    ("how", "error"),
    [("ours", BrokenSetup), ("import", errors.WorkerSetupFailed), ("kill", errors.WorkerSetupFailed)],
)
def test_a_worker_that_cant_start_ends_the_job_with_its_reason(tmp_path, quick_compress, how, error):
    fill(tmp_path / "in", ["a.png"])
    tuning = Tuning(poll_s=0.05, backoff_s=0.01, failures=2)
    reason = {"ours": "as asked", "import": "a_module_that_is_not_there", "kill": "signal 9"}[how]
    with pytest.raises(error, match=reason):
        quick_compress(
            tmp_path / "in", settings=FakeSettings(fail_setup=how), executor="processes", tuning=tuning
        )


def test_workers_do_not_hear_ctrl_c(pool):
    handle, setup = pool.start(Echo())
    answer(pool, setup)
    assert os.getpgid(handle.pid) != os.getpgid(0)
    os.kill(handle.pid, signal.SIGCONT)
    assert answer(pool, pool.submit(handle, "there")) == "there"


def test_a_folder_of_the_packages_name_hides_it_from_no_worker(tmp_path):
    (tmp_path / "recbatch" / "docs").mkdir(parents=True)  # a clone, where a user stands after 'git clone'
    script = (
        "from recbatch.engine import ray_local; ray_local.find_package();"
        "import subprocess, sys;"
        "sys.exit(subprocess.call([sys.executable, '-c', 'import recbatch; recbatch.__version__']))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-P", "-c", script], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0
