"""What a job did, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from recbatch.engine.results import ShardResult

INTERRUPTED = 130
MAX_FAILURES_KEPT = 100  # the archive has all of them as rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of ``compress`` or ``restore``. Counts are of this run alone, not of the archive."""

    kind: str = "compress"
    images: int = 0  # archived or restored
    quarantined: int = 0  # rows with an error; of a restore: images that could not be restored; see ``kept``
    unnamed: int = 0  # of these: in data files whose keys can't be read, each of which is one of ``failures``
    known: int = 0  # were in the archive already
    known_bad: int = 0  # of these, quarantined by an earlier run
    replaces: int = 0  # of the images: their key had a row of another file or state before
    skipped: int = 0  # files of the source that are no image by their names
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds by stage, summed over workers
    shards: int = 0
    workers: int = 0
    deaths: int = 0  # workers lost
    retries: int = 0  # shards done again
    peak_rss_bytes: int = 0  # of the largest worker
    version: int = -1  # of the archive, after the last commit
    job: str = ""
    plan: str = ""
    run: str = ""  # its name in the archive's journal; none where nothing was to be done
    failures: tuple[tuple[str, str, str], ...] = ()  # (key, code, sentence) of the first ones
    problems: tuple[str, ...] = ()  # of the source, beside single images: folders that can't be listed
    remarks: tuple[str, ...] = ()  # of the source: worth knowing, and no problem
    interrupted: bool = False
    dry_run: bool = False

    @property
    def kept(self) -> int:
        """Of a recompression: rows that stay as they were, each with a failure; none of them is quarantined."""
        return self.quarantined if self.kind == "recompress" else 0

    @property
    def megapixels(self) -> float:
        return self.pixels / 1e6

    @property
    def megapixels_per_second(self) -> float:
        return self.megapixels / self.seconds if self.seconds > 0 else 0.0

    @property
    def exit_status(self) -> int:
        """0 all well, 1 some images failed, 130 interrupted (the same command goes on)."""
        if self.interrupted:
            return INTERRUPTED
        return 1 if self.quarantined or self.problems else 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "quarantined": self.quarantined - self.kept,
            "kept": self.kept,
            "stages": {name: round(value, 3) for name, value in self.stages.items()},
            "seconds": round(self.seconds, 3),
            "megapixels": round(self.megapixels, 3),
            "megapixels_per_second": round(self.megapixels_per_second, 3),
            "exit_status": self.exit_status,
        }


class Account:
    """The sum of what shards tell, kept as they come: a long job has more of them than memory should hold."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._stages: Counter[str] = Counter()
        self._failures: list[tuple[str, str, str]] = []
        self._peak_rss_bytes = 0

    def add(self, result: ShardResult) -> None:
        self._sums.update(
            images=result.images,
            quarantined=result.quarantined,
            unnamed=result.unnamed,
            bytes_in=result.bytes_in,
            bytes_out=result.bytes_out,
            pixels=result.pixels,
            shards=1,
        )
        self._stages.update(result.stages)
        self._failures.extend(result.failures[: MAX_FAILURES_KEPT - len(self._failures)])
        self._peak_rss_bytes = max(self._peak_rss_bytes, result.peak_rss_bytes)

    def onto(self, report: Report, *, workers: int, deaths: int, retries: int) -> Report:
        """The report with the sums in it."""
        sums: dict[str, Any] = dict(self._sums)
        return replace(
            report,
            **sums,
            stages=dict(self._stages),
            workers=workers,
            deaths=deaths,
            retries=retries,
            peak_rss_bytes=self._peak_rss_bytes,
            failures=tuple(self._failures),
        )
