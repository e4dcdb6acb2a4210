"""The same with Ray: it has signal handlers, watchdogs and zombies of its own."""

import os
import signal

import pytest
from engine_fakes import CODEC, FakeSettings

from recbatch.archive import Archive
from recbatch.engine import compress, events, ray_local
from recbatch.engine.driver import Tuning

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def local_ray():
    paths = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [os.path.dirname(__file__) + "/../engine", *filter(None, [paths])]
    )
    owned = ray_local.connect(2)
    yield
    if owned:
        ray_local.disconnect()
    if paths is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = paths


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_with_a_ray_of_its_own_may_end_at_any_moment(tmp_path, drive, photographs, number):
    source, want = photographs
    archive = tmp_path / "archive"
    run = drive(source, archive, "ray", sleep_s=0.05)
    run.until("ShardDone", 8)
    os.killpg(run.popen.pid, number)
    assert run.wait(timeout_s=60) == (-number if number == signal.SIGKILL else 130), run.lines
    run.sweep()
    rows = {record.key: (record.status, record.stream) for record in Archive.open(str(archive)).records()}
    assert 0 < len(rows) < 200
    assert rows.items() <= want.items()
    again = compress(
        str(source), str(archive), settings=FakeSettings(), executor="inline", codec_factory=CODEC
    )
    assert (again.known, again.images + again.quarantined) == (len(rows), 200 - len(rows))
    rows = {record.key: (record.status, record.stream) for record in Archive.open(str(archive)).records()}
    assert rows == want


def test_actors_killed_and_frozen_cost_no_image(tmp_path, local_ray, photographs, check, capfd):
    import psutil

    source, _ = photographs
    hits = {4: signal.SIGKILL, 12: signal.SIGSTOP}
    seen, hit, told = [], [], []

    def progress(event):
        told.append(event)
        if not isinstance(event, events.ShardDone):
            return
        seen.append(event.shard)
        if number := hits.pop(len(seen), None):
            family = psutil.Process().children(recursive=True)
            actors = [process for process in family if process.name().startswith("ray::Host")]
            victim = min(actors, key=lambda process: process.pid)
            hit.append(victim)
            victim.send_signal(number)

    report = compress(
        str(source),
        str(tmp_path / "archive"),
        settings=FakeSettings(sleep_s=0.004),
        workers=2,
        shard_bytes=500,
        codec_factory=CODEC,
        tuning=Tuning(poll_s=0.1, backoff_s=0.01, commit_shards=8, deadline_s=4.0, deadline_image_s=0.0),
        progress=progress,
    )
    assert (report.images, report.quarantined) == (199, 1), told
    assert len(hit) == 2
    assert capfd.readouterr().out == ""  # results go there, and Ray's laments must not
    assert report.deaths >= 2
    check(tmp_path / "archive")


def test_a_worker_that_cant_start_says_why(tmp_path, local_ray, photographs):
    source, _ = photographs
    with pytest.raises(Exception, match="a_module_that_is_not_there") as caught:
        compress(
            str(source),
            str(tmp_path / "archive"),
            settings=FakeSettings(fail_setup="import"),
            workers=1,
            codec_factory=CODEC,
        )
    assert caught.value.code == "worker-setup-failed"


def test_more_gpus_than_there_are_is_an_error_not_a_wait(tmp_path, local_ray, photographs):
    source, _ = photographs
    with pytest.raises(Exception, match="64 GPUs") as caught:
        compress(
            str(source),
            str(tmp_path / "archive"),
            settings=FakeSettings(),
            workers=1,
            gpus_per_worker=64,
            codec_factory=CODEC,
        )
    assert caught.value.code == "not-enough-resources"
