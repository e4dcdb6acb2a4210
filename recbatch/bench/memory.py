"""Peak memory and processor time of this process and everything it started, sampled from /proc.

Linux only; zeros elsewhere.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")
INTERVAL_S = 0.5  # a look costs the kernel some milliseconds per process: don't time what is watched


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Bytes. Shared pages are counted once in ``together`` (proportional set size), in full in the others."""

    together: int
    driver: int
    largest_child: int


class PeakMemory:
    """Context manager that watches; read ``peak`` afterwards."""

    def __init__(self) -> None:
        self.peak = Peak(together=0, driver=0, largest_child=0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self._look()
            if self._done.wait(INTERVAL_S):
                return

    def _look(self) -> None:
        mine = os.getpid()
        family = [mine, *descendants(mine)]
        together = sum(field_bytes(PROC / str(pid) / "smaps_rollup", "Pss:") for pid in family)
        resident = {pid: field_bytes(PROC / str(pid) / "status", "VmRSS:") for pid in family}
        self.peak = Peak(
            together=max(self.peak.together, together),
            driver=max(self.peak.driver, resident.pop(mine)),
            largest_child=max([self.peak.largest_child, *resident.values()]),
        )


class ProcessorTime:
    """Processor seconds of the family, those of processes that have ended included, as they were last seen."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def look(self) -> float:
        """Seconds so far; look again before processes end."""
        mine = os.getpid()
        for pid in [mine, *descendants(mine)]:
            self._seconds[pid] = max(self._seconds.get(pid, 0.0), processor_seconds(pid))
        return sum(self._seconds.values())


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far; 0 where it is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
        fields = text[text.rindex(")") + 2 :].split()  # the name before may hold anything
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def descendants(pid: int) -> list[int]:
    """Processes that this one started, and those that they started."""
    found: list[int] = []
    for task in _entries(PROC / str(pid) / "task"):
        try:
            children = [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
        except (OSError, ValueError):
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def field_bytes(path: Path, name: str) -> int:
    """A field given in kB, in bytes; 0 where the process is gone or does not tell."""
    try:
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
