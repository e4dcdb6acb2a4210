"""Rows of many files in the order of their keys."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from recbatch.archive.schema import DataFile

V = TypeVar("V")
AHEAD = 8  # files read at once: on an object store most of the time is waiting


def merged(
    files: Sequence[DataFile], rows: Callable[[DataFile], list[tuple[str, V]]]
) -> Iterator[tuple[str, V]]:
    """All rows, sorted by key.

    Args:
        files: sorted by their smallest key.
        rows: reads a file's rows, sorted by key; is called in threads.
    """
    heap: list[tuple[str, int, tuple[str, V], Iterator[tuple[str, V]]]] = []
    order = itertools.count()  # of two equal keys the earlier file's comes first; nothing else is compared

    def push(source: Iterator[tuple[str, V]]) -> None:
        if (row := next(source, None)) is not None:
            heapq.heappush(heap, (row[0], next(order), row, source))

    with ThreadPoolExecutor(AHEAD, thread_name_prefix="rows") as threads:
        reading: deque[Future[list[tuple[str, V]]]] = deque()
        coming = iter(files)
        for file in files:
            while heap and heap[0][0] < file.min_key:
                _, _, row, source = heapq.heappop(heap)
                yield row
                push(source)
            while len(reading) < AHEAD and (later := next(coming, None)) is not None:
                reading.append(threads.submit(rows, later))
            push(iter(reading.popleft().result()))
        while heap:
            _, _, row, source = heapq.heappop(heap)
            yield row
            push(source)
