"""What happens before anything is sent: the command is read, paths and secrets are looked at, the job gets its name."""

import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbatch.api import cluster
from recbatch.engine import submission
from recbatch.engine.cluster_errors import (
    ClusterUnreachable,
    JobDidNotStart,
    JobForgotten,
    PackageTooLarge,
    SecretOnTheWay,
    UnknownJob,
)
from recbatch.engine.orders import JobState, Order, Submitted, attempt_of
from recbatch.engine.package import write_package
from recbatch.engine.runs import RunStatus
from recbatch.engine.submission import Cluster


@pytest.fixture
def sent(monkeypatch):
    """Orders, in place of a cluster."""
    orders = []

    class Fake:
        def submit(self, order, tell):
            orders.append(order)
            job = JobState(id=f"{order.name}-1", status="PENDING", command=" ".join(order.command))
            return Submitted(job=job, attached=False, package_bytes=20_000_000)

    monkeypatch.setattr(cluster, "connect", lambda *arguments, **options: Fake())
    return orders


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compress", "s3://a/b"], "ARCHIVE"),
        (["compress", "s3://a/b", "s3://c/d", "--qualty", "5"], "--quality"),
        (["compress", "s3://a/b", "s3://c/d", "--quality", "50", "--original"], "exclude each other"),
        (["compress", "s3://a/b", "s3://c/d", "--model", "photo-xxl"], "photo-xxl"),
        (["verify", "s3://c/d", "--sample", "200%"], "200%"),
        (["ls", "s3://c/d"], "can't run on a cluster"),
        (["compress", "photos", "s3://c/d", "--original"], "--shared-paths"),
        (["compress", "s3://key:secret@a/b", "s3://c/d", "--original"], "secret"),
        (["run", "gone.toml"], "gone.toml"),
        (["compress", "s3://a/b", "s3://c/d", "--wait"], "as in 'recbatch submit --wait ... compress ...'"),
        (["run", "gone.toml", "--id", "x"], "--id belongs before run"),
    ],
)
def test_what_the_command_would_refuse_is_refused_before_it_is_sent(run, sent, words, says):
    outcome = run("submit", *words)
    assert outcome.status == 2
    assert says in outcome.err
    assert sent == []


def test_the_same_work_has_the_same_name_however_it_is_written(run, sent, tmp_path, monkeypatch):
    places = ["s3://photos/a", "s3://archives/a"]
    for words in (
        ["compress", *places, "--quality", "50", "--auto"],
        ["compress", "--auto", "--quality=50.0", *places, "--workers", "9", "--json"],
        ["compress", *places, "--quality", "60", "--auto"],
        ["compress", places[0], "s3://archives/b", "--quality", "50", "--auto"],
    ):
        assert run("submit", *words).status == 0
    monkeypatch.chdir(tmp_path)
    Path("recbatch.toml").write_text("[compress]\nquality = 50\nauto = true\n")
    assert run("submit", "compress", *places).status == 0
    names = [order.name for order in sent]
    assert names[0] == names[1] == names[4]
    assert len(set(names)) == 3
    assert sent[4].command == (
        "python",
        "-m",
        "recbatch",
        "compress",
        "--quality",
        "50",
        "--auto",
        "--",
        *places,
    )


def test_an_order_says_what_was_asked_for(run, sent, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    options = ["--env", "AWS_REGION", "--env", "A=b=c", "--pip", "x", "--id", "nightly", "--driver-cpus", "1"]
    assert run("submit", *options, "--code", "image", "verify", "s3://c/d", "--sample", "1%").status == 0
    (order,) = sent
    assert order.env == {"AWS_REGION": "eu-central-1", "A": "b=c"}
    assert (order.name, order.code, order.pip, order.cpus) == ("nightly", "image", ("x",), 1)
    assert order.archive == "s3://c/d"
    assert Order.from_json(order.to_json()) == order


def test_paths_that_all_nodes_see_are_sent_whole(run, sent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    missing = run("submit", "--shared-paths", "compress", "in put", "out", "--original")
    assert (missing.status, sent) == (3, [])
    assert "There is no source at" in missing.err
    (tmp_path / "in put").mkdir()
    assert run("submit", "--shared-paths", "compress", "in put", "out", "--original").status == 0
    assert sent[0].command[-2:] == (str(tmp_path / "in put"), str(tmp_path / "out"))


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN",
        "RAY_AUTH_TOKEN",
        "DB_PASSWORD",
        "HF_API_KEY",
    ],
)
def test_secrets_do_not_travel_in_the_environment_of_a_job(run, sent, name):
    outcome = run("submit", "--env", f"{name}=hush", "verify", "s3://c/d")
    assert outcome.status == 2
    assert name in outcome.err
    assert "hush" not in outcome.err
    assert sent == []


def test_a_setting_without_a_name_is_refused_before_anything_is_sent(run, sent):
    outcome = run("submit", "--env", "=3", "verify", "s3://c/d")
    assert (outcome.status, sent) == (2, [])
    assert "NAME=VALUE" in outcome.err


def test_places_of_secrets_and_ordinary_settings_may_travel():
    env = {"AWS_REGION": "x", "AWS_ENDPOINT_URL": "https://store:9000", "AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}
    cluster.refuse_secrets(["compress", "s3://a/b"], env)
    with pytest.raises(SecretOnTheWay, match="password in the URL"):
        cluster.refuse_secrets([], {"AWS_ENDPOINT_URL": "https://me:word@store:9000"})


def test_ctrl_c_while_waiting_leaves_the_job_alone(run, sent, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "wait", interrupted)
    outcome = run("submit", "--wait", "--id", "nightly", "verify", "s3://c/d")
    assert outcome.status == 130
    assert "nightly-1 goes on without you" in outcome.err
    assert "recbatch jobs wait nightly-1" in outcome.err


def test_a_password_among_the_words_is_never_repeated(run, sent):
    for words in (["http://me:hush@head:8265", "compress"], ["compress", "s3://me:hush@a/b", "s3://c/d"]):
        outcome = run("submit", *words)
        assert (outcome.status, sent) == (2, [])
        assert "looks like a secret" in outcome.err
        assert "hush" not in outcome.err


class Scripted(Cluster):
    """A cluster that answers the questions for a job in this order."""

    address = "http://head:8265"

    def __init__(self, *answers):
        self.answers = list(answers)

    def job(self, job):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def attempts(self, name):
        return [self.answers[0]]


def a_job(**fields):
    order = Order(name="a", command=("recbatch", "ls"), archive="s3://a/b c", pip=("x",))
    return JobState(**{"id": "a-1", "status": "RUNNING", "command": "", "order": order, **fields})


def test_a_head_that_comes_back_without_the_job_is_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(submission, "TELL_AWAY_S", -1.0)
    told = []
    away = ClusterUnreachable("http://head:8265", "connection refused")
    server = Scripted(a_job(), away, away, UnknownJob("a-1", "http://head:8265"))
    with pytest.raises(JobForgotten) as caught:
        server.wait("a-1", tell=told.append)
    assert caught.value.exit_status == 3
    assert "Submit the same line again" in str(caught.value)
    assert "recbatch jobs status --archive 's3://a/b c'" in str(caught.value)
    assert [sentence for sentence in told if "does not answer" in sentence] == told
    assert len(told) == 1


def test_a_head_that_stays_away_is_told_with_the_archive_of_the_job(monkeypatch):
    monkeypatch.setattr(submission, "AWAY_S", -1.0)
    server = Scripted(a_job(), ClusterUnreachable("http://head:8265", "connection refused"))
    with pytest.raises(ClusterUnreachable, match="jobs status --archive 's3://a/b c'"):
        server.wait("a-1")


def test_a_job_that_did_not_start_says_the_last_reason_and_the_options_that_were_given():
    message = "runtime_env setup failed: Failed to set up.\nTraceback\n  File x\nKeyError: 'no such thing'\n"
    failed = a_job(status="FAILED", error_type="RUNTIME_ENV_SETUP_FAILURE", message=message)
    with pytest.raises(JobDidNotStart) as caught:
        Scripted(failed).wait("a-1")
    assert "KeyError: 'no such thing'" in str(caught.value)
    assert "Check --pip, and that" in str(caught.value)


def test_one_who_attaches_is_told_what_the_job_has_otherwise(run, monkeypatch):
    server = Scripted(a_job())
    monkeypatch.setattr(cluster, "connect", lambda *arguments, **options: server)
    words = ["submit", "--id", "a", "--image", "r/x:1", "--env", "A=1", "verify", "s3://c/d"]
    outcome = run(*words)
    assert (outcome.status, outcome.out) == (0, "a-1\n")
    assert "another --image, --pip, --env, the command than yours" in outcome.err
    assert "recbatch jobs stop a-1" in outcome.err
    assert run(*words[:1], "--json", *words[1:]).lines()[0]["differs"][0] == "--image"
    assert a_job().order.differences(a_job().order) == ()


def test_a_container_and_a_package_exclude_each_other(run, sent):
    outcome = run("submit", "--image", "r/x:1", "--code", "package", "verify", "s3://c/d")
    assert (outcome.status, sent) == (2, [])
    assert "--image and --code package" in outcome.err


@given(name=st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True), number=st.integers(1, 10**6))
def test_an_attempts_number_is_read_back_from_its_id(name, number):
    assert attempt_of(f"{name}-{number}", name) == number
    assert attempt_of(f"{name}x-{number}", name) is None
    assert attempt_of(f"{name}-0{number}", name) is None


@pytest.mark.parametrize(
    ("status", "driver_exit", "exit_status"),
    [
        ("RUNNING", None, None),
        ("SUCCEEDED", 0, 0),
        ("FAILED", 3, 3),
        ("FAILED", -9, 137),
        ("FAILED", None, 3),
        ("STOPPED", None, 130),
    ],
)
def test_a_jobs_exit_status_is_that_of_its_command(status, driver_exit, exit_status):
    assert JobState(id="a", status=status, command="", driver_exit=driver_exit).exit_status == exit_status


@pytest.mark.parametrize(
    ("driver_exit", "log", "outcome"),
    [
        (1, "2 images quarantined", "done"),
        (1, "python: No module named recbatch", "failed"),
        (3, "", "failed"),
    ],
)
def test_a_job_that_quarantined_images_is_done(run, monkeypatch, driver_exit, log, outcome):
    job = a_job(status="FAILED", driver_exit=driver_exit, message=f"{CUT}{log}\n")
    monkeypatch.setattr(cluster, "job", lambda *arguments, **options: job)
    monkeypatch.setattr(cluster, "jobs", lambda *arguments, **options: [job])
    monkeypatch.setattr(cluster, "runs", lambda archive: [])
    monkeypatch.setattr(cluster, "wait", lambda *arguments, **options: job)
    status, listed, waited = run("jobs", "status", "a"), run("jobs", "ls"), run("jobs", "wait", "a")
    assert f"a-1: {outcome}, exit status {driver_exit}" in status.out
    assert ("failed with exit code" in status.out) == (outcome == "failed")
    assert ("done, exit status 1" in listed.out) == (outcome == "done")
    assert (waited.status, f"a-1: {outcome}, exit status {driver_exit}" in waited.err) == (driver_exit, True)
    (facts,) = run("jobs", "ls", "--json").lines()
    assert (facts["status"], facts["outcome"], facts["exit_status"]) == ("FAILED", outcome, driver_exit)


CUT = "Job entrypoint command failed with exit code 3, last available logs (truncated to 20,000 chars):\n"


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (f"{CUT}1 image\nError: No room. Free some.\nlate noise\n", "with exit code 3: No room. Free some."),
        (f'{CUT}x\n{{"event": "error", "code": "a", "message": "No room."}}\n', "with exit code 3: No room."),
        (f"{CUT}Traceback\n  ...\nKeyError: 'a'\n", "with exit code 3: KeyError: 'a'"),
        (CUT, "with exit code 3"),
        ("The node\nis gone.", "The node is gone."),
    ],
)
def test_of_a_job_that_failed_the_error_at_the_end_of_its_log_is_told(message, problem):
    assert JobState(id="a", status="FAILED", command="", message=message).problem.endswith(problem)


@pytest.mark.parametrize(("status", "told"), [("RUNNING", "running"), ("FAILED", "lost")])
def test_a_run_does_not_go_on_when_its_job_has_ended(run, monkeypatch, status, told):
    now = datetime.now(UTC)
    going = RunStatus(
        run="r", state="running", started=now, heartbeat=now, job="compress", submission="a-1", eta_s=90
    )
    job = JobState(
        id="a-1", status=status, command="", order=Order(name="a", command=("x",), archive="s3://a")
    )
    monkeypatch.setattr(cluster, "job", lambda *arguments, **options: job)
    monkeypatch.setattr(cluster, "runs", lambda archive: [going])
    out = run("jobs", "status", "a").out
    assert f"run r (compress): {told}" in out
    assert ("left" in out) == (status == "RUNNING")
    assert run("jobs", "status", "a", "--json").lines()[0]["runs"][0]["state"] == told


def test_a_package_is_the_code_alone_and_the_same_each_time(tmp_path):
    root = tmp_path / "recbatch"
    for name in ("a.py", "b/c.json", "b/__pycache__/c.pyc", ".git/config", "zoo/m.safetensors"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.urandom(2000))
    assert write_package(tmp_path / "1.zip", root=root) == (tmp_path / "1.zip").stat().st_size
    os.utime(root / "a.py", (0, 0))
    write_package(tmp_path / "2.zip", root=root)
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.namelist() == ["recbatch/a.py", "recbatch/b/c.json", "recbatch/zoo/m.safetensors"]
    with pytest.raises(PackageTooLarge, match="image"):
        write_package(tmp_path / "3.zip", root=root, limit_bytes=66_000)


def test_the_real_package_is_well_below_the_limit(tmp_path):
    size = write_package(tmp_path / "package.zip")
    assert size < 50e6
    with zipfile.ZipFile(tmp_path / "package.zip") as archive:
        names = set(archive.namelist())
    assert {"recbatch/__main__.py", "recbatch/models/zoo/exact-s.safetensors"} <= names
    assert not any("__pycache__" in name for name in names)
