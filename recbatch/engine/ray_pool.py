"""Ray's actors as a pool. No restarts and no retries by Ray: the driver owns both.

An actor that finds no place stays pending, which is what makes an autoscaler start a node. So as many are started as
are wanted, and where each has come to stand is asked afterwards.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recbatch.engine import ray_local, resources
from recbatch.engine.errors import NotEnoughResources, WorkerSetupFailed
from recbatch.engine.pools import Handle, Hello, Host, Job, Listener, Ticket, WorkerDied, WorkerRaised
from recbatch.engine.watch import Part
from recbatch.errors import RecbatchError, UsageError

RESULT_TIMEOUT_S = 30.0
WAIT_FOR_WORKERS_S = 600.0  # a cloud takes minutes to bring a GPU node; Ray does not tell whether it will
UNBOUNDED = 1 << 20
MANY_TICKETS = 64  # from here on Ray is asked now and then: blocking on so many costs more than asking
ASK_EVERY_S = 0.02
NODES_EVERY_S = 2.0
PARTS_EVERY_S = 2.0  # between two questions how far a worker is; and of all workers together:
PARTS_A_SECOND = 50.0
ASIDE = "aside"  # calls that are answered while a task runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What Ray is asked for each worker."""

    gpus: float = 0.0
    cpus: float = 1.0

    def places(self, present: dict[str, float]) -> int:
        """Workers that these resources of one node hold."""
        count = int(present.get("CPU", 0) / self.cpus)
        gpus = present.get("GPU", 0)
        if self.gpus >= 1:
            count = min(count, int(gpus / self.gpus))
        elif (
            self.gpus > 0
        ):  # a fraction comes out of one GPU: three of 0.4 do not fit, though 1.2 of two would
            count = min(count, int(gpus) * int(1 / self.gpus + 1e-9))
        return count

    def text(self, workers: int) -> str:
        if self.gpus:
            return f"{self.gpus * workers:g} GPUs ({workers} x {self.gpus:g}, each with a CPU)"
        return f"{workers} CPUs"


class HostOnRay(Host):
    """The actor."""

    def __init__(self, job: bytes, need: Need, workers: int) -> None:
        super().__init__(job)
        self._need, self._workers = need, workers

    def arrive(self) -> str:
        """The node that it stands on. Answered at once, before anything is loaded."""
        node: str = ray_local.load().get_runtime_context().get_node_id()
        return node

    def setup(self) -> Hello | RecbatchError:
        if self._workers:
            resources.limit_cpus(self._share())
        return super().setup()

    def part(self) -> Part:
        """Answered aside."""
        return self._watch.part

    def stop(self) -> None:
        """Heard aside."""
        self._watch.stop()

    def _share(self) -> int:
        """Cores of this node for each of the workers that will come to stand on it."""
        ray = ray_local.load()
        nodes = [node for node in ray.nodes() if node["Alive"] and self._need.places(node["Resources"])]
        here = ray.get_runtime_context().get_node_id()
        mine: dict[str, float] = next((node["Resources"] for node in nodes if node["NodeID"] == here), {})
        expected = min(self._need.places(mine), math.ceil(self._workers / max(1, len(nodes))))
        return max(1, int(mine.get("CPU", 1)) // max(1, expected))


class RayPool:
    """One actor a worker.

    Args:
        workers: how many there are to be, where that is known; they share the cores of the nodes they stand on.
        gpus_per_worker: a fraction below 1, or a whole number.
        wait_s: how long the first worker may wait for a place; 0 refuses at once what has none now. By default a
            cluster is waited for, a Ray on this machine alone is not: it will not grow.

    Raises:
        UsageError: Ray can't give so many GPUs.
        NotEnoughResources: no worker has a place, and none is to be waited for.
    """

    def __init__(self, *, workers: int = 1, gpus_per_worker: float = 0, wait_s: float | None = None) -> None:
        if gpus_per_worker > 1 and gpus_per_worker % 1:
            raise UsageError(
                f"A worker can't have {gpus_per_worker:g} GPUs. Give a whole number, or a part of one GPU."
            )
        self._ray = ray_local.load()
        self._need, self._workers = Need(gpus=gpus_per_worker), max(1, workers)
        self._actors: dict[Any, Any] = {}  # and what tells where each stands, until it did
        self._where: dict[Any, str] = {}
        self._left: list[str] = []
        self._listener: Listener | None = None
        self._asked: dict[Any, Any] = {}  # questions how far, and whom
        self._ask_at = 0.0
        self._nodes: list[dict[str, Any]] = []
        self._nodes_at = -math.inf
        self.elastic = bool(os.environ.get("RAY_ADDRESS")) or len(self._alive()) > 1
        self.patience_s = wait_s or WAIT_FOR_WORKERS_S
        if not self._places() and (wait_s == 0 or (wait_s is None and not self.elastic)):
            raise self.shortage(self._workers)

    @property
    def capacity(self) -> int:
        """On a cluster any number: those without a place wait, and make it grow where it can."""
        return UNBOUNDED if self.elastic else self.places

    @property
    def places(self) -> int:
        """Workers that the nodes there are now can hold."""
        return max(1, self._places())

    def _places(self) -> int:
        return sum(
            self._need.places(node["Resources"]) for node in self._alive() if node["NodeID"] not in self._left
        )

    def _alive(self) -> list[dict[str, Any]]:
        if time.monotonic() > self._nodes_at + NODES_EVERY_S:
            self._nodes = [node for node in self._ray.nodes() if node["Alive"]]
            self._nodes_at = time.monotonic()
        return self._nodes

    def threads(self, workers: int) -> int:
        """Of each worker; 0: it finds out on its own node."""
        return 0 if self.elastic else max(1, resources.cpus_available() // workers)

    def shortage(self, workers: int) -> RecbatchError:
        present = self._ray.cluster_resources()
        kind = "GPU" if self._need.gpus else "CPU"
        return NotEnoughResources(self._need.text(workers), f"{present.get(kind, 0):g} {kind}s")

    def start(self, job: Job) -> tuple[Handle, Ticket]:
        options: dict[str, Any] = {}
        if self._left:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self._left)})"}
        kind = self._ray.remote(
            num_cpus=self._need.cpus,
            num_gpus=self._need.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",  # a node's death costs least, and its memory lasts longest
            concurrency_groups={ASIDE: 1},
            **options,
        )
        actor = kind(HostOnRay).remote(pickle.dumps(job), self._need, self._workers if self.elastic else 0)
        self._actors[actor] = actor.arrive.remote()
        return actor, actor.setup.remote()

    def arrived(self) -> list[tuple[Handle, str]]:
        """Workers that have found their place since the last call, and the node."""
        waiting = {ref: actor for actor, ref in self._actors.items() if actor not in self._where}
        if not waiting:
            return []
        done, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        found = []
        for ref in done:
            actor = waiting[ref]
            try:
                self._where[actor] = self._ray.get(ref, timeout=RESULT_TIMEOUT_S)
            except Exception:  # it died on the way, which the ticket of its setup tells
                self._where[actor] = ""
            found.append((actor, self._where[actor]))
        return found

    def leave(self, node: str) -> None:
        """No worker is to stand there any more."""
        self._left.append(node)

    def submit(self, handle: Any, task: Any) -> Ticket:
        ticket: Ticket = handle.run.remote(task)
        return ticket

    def listen(self, listener: Listener) -> None:
        self._listener = listener
        self._ask_at = time.monotonic() + PARTS_EVERY_S

    def stop(self, handle: Any) -> None:
        handle.stop.options(concurrency_group=ASIDE).remote()

    def _ask_parts(self) -> None:
        """Hear who has told how far it is, and now and then ask all."""
        if self._listener is None or time.monotonic() < self._ask_at:
            return
        self._ask_at = time.monotonic() + max(PARTS_EVERY_S, len(self._where) / PARTS_A_SECOND)
        open_ = list(self._asked)
        done = self._ray.wait(open_, num_returns=len(open_), timeout=0)[0] if open_ else ()
        for ref in done:
            actor = self._asked.pop(ref)
            with contextlib.suppress(Exception):  # it died, which its ticket tells
                part = self._ray.get(ref, timeout=RESULT_TIMEOUT_S)
                if actor in self._actors:
                    self._listener(actor, part)
        waiting = set(self._asked.values())
        for actor in self._where:
            if actor not in waiting:
                self._asked[actor.part.options(concurrency_group=ASIDE).remote()] = actor

    def wait(self, tickets: Sequence[Ticket], timeout_s: float) -> list[Ticket]:
        self._ask_parts()
        asked = list(tickets)
        if len(asked) <= MANY_TICKETS:
            done, _ = self._ray.wait(asked, num_returns=1, timeout=timeout_s)
            if not done or len(asked) == 1:
                return list(done)
        until = time.monotonic() + timeout_s
        while True:
            done, _ = self._ray.wait(asked, num_returns=len(asked), timeout=0)  # all that are ready by now
            if done or time.monotonic() >= until:
                return list(done)
            time.sleep(min(ASK_EVERY_S, timeout_s))

    def result(self, ticket: Any) -> Any:
        from ray.exceptions import (
            ActorUnavailableError,
            GetTimeoutError,
            RayActorError,
            RayError,
            RayTaskError,
        )

        try:
            return self._ray.get(ticket, timeout=RESULT_TIMEOUT_S)
        except RayTaskError as error:
            cause = error.cause
            raise WorkerRaised(f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}") from None
        except ActorUnavailableError as error:  # its process or its machine is out of reach
            raise WorkerDied(_short(error), with_node=True) from None
        except RayActorError as error:
            if (told := _creation_error(error)) is not None:
                return WorkerSetupFailed(told)  # another try would say the same
            gone = getattr(error, "preempted", False) or "node has died" in str(error)
            raise WorkerDied(_short(error), with_node=bool(gone)) from None
        except (GetTimeoutError, RayError) as error:
            raise WorkerDied(f"{type(error).__name__}: {_short(error)}") from None

    def kill(self, handle: Any) -> None:
        with contextlib.suppress(Exception):  # a Ray that is gone has no actors either
            self._ray.kill(handle, no_restart=True)
        self._actors.pop(handle, None)
        self._where.pop(handle, None)

    def close(self) -> None:
        for actor in list(self._actors):
            self.kill(actor)


def _creation_error(error: BaseException) -> str | None:
    """Why an actor could not be made at all, such as a package that is not there; the last line of Ray's traceback."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if "error raised in its creation task" not in text:
        return None
    lines = re.findall(r"^\s*([\w.]*(?:Error|Exception)\b.*)$", text, re.MULTILINE)
    return " ".join(lines[-1].split())[:300] if lines else _short(error)


def _short(error: BaseException) -> str:
    """What Ray says, without its pages of advice."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    for mark in ("Worker exit detail: ", "The actor died because", "The actor died", "The actor is dead"):
        _, found, rest = text.partition(mark)
        if found:
            text = rest if mark.endswith(": ") else found + rest
            break
    return text.partition(" Some common causes")[0][:160].rstrip(". ")
