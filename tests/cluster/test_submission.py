"""Jobs on a real head: submitted, attached to, followed, stopped, taken up again; and what it refuses."""

import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from engine_fakes import fill

from recbatch.api import cluster
from recbatch.archive import Archive
from recbatch.engine import head as head_module
from recbatch.engine import ray_local, submission
from recbatch.engine.cluster_errors import (
    ClusterNeedsToken,
    ClusterRefusesToken,
    ClusterUnreachable,
    JobKeepsWaiting,
    PackageTooLarge,
    PythonTooOld,
    RayVersionDiffers,
    UnknownJob,
)
from recbatch.engine.orders import Order
from recbatch.engine.schedule import Book, Schedule
from recbatch.engine.submission import Cluster

HERE = Path(__file__).parent
PATHS = os.pathsep.join([str(HERE), str(HERE.parent / "engine")])
WAIT_S = 240.0  # longer than any machine needs; nothing waits so long that works


class Gated:
    """A job that does half its images, and the others once its gate is open."""

    def __init__(self, folder):
        self.archive, self.gate = folder / "archive", folder / "gate"
        names = [f"{letter}{n:02}.png" for letter in "az" for n in range(20)]
        self.written = fill(folder / "source", names)
        places = [str(folder / "source"), str(self.archive), str(self.gate)]
        self.order = Order(
            name="gated",
            command=("python", "-m", "gated_job", *places),
            archive=str(self.archive),
            env={"PYTHONPATH": PATHS},
        )

    def rows(self):
        return {record.key: record.stream for record in Archive.open(str(self.archive)).records()}


@pytest.fixture(scope="module")
def early(head, tmp_path_factory):
    """Jobs that are sent at once, and run while the first test waits for its own; the gated one with its answer."""
    from head import TOKEN

    script = "import recbatch, os; print('from', recbatch.__file__); print(sorted(os.listdir()))"
    gone = str(head.folder / "gone")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
            patch.delenv(name, raising=False)
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        server = Cluster(head.address)
        server.submit(Order(name="whose-code", command=("python", "-c", script)))
        server.submit(Order(name="too-much", command=("python", "-c", "pass"), code="image", cpus=64))
        words = ["compress", gone, gone, "--original"]
        cluster.submit(words, name="a-failure", archive=gone, address=head.address)
        gated = Gated(tmp_path_factory.mktemp("gated"))
        return gated, server.submit(gated.order)


def until(condition, what):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_a_command_runs_on_the_cluster_with_this_code_and_exits_as_it_does(run, early, cluster_env, tmp_path):
    photographs = HERE.parents[1] / "docs/demo/photographs"
    archive = tmp_path / "archive"
    words = ["compress", photographs, archive, "--original", "--include", "*.png", "--workers", 1, "--json"]
    outcome = run("submit", "--wait", "--shared-paths", "--json", *words)
    assert outcome.status == 0, outcome.err
    submitted, ended = outcome.lines()
    assert submitted["event"] == "submitted"
    assert not submitted["attached"]
    assert 10e6 < submitted["package_bytes"] < 50e6
    assert (ended["status"], ended["exit_status"], ended["archive"]) == ("SUCCEEDED", 0, str(archive))
    job = submitted["id"]
    assert re.fullmatch(r"recbatch-compress-[0-9a-f]{16}-1", job)

    logs = run("jobs", "logs", job).out
    reports = [json.loads(line) for line in logs.splitlines() if line.startswith('{"event": "report"')]
    assert [report["exit_status"] for report in reports] == [0]
    wanted = sorted(path.name for path in photographs.glob("*.png"))
    assert sorted(Archive.open(str(archive))) == wanted
    assert reports[0]["images"] == len(wanted) > 0

    (line,) = [line for line in run("jobs", "ls").out.splitlines() if job in line]
    assert "succeeded" in line
    status = run("jobs", "status", "--json", job.removesuffix("-1"))
    assert (status.lines()[0]["id"], status.lines()[0]["ledger_error"]) == (job, "")
    assert job in run("jobs", "status", job).out
    assert run("jobs", "wait", "--quiet", job).status == 0


def test_a_failure_of_the_command_is_the_exit_status_of_its_job_and_its_error_is_told(
    run, early, cluster_env
):
    outcome = run("jobs", "wait", "a-failure")
    assert outcome.status == 3
    assert "There is no source at" in outcome.out
    assert "a-failure-1: failed, exit status 3" in outcome.err
    told = run("jobs", "status", "a-failure").out
    assert "failed with exit code 3: There is no source at" in told


def test_a_stopped_job_commits_what_is_finished_and_its_next_attempt_completes_it(run, early, cluster_env):
    gated, first = early
    server = Cluster()
    assert (first.job.id, first.attached) == ("gated-1", False)

    def done():
        return sum(int(n) for n in re.findall(r"^ShardDone (\d+)$", server.logs("gated"), re.MULTILINE))

    until(lambda: done() >= 15 or server.job("gated").over, "the first shards")
    assert not server.job("gated").over, server.logs("gated")
    again = server.submit(gated.order)
    assert (again.job.id, again.attached) == ("gated-1", True)

    stopped = run("jobs", "stop", "gated")
    assert stopped.status == 0
    assert "gated-1: stopped, exit status 130" in stopped.err
    log = run("jobs", "logs", "gated").out
    assert "Stopping" in log
    assert re.search(r"^interrupted \d+$", log, re.MULTILINE), log
    rows = gated.rows()
    assert 15 <= len(rows) <= 20
    assert rows.items() <= gated.written.items()

    gated.gate.touch()
    resumed = run("jobs", "resume", "--wait", "gated")
    assert resumed.status == 0, resumed.out
    assert resumed.out.startswith("gated-2\n")
    assert f"complete {40 - len(rows)}\n" in resumed.out
    assert gated.rows() == gated.written
    assert [state.id for state in server.attempts("gated")] == ["gated-1", "gated-2"]


def test_the_code_of_a_job_is_the_package_that_came_with_it(early, cluster_env):
    pieces: list[str] = []
    assert Cluster().wait("whose-code", on_log=pieces.append).exit_status == 0
    log = "".join(pieces)
    assert "_ray_pkg_" in re.search(r"^from (.*)$", log, re.MULTILINE)[1]
    assert "['recbatch']" in log


def test_a_job_that_finds_no_place_says_what_it_lacks(run, early, cluster_env, monkeypatch):
    with pytest.raises(JobKeepsWaiting, match="64 CPUs, and the cluster has 2") as caught:
        Cluster().wait("too-much", pending_s=0.5)
    assert "jobs stop too-much-1" in str(caught.value)
    monkeypatch.setattr(submission, "QUEUED_S", 0.5)
    outcome = run("jobs", "stop", "too-much")
    assert outcome.status == 3
    assert "asked to end, once it starts" in outcome.err


@pytest.mark.long
def test_a_schedule_has_the_cluster_do_its_work_and_the_job_is_named_after_the_tick(
    run, cluster_env, tmp_path
):
    archive = str(tmp_path / "archive")
    since = datetime.now(UTC) - timedelta(days=2)
    words = ("verify", "--level", "structure", "--", archive)
    Book.open_or_create(archive).add(
        Schedule(name="daily", archive=archive, cron="0 3 * * *", command=words, created=since)
    )

    outcome = run("schedule", "run", archive, "daily", "--submit", cluster_env, "--shared-paths", "--json")
    assert outcome.status == 0, outcome.err
    (tick,) = outcome.lines()
    assert (tick["state"], tick["exit_status"], tick["report"]["ok"]) == ("done", 0, True)
    job = "recbatch-" + tick["id"].replace("/", "-")
    assert [state.status for state in Cluster().attempts(job)] == ["SUCCEEDED"]


def test_a_cluster_wants_its_own_token(head, cluster_env, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "not-the-one")
    with pytest.raises(ClusterRefusesToken, match="from RAY_AUTH_TOKEN"):
        cluster.jobs()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with pytest.raises(ClusterNeedsToken, match="and there is none"):
        cluster.jobs()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "gone"))
    with pytest.raises(ClusterNeedsToken, match=r"RAY_AUTH_TOKEN_PATH names, .*gone, can't be read"):
        cluster.jobs()
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("another\n")
    with pytest.raises(ClusterRefusesToken, match="auth_token"):
        cluster.jobs()


def test_an_unknown_job_is_wrong_usage(run, cluster_env):
    for command in ("status", "logs", "stop", "resume", "wait"):
        outcome = run("jobs", command, "never-was")
        assert outcome.status == 2
        assert "There is no job 'never-was'" in outcome.err
    with pytest.raises(UnknownJob):
        cluster.job("never-was-1")


def test_another_version_of_ray_or_too_old_a_python_is_refused(cluster_env, monkeypatch):
    monkeypatch.setattr(head_module, "own_ray_version", lambda: "2.1.0")
    with pytest.raises(RayVersionDiffers, match=r"2\.1\.0 here"):
        Cluster()
    Cluster(allow_version_skew=True)
    monkeypatch.undo()
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", cluster_env)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "only-for-tests-0123456789abcdef0")
    monkeypatch.setattr(head_module, "OLDEST_PYTHON", "3.99")
    with pytest.raises(PythonTooOld, match=rf"Python is {sys.version_info.major}\."):
        Cluster()


def test_too_large_a_package_is_never_sent(cluster_env, monkeypatch):
    def write_package(target):
        return package_of(target, limit_bytes=1 << 20)

    package_of = submission.write_package
    monkeypatch.setattr(submission, "write_package", write_package)
    server = Cluster()
    with pytest.raises(PackageTooLarge, match=r"largest file in it is models/zoo/\S+\.safetensors"):
        server.submit(Order(name="large", command=("true",)))
    assert server.attempts("large") == []


@pytest.mark.parametrize(
    ("where", "token", "error"),
    [("gcs", "not-the-one", ClusterRefusesToken), ("dashboard", "", ClusterUnreachable)],
)
def test_a_driver_looks_before_it_joins(head, cluster_env, monkeypatch, where, token, error):
    monkeypatch.setenv("RAY_AUTH_TOKEN", token or "only-for-tests-0123456789abcdef0")
    address = head.gcs if where == "gcs" else f"127.0.0.1:{head.ports['dashboard']}"
    start = time.monotonic()
    with pytest.raises(error):
        ray_local.probe(address, grpc=True)
    assert time.monotonic() - start < WAIT_S / 2  # Ray's own attempt would end after minutes, or never


@pytest.mark.long
def test_a_head_of_this_machine_alone_is_joined_with_nothing_but_its_address(head, cluster_env, tmp_path):
    photographs = HERE.parents[1] / "docs/demo/photographs"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ENABLE_")}
    words = ["compress", str(photographs), str(tmp_path / "archive"), "--original", "--include", "rocket.jpg"]
    done = subprocess.run(
        [sys.executable, "-m", "recbatch", *words, "--workers", "1"],
        capture_output=True,
        text=True,
        env={**environment, "RAY_ADDRESS": head.gcs},
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(Archive.open(str(tmp_path / "archive"))) == ["rocket.jpg"]
    assert "gcs" not in done.stderr  # Ray's own lines


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:6379", True),
        ("ray://localhost:10001", True),
        ("[::1]:6379", True),
        ("10.0.0.1:6379", False),
        ("head:6379", False),
        ("auto", False),
    ],
)
def test_a_cluster_of_this_machine_alone_is_known_by_its_address(address, loopback):
    assert ray_local.is_loopback(address) == loopback


@pytest.mark.long
def test_a_program_that_imported_ray_before_us_gets_a_local_one():
    script = (
        "import ray, os; from recbatch.engine import ray_local; assert ray_local.connect(1); "
        "print(ray.get(ray.remote(lambda: 7).remote(), timeout=120)); ray_local.disconnect()"
    )
    unset = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=WAIT_S, check=False
    )
    assert done.stdout == "7\n", done.stderr
