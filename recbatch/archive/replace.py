"""Rows that give way: which active files hold keys of new ones, and those files without them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbatch.archive.errors import CorruptArchive, DuplicateKey
from recbatch.archive.reader import in_range, opened, read_group, read_keys, read_suspect
from recbatch.archive.schema import COLUMNS, TABLE, DataFile, completed
from recbatch.archive.store import Store
from recbatch.archive.writer import write_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """An active file, and what stands in its place: the rest of its rows, or nothing."""

    old: DataFile
    new: DataFile | None
    dropped: int


class Rewrites:
    """The swaps of one commit; a file rewritten for a round that failed serves the next one too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: dict[str, list[str]] = {}
        self._swaps: dict[tuple[str, frozenset[str]], Swap] = {}

    def plan(self, active: Sequence[DataFile], new: Sequence[DataFile]) -> list[Swap]:
        swaps = []
        for old in active:
            keys = sorted(
                key for file in in_range(new, old.min_key, old.max_key) for key in self._keys_of(file)
            )
            if not keys:
                continue
            held = set(read_keys(self._store, old.path, among=keys))
            doomed = frozenset(held.intersection(keys))
            if not doomed:
                continue
            if (old.path, doomed) not in self._swaps:
                self._swaps[old.path, doomed] = without(self._store, old, doomed)
            swaps.append(self._swaps[old.path, doomed])
        return swaps

    def _keys_of(self, file: DataFile) -> list[str]:
        if file.path not in self._keys:
            self._keys[file.path] = read_keys(self._store, file.path)
        return self._keys[file.path]


def without(store: Store, old: DataFile, doomed: frozenset[str]) -> Swap:
    """Write the file's other rows into a new one. Streams are copied as they are, with their digests."""
    kept = dropped = 0

    def rest() -> Iterator[pa.Table]:
        nonlocal kept, dropped
        targets = pa.array(sorted(doomed), pa.string())
        with opened(store, old.path) as file:
            names = [name for name in COLUMNS if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                table = _whole_group(store, old, file, group, names, doomed)
                remaining = table.filter(pc.invert(pc.is_in(table.column("key"), value_set=targets)))
                kept += remaining.num_rows
                dropped += table.num_rows - remaining.num_rows
                if remaining.num_rows:
                    yield completed(remaining, COLUMNS).cast(TABLE)

    groups = rest()
    first = next(groups, None)
    new = None
    if first is not None:
        new = write_tables(
            store, _chain(first, groups), stem=old.path.removesuffix(".parquet").rpartition("-")[0]
        )
        if new.rows != kept:
            raise CorruptArchive(
                store.url, f"{new.path} got {new.rows} of the {kept} rows that stay of {old.path}"
            )
    if kept + dropped != old.rows:
        raise CorruptArchive(store.url, f"{old.path} has {kept + dropped} rows, the log says {old.rows}")
    return Swap(old=old, new=new, dropped=dropped)


def _whole_group(
    store: Store,
    old: DataFile,
    file: pq.ParquetFile,
    group: int,
    names: Sequence[str],
    doomed: frozenset[str],
) -> pa.Table:
    """A row group, even where pages of streams are damaged: those that stay are copied with what is left of them.

    Nothing is hidden by that: a verification finds what it found before.
    """
    try:
        return read_suspect(store, old.path, file, group, names)
    except CorruptArchive:
        keys = read_group(store, old.path, file, group, ["key"])
        if doomed.issuperset(keys.column("key").to_pylist()):
            return keys  # none of the rows stays
        raise  # rows that ought to stay would be lost


def _chain(first: pa.Table, others: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from others


def refuse_twice(store: Store, files: Sequence[DataFile]) -> None:
    """No two files of one commit may hold the same key; only those whose ranges meet are read."""
    ordered = sorted(files, key=lambda file: file.min_key)
    high = ""
    for place, file in enumerate(ordered):
        if place and file.min_key <= high:
            seen: set[str] = set()
            for other in in_range(ordered[:place], file.min_key, file.max_key):
                seen.update(read_keys(store, other.path))
            if twice := seen.intersection(read_keys(store, file.path)):
                raise DuplicateKey(min(twice))
        high = max(high, file.max_key)
