"""The crops and rate levels of each step: a function of seed, worker and step, so that no run need remember them.

Legend: B crops, S their side.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from recbatch.models.lossy import LEVELS
from recbatch.train.data import Photographs

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]


def seed_of(seed: int, rank: int, step: int) -> int:
    """A seed of 64 bits for one step of one worker."""
    return int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0])


class Batches:
    """The batches of one worker. With ``ahead`` a thread makes the next one while this one trains."""

    def __init__(
        self,
        photographs: Photographs,
        *,
        batch: int,
        crop: int,
        seed: int = 0,
        rank: int = 0,
        ahead: bool = False,
    ) -> None:
        self._photographs, self._batch, self._crop = photographs, batch, crop
        self._seed, self._rank = seed, rank
        self._thread = ThreadPoolExecutor(1, "batches") if ahead else None
        self._next: tuple[int, Future[Batch]] | None = None

    def of_step(self, step: int) -> Batch:
        """uint8 [B, S, S, 3] and the rate level of each crop, float32 [B]."""
        if self._thread is None:
            return self._make(step)
        if self._next is None or self._next[0] != step:
            self._next = step, self._thread.submit(self._make, step)
        _, future = self._next
        self._next = step + 1, self._thread.submit(self._make, step + 1)
        return future.result()

    def _make(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, self._rank, step])
        crops_BSS3 = self._photographs.crops(self._batch, self._crop, rng)
        level_B = rng.uniform(0, LEVELS - 1, self._batch).round().astype(np.float32)
        return crops_BSS3, level_B
