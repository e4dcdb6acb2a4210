"""The processes of a ``ray.cluster_utils.Cluster``, and of nothing else: other tests' servers are children too."""

from __future__ import annotations

import contextlib
from typing import Any

import psutil


def family_of(node: Any) -> list[psutil.Process]:
    """A node's own processes and all their descendants, as of now."""
    found: list[psutil.Process] = []
    for kind in node.all_processes.values():
        for info in kind:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(info.process.pid)
                found += [process, *process.children(recursive=True)]
    return found


def shut_down(cluster: Any, *, patience_s: float = 5.0) -> None:
    """Shut the cluster down and see all of it ended."""
    family = [process for node in cluster.list_all_nodes() for process in family_of(node)]
    cluster.shutdown()
    _, alive = psutil.wait_procs(family, timeout=patience_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=10)
