"""Finished shards, collected and committed many at a time: the log grows by commits, not by shards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from recbatch.engine import events
from recbatch.engine.driver import Tuning
from recbatch.engine.plan import Shard
from recbatch.engine.report import Account
from recbatch.engine.results import ShardResult
from recbatch.engine.source import Item
from recbatch.errors import RecbatchError

if TYPE_CHECKING:
    from recbatch.archive import Archive


MAX_WAITING_IMAGES = 100_000  # their items stand in memory


class Committer:
    """Commits when enough shards wait, when they wait too long, and when told to."""

    def __init__(
        self,
        archive: Archive,
        *,
        job: str,
        epoch: int,
        plan: str,
        tuning: Tuning,
        progress: events.Progress,
        on_lost: Callable[[Shard[Item]], None],
    ) -> None:
        self._archive, self._job, self._epoch, self._plan = archive, job, epoch, plan
        self._tuning, self._progress, self._on_lost = tuning, progress, on_lost
        self._waiting: dict[str, tuple[ShardResult, Shard[Item]]] = {}
        self._images = 0
        self._since = self._rest_until = 0.0
        self.account = Account()  # of what is committed
        self.version = archive.version
        self.seconds = 0.0

    def add(self, result: ShardResult, shard: Shard[Item]) -> None:
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting[f"{self._plan[:32]}/{result.shard}"] = result, shard
        self._images += len(shard.items)

    def tick(self) -> None:
        if not self._waiting:
            return
        now = time.monotonic()
        enough = len(self._waiting) >= self._tuning.commit_shards
        # A log of many files takes seconds to commit to: then more shards wait for one another.
        rested = now >= self._rest_until or self._images >= MAX_WAITING_IMAGES
        if (enough and rested) or now - self._since >= self._tuning.commit_s:
            self.flush()

    def flush(self) -> None:
        """Commit what waits. Raises what the archive raises; what waits then still does."""
        from recbatch.archive.errors import LostDataFile

        start = time.perf_counter()
        while self._waiting:
            batch = {
                name: result.file for name, (result, _) in self._waiting.items() if result.file is not None
            }
            try:
                outcome = self._archive.commit(
                    list(batch.items()), job=self._job, epoch=self._epoch, absent_at=self.version
                )
            except LostDataFile as error:  # its writer said it was there: the shard is done again
                lost = self._waiting.pop(error.shard, None)
                if lost is None:
                    raise
                self._on_lost(lost[1])
                continue
            self.version = outcome.version
            results = [result for result, _ in self._waiting.values()]
            for result in results:
                self.account.add(result)
            self._waiting.clear()
            self._images = 0
            seconds = time.perf_counter() - start
            self.seconds += seconds
            self._rest_until = time.monotonic() + self._tuning.commit_rest * seconds
            images = sum(result.images for result in results)
            self._progress(
                events.Committed(version=outcome.version, shards=len(results), images=images, seconds=seconds)
            )

    def flush_quietly(self) -> RecbatchError | None:
        """For an end that has its own error already: commit what can be committed."""
        try:
            self.flush()
        except RecbatchError as error:
            return error
        return None
