"""Rows out of Parquet: only the row groups and columns that are asked for."""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from recbatch.archive.errors import CorruptArchive
from recbatch.archive.schema import COLUMNS, HEAVY_COLUMNS, DataFile, completed
from recbatch.archive.store import Store, plain


class Reader(pq.ParquetFile):  # type: ignore[misc]
    """A Parquet file that is read in the caller's thread alone.

    Arrow's own reading ahead (``pre_buffer``) lends our bytes to its threads, which may still hold some when the
    process ends: Python then ends those threads in the midst of C++, and that aborts the process.
    """

    def __init__(self, source: Any, *, checksums: bool) -> None:
        super().__init__(source, page_checksum_verification=checksums, pre_buffer=False)
        self._fetch: Callable[[list[tuple[int, int]]], None] | None = getattr(source, "fetch", None)

    def fetch(self, group: int, columns: Sequence[str]) -> None:
        """Get the bytes of these columns at once, from a store where each request takes its time."""
        if self._fetch is None:
            return
        row_group = self.metadata.row_group(group)
        ranges = []
        for place in range(row_group.num_columns):
            column = row_group.column(place)
            if column.path_in_schema.partition(".")[0] in columns:
                words = column.dictionary_page_offset if column.has_dictionary_page else None
                first = column.data_page_offset if words is None else words
                ranges.append((first, first + column.total_compressed_size))
        self._fetch(ranges)


@contextlib.contextmanager
def opened(store: Store, path: str, *, checksums: bool = True) -> Iterator[Reader]:
    """A data file's reader; a missing or unreadable file is a CorruptArchive that names it."""
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(store.reading(path))
            file = Reader(source, checksums=checksums)
        except FileNotFoundError:
            raise CorruptArchive(store.url, f"data file {path} is missing") from None
        except (pa.ArrowException, OSError) as error:
            raise unreadable(store, path, error) from error
        yield file


def unreadable(store: Store, path: str, error: Exception) -> Exception:
    """What a failed read of a data file means: the store's fault, or the file's."""
    problem = store.explain(error)
    if isinstance(problem, CorruptArchive) or _is_damage(error):
        return CorruptArchive(store.url, f"data file {path} can't be read ({plain(error)})")
    return problem


def _is_damage(error: Exception) -> bool:
    # Arrow raises bare OSErrors for torn pages; those of the system carry a number
    return isinstance(error, pa.ArrowException) or (isinstance(error, OSError) and error.errno is None)


def active_files(
    store: Store, table: DeltaTable, *, low: str | None = None, high: str | None = None
) -> list[DataFile]:
    """The files of this handle's version, sorted by their smallest key; with bounds those that meet them."""
    actions = pa.table(table.get_add_actions(flatten=True))
    names = ("path", "size_bytes", "num_records", "min.key", "max.key")
    for name in names:
        if (
            name not in actions.column_names
        ):  # no file has it: there is none, or they are all another writer's
            actions = actions.append_column(name, pa.nulls(len(actions)))
    actions = actions.select(names)
    if low is not None and high is not None and len(actions):
        meets = pc.and_kleene(
            pc.less_equal(actions["min.key"].cast(pa.string()), high),
            pc.greater_equal(actions["max.key"].cast(pa.string()), low),
        )
        actions = actions.filter(pc.fill_null(meets, True))
    files = []
    for path, size, rows, first, last in zip(
        *(column.to_pylist() for column in actions.columns), strict=True
    ):
        if rows is None or first is None or last is None:  # another writer's file: its keys tell
            keys = read_keys(store, path)
            rows, first, last = len(keys), min(keys, default=""), max(keys, default="")
        files.append(DataFile(path=path, size=size, rows=rows, min_key=first, max_key=last))
    return sorted(files, key=lambda file: (file.min_key, file.path))


def read_group(store: Store, path: str, file: pq.ParquetFile, group: int, columns: Sequence[str]) -> pa.Table:
    try:
        if isinstance(file, Reader):
            file.fetch(group, columns)
        return file.read_row_group(group, columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(store, path, error) from error


def read_suspect(
    store: Store, path: str, file: pq.ParquetFile, group: int, columns: Sequence[str]
) -> pa.Table:
    """A row group, even where pages of streams are damaged: what is left of them is in it then.

    Each stream is covered by its row's SHA-256, which tells damage as well. No other column is, so damage in those is
    an error still.
    """
    try:
        return read_group(store, path, file, group, columns)
    except CorruptArchive as error:
        light = [name for name in columns if name not in HEAVY_COLUMNS]
        if len(light) == len(columns):
            raise
        read_group(store, path, file, group, light)
        try:
            with opened(store, path, checksums=False) as unchecked:
                return read_group(store, path, unchecked, group, columns)
        except CorruptArchive:
            raise error from None  # not even so


def key_range(file: pq.ParquetFile, group: int) -> tuple[str, str] | None:
    """Smallest and largest key of a row group by its statistics; None when it has none."""
    row_group = file.metadata.row_group(group)
    for place in range(row_group.num_columns):
        column = row_group.column(place)
        if column.path_in_schema == "key":
            statistics = column.statistics
            if statistics is None or not statistics.has_min_max:
                return None
            return statistics.min, statistics.max
    return None


def touches(wanted: Sequence[str], low: str, high: str) -> bool:
    """Whether one of the sorted keys lies in [low, high]."""
    place = bisect_left(wanted, low)
    return place < len(wanted) and wanted[place] <= high


def read_keys(store: Store, path: str, *, among: Sequence[str] | None = None) -> list[str]:
    """All keys of a file in its order, or those of the row groups that may hold the sorted keys ``among``."""
    keys: list[str] = []
    with opened(store, path) as file:
        for group in range(file.num_row_groups):
            bounds = key_range(file, group)
            if among is not None and bounds is not None and not touches(among, *bounds):
                continue
            keys += read_group(store, path, file, group, ["key"]).column("key").to_pylist()
    return keys


def read_tables(
    store: Store,
    path: str,
    columns: Sequence[str],
    *,
    keys: Collection[str] | None = None,
    checked: bool = True,
) -> Iterator[pa.Table]:
    """The file's rows, a row group at a time; with ``keys`` only those, and only what they need is read.

    Unless ``checked``, streams come out of damaged pages too, as they are: each row's own SHA-256 tells whether its
    stream is whole.
    """
    read = read_group if checked else read_suspect
    wanted = None if keys is None else sorted(keys)
    wanted_array = None if wanted is None else pa.array(wanted, pa.string())
    with opened(store, path) as file:
        present = [name for name in columns if name in file.schema_arrow.names]
        heavy = not HEAVY_COLUMNS.isdisjoint(present)
        for group in range(file.num_row_groups):
            if wanted is None:
                yield completed(read(store, path, file, group, present), columns)
                continue
            bounds = key_range(file, group)
            if bounds is not None and not touches(wanted, *bounds):
                continue
            if heavy and len(wanted) > 1:  # a single key inside the bounds is nearly always there
                mask = _mask(read_group(store, path, file, group, ["key"]), wanted_array)
                if not pc.any(mask).as_py():
                    continue
            table = read(store, path, file, group, _with_key(present))
            table = table.filter(_mask(table, wanted_array))
            if table.num_rows:
                yield completed(table, columns)


def _with_key(columns: Sequence[str]) -> list[str]:
    return list(columns) if "key" in columns else ["key", *columns]


def _mask(table: pa.Table, wanted: Any) -> Any:
    return pc.is_in(table.column("key"), value_set=wanted)


def known_columns(columns: Iterable[str] | None, *, whole: bool = False) -> list[str]:
    """The columns to read, ``key`` always among them, in the table's order.

    With ``whole`` no stream is read without its leading part.
    """
    if columns is None:
        return list(COLUMNS)
    asked = {"key", *columns}
    if unknown := sorted(asked - set(COLUMNS)):
        raise ValueError(f"no such columns: {', '.join(unknown)}")
    if whole and "stream" in asked:
        asked.add("preview")
    return [name for name in COLUMNS if name in asked]


def in_range(files: Iterable[DataFile], low: str, high: str) -> list[DataFile]:
    """The files whose key range meets [low, high]."""
    return [file for file in files if file.min_key <= high and low <= file.max_key]


def within(ordered: Sequence[str], low: str, high: str) -> Sequence[str]:
    """The part of the sorted keys that lies in [low, high]."""
    return ordered[bisect_left(ordered, low) : bisect_right(ordered, high)]
