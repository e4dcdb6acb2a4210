"""The same with Ray: it has signal handlers, watchdogs and zombies of its own."""

import os
import signal
from pathlib import Path

import psutil
import pytest
from chaos_codec import Traps
from chaos_driver import Orders
from chaos_invariants import check_rows, check_swept, check_whole, finish, redone, rows_of
from chaos_play import Outcome
from chaos_runs import Run
from chaos_scenarios import KEYS
from chaos_table import tell
from engine_fakes import CODEC, FakeSettings, fill

from recbatch.engine import compress, events, ray_local
from recbatch.engine.driver import Tuning

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def local_ray():
    before = os.environ.get("PYTHONPATH")
    paths = [str(Path(__file__).parents[1] / "engine"), *filter(None, [before])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    owned = ray_local.connect(2)
    yield
    if owned:
        ray_local.disconnect()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def source(tmp_path):
    fill(tmp_path / "source", KEYS)
    return str(tmp_path / "source")


def of_its_own(folder, source, archive, undisturbed, fault, end):
    """A driver whose Ray is its own; ``end`` ends it, or its Ray, in the middle."""
    (folder / "traps").mkdir()
    run = Run(
        Orders(source=source, archive=archive, traps=str(folder / "traps"), executor="ray", sleep_s=0.03)
    )
    try:
        run.until("ShardDone", 8)
        assert run.running, run.story()
        end(run)
        status = run.wait()
    finally:
        left = run.sweep()
    rows = rows_of(archive)
    assert rows
    assert rows.items() <= undisturbed.items()
    cost, bound = redone(Traps(folder / "traps"), archive), 2 + 3 * 2  # as of a driver with plain processes
    assert cost <= bound, run.story()
    finish(source, archive)
    check_rows(archive, undisturbed)
    check_whole(source, archive)
    tell(
        Outcome(
            fault=fault,
            seed=0,
            statuses=(status,),
            redone=cost,
            bound=bound,
            orphans=check_swept(archive),
            images=len(rows_of(archive)),
        )
    )
    return status, run, left


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_with_a_ray_of_its_own_may_end_at_any_moment(tmp_path, source, undisturbed, number):
    status, run, left = of_its_own(
        tmp_path,
        source,
        str(tmp_path / "archive"),
        undisturbed,
        f"driver with its own Ray, {number.name}",
        lambda run: os.killpg(run.popen.pid, number),
    )
    assert status == (-number if number == signal.SIGKILL else 130), run.story()
    assert not [
        name for name in left if "Host" in name
    ]  # an agent of Ray may take its time, a worker may not


@pytest.mark.long
@pytest.mark.parametrize("server", ["gcs_server", "raylet"])
def test_a_driver_whose_ray_is_killed_loses_nothing(tmp_path, source, undisturbed, server):
    def end(run):
        family = psutil.Process(run.popen.pid).children(recursive=True)
        next(process for process in family if process.name() == server).kill()

    status, run, _ = of_its_own(
        tmp_path,
        source,
        str(tmp_path / "archive"),
        undisturbed,
        f"{server} of the driver's own Ray killed",
        end,
    )
    # Actors answer without the servers, for a while: a job near its end comes to it.
    assert status not in (0, 1) or run.events("report"), run.story()


def test_actors_killed_and_frozen_cost_no_image(tmp_path, local_ray, source, undisturbed, capfd):
    archive = str(tmp_path / "archive")
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
        source,
        archive,
        settings=FakeSettings(sleep_s=0.004),
        workers=2,
        shard_bytes=500,
        codec_factory=CODEC,
        tuning=Tuning(poll_s=0.1, backoff_s=0.01, commit_shards=8, deadline_s=6.0, deadline_image_s=0.0),
        progress=progress,
    )
    assert (report.images, report.quarantined) == (199, 1), told
    assert len(hit) == 2
    assert capfd.readouterr().out == ""  # results go there, and Ray's laments must not
    assert report.deaths >= 2
    check_rows(archive, undisturbed)
    check_whole(source, archive)


def test_a_worker_that_cant_start_says_why(tmp_path, local_ray, source):
    with pytest.raises(Exception, match="a_module_that_is_not_there") as caught:
        compress(
            source,
            str(tmp_path / "archive"),
            settings=FakeSettings(fail_setup="import"),
            workers=1,
            codec_factory=CODEC,
        )
    assert caught.value.code == "worker-setup-failed"


def test_more_gpus_than_there_are_is_an_error_not_a_wait(tmp_path, local_ray, source):
    with pytest.raises(Exception, match="64 GPUs") as caught:
        compress(
            source,
            str(tmp_path / "archive"),
            settings=FakeSettings(),
            workers=1,
            gpus_per_worker=64,
            codec_factory=CODEC,
        )
    assert caught.value.code == "not-enough-resources"
