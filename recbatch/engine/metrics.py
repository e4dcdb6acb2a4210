"""A job's numbers as Ray metrics, for Prometheus: every Ray node serves them, prefixed ``ray_``.

Counted in the driver, from the job's events, where the job runs on Ray; any other executor has none. How busy the
GPUs are is not counted here: Ray itself exports ``ray_node_gpus_utilization`` for each node.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from recbatch.engine import events

SECONDS = [
    0.1,
    0.3,
    1,
    3,
    10,
    30,
    100,
    300,
    1000,
]  # bounds of the buckets, of commits and of a shard's stages


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What Ray is asked for. Tags have few values: a status, a stage; never a key or a shard."""

    kind: str  # Counter, Gauge or Histogram of ray.util.metrics
    name: str
    description: str
    tags: tuple[str, ...] = ()


METERS = (
    Meter(kind="Counter", name="recbatch_images_total", description="Images done.", tags=("status",)),
    Meter(kind="Counter", name="recbatch_bytes_in_total", description="Bytes of the sources archived."),
    Meter(kind="Counter", name="recbatch_bytes_out_total", description="Bytes of the streams archived."),
    Meter(kind="Counter", name="recbatch_pixels_total", description="Pixels archived."),
    Meter(kind="Counter", name="recbatch_quarantined_total", description="Images given up.", tags=("code",)),
    Meter(
        kind="Counter",
        name="recbatch_shards_total",
        description="Shards: done, or lost with what became of them (retry, split, quarantine).",
        tags=("outcome",),
    ),
    Meter(kind="Counter", name="recbatch_retries_total", description="Shards handed out again."),
    Meter(kind="Counter", name="recbatch_actor_deaths_total", description="Workers lost, or failing."),
    Meter(kind="Counter", name="recbatch_nodes_left_total", description="Nodes that lost too many workers."),
    Meter(
        kind="Histogram",
        name="recbatch_stage_seconds",
        description="Seconds that one shard took in a stage of its worker.",
        tags=("stage",),
    ),
    Meter(
        kind="Histogram", name="recbatch_commit_seconds", description="Seconds of a commit with its retries."
    ),
    Meter(kind="Gauge", name="recbatch_queue_depth", description="Shards planned and not done yet."),
    Meter(kind="Gauge", name="recbatch_images_planned", description="Images of the running job."),
    Meter(kind="Gauge", name="recbatch_workers", description="Workers that the running job asked for."),
)


class Metrics:
    """A listener to one job's events. Before Ray is there, and after, it counts for itself alone.

    ``failures``: what becomes of an image that can't be coded: "quarantined", or "kept" as it was.
    """

    def __init__(self, failures: str = "quarantined") -> None:
        self._failures = failures
        self._meters: dict[str, Any] = {}
        self._shards_left = 0
        self._planned: events.Planned | None = None

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Planned):
            self._planned, self._shards_left = event, event.shards
        with contextlib.suppress(Exception):  # a number that can't be told ends no job
            if connected():
                self._tell(event)

    def _tell(self, event: events.Event) -> None:
        if not self._meters:
            self._open()
        match event:
            case events.Planned():
                self._tell_plan()
            case events.ShardDone():
                self._count_shard(event)
            case events.ImageQuarantined() if self._failures == "quarantined":
                self._add("recbatch_quarantined_total", 1, code=event.code)
            case events.ActorDied():
                self._add("recbatch_actor_deaths_total", 1)
                self._add("recbatch_shards_total", 1, outcome=event.action)
                if event.action != "quarantine":
                    self._add("recbatch_retries_total", 1)
                if event.action == "split":
                    self._shards_left += 1  # one became two
                    self._tell_queue()
            case events.NodeLeft():
                self._add("recbatch_nodes_left_total", 1)
            case events.Committed():
                self._meters["recbatch_commit_seconds"].observe(max(event.seconds, 1e-6))
            case events.Finished():
                self._shards_left = 0
                self._tell_queue()
                self._meters["recbatch_images_planned"].set(0)
                self._meters["recbatch_workers"].set(0)
            case _:
                pass

    def _open(self) -> None:
        library = import_module("ray.util.metrics")
        for meter in METERS:
            more = {"boundaries": SECONDS} if meter.kind == "Histogram" else {}
            make = getattr(library, meter.kind)
            self._meters[meter.name] = make(
                meter.name, description=meter.description, tag_keys=meter.tags, **more
            )
        self._tell_plan()

    def _tell_plan(self) -> None:
        if self._planned is not None:
            self._meters["recbatch_images_planned"].set(self._planned.images)
            self._meters["recbatch_workers"].set(self._planned.workers)
        self._tell_queue()

    def _tell_queue(self) -> None:
        self._meters["recbatch_queue_depth"].set(max(0, self._shards_left))

    def _count_shard(self, event: events.ShardDone) -> None:
        self._add("recbatch_images_total", event.images, status="ok")
        self._add("recbatch_images_total", event.quarantined, status=self._failures)
        self._add("recbatch_bytes_in_total", event.bytes_in)
        self._add("recbatch_bytes_out_total", event.bytes_out)
        self._add("recbatch_pixels_total", event.pixels)
        self._add("recbatch_shards_total", 1, outcome="done")
        for stage, seconds in event.stages.items():
            self._meters["recbatch_stage_seconds"].observe(max(seconds, 1e-6), tags={"stage": stage})
        self._shards_left -= 1
        self._tell_queue()

    def _add(self, name: str, value: float, **tags: str) -> None:
        if value > 0:  # Ray refuses 0
            self._meters[name].inc(value, tags=tags or None)


def connected() -> bool:
    """Whether this process speaks to Ray; asking does not load it."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def listener(executor: str, *, failures: str = "quarantined") -> events.Progress:
    """What counts a job's events, by the executor that runs it."""
    return Metrics(failures) if executor == "ray" else events.ignore
