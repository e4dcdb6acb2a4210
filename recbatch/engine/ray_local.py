"""Ray: started, asked, and stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import recbatch
from recbatch.engine.cluster_errors import ClusterAddressUnusable, ClusterUnreachable, RayDidNotStart
from recbatch.engine.errors import NotEnoughResources
from recbatch.engine.head import find_token, one_line, refused
from recbatch.engine.signals import deferred_sigterm

OBJECT_STORE_BYTES = 200 << 20  # keys travel through Ray, not pixels
PROBE_S = 5.0
STARTS = 3
PATIENCE = {  # Ray's own limits end a start on a machine that does other work
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}


def connect(workers: int, *, gpus: float = 0) -> bool:
    """Be connected to Ray: the one that runs already, the job's cluster (RAY_ADDRESS), else a new local one.

    Returns:
        Whether the caller has to call ``disconnect``.

    Raises:
        ClusterAddressUnusable, ClusterUnreachable, ClusterNeedsToken, ClusterRefusesToken: of RAY_ADDRESS.
        RayDidNotStart: of a local one.
        NotEnoughResources: there are fewer GPUs than ``gpus``.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    prepare(local=address in ("", "local") or is_loopback(address))
    ray = first_load()
    owned = not ray.is_initialized()
    try:
        with deferred_sigterm(), without_its_handler():
            if owned and address not in ("", "local"):
                join(ray, address)
            elif owned:
                find_package()
                start(ray, workers)
    except KeyboardInterrupt:
        if owned:
            disconnect()
        raise
    present = ray.cluster_resources().get("GPU", 0.0)
    if gpus > present:  # an actor that can't be placed never fails, it stays pending
        if owned:
            disconnect()
        raise NotEnoughResources(f"{gpus:g} GPUs", f"{present:g}")
    return owned


def prepare(*, local: bool) -> None:
    """Settings that Ray takes from the environment; what a user has set stands above them."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "ray" in sys.modules:
        # Ray has read the two below at its import. Set now, they would reach its servers and not this process,
        # which then waits in vain for 20 s. Left alone, Ray finds a mode by itself (tokens, since 2.59).
        return
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # a stated value keeps Ray from warning
    if local:
        # Makes every listener 127.0.0.1, and lets a head that has them so be joined: Ray looks for it at this
        # machine's outer address else, for ever. Never for a cluster of several machines.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def is_loopback(address: str) -> bool:
    """Whether a cluster's address is one of this machine alone."""
    host = address.rpartition("://")[2].rpartition(":")[0].strip("[]").lower()
    return host in ("localhost", "::1") or host.startswith("127.")


def look(address: str) -> None:
    """See whether the cluster of RAY_ADDRESS is there; a local one always is. Loads no Ray.

    Raises ClusterAddressUnusable, ClusterUnreachable, ClusterNeedsToken, ClusterRefusesToken.
    """
    ray: Any = sys.modules.get("ray")
    if address in ("", "local", "auto") or (ray is not None and ray.is_initialized()):
        return
    if address.startswith(("http://", "https://")):
        raise ClusterAddressUnusable(
            address,
            "in RAY_ADDRESS is that of a job server",
            "Use it with 'recbatch submit', or unset RAY_ADDRESS to run on this machine",
        )
    probe(address.removeprefix("ray://"), grpc="://" not in address)


def join(ray: Any, address: str) -> None:
    """Connect to a cluster, after a look whether it is there: Ray itself waits for minutes, or for ever."""
    look(address)
    mute(True)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # another version, a head that has just gone
        disconnect()
        raise ClusterUnreachable(address, " ".join(str(error).split())[:240]) from None


def find_package() -> None:
    """Let workers find this very package: they look for it in the working directory first, where a folder of its name
    (a clone, say) would hide one that is installed for editing."""
    root = str(Path(recbatch.__file__).parents[1])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if root not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *paths])


def start(ray: Any, workers: int) -> None:
    """A Ray of this machine alone. It gives its own node 30 s, which no setting changes: so more than once."""
    for attempt in range(1, STARTS + 1):
        mute(True)
        try:
            ray.init(
                address="local",
                num_cpus=workers,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return
        except Exception as error:  # Ray has no class of its own for a start that took too long
            disconnect()
            if attempt == STARTS:
                raise RayDidNotStart(STARTS, one_line(str(error))) from error


@contextlib.contextmanager
def without_its_handler() -> Iterator[None]:
    """Keep Ray from setting a handler of SIGTERM, which leaves its start by SystemExit; that aborts the process then.

    Only where there is one of ours; the switch is a private function, so a Ray without it does as ever.
    """
    utils: Any = import_module("ray._private.utils")
    name = "set_sigterm_handler"
    theirs = getattr(utils, name, None)
    if theirs is None or not callable(signal.getsignal(signal.SIGTERM)):
        yield
        return
    setattr(utils, name, lambda handler: None)
    try:
        yield
    finally:
        setattr(utils, name, theirs)


def probe(address: str, *, grpc: bool) -> None:
    """Ask a cluster's control store whether it lives and takes our token. Raises what fits."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ClusterAddressUnusable(
            address, "in RAY_ADDRESS is not host:port", "Write HEAD:6379, or unset it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S).close()
    except OSError as error:
        raise ClusterUnreachable(address, (error.strerror or str(error) or "no answer").lower()) from None
    if not grpc or os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    token, place = find_token(os.environ)
    rpc: Any = import_module("grpc")
    with rpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/ray.rpc.NodeInfoGcsService/CheckAlive",
            request_serializer=bytes,  # an empty message needs no schema, and the answer is not read
            response_deserializer=bytes,
        )
        try:
            call(b"", timeout=PROBE_S, metadata=(("authorization", f"Bearer {token}"),) if token else ())
        except rpc.RpcError as error:
            code = error.code().name
            if code == "UNAUTHENTICATED":
                raise refused(address, token, place) from None
            if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise ClusterUnreachable(address, "what listens there is no Ray cluster") from None


def load() -> Any:
    """Ray, whose own annotations know little of what it accepts."""
    return import_module("ray")


def first_load() -> Any:
    """Ray for a driver: SIGTERM is no crash there, whose stack would have to be printed. Its workers keep that."""
    name = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"
    before = os.environ.get(name)
    os.environ.setdefault(name, "1")  # read when Ray is imported
    try:
        return load()
    finally:
        if before is None:
            del os.environ[name]


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
