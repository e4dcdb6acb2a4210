"""The way to a cluster: addresses, tokens, what stands in for a head or is none, and slow starts of Ray."""

import os

import pytest

from recbatch.engine import head, ray_local, submission
from recbatch.engine.cluster_errors import (
    ClusterAddressMissing,
    ClusterAddressUnusable,
    ClusterUnreachable,
    HeadTakesNoJobs,
    RayDidNotStart,
    SubmissionFailed,
)
from recbatch.engine.orders import Order


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("head:8265", "Write http://head:8265"),
        ("head:6379", "Write http://head:8265"),
        ("ray://head:10001", "Write http://HEAD:8265"),
        ("http://:8265", "Write http://HEAD:8265"),
        ("http://head:port", "Write http://HEAD:8265"),
        ("http://me:hush@head:8265", "'head:8265' comes with a user or a password"),
        ("me:hush@head:8265", "put the cluster's token into RAY_AUTH_TOKEN"),
    ],
)
def test_an_address_of_another_kind_is_refused_at_once_and_no_password_is_repeated(address, says):
    with pytest.raises(ClusterAddressUnusable) as caught:
        head.address_of(address, {})
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)


def test_without_an_address_each_command_says_what_else_there_is(run, monkeypatch):
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    submitted, listed = run("submit", "verify", "s3://c/d"), run("jobs", "ls")
    assert (submitted.status, listed.status) == (2, 2)
    assert "without 'submit' the same command runs on this machine" in submitted.err
    assert "'recbatch jobs status --archive ARCHIVE' needs none" in listed.err


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


def test_a_file_of_a_token_that_can_not_be_read_is_named(tmp_path):
    token, problem = head.find_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "gone")})
    assert token == ""
    error = head.refused("http://head:8265", token, problem)
    assert f"{tmp_path}/gone, can't be read (no such file or directory). Put it into" in str(error)


def test_a_log_that_breaks_off_is_told_with_where_else_to_look():
    broken = RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
    error = head.translated(broken, "http://head:8265", token="", place="", job="nightly-1")
    assert isinstance(error, ClusterUnreachable)
    assert "it broke the connection off" in str(error)
    assert "'recbatch jobs status --archive ARCHIVE' tells how far nightly-1 came" in str(error)


def test_a_head_that_takes_no_job_is_waited_for_with_a_word_and_given_up_with_its_likely_cause(monkeypatch):
    class Young(submission.Cluster):
        def __init__(self):
            self.address, self._client, self.times = "http://head:8265", None, iter((0, 1, 121))

        def _call(self, call, *, job=""):
            raise SubmissionFailed(self.address, "No available agent to submit job, please try again later")

    young, told = Young(), []
    monkeypatch.setattr(submission.time, "monotonic", lambda: next(young.times))
    monkeypatch.setattr(submission.time, "sleep", lambda seconds: None)
    with pytest.raises(HeadTakesNoJobs, match=r"for 121 s.*--dashboard-agent-listen-port"):
        young._send(Order(name="a", command=("true",)), "a-1", {}, told.append)
    assert len(told) == 1
    assert "no agent yet" in told[0]


def test_nothing_that_listens_is_told_in_one_line(run):
    import socket

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    outcome = run("jobs", "ls", "--address", f"http://127.0.0.1:{port}")
    assert outcome.status == 3
    assert "connection refused" in outcome.err
    assert outcome.err.count("\n") == 1
    status = run("jobs", "status", "nightly", "--address", f"http://127.0.0.1:{port}")
    assert "'recbatch jobs status --archive ARCHIVE' tells how far nightly came" in status.err
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
