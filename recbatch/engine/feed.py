"""What stands between a shard and the codec: files are read, and images decoded, ahead of the one that is encoded.

Images of one shape come together, as some codecs take these in one go. Streams depend on none of this, nor does a
data file, whose rows are sorted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from recbatch.engine.results import Clock
from recbatch.engine.source import Content, Item, read_item
from recbatch.errors import ImageError

WINDOW_IMAGES = 64  # read together, and put in order by shape
WINDOW_BYTES = 16 << 20
BATCH_PIXELS = 8_000_000  # of one call of the codec, unless one image alone has more
CPU_BATCH_PIXELS = 1_000_000  # the same without a GPU, where a call takes seconds, and a stop waits for it
AHEAD_PIXELS = (
    16_000_000  # of an image that is decoded ahead; a larger one takes long to encode, and much memory
)
READ_THREADS = 4
DECODE_THREADS = 4  # at most, and no more than the worker's cores

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """An item, its file, and what the codec is to be given: the file, or what it made of it beforehand."""

    item: Item
    content: Content
    source: Any
    pixels: int = 0  # 0: not known


Outcome: TypeAlias = "Ready | tuple[Item, ImageError]"


class Feed:
    """Reads and decodes for one worker.

    ``codec`` may offer ``shape_of(source)``, width and height by the file's header (empty: unknown), and
    ``prepare(source)``, which decodes and gives what ``encode`` takes in the file's place. It is called in threads.
    """

    def __init__(self, codec: Any, *, threads: int = 1, batch_pixels: int = BATCH_PIXELS) -> None:
        self._threads = max(1, min(threads, DECODE_THREADS))
        self._batch_pixels = batch_pixels
        self._shape_of: Callable[[Content], Shape] | None = getattr(codec, "shape_of", None)
        self._prepare: Callable[[Content], Any] | None = getattr(codec, "prepare", None)

    def batches(self, items: Sequence[Item], clock: Clock) -> Generator[list[Outcome], None, None]:
        """All items, some at a time; the clock gets the time waited, not that of the threads."""
        readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read")
        decoders = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        try:
            previous: list[tuple[Ready, Future[Any] | None]] = []
            for batch in self._read(items, readers, clock):
                bad = [outcome for outcome in batch if not isinstance(outcome, Ready)]
                if bad:
                    yield list(bad)
                    continue
                begun = [(ready, self._begin(ready, decoders)) for ready in batch if isinstance(ready, Ready)]
                if previous:
                    yield _decoded(previous, clock)
                previous = begun
            if previous:
                yield _decoded(previous, clock)
        finally:  # where the caller leaves early, what was to be read or decoded ahead is not
            for threads in (readers, decoders):
                threads.shutdown(cancel_futures=True)

    def _begin(self, ready: Ready, decoders: ThreadPoolExecutor) -> Future[Any] | None:
        if self._prepare is None or ready.pixels > AHEAD_PIXELS:
            return None
        return decoders.submit(self._prepare, ready.content)

    def _read(
        self, items: Sequence[Item], readers: ThreadPoolExecutor, clock: Clock
    ) -> Iterator[list[Outcome]]:
        """Runs of one shape after the other, and by themselves those that could not be read."""
        waiting: deque[list[tuple[Item, Future[Content]]]] = deque()
        windows = iter(slices_of(items))
        while True:
            while len(waiting) < 2 and (window := next(windows, None)) is not None:
                waiting.append([(item, readers.submit(read_item, item)) for item in window])
            if not waiting:
                return
            good: list[tuple[Shape, Ready]] = []
            bad: list[Outcome] = []
            with clock.stage("read"):
                for item, future in waiting.popleft():
                    content = outcome(future)
                    if isinstance(content, ImageError):
                        bad.append((item, content))
                    else:
                        shape = self._shape_of(content) if self._shape_of is not None else ()
                        pixels = math.prod(shape) if shape else 0
                        good.append((shape, Ready(item=item, content=content, source=content, pixels=pixels)))
            if bad:
                yield bad
            good.sort(key=lambda pair: pair[0])
            yield from self._batches([ready for _, ready in good])

    def _batches(self, run: Sequence[Ready]) -> Iterator[list[Outcome]]:
        batch: list[Outcome] = []
        room = self._batch_pixels
        for ready in run:
            if batch and ready.pixels > room:
                yield batch
                batch, room = [], self._batch_pixels
            batch.append(ready)
            room -= ready.pixels
        if batch:
            yield batch


def _decoded(begun: list[tuple[Ready, Future[Any] | None]], clock: Clock) -> list[Outcome]:
    """What the threads made. Where that failed, the codec gets the file, and tells whose fault it is."""
    done: list[Outcome] = []
    ahead = any(future is not None for _, future in begun)
    with clock.stage("decode") if ahead else nullcontext():
        for ready, future in begun:
            if future is not None and future.exception() is None:
                ready = replace(ready, source=future.result())
            done.append(ready)
    return done


def slices_of(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Consecutive items, as many at a time as memory should hold the files of."""
    window: list[Item] = []
    room = WINDOW_BYTES
    for item in items:
        if window and (len(window) >= WINDOW_IMAGES or item.size > room):
            yield window
            window, room = [], WINDOW_BYTES
        window.append(item)
        room -= item.size
    if window:
        yield window


def outcome(future: Future[Content]) -> Content | ImageError:
    try:
        return future.result()
    except ImageError as error:
        return error
