"""A Ray cluster on this machine whose actors, raylets and nodes die, drawn from a seed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ray_families import shut_down

FAULTS = (
    "Ray actor killed",
    "Ray actor frozen",
    "raylet killed, its workers live on",
    "node killed with all its processes",
    "node taken away with notice",
    "node taken away without notice",
)
NODE = {"object_store_memory": 80 << 20}
WANTED = 2  # nodes of one worker each, beside one that is never touched
STARTS = 3  # Ray gives its own start 30 s, however busy the machine is


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    fault: str
    shard: int  # strikes when so many are done
    pick: int


def draw_steps(seed: int) -> tuple[Step, ...]:
    rng = random.Random(seed)
    faults = [FAULTS[seed % len(FAULTS)], *rng.choices(FAULTS, k=rng.randint(0, 1))]
    places = sorted(rng.sample(range(1, 25), len(faults)))
    return tuple(
        Step(fault=fault, shard=shard, pick=rng.randrange(1000))
        for fault, shard in zip(faults, places, strict=True)
    )


class Nodes:
    """The head has no CPU to lend; ``cost`` counts the shards that what was done here explains."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        health = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": health, **NODE}
        self.cluster = _started(lambda: Cluster(initialize_head=True, head_node_args=head))
        self._safe = self._add()
        self._others: list[Any] = []
        self.cost = 0

    def prepare(self) -> None:
        """As many nodes as a test is to find."""
        self.cost = 0
        while len(self._others) < WANTED:
            self._others.append(self._add())

    def _add(self) -> Any:
        return _started(lambda: self.cluster.add_node(num_cpus=1, **NODE))

    def strike(self, step: Step) -> None:
        if step.fault.startswith("Ray actor"):
            self._hit_actor(step)
        elif self._others:
            node = self._others.pop(step.pick % len(self._others))
            self.cost += 2  # what ran there, and what had been sent after it
            self._end(node, step.fault)

    def _hit_actor(self, step: Step) -> None:
        actors = sorted(_actors(psutil.Process()), key=lambda process: process.pid)
        if actors:
            self.cost += 1
            actors[step.pick % len(actors)].kill()

    def _end(self, node: Any, fault: str) -> None:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        family = raylet.children(recursive=True)
        if fault.startswith("node taken away"):
            self.cluster.remove_node(node, allow_graceful=fault.endswith("with notice"))
            return
        raylet.send_signal(signal.SIGKILL)
        if fault.startswith("node killed"):
            for process in family:
                process.kill()

    def close(self) -> None:
        shut_down(self.cluster)


@contextmanager
def cluster(*paths: Path) -> Iterator[Nodes]:
    """The nodes, and this process as a driver on them; ``paths`` are where workers find the codec."""
    from recbatch.engine import ray_local

    before = dict(os.environ)
    known = [before["PYTHONPATH"]] if before.get("PYTHONPATH") else []
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *known])
    os.environ["RAY_AUTH_MODE"] = "token"
    ray_local.prepare(local=True)
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


def _actors(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        try:
            if child.name().startswith("ray::Host") and child.status() != psutil.STATUS_STOPPED:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def _started(start: Callable[[], Any]) -> Any:
    for attempt in range(1, STARTS + 1):
        try:
            return start()
        except Exception:
            if attempt == STARTS:
                raise
            time.sleep(1.0)
    raise AssertionError
