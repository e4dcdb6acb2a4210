"""Items by the million, in the order of their keys: in memory while they are few, else in a folder of scratch files.

A listing may come in any order (a walk, an inventory); a plan needs it sorted, and more than once. Runs of items are
sorted in memory and merged, as an external sort does. Rows are tuples here: millions of small objects cost more than
the work on them.
"""

from __future__ import annotations

import heapq
import itertools
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from recbatch.engine.source import Item

if TYPE_CHECKING:
    import pyarrow as pa

RUN_ROWS = 50_000  # in memory at once, some 25 MB
BATCH_ROWS = 1_000  # of a run being read, of which a merge has many

Row: TypeAlias = tuple[str, str, int, int, str]  # an Item's fields: key, uri, size, mtime_ns, etag


def row_of(item: Item) -> Row:
    return (item.key, item.uri, item.size, item.mtime_ns, item.etag)


def item_of(row: Row) -> Item:
    key, uri, size, mtime_ns, etag = row
    return Item(key=key, uri=uri, size=size, mtime_ns=mtime_ns, etag=etag)


class Spool:
    """Rows sorted by key, to be read as often as one likes.

    >>> spool = Spool.of(map(row_of, items), folder)
    """

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0  # of the items' files
        self._last: list[Row] = []  # the only rows of a small one, the last ones of a large one
        self._runs: list[Path] = []

    @classmethod
    def of(cls, rows: Iterable[Row], folder: Path, *, run_rows: int = RUN_ROWS) -> Spool:
        """Of rows that are sorted already. ``folder`` is to live as long as the spool."""
        spool = cls()
        rows = iter(rows)
        while run := list(itertools.islice(rows, run_rows)):
            spool.count += len(run)
            spool.bytes += sum(row[2] for row in run)
            if spool._last:
                spool._runs.append(_write(spool._last, folder))
            spool._last = run
        return spool

    @classmethod
    def sorting(cls, rows: Iterable[Row], folder: Path, *, run_rows: int = RUN_ROWS) -> tuple[Spool, int]:
        """Of rows in any order; also how many went since a later row has the same key."""
        runs: list[Path] = []
        rows = iter(rows)
        in_order, highest = True, ""
        run: list[Row] = []
        while more := sorted(itertools.islice(rows, run_rows)):
            if run:
                runs.append(_write(run, folder))
                in_order, highest = in_order and highest < more[0][0], max(highest, more[-1][0])
            else:
                highest = more[-1][0]
            run = more
        merged: Iterable[Row]
        sources = [*map(_read, runs), iter(run)]
        merged = itertools.chain.from_iterable(sources) if in_order else heapq.merge(*sources)
        once = Once(merged)
        spool = cls.of(once, folder, run_rows=run_rows)
        for path in runs:
            path.unlink()
        return spool, once.dropped

    def __iter__(self) -> Iterator[Row]:
        for path in self._runs:
            yield from _read(path)
        yield from self._last


class Once:
    """Of neighbours with one key the one that was changed last."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = iter(rows)
        self.dropped = 0

    def __iter__(self) -> Iterator[Row]:
        held = next(self._rows, None)
        for row in self._rows:
            assert held is not None  # for the type checker: there is a row behind it
            if row[0] == held[0]:
                self.dropped += 1
                held = max(held, row, key=lambda each: each[3])
            else:
                yield held
                held = row
        if held is not None:
            yield held


def schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("key", pa.string()),
            ("uri", pa.string()),
            ("size", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("etag", pa.string()),
        ]
    )


def columns_of(rows: list[Row]) -> list[Any]:
    import pyarrow as pa

    return [
        pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema(), strict=True)
    ]


def _write(rows: list[Row], folder: Path) -> Path:
    import pyarrow as pa

    path = folder / f"{uuid.uuid4().hex}.arrow"
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema(), options=options) as writer:
        writer.write_table(pa.table(columns_of(rows), schema()), max_chunksize=BATCH_ROWS)
    return path


def _read(path: Path) -> Iterator[Row]:
    import pyarrow as pa

    with pa.OSFile(str(path), "rb") as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
