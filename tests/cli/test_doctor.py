"""``recbatch doctor``: each line that it can print, what it says to do, and what it never says."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cli.conftest import Run
from recbatch.api import checkup_machine as machine
from recbatch.api import zoo
from recbatch.archive import Archive, rotation
from recbatch.archive.probe import _clocks, probe_store
from recbatch.engine import doctor, head
from recbatch.engine.lease import Holder
from recbatch.errors import CorruptData
from recbatch.health import Check, Probe, State, examine, of_error, ok, redacted
from recbatch.models import exact


def the_bad(checks: Iterator[Check]) -> tuple[State, str, str]:
    """The one check that is not well."""
    (check,) = [check for check in checks if check.state is not State.ok]
    assert check.remedy
    assert check.remedy.endswith(".")
    return check.state, check.text, check.remedy


def all_well(checks: Iterator[Check]) -> list[str]:
    found = list(checks)
    assert [check for check in found if check.state is not State.ok] == []
    return [check.text for check in found]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("RAY_", "AWS_"))]:
        monkeypatch.delenv(name)
    return tmp_path


# --- the command


def test_the_command_prints_a_line_for_each_check_and_is_content_with_this_machine(
    run: Run, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    outcome = run("doctor", "--no-models", tmp_path / "photos")
    lines = [line for line in outcome.out.splitlines() if not line.startswith(" ")]
    assert outcome.status == 0
    assert all(line.startswith(("ok ", "warning ")) for line in lines[:-1])
    assert lines[0].startswith("ok       python: 3.")
    assert f"ok       {tmp_path / 'photos'}: no archive and no images there yet" in lines


def test_a_problem_is_exit_status_1_and_json_is_one_document(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-very-secret-one")
    outcome = run("doctor", "--no-models", "--json", "s3://bucket/archive", "--address", "http://127.0.0.1:1")
    (found,) = outcome.lines()
    problems = [check["text"] for check in found["checks"] if check["state"] == "problem"]
    assert outcome.status == 1
    assert found["problems"] == len(problems) == 3
    assert "UNSAFE_RENAME" in problems[0]
    assert "127.0.0.1:1 does not answer" in problems[1]
    assert "can't be reached" in problems[2]
    assert any("credentials by env" in check["text"] for check in found["checks"])
    assert "a-very-secret-one" not in outcome.out + outcome.err


# --- how checks are run


def test_a_probe_that_fails_or_hangs_ends_no_other() -> None:
    never = threading.Event()

    def fail() -> Iterator[Check]:
        yield ok("first", "fine")
        raise OSError("the disk is on fire")

    def hang() -> Iterator[Check]:
        never.wait()
        yield ok("second", "never told")

    probes = [Probe(name="first", look=fail), Probe(name="second", look=hang, limit_s=0.1)]
    checks = list(examine([*probes, Probe(name="third", look=lambda: [ok("third", "fine")])]))
    never.set()
    assert [(check.name, check.state.value) for check in checks] == [
        *(("first", "ok"), ("first", "problem")),
        *(("second", "problem"), ("third", "ok")),
    ]
    assert "the disk is on fire" in checks[1].text
    assert "no answer within 0.1 s" in checks[2].text


def test_secrets_are_hidden_whatever_brings_them_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abcdef123")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token-of-ray")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/a/path")

    def leak() -> Iterator[Check]:
        yield ok("leak", f"{os.environ['AWS_SECRET_ACCESS_KEY']} in /a/path")
        raise ValueError("token-of-ray and from-a-file")

    checks = list(examine([Probe(name="leak", look=leak)], secrets=["from-a-file"]))
    assert [check.text for check in checks] == ["*** in /a/path", "ValueError: *** and ***"]
    assert redacted("nothing", []) == "nothing"


def test_our_own_errors_have_their_remedy_as_the_last_sentence() -> None:
    class Bent(CorruptData):
        code = "bent"

        def __str__(self) -> str:
            return "It is bent at e.g. 3.5 degrees. Straighten it. Then go on."

    check = of_error("x", Bent())
    assert (check.text, check.remedy) == ("It is bent at e.g. 3.5 degrees.", "Straighten it. Then go on.")


# --- this machine


def test_an_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "OLDEST", (99, 0))
    assert the_bad(machine.python())[0] is State.problem


def test_missing_and_old_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = metadata.version

    def version(name: str) -> str:
        if name == "deltalake":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "ray" else versions(name)

    monkeypatch.setattr(metadata, "version", version)
    state, text, _ = the_bad(machine.packages())
    assert state is State.problem
    assert "deltalake is missing" in text
    assert "ray is 0.1, wanted >=" in text


def test_too_little_memory_names_the_workers_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 30)
    monkeypatch.setattr("recbatch.engine.resources.cpus_available", lambda: 8)
    state, _, remedy = the_bad(machine.cores())
    assert state is State.warning
    assert "--workers 1:" in remedy


def test_free_memory_is_what_the_container_allows(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")
    assert machine.free_memory(tmp_path / "meminfo", tmp_path) == 50 * 1024
    (tmp_path / "memory.max").write_text("40960")
    (tmp_path / "memory.current").write_text("960")
    assert machine.free_memory(tmp_path / "meminfo", tmp_path) == 40_000
    (tmp_path / "memory.max").write_text("max")
    assert machine.free_memory(tmp_path / "meminfo", tmp_path) == 50 * 1024
    assert machine.free_memory(tmp_path / "nothing", tmp_path) is None


def test_temporary_files_need_a_folder_and_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert the_bad(machine.temporary_files())[0] is State.problem
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(machine, "LOW_DISK_BYTES", 1 << 60)
    monkeypatch.setattr(machine, "shared_memory", lambda: iter(()))
    assert the_bad(machine.temporary_files())[0] is State.warning


def test_small_shared_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(machine.shared_memory(tmp_path / "none")) == []
    monkeypatch.setattr(machine, "LOW_SHARED_BYTES", 1 << 60)
    assert "--shm-size" in the_bad(machine.shared_memory(tmp_path))[2]


@pytest.mark.parametrize(
    ("driver", "cuda", "expected"),
    [(None, None, "none is needed"), ("/bin/x", None, "for the CPU alone"), ("/bin/x", "12.8", "finds none")],
)
def test_a_gpu_that_torch_cannot_use_is_told(
    driver: str | None, cuda: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(machine.shutil, "which", lambda name: driver)
    (check,) = machine.gpu()
    assert expected in check.text
    assert (check.state is State.ok) == (driver is None)


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    device = SimpleNamespace(name="A card", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: device)
    assert all_well(machine.gpu())[0].startswith("0: A card, 80 GiB")


def test_kernels_that_cannot_be_kept_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    assert "NUMBA_CACHE_DIR" in the_bad(machine.kernels())[2]


def test_models_that_do_not_work_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(name: str) -> zoo.ModelCheck:
        bad = name == "photo-s2"
        return zoo.ModelCheck(name=name, psnr=40.0, bpp=1.0, problem="it comes back wrong" if bad else None)

    monkeypatch.setattr(zoo, "verify_model", verify)
    state, text, _ = the_bad(machine.models())
    assert state is State.problem
    assert "photo-s2, digest" in text
    assert "it comes back wrong" in text
    monkeypatch.setattr(zoo, "model_names", lambda: ["exact-s"])
    assert "photo-s2 is not among" in the_bad(machine.models())[1]


def test_slower_exact_paths_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    good = exact.Trial(
        **{"device": "cpu", "weight_shape": (8, 8, 3, 3), "in_range": (-1, 1), "input_shape": (1, 8, 9, 9)},
        **{"layout": "NCHW", "rung": "float32", "failures": ()},
    )
    monkeypatch.setattr(exact, "ladder_report", lambda: [good, good])
    assert all_well(machine.exactness()) == ["convolutions are exact: float32 on cpu for 2 shapes"]
    slow = exact.Trial(
        **{"device": "cpu", "weight_shape": (8, 8, 3, 3), "in_range": (-1, 1), "input_shape": (1, 8, 9, 9)},
        **{"layout": "NCHW", "rung": "int64", "failures": ("float32: 3 of 9 sums off their grid",)},
    )
    monkeypatch.setattr(exact, "ladder_report", lambda: [good, slow])
    state, text, _ = the_bad(machine.exactness())
    assert state is State.warning
    assert "int64 on cpu for 1 shapes" in text
    assert "off their grid" in text


# --- Ray


def test_rays_settings_that_bite_are_told(home: Path) -> None:
    assert all_well(doctor.ray_here({}))[1].startswith("no token yet")
    assert "runs on that cluster" in the_bad(doctor.ray_here({"RAY_ADDRESS": "head:6379"}))[1]
    assert "job server" in the_bad(doctor.ray_here({"RAY_ADDRESS": "http://head:8265"}))[1]
    assert "can run code" in the_bad(doctor.ray_here({"RAY_AUTH_MODE": "disabled"}))[1]
    assert the_bad(doctor.ray_here({"RAY_AUTH_TOKEN_PATH": "/not/there"}))[0] is State.problem
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret-token")
    token.chmod(0o644)
    assert "chmod 600" in the_bad(doctor.ray_here({}))[2]
    token.chmod(0o600)
    assert all_well(doctor.ray_here({}))[1] == f"token from {token}"


@pytest.fixture
def job_server() -> Iterator[Callable[..., str]]:
    """A head that answers as it is told to; gives its address."""
    answers: dict[str, object] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = 401 if answers.get("token") not in (None, self.headers.get("Authorization")) else 200
            body = json.dumps(answers.get(self.path, {})).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()

    def set_up(ray: str, *, token: str | None = None) -> str:
        answers.update({"/api/version": {"ray_version": ray}, "token": token and f"Bearer {token}"})
        return f"http://127.0.0.1:{server.server_port}"

    yield set_up
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_cluster_is_asked_for_its_token_and_its_version(
    home: Path, job_server: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = job_server(head.own_ray_version())
    state, text, _ = the_bad(doctor.cluster(address))
    assert (state, text) == (State.warning, "whoever reaches this address can run code there")
    job_server("1.0.0")
    assert "Ray is" in the_bad(doctor.cluster(address))[1]
    job_server(head.own_ray_version(), token="the-right-one")
    assert "there is none" in the_bad(doctor.cluster(address))[1]
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the-wrong-one")
    state, text, _ = the_bad(doctor.cluster(address))
    assert "refuses the token" in text
    assert "the-wrong-one" not in text
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the-right-one")
    assert "token from RAY_AUTH_TOKEN" in all_well(doctor.cluster(address))[0]
    assert "no scheme" in the_bad(doctor.cluster("head:8265"))[1]


# --- folders and archives


def test_folders_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive.create(tmp_path / "archive")
    archive.put_object("x", b"x")
    before = sorted(tmp_path.rglob("*"))
    assert "can be written, and a name can be taken only once" in all_well(probe_store(archive.url))
    assert "not there yet" in all_well(probe_store(str(tmp_path / "new" / "one")))[0]
    assert all_well(probe_store(str(archive.store.local / "_delta_log" / f"{0:020d}.json"))) == ["a file"]
    assert "can be a source" in all_well(probe_store("gs://bucket/photos"))[0]
    assert the_bad(probe_store("file://elsewhere/photos"))[0] is State.problem
    assert sorted(tmp_path.rglob("*")) == before

    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr("recbatch.archive.probe.os.link", no_links)
        assert "no hard links" in the_bad(probe_store(archive.url))[1]
    with monkeypatch.context() as patch:
        patch.setattr("recbatch.archive.probe.os.link", lambda *_: None)
        assert "taken twice" in the_bad(probe_store(archive.url))[1]
    with monkeypatch.context() as patch:
        patch.setattr("recbatch.archive.probe.os.access", lambda path, mode: not mode & os.W_OK)
        assert "can't be written" in the_bad(probe_store(archive.url))[1]
    with monkeypatch.context() as patch:
        patch.setattr("recbatch.archive.probe.LOW_DISK_BYTES", 1 << 60)
        assert "GB free" in the_bad(probe_store(archive.url))[1]


def test_an_archive_is_opened_and_its_last_verification_told(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive")
    assert the_bad(doctor.contents(archive.url))[1] == "never verified"
    check = {"day": 1, "level": "digests", "version": 0, "rows": 9, "rows_checked": 9, "seconds": 1.0}
    record = rotation.Check(finished="2020-01-01T00:00:00+00:00", findings=0, **check)
    rotation.record_check(archive, record)
    assert "verified last 2020-01-01 at level digests" in the_bad(doctor.contents(archive.url))[1]
    record = rotation.Check(finished="2999-01-01T00:00:00+00:00", findings=0, **check)
    rotation.record_check(archive, record)
    assert any("all well" in text for text in all_well(doctor.contents(archive.url)))
    record = rotation.Check(finished="2999-02-01T00:00:00+00:00", findings=3, **check)
    rotation.record_check(archive, record)
    state, text, _ = the_bad(doctor.contents(archive.url))
    assert state is State.problem
    assert "3 findings" in text


def test_a_torn_log_entry_is_named(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive")
    archive.claim_epoch("job")
    entry = tmp_path / "archive" / "_delta_log" / f"{1:020d}.json"
    entry.write_bytes(entry.read_bytes()[:-20])
    state, text, remedy = the_bad(doctor.contents(archive.url))
    assert state is State.problem
    assert f"_delta_log/{1:020d}.json is not whole" in text
    assert "move it away" in remedy


def test_leases_and_old_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive.create(tmp_path / "archive")
    archive.put_object("leases/nightly.json", Holder(owner="a-host:1", epoch=3).to_json())
    archive.put_object("leases/free.json", Holder(owner="").to_json())
    leases = [check.text for check in doctor.contents(archive.url) if "lease" in check.text]
    assert leases == ["lease nightly is held by a-host:1"]
    old = tmp_path / "archive" / "compress-000000-12345678.parquet"
    old.write_bytes(b"never committed")
    os.utime(old, (0, 0))
    texts = [check.text for check in doctor.contents(archive.url) if check.state is State.warning]
    assert "1 data files are old and not of this version" in texts


def test_a_source_is_told_from_an_archive(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    assert all_well(doctor.contents(str(tmp_path / "photos"))) == [
        "no archive, but images, such as a.jpg: a source"
    ]


@pytest.mark.parametrize(("ahead_s", "state"), [(5, "ok"), (-100, "warning"), (1000, "problem")])
def test_a_wrong_clock_is_told(ahead_s: float, state: str) -> None:
    assert _clocks("s3://b", ahead_s).state == state


def test_a_password_in_the_clusters_address_is_not_repeated() -> None:
    (check,) = doctor.cluster("http://me:hidden@127.0.0.1:8265")
    assert check.state is State.problem
    assert "password" in check.text
    assert "hidden" not in check.name + check.text + check.remedy
