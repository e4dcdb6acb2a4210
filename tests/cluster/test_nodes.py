"""Several nodes on this one machine, with GPUs that Ray only counts: nodes come, go and die under a job."""

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "engine"))
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before Ray is imported: the loopback only
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "token"

from cluster_jobs import Tell  # noqa: E402
from engine_fakes import CODEC, FakeSettings, fill  # noqa: E402
from ray_families import shut_down  # noqa: E402

from recbatch.archive import Archive  # noqa: E402
from recbatch.engine import compress, errors, events, ray_local  # noqa: E402
from recbatch.engine.driver import Tuning  # noqa: E402
from recbatch.engine.feed import WINDOW_IMAGES  # noqa: E402
from recbatch.engine.ray_pool import ASIDE, Need, RayPool  # noqa: E402
from recbatch.errors import UsageError  # noqa: E402

pytestmark = pytest.mark.chaos
NODE = {"object_store_memory": 80 << 20}


def started(start):
    """Ray gives its own start 30 s, however busy the machine is."""
    for attempt in range(3):
        try:
            return start()
        except Exception:
            if attempt == 2:
                raise
    raise AssertionError


class Nodes:
    """A cluster whose head has no CPU to lend, and the processes that it ever had."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        health = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": health, **NODE}
        self.cluster = started(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.plain = self.add(num_cpus=1)  # always there

    def add(self, **resources):
        return started(lambda: self.cluster.add_node(**resources, **NODE))

    def remove(self, node):
        self.cluster.remove_node(node, allow_graceful=True)

    def until_it_works(self, node):
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        until = time.monotonic() + 120
        while not any(process.name().startswith("ray::Host") for process in raylet.children()):
            assert time.monotonic() < until
            time.sleep(0.1)
        return node

    def kill(self, node):
        """As when the power goes: the raylet first, and its workers find out."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        family = raylet.children(recursive=True)
        raylet.send_signal(signal.SIGKILL)
        for process in family:
            process.kill()

    def close(self):
        shut_down(self.cluster)


@pytest.fixture(scope="module")
def nodes():
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(HERE), str(HERE.parent / "engine"), *filter(None, [before.get("PYTHONPATH")])]
    )
    nodes = Nodes()
    os.environ["RAY_ADDRESS"] = nodes.cluster.address  # as in a job on a cluster
    try:
        assert ray_local.connect(1)
        yield nodes
    finally:
        ray_local.disconnect()
        nodes.close()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def pools():
    opened = []

    def open_pool(**options):
        opened.append(RayPool(**options))
        return opened[-1]

    yield open_pool
    for pool in opened:
        pool.close()


def answers(pool, count, timeout_s=60.0):
    """What so many workers tell, once all are set up."""
    handles = dict(pool.start(Tell()) for _ in range(count))
    told = []
    until = time.monotonic() + timeout_s
    for handle, setup in handles.items():
        while not pool.wait([setup], 0.2):
            assert time.monotonic() < until
        pool.result(setup)
        ticket = pool.submit(handle, None)
        while not pool.wait([ticket], 0.2):
            assert time.monotonic() < until
        told.append(pool.result(ticket))
    places = dict(pool.arrived())
    assert [places[handle] for handle in handles] == [answer["node"] for answer in told]
    for handle in handles:
        pool.kill(handle)
    return told


def test_nodes_come_go_and_die_under_a_job_and_every_image_is_archived_once(tmp_path, nodes):
    names = [f"{number:03d}.png" for number in range(170)]
    written = fill(tmp_path / "in", names)
    first, late = nodes.add(num_cpus=1), []
    told, done = [], Counter()
    steps = {
        6: lambda: late.append(nodes.add(num_cpus=2)),
        30: lambda: nodes.kill(nodes.until_it_works(late[0])),
        60: lambda: nodes.remove(nodes.until_it_works(first)),
    }

    def progress(event):
        told.append(event)
        done[type(event)] += 1
        if isinstance(event, events.ShardDone) and (step := steps.pop(done[events.ShardDone], None)):
            step()

    report = compress(
        str(tmp_path / "in"),
        str(tmp_path / "archive"),
        settings=FakeSettings(sleep_s=0.06),
        workers=4,
        shard_bytes=200,
        codec_factory=CODEC,
        tuning=Tuning(poll_s=0.1, backoff_s=0.01),
        progress=progress,
    )
    assert not steps
    assert (report.images, report.quarantined) == (170, 0)
    died = [event for event in told if isinstance(event, events.ActorDied)]
    assert {(event.attempt, event.action) for event in died} <= {(1, "retry")}, died  # no shard is suspected
    assert report.deaths >= 2  # with the node that died, and with the one that was taken away
    archive = Archive.open(str(tmp_path / "archive"))
    assert {record.key: record.stream for record in archive.records()} == written


@pytest.mark.long
def test_a_signal_commits_the_part_of_a_shard_that_is_done(tmp_path, nodes, monkeypatch):
    import ray

    names = [f"{number:04d}.png" for number in range(3 * WINDOW_IMAGES)]
    names[WINDOW_IMAGES] = f"{WINDOW_IMAGES:04d}-gate.png"
    fill(tmp_path / "in", names)
    (tmp_path / "once").mkdir()
    told = []

    def progress(event):
        told.append(event)
        if isinstance(event, events.Working) and event.images == WINDOW_IMAGES:
            signal.raise_signal(signal.SIGTERM)

    stop = RayPool.stop

    def stop_and_open(pool, handle):
        stop(pool, handle)
        ray.get(handle.part.options(concurrency_group=ASIDE).remote())  # what was said before is heard by now
        (tmp_path / "once" / "open").touch()

    monkeypatch.setattr(RayPool, "stop", stop_and_open)
    report = compress(
        str(tmp_path / "in"),
        str(tmp_path / "archive"),
        settings=FakeSettings(once=str(tmp_path / "once")),
        workers=1,
        shard_bytes=10**6,
        codec_factory=CODEC,
        progress=progress,
    )
    assert report.interrupted
    assert report.images in (WINDOW_IMAGES, 2 * WINDOW_IMAGES)  # a batch that had begun comes to its end
    assert sorted(Archive.open(str(tmp_path / "archive"))) == sorted(names)[: report.images]


def test_gpus_are_given_out_whole_and_in_parts_and_a_node_that_is_left_stays_free(nodes, pools):
    node = nodes.add(num_cpus=4, num_gpus=2)
    pool = pools(workers=2, gpus_per_worker=1)
    assert (pool.elastic, pool.places, pool.threads(2)) == (True, 2, 0)
    seen = answers(pool, 2)
    assert sorted((answer["node"], answer["gpus"]) for answer in seen) == [
        (node.node_id, "0"),
        (node.node_id, "1"),
    ]
    assert {answer["threads"] for answer in seen} == {2}  # four cores between two workers
    assert RayPool(gpus_per_worker=0.5).places == 4
    assert RayPool(gpus_per_worker=0.4).places == 4  # of 0.4, two share a GPU, and no third does
    assert RayPool(gpus_per_worker=2).places == 1
    seen = answers(pools(workers=4, gpus_per_worker=0.5), 3)
    assert sorted(Counter(answer["gpus"] for answer in seen).values()) == [1, 2]

    pool = pools()
    assert pool.places == 5
    pool.leave(node.node_id)
    assert pool.places == 1
    assert [answer["node"] for answer in answers(pool, 1)] == [nodes.plain.node_id]


def test_what_has_no_place_is_refused_or_waited_for_as_asked(nodes, pools):
    with pytest.raises(UsageError, match=r"1\.5 GPUs"):
        RayPool(gpus_per_worker=1.5)
    with pytest.raises(errors.NotEnoughResources, match="64 GPUs"):
        RayPool(gpus_per_worker=64, wait_s=0)
    waiting = pools(gpus_per_worker=64)  # a cluster may grow
    handle, setup = waiting.start(Tell())
    assert waiting.wait([setup], 0.5) == []
    assert waiting.arrived() == []
    assert waiting.patience_s == 600
    waiting.kill(handle)


@pytest.mark.parametrize(
    ("need", "present", "places"),
    [
        (Need(), {"CPU": 3.0}, 3),
        (Need(), {}, 0),
        (Need(gpus=1), {"CPU": 8.0}, 0),
        (Need(gpus=1), {"CPU": 1.0, "GPU": 4.0}, 1),
        (Need(gpus=0.25), {"CPU": 64.0, "GPU": 2.0}, 8),
        (Need(gpus=0.3), {"CPU": 64.0, "GPU": 2.0}, 6),
        (Need(gpus=3), {"CPU": 64.0, "GPU": 8.0}, 2),
    ],
)
def test_places_of_a_node(need, present, places):
    assert need.places(present) == places
