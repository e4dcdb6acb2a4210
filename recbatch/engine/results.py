"""What a worker tells of a shard, and how it measures itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from recbatch.errors import RecbatchError

if TYPE_CHECKING:
    from recbatch.archive import DataFile


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What became of a shard, or of as much of it as was done when a stop came. Small: it travels through Ray."""

    shard: str
    images: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    peak_rss_bytes: int = 0
    failures: tuple[tuple[str, str, str], ...] = ()  # (key, code, sentence)
    unnamed: int = 0  # rows of data files whose keys can't be read
    files_unnamed: int = 0  # such files, each of them one of ``failures``
    file: DataFile | None = None  # of rows to commit; a restore has none

    @property
    def quarantined(self) -> int:
        """Rows that failed."""
        return len(self.failures) - self.files_unnamed + self.unnamed

    @property
    def empty(self) -> bool:
        return not self.images and not self.failures

    def failed(self, key: str, error: RecbatchError) -> ShardResult:
        return replace(self, failures=(*self.failures, (key, error.code, str(error))))


@dataclass(slots=True)
class Clock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def peak_rss_bytes() -> int:
    """Of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
