"""A real head of a Ray cluster on the loopback, with a job server that asks for a token, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

TOKEN = "only-for-tests-0123456789abcdef0"
STARTS = 2  # a port may be taken between its choice and its use
READY_S = 270.0
NAMES = (
    "dashboard",
    "gcs",
    "agent",
    "client",
    "metrics",
    "runtime-env",
    "object-manager",
    "node-manager",
    "grpc",
)


class Head:
    """``ray start --head`` and every process that it ever had."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rb-", dir="/tmp"))  # names of sockets have to be short
        self.family: dict[int, psutil.Process] = {}
        for attempt in range(1, STARTS + 1):
            try:
                self._start()
                return
            except RuntimeError:
                self.sweep()
                if attempt == STARTS:
                    self.close()
                    raise

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.ports['dashboard']}"

    @property
    def gcs(self) -> str:
        return f"127.0.0.1:{self.ports['gcs']}"

    def _start(self) -> None:
        self.ports = free_ports(NAMES)
        arguments = {
            "node-ip-address": "127.0.0.1",
            "port": self.ports["gcs"],
            "num-cpus": 2,
            "object-store-memory": 100_000_000,
            "include-dashboard": "true",
            "dashboard-host": "127.0.0.1",
            "dashboard-port": self.ports["dashboard"],
            "dashboard-agent-listen-port": self.ports["agent"],
            "ray-client-server-port": self.ports["client"],
            "metrics-export-port": self.ports["metrics"],
            "runtime-env-agent-port": self.ports["runtime-env"],
            "object-manager-port": self.ports["object-manager"],
            "node-manager-port": self.ports["node-manager"],
            "min-worker-port": 0,  # the system chooses
            "max-worker-port": 0,
            "temp-dir": self.folder / "ray",
        }
        programs = Path(sys.executable).parent
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("RAY_", "RECBATCH_"))
            },
            "PATH": os.pathsep.join([str(programs), os.environ.get("PATH", "")]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_agent_register_timeout_ms": "300000",
            "RAY_worker_register_timeout_seconds": "600",
        }
        self.log = self.folder / "head.log"
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [
                    sys.executable,
                    Path(__file__).with_name("patient_ray.py"),
                    "start",
                    "--head",
                    "--block",
                    "--disable-usage-stats",
                    *(f"--{name}={value}" for name, value in arguments.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_S
        while not self._ready():
            self.note_family()
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no head: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.25)
        self.note_family()

    def _ready(self) -> bool:
        """Whether its node is known; the job server answers earlier, and a start may still fail then."""
        request = urllib.request.Request(
            f"{self.address}/api/v0/nodes", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bool(json.load(answer)["data"]["result"]["total"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def note_family(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.popen.pid).children(recursive=True):
                self.family[process.pid] = process

    def sweep(self) -> None:
        """End what it started, by the processes themselves."""
        self.note_family()
        if self.popen.poll() is None:
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(timeout=15)
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        _, alive = psutil.wait_procs(list(self.family.values()), timeout=5)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=5)

    def close(self) -> None:
        self.sweep()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """Ports that nobody has at this moment, all different."""
    sockets = {name: socket.socket() for name in names}
    for one in sockets.values():
        one.bind(("127.0.0.1", 0))
    ports = {name: one.getsockname()[1] for name, one in sockets.items()}
    for one in sockets.values():
        one.close()
    return ports
