"""What goes wrong in one job, drawn from a seed: the same seed, the same faults. Pure."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass

IMAGES = 200
KEYS = [f"{number % 7}/{number:03d}.png" for number in range(IMAGES - 1)] + ["3/bad.png"]
SHARD_IMAGES = 5  # of 100 bytes each, in a shard of 500
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}

WORKERS = {  # a fault: its trap
    "worker killed while it encodes": "killed",
    "worker killed before its write": "killed-before-write",
    "worker killed in its write": "killed-in-write",
    "worker killed after its write": "killed-after-write",
    "worker frozen while it encodes": "frozen",
    "worker frozen in its write": "frozen-in-write",
    "straggler ends after its shard was redone": "lingers",
    "poison image kills each worker": "poison",
    "disk full at a worker's write": "full-disk",
    "data file lost before its commit": "file-lost",
    "data file cut before its commit": "file-cut",
}
COMMITS = {
    "driver killed before a commit": "killed-before",
    "driver killed inside a commit": "killed-in",
    "driver killed after a commit": "killed-after",
    "answer to a commit lost": "answer-lost",
    "somebody else commits first": "rival",
    "disk full at a commit": "full",
}
OTHERS = (
    "worker killed at random",
    "driver SIGKILL at random",
    "driver SIGTERM at random",
    "driver SIGINT at random",
    "two drivers at once",
    "three drivers at once",
    "driver frozen, overtaken, thawed",
    "zombies write after their driver died",
    "log entry torn",
    "source files changed midway",
    "source files deleted midway",
    "clock wrong by years",
)
FAULTS = (*WORKERS, *COMMITS, *OTHERS)
HARMLESS = ("killed", "killed-before-write", "killed-in-write", "killed-after-write", "file-lost", "file-cut")
"""Traps that may be set beside another fault: each costs a shard, none the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a signal comes: some time after the n-th event of a kind."""

    event: str
    count: int
    later_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    seed: int
    fault: str
    traps: tuple[tuple[str, str], ...]  # kind and key
    moment: Moment
    victims: tuple[str, ...]  # keys of source files that change or go
    at_commit: str = ""
    commit: int = 0
    workers: int = 2
    commit_shards: int = 3
    clock_s: float = 0.0
    drivers: int = 1
    pick: int = 0  # chooses among what is only known then

    @property
    def poisons(self) -> set[str]:
        return {key for kind, key in self.traps if kind == "poison"}

    def bound(self, ends: Sequence[int | None], *, killed: int) -> int:
        """Shards that may be begun and not committed.

        Args:
            ends: of each driver, the workers it had where its end was no good one; None where it was.
            killed: workers that were killed from outside.
        """
        explained = killed
        for kind, _ in self.traps:
            if kind == "poison":
                # The whole twice, a half of a half once each, the image alone twice; the last needs no worker's write.
                explained += 2 + math.ceil(math.log2(SHARD_IMAGES)) + 1
            elif kind in ("frozen", "frozen-in-write", "lingers"):
                explained += 2  # once more where the machine was so slow that the deadline came first
            else:
                explained += 1
        for workers in ends:
            if workers is not None:
                # What waited for a commit, and in each worker one that runs, one that is done and one at the door.
                explained += self.commit_shards - 1 + 3 * workers
        return explained


def draw(seed: int) -> Scenario:
    """The fault goes round with the seed; where and when it strikes, and what else does, is drawn."""
    rng = random.Random(seed)
    fault = FAULTS[seed % len(FAULTS)]
    good = rng.sample(KEYS[:-1], 8)
    traps = [(WORKERS[fault], good[0])] if fault in WORKERS else []
    if fault == "zombies write after their driver died":
        traps.append(("lingers", good[0]))
    if fault != "disk full at a worker's write":
        extra = rng.choices(range(3), (5, 3, 2))[0]
        traps += [(rng.choice(HARMLESS), key) for key in good[1 : 1 + extra]]
    event = rng.choice(["Planned", "WorkersReady", "ShardDone", "ShardDone", "Committed"])
    if fault in ("worker killed at random", "driver frozen, overtaken, thawed"):
        event = "ShardDone"
    return Scenario(
        seed=seed,
        fault=fault,
        traps=tuple(traps),
        moment=Moment(
            event=event,
            count=1 if event in ("Planned", "WorkersReady") else rng.randint(1, 10),
            later_s=rng.choice([0.0, rng.uniform(0.0, 0.5)]),
        ),
        victims=tuple(good[5:]),
        at_commit=COMMITS.get(fault, ""),
        commit=rng.randint(1, 5),
        workers=1 if fault in ("two drivers at once", "three drivers at once") else rng.randint(1, 2),
        commit_shards=rng.randint(1, 6),
        clock_s=rng.choice([-1, 1]) * rng.uniform(1, 20) * 365 * 86400.0
        if fault.startswith("clock")
        else 0.0,
        drivers={"two drivers at once": 2, "three drivers at once": 3}.get(fault, 1),
        pick=rng.randrange(1000),
    )
