"""What a running job tells: small frozen values, for a progress display or a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from recbatch.engine.report import Report
from recbatch.engine.results import ShardResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The source is listed and cut; ``known`` images are in the archive already."""

    images: int
    bytes: int
    shards: int
    known: int
    skipped: int
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingForWorkers:
    """No worker has a place on the cluster, not yet or no more; told now and then."""

    wanted: int
    seconds: float  # so far
    patience_s: float  # then the job ends


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersReady:
    """The first worker has loaded what it needs."""

    workers: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Working:
    """What is done of the shards that are not, at all workers together; told now and then. It is not written yet."""

    images: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDone:
    """One shard is encoded and written, not yet committed; or restored. After a stop: as much as there was of it."""

    shard: str
    images: int
    quarantined: int
    bytes_in: int
    bytes_out: int
    pixels: int
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds by stage: read, encode, write


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQuarantined:
    key: str
    code: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorDied:
    """A worker died, hung or failed; its shard is done again (``action`` says how)."""

    shard: str
    attempt: int
    reason: str
    action: str  # "retry", "split" or "quarantine"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLeft:
    """Workers keep dying on one node and on no other, or can't start there: it is used no more."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    version: int
    shards: int
    images: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """A signal came: no new shard is taken, workers hand in what they have, and it is committed."""

    signal: str
    patience_s: float = 0.0  # how long workers are waited for; 0: nothing of them is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    report: Report


Event: TypeAlias = (
    Planned
    | WaitingForWorkers
    | WorkersReady
    | Working
    | ShardDone
    | ImageQuarantined
    | ActorDied
    | NodeLeft
    | Committed
    | Stopping
    | Finished
)
Progress: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The progress of one who does not look."""


def fan_out(*listeners: Progress) -> Progress:
    """One that tells all of these, in their order."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


def tell_result(progress: Progress, result: ShardResult) -> None:
    """The events of one finished shard."""
    for key, code, error in result.failures:
        progress(ImageQuarantined(key=key, code=code, error=error))
    progress(
        ShardDone(
            shard=result.shard,
            images=result.images,
            quarantined=result.quarantined,
            bytes_in=result.bytes_in,
            bytes_out=result.bytes_out,
            pixels=result.pixels,
            seconds=result.seconds,
            stages=result.stages,
        )
    )
