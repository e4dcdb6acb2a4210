"""Rows into Parquet: sorted by key, row groups cut by bytes, statistics on the key alone.

pyarrow skips whole row groups only, so their size is what one image costs to fetch. Streams are noise:
compressing them or giving them a dictionary would cost time and save nothing.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbatch.archive.errors import DuplicateKey
from recbatch.archive.schema import (
    FORMAT,
    FORMAT_PROPERTY,
    HEAVY_COLUMNS,
    TABLE,
    DataFile,
    Record,
    check_record,
    records_to_table,
)
from recbatch.archive.store import Store

GROUP_MIN_BYTES = 2 * 2**20
GROUP_MAX_BYTES = 4 * 2**20
_ROW_BYTES = 400  # of a row beside its stream, roughly

_INCOMPRESSIBLE = HEAVY_COLUMNS | {"stream_sha256", "source_sha256", "pixels_sha256"}
_COMPRESSION = {field.name: "NONE" if field.name in _INCOMPRESSIBLE else "ZSTD" for field in TABLE}
_COMPRESSION["notes.list.element"] = _COMPRESSION.pop("notes")
_DICTIONARY = [
    *("status", "codec", "source_format", "mode", "notes.list.element", "model", "coder", "error_code"),
    *("error", "shard", "recbatch_version"),
]


def group_bounds(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut rows of the given sizes into runs of 2 to 4 MiB; a larger row stands alone."""
    start, total = 0, 0
    for place, size in enumerate(sizes):
        if place > start and (total >= GROUP_MIN_BYTES or total + size > GROUP_MAX_BYTES):
            yield start, place
            start, total = place, 0
        total += size
    if start < len(sizes):
        yield start, len(sizes)


def unique_name(stem: str) -> str:
    """A name that no other attempt has; Delta stores some characters otherwise than given, so they go."""
    return f"{re.sub(r'[^A-Za-z0-9._=-]+', '-', stem).lstrip('._-') or 'rows'}-{uuid.uuid4().hex[:8]}.parquet"


def write_records(store: Store, records: Sequence[Record], *, stem: str) -> DataFile:
    """Write one new data file; it belongs to the table only once it is committed."""
    if not records:
        raise ValueError("a data file needs at least one record")
    for record in records:
        check_record(record)
    ordered = sorted(records, key=lambda record: record.key)
    for left, right in itertools.pairwise(ordered):
        if left.key == right.key:
            raise DuplicateKey(left.key)
    now = dt.datetime.now(dt.UTC)
    sizes = [_ROW_BYTES + len(record.key.encode()) + (record.stream_size or 0) for record in ordered]
    return _write(
        store,
        (records_to_table(ordered[start:stop], created_at=now) for start, stop in group_bounds(sizes)),
        stem=stem,
    )


def write_tables(store: Store, tables: Iterable[pa.Table], *, stem: str) -> DataFile:
    """Write row groups read from another file, small neighbours joined; rows come sorted by key."""
    return _write(store, _joined(tables), stem=stem)


def _joined(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    total = 0
    for table in tables:
        if waiting and (total >= GROUP_MIN_BYTES or total + table.nbytes > GROUP_MAX_BYTES):
            yield pa.concat_tables(waiting)
            waiting, total = [], 0
        waiting.append(table)
        total += table.nbytes
    if waiting:
        yield pa.concat_tables(waiting)


def _write(store: Store, groups: Iterable[pa.Table], *, stem: str) -> DataFile:
    name = unique_name(stem)
    rows, low, high = 0, "", ""
    with store.writing(name) as sink:
        with pq.ParquetWriter(
            pa.PythonFile(sink, mode="w"),
            TABLE.with_metadata({FORMAT_PROPERTY: FORMAT}),
            compression=_COMPRESSION,
            use_dictionary=_DICTIONARY,
            write_statistics=["key"],
            write_page_checksum=True,  # finds bit rot in the columns that no digest covers
            sorting_columns=[pq.SortingColumn(0)],
        ) as writer:
            for group in groups:
                writer.write_table(group, row_group_size=group.num_rows)
                keys = pc.min_max(group.column("key")).as_py()
                low, high = (keys["min"] if rows == 0 else low), keys["max"]
                rows += group.num_rows
        size, sha256 = sink.size, sink.sha256
    return DataFile(path=name, size=size, rows=rows, min_key=low, max_key=high, sha256=sha256)
