"""What happens before anything is sent: the command is read, paths and secrets are looked at, the job gets its name."""

import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbatch.api import cluster
from recbatch.engine import head, ray_local
from recbatch.engine.cluster_errors import (
    ClusterAddressMissing,
    ClusterAddressUnusable,
    ClusterUnreachable,
    PackageTooLarge,
    RayDidNotStart,
    SecretOnTheWay,
)
from recbatch.engine.orders import JobState, Order, Submitted, attempt_of
from recbatch.engine.package import write_package


@pytest.fixture
def sent(monkeypatch):
    """Orders, in place of a cluster."""
    orders = []

    class Fake:
        def submit(self, order):
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


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("head:8265", "Write http://head:8265"),
        ("head:6379", "Write http://head:8265"),
        ("ray://head:10001", "Write http://HEAD:8265"),
        ("http://:8265", "Write http://HEAD:8265"),
        ("http://head:port", "Write http://HEAD:8265"),
    ],
)
def test_an_address_of_another_kind_is_refused_at_once(address, says):
    with pytest.raises(ClusterAddressUnusable, match="Write http") as caught:
        head.address_of(address, {})
    assert says in str(caught.value)


def test_the_address_comes_from_the_option_or_from_rays_own_variables():
    both = {"RAY_API_SERVER_ADDRESS": "http://a:1", "RAY_ADDRESS": "http://b:1/"}
    assert head.address_of("https://c/", both) == "https://c"
    assert head.address_of(None, both) == "http://a:1"
    assert head.address_of(None, {"RAY_ADDRESS": "http://b:1/"}) == "http://b:1"
    for environment in ({}, {"RAY_ADDRESS": "b:6379"}):
        with pytest.raises(ClusterAddressMissing):
            head.address_of(None, environment)


def test_a_token_is_looked_for_where_ray_does(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text(" from-a-file\n")
    assert head.find_token({}) == ("", "")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("of-the-user")
    assert head.find_token({})[0] == "of-the-user"
    named = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    assert head.find_token(named) == ("from-a-file", str(tmp_path / "token"))
    assert head.find_token({**named, "RAY_AUTH_TOKEN": "here"}) == ("here", "RAY_AUTH_TOKEN")
    assert head.find_token({**named, "RAY_AUTH_MODE": "disabled"}) == ("", "")


def test_nothing_that_listens_is_told_in_one_line(run):
    import socket

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    outcome = run("jobs", "ls", "--address", f"http://127.0.0.1:{port}")
    assert outcome.status == 3
    assert "connection refused" in outcome.err
    assert outcome.err.count("\n") == 1
    with pytest.raises(ClusterUnreachable, match="connection refused"):
        ray_local.probe(f"127.0.0.1:{port}", grpc=True)


def test_what_answers_and_is_no_ray_is_told(run):
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        outcome = run("jobs", "ls", "--address", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert outcome.status == 3
    assert "not Ray's dashboard" in outcome.err


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


def test_a_http_address_in_ray_address_is_told_apart(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(ClusterAddressUnusable, match="recbatch submit"):
        ray_local.join(None, "http://head:8265")
    with pytest.raises(ClusterAddressUnusable, match="host:port"):
        ray_local.join(None, "head")


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_ray_is_started_again_where_it_took_too_long(monkeypatch, failures):
    calls = []

    class FakeRay:
        def init(self, **options):
            calls.append("init")
            if calls.count("init") <= failures:
                raise Exception("The current node timed out during startup. Et cetera.")

    monkeypatch.setattr(ray_local, "mute", lambda quiet: None)
    monkeypatch.setattr(ray_local, "disconnect", lambda: calls.append("shutdown"))
    if failures < ray_local.STARTS:
        ray_local.start(FakeRay(), 2)
    else:
        with pytest.raises(RayDidNotStart, match="in 3 attempts: The current node timed out"):
            ray_local.start(FakeRay(), 2)
    assert calls == ["init", "shutdown"] * min(failures, 3) + ["init"] * (failures < 3)


def test_settings_that_ray_reads_at_its_import_are_left_alone_after_it(monkeypatch):
    patience = next(iter(ray_local.PATIENCE))
    monkeypatch.setattr(os, "environ", {patience: "5"})
    monkeypatch.setitem(ray_local.sys.modules, "ray", object())
    ray_local.prepare(local=True)
    assert "RAY_AUTH_MODE" not in os.environ
    assert os.environ[patience] == "5"
    monkeypatch.delitem(ray_local.sys.modules, "ray")
    ray_local.prepare(local=True)
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
