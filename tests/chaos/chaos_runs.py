"""A driver as a process: started, watched, stopped, and swept away with all that it ever started."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from chaos_codec import Traps
from chaos_driver import Orders

HERE = Path(__file__).parent
PATIENT_S = 300.0  # for any one event, however busy the machine is


class Run:
    def __init__(self, orders: Orders) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
        environment.pop("RAY_ADDRESS", None)
        self.told: list[dict[str, Any]] = []
        self._traps = Traps(Path(orders.traps))
        self._family: dict[int, psutil.Process] = {}
        self._errors = open(Path(orders.traps) / f"errors-{os.urandom(4).hex()}", "w+")  # noqa: SIM115
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "chaos_driver", json.dumps(dataclasses.asdict(orders))],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            if line.startswith("{"):
                self.told.append(json.loads(line))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in list(self.told) if event["event"] == name]

    @property
    def code(self) -> str:
        """Of the error that ended it; "" where none did."""
        return next((event["code"] for event in self.events("failed")), "")

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def until(self, name: str, count: int = 1) -> None:
        """Wait for the n-th event of a kind, or for the end."""
        self.wait_for(lambda: len(self.events(name)) >= count)
        self.note_family()

    def wait_for(self, condition: Any) -> None:
        deadline = time.monotonic() + PATIENT_S
        while self.running and not condition():
            assert time.monotonic() < deadline, self.story()
            time.sleep(0.02)

    def wait(self) -> int:
        status = self.popen.wait(timeout=PATIENT_S)
        self._reader.join(timeout=30)
        return status

    def story(self) -> str:
        """All that it said, for who reads of a failure."""
        self._errors.flush()
        errors = Path(self._errors.name).read_text(errors="replace")
        return "\n".join([json.dumps(event) for event in self.told[-30:]] + [errors[-2000:]])

    def workers(self) -> list[psutil.Process]:
        """Those that live."""
        found = []
        for note in self._traps.notes("hello"):
            try:
                process = psutil.Process(note["pid"])
                if process.create_time() == note["born"] and process.ppid() == self.popen.pid:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def note_family(self) -> None:
        try:
            for process in psutil.Process(self.popen.pid).children(recursive=True):
                self._family[process.pid] = process
        except psutil.NoSuchProcess:
            pass

    def sweep(self) -> list[str]:
        """End what is left. Returns which processes outlived their driver; a frozen one can't but do so."""
        self.note_family()
        if self.running:
            self.popen.kill()
            self.popen.wait()
        for note in self._traps.notes("hello"):
            try:
                process = psutil.Process(note["pid"])
                if process.create_time() == note["born"]:
                    self._family[process.pid] = process
            except psutil.NoSuchProcess:
                continue
        family = [process for process in self._family.values() if process.is_running()]
        frozen = [process for process in family if _status(process) == psutil.STATUS_STOPPED]
        _, alive = psutil.wait_procs([process for process in family if process not in frozen], timeout=30)
        left = [f"{process.pid} {_name(process)}" for process in alive]
        for process in [*alive, *frozen]:
            process.kill()
        psutil.wait_procs([*alive, *frozen], timeout=10)
        if self.popen.stdout is not None:
            self.popen.stdout.close()
        self._errors.close()
        return left


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return ""


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:120]
    except psutil.NoSuchProcess:
        return "gone"
