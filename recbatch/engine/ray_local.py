"""Ray: started, asked, and stopped. With ``driver`` the only module that knows how Ray dies."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import sys
from importlib import import_module
from typing import Any

from recbatch.engine.errors import NotEnoughResources
from recbatch.engine.pools import Handle, Host, Job, Ticket, WorkerDied, WorkerRaised

OBJECT_STORE_BYTES = 200 << 20  # keys travel through Ray, not pixels
RESULT_TIMEOUT_S = 30.0


def connect(workers: int, *, gpus: float = 0) -> bool:
    """Be connected to Ray: the one that runs already, the job's cluster (RAY_ADDRESS), else a new local one.

    Returns whether the caller has to call ``disconnect``.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # a stated value keeps Ray from warning
    address = os.environ.get("RAY_ADDRESS")
    if not address and "ray" not in sys.modules:
        # Read when Ray is imported; makes every listener of a local run 127.0.0.1. Never on a cluster.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = load()
    owned = not ray.is_initialized()
    if owned:
        mute(True)
    if owned and address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    elif owned:
        ray.init(
            num_cpus=workers,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    present = ray.cluster_resources().get("GPU", 0.0)
    if gpus > present:  # an actor that can't be placed never fails, it stays pending
        if owned:
            disconnect()
        raise NotEnoughResources(f"{gpus:g} GPUs", f"{present:g}")
    return owned


def load() -> Any:
    """Ray, whose own annotations know little of what it accepts."""
    return import_module("ray")


def disconnect() -> None:
    load().shutdown()
    mute(False)


def mute(quiet: bool) -> None:
    """Keep Ray from printing every worker's death to our standard output, where results go.

    ``log_to_driver=False`` does not; the switch is a private one, so a Ray without it stays as loud as it is.
    """
    worker: Any = import_module("ray._private.worker")
    if hasattr(worker, "_worker_logs_enabled"):
        worker._worker_logs_enabled = not quiet


class RayPool:
    """One actor a worker. No restarts and no retries by Ray: the driver owns both."""

    def __init__(self, *, gpus_per_worker: float = 0) -> None:
        ray = self._ray = load()
        resources = ray.remote(num_cpus=1, num_gpus=gpus_per_worker, max_restarts=0, max_task_retries=0)
        self._actor = resources(Host)
        self._actors: list[Any] = []
        present = ray.cluster_resources()
        self.capacity = max(1, int(present.get("CPU", 1)))  # more would wait for a place, and for ever
        if gpus_per_worker:
            self.capacity = max(1, min(self.capacity, int(present.get("GPU", 0) / gpus_per_worker)))

    def start(self, job: Job) -> tuple[Handle, Ticket]:
        actor = self._actor.remote(pickle.dumps(job))
        self._actors.append(actor)
        return actor, actor.setup.remote()

    def submit(self, handle: Any, task: Any) -> Ticket:
        ticket: Ticket = handle.run.remote(task)
        return ticket

    def wait(self, tickets: list[Ticket], timeout_s: float) -> list[Ticket]:
        done, _ = self._ray.wait(tickets, num_returns=1, timeout=timeout_s)
        if done and len(tickets) > 1:  # all that are ready by now
            done, _ = self._ray.wait(tickets, num_returns=len(tickets), timeout=0)
        return list(done)

    def result(self, ticket: Any) -> Any:
        from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

        try:
            return self._ray.get(ticket, timeout=RESULT_TIMEOUT_S)
        except RayTaskError as error:
            cause = error.cause
            raise WorkerRaised(f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}") from None
        except RayActorError as error:
            raise WorkerDied(_short(error)) from None
        except (GetTimeoutError, RayError) as error:
            raise WorkerDied(f"{type(error).__name__}: {_short(error)}") from None

    def kill(self, handle: Any) -> None:
        with contextlib.suppress(Exception):  # a Ray that is gone has no actors either
            self._ray.kill(handle, no_restart=True)
        if handle in self._actors:
            self._actors.remove(handle)

    def close(self) -> None:
        for actor in list(self._actors):
            self.kill(actor)


def _short(error: BaseException) -> str:
    """What Ray says, without its pages of advice."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    for mark in ("Worker exit detail: ", "The actor died", "The actor is dead"):
        _, found, rest = text.partition(mark)
        if found:
            text = rest if mark.endswith(": ") else found + rest
            break
    return text.partition(" Some common causes")[0][:160].rstrip(". ")
