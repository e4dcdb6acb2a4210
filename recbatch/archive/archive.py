"""An archive, as a mapping from key to record, and the few ways to add to it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from recbatch.archive import commit as commits
from recbatch.archive import gone
from recbatch.archive.commit import CommitResult, Patience
from recbatch.archive.errors import (
    ArchiveNotFound,
    ArchiveNotReadable,
    ArchiveTooNew,
    CorruptArchive,
    InvalidFilter,
    InvalidRecord,
    KeyNotFound,
    MissingModel,
    NotAnArchive,
    StoreUnreachable,
    VersionGone,
)
from recbatch.archive.merging import merged
from recbatch.archive.reader import active_files, in_range, known_columns, read_tables, within
from recbatch.archive.schema import (
    FORMAT,
    FORMAT_PROPERTY,
    TABLE,
    TABLE_PROPERTIES,
    DataFile,
    Record,
    is_whole,
    schema_problem,
    table_to_records,
)
from recbatch.archive.stats import Stats, gather
from recbatch.archive.store import LEDGER, LOG, Sink, Store, listed, plain
from recbatch.archive.writer import write_records

Default = TypeVar("Default")

MODELS = f"{LEDGER}/models"


class Known(NamedTuple):
    """What a row says of its source: enough to tell whether the source has changed since."""

    size: int | None
    etag: str | None
    mtime: int | None  # nanoseconds
    status: str


class Archive:
    """One version of an archive. ``commit`` and ``refresh`` move it on to the newest.

    >>> archive = Archive.open("photos.rec")
    >>> archive["2019/lake.jpg"].stream
    """

    def __init__(self, store: Store, table: DeltaTable) -> None:
        self._store = store
        self._opened: DeltaTable | None = table
        self._version = int(table.version())
        self._files: list[DataFile] | None = None
        self._kinds: dict[str, str] = {}

    # --- opening

    @classmethod
    def open(cls, url: str | os.PathLike[str], *, version: int | None = None) -> Archive:
        """Raises ArchiveNotFound, NotAnArchive, ArchiveTooNew, VersionGone, CorruptArchive."""
        store = Store(url)
        try:
            return cls(store, _checked(store, version))
        except (ArchiveNotFound, CorruptArchive):
            if version is not None and gone.is_forgotten(store, version):
                raise VersionGone(store.url, version) from None
            raise

    @classmethod
    def create(cls, url: str | os.PathLike[str], *, exist_ok: bool = False) -> Archive:
        """A new, empty archive; with ``exist_ok`` the one that stands there already."""
        store = Store(url)
        try:
            archive = cls(store, _checked(store, None))
        except ArchiveNotFound:
            pass
        else:
            if exist_ok:
                return archive
            raise NotAnArchive(store.url, "an archive stands there already, a new one was asked for")
        if store.local is not None and store.local.exists():
            if not store.local.is_dir():
                raise NotAnArchive(store.url, "it is a file")
            if any(store.local.iterdir()):
                raise NotAnArchive(store.url, "the folder holds other files")
        if others := store.strangers():
            raise NotAnArchive(store.url, f"the prefix holds other objects, such as {others[0]}")
        with store.errors(writing=True):
            try:
                options = store.storage_options
                listed(
                    lambda: DeltaTable.create(
                        store.table_uri,
                        TABLE,
                        name="recbatch archive",
                        configuration=TABLE_PROPERTIES,
                        raise_if_key_not_exists=False,
                        storage_options=options,
                    )
                )
            except Exception:
                if not exist_ok or not store.names(LOG):
                    raise  # else another process was faster, and made the same
        store.settle(0)
        return cls.open(url)

    @property
    def store(self) -> Store:
        """Access to the archive's files, for this floor's own modules."""
        return self._store

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def version(self) -> int:
        return self._version

    @property
    def _table(self) -> DeltaTable:
        """A handle on this version; opened when it is needed: who only commits reads nothing through it."""
        if self._opened is None:
            self._opened = _checked(self._store, self._version)
        return self._opened

    @property
    def properties(self) -> Mapping[str, str]:
        return dict(self._table.metadata().configuration)

    def refresh(self) -> None:
        """Move on to the newest version."""
        self._opened = _checked(self._store, None)
        self._version = int(self._opened.version())
        self._files = None

    def _move_to(self, version: int) -> None:
        self._opened, self._version, self._files = None, version, None

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __repr__(self) -> str:
        return f"Archive({self.url!r}, version={self.version})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_version, (self.url, self.version)

    # --- reading

    def files(self) -> Sequence[DataFile]:
        """The data files of this version, sorted by their smallest key."""
        if self._files is None:
            with self._swept(), self._store.errors():
                self._files = active_files(self._store, self._table)
        return self._files

    def check_readable(self) -> None:
        """Raise VersionGone where a data file of this version is gone that the newest one does without."""
        newest = self._store.table()
        if newest.version() == self._version:
            return
        kept = {file.path for file in active_files(self._store, newest)}
        replaced = {str(path) for path in pa.table(self._table.get_add_actions())["path"].to_pylist()} - kept
        if gone.absent(self._store, replaced):
            raise VersionGone(self.url, self._version)

    def _read(
        self,
        file: DataFile,
        columns: Sequence[str],
        keys: Collection[str] | None = None,
        *,
        checked: bool = True,
    ) -> Iterator[pa.Table]:
        with self._swept():
            yield from read_tables(self._store, file.path, columns, keys=keys, checked=checked)

    @contextmanager
    def _swept(self) -> Iterator[None]:
        """What looks like damage in an earlier version may be a vacuum's work."""
        try:
            yield
        except CorruptArchive:
            self.check_readable()
            raise

    def __len__(self) -> int:
        return sum(file.rows for file in self.files())

    def __iter__(self) -> Iterator[str]:
        """Keys, in order within a file and nearly so across files."""
        for table in self.tables(["key"]):
            yield from table.column("key").to_pylist()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key, ["key"]) is not None

    def __getitem__(self, key: str) -> Record:
        return self.record(key)

    def record(self, key: str, columns: Iterable[str] | None = None) -> Record:
        """One row, or these columns of it. Raises KeyNotFound."""
        record = self._find(key, columns)
        if record is None:
            raise KeyNotFound(self.url, key)
        return record

    def get(self, key: str, default: Default | None = None) -> Record | Default | None:
        record = self._find(key, None)
        return default if record is None else record

    def _find(self, key: str, columns: Iterable[str] | None) -> Record | None:
        names = known_columns(columns, whole=True)
        for file in in_range(self.files(), key, key):
            if (table := self._row(file, names, key)) is not None:
                return table_to_records(table)[0]
        return None

    def _row(self, file: DataFile, names: list[str], key: str) -> pa.Table | None:
        """The key's row, if it stands in this file. Of a damaged page it comes where its own stream is whole."""
        try:
            return next(self._read(file, names, [key]), None)
        except CorruptArchive as error:
            if "stream" not in names:
                raise
            digested = known_columns([*names, "stream_sha256"])
            table = next(self._read(file, digested, [key], checked=False), None)
            if table is not None and not is_whole(table_to_records(table)[0]):
                raise error from None
            return table

    def records(
        self,
        columns: Iterable[str] | None = None,
        where: str | None = None,
        *,
        keys: Collection[str] | None = None,
        files: Collection[str] | None = None,
        checked: bool = True,
    ) -> Iterator[Record]:
        """Rows as records, one row group in memory at a time.

        Args:
            columns: what to read (``key`` always is); all by default. Leave out ``stream`` to stay cheap, and
                take ``preview`` to read that alone.
            where: an SQL condition over the columns; other rows' streams are not read.
            keys: only these rows.
            files: only rows of these data files, by their paths.
            checked: False takes streams out of damaged pages too, as they are: compare them with ``stream_sha256``.
        """
        names = known_columns(columns, whole=True)
        for table in self.tables(names, where, keys=keys, files=files, checked=checked):
            yield from table_to_records(table)

    def tables(
        self,
        columns: Iterable[str] | None = None,
        where: str | None = None,
        *,
        keys: Collection[str] | None = None,
        files: Collection[str] | None = None,
        checked: bool = True,
    ) -> Iterator[pa.Table]:
        """The same rows as Arrow tables, one for each row group that has any.

        These are the table's own columns: a whole stream is ``preview``, where that is not null, and ``stream``.
        """
        names = known_columns(columns)
        wanted: set[str] | None = None if keys is None else set(keys)
        if where is not None:
            matching = self._matching(where)
            wanted = matching if wanted is None else wanted & matching
        order = None if wanted is None else sorted(wanted)
        for file in self.files():
            if files is not None and file.path not in files:
                continue
            if order is None:
                yield from self._read(file, names, checked=checked)
            elif mine := within(order, file.min_key, file.max_key):
                yield from self._read(file, names, mine, checked=checked)

    def to_arrow(self, columns: Iterable[str] | None = None, where: str | None = None) -> pa.Table:
        """All these rows in memory at once, as ``tables`` gives them."""
        names = known_columns(columns)
        schema = pa.schema([TABLE.field(name) for name in names])
        tables = [table.cast(schema) for table in self.tables(names, where)]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def _matching(self, where: str) -> set[str]:
        """Keys of the rows that meet an SQL condition; DataFusion reads only the columns it names."""
        query = QueryBuilder().register(
            "archive", self._store.table(self._version)
        )  # old keys may have expired
        try:
            reader = query.execute(f"SELECT key FROM archive WHERE (\n{where}\n)")
        except DeltaError as error:
            raise InvalidFilter(where, _without_list(plain(error))) from error
        try:
            return {str(key) for batch in reader for key in pa.record_batch(batch).column(0).to_pylist()}
        except Exception as error:
            if _VALUE_ERROR.search(str(error)):  # some conditions fail only on the rows
                raise InvalidFilter(where, plain(error)) from error
            problem = self._store.explain(error)
            if isinstance(problem, StoreUnreachable) and self._store.local is not None:
                problem = CorruptArchive(self.url, problem.problem)  # a disk does not go away, a file does
            if not isinstance(problem, ArchiveNotReadable):
                self.check_readable()
            raise problem from error

    def known(self) -> dict[str, Known]:
        """For each key what its source was like when it was archived."""
        return dict(self.known_rows())

    def known_rows(self) -> Iterator[tuple[str, Known]]:
        """The same in the order of keys; in memory are the files whose ranges meet, and a few ahead."""
        columns = ["key", "source_size", "source_etag", "source_mtime", "status"]

        def rows(file: DataFile) -> list[tuple[str, Known]]:
            tables = [table.select(columns) for table in self._read(file, columns)]
            found = [
                (key, Known(*rest))
                for table in tables
                for key, *rest in zip(*(column.to_pylist() for column in table.columns), strict=True)
            ]
            return sorted(found, key=lambda row: row[0])

        return merged(self.files(), rows)

    def stats(self) -> Stats:
        names = [f"{MODELS}/{digest}.safetensors" for digest in self.models()]
        sizes = gone.in_threads(self._store.size, names)
        return replace(
            gather(self.files(), self.tables(Stats.COLUMNS)),
            models=len(names),
            model_bytes=sum(size or 0 for size in sizes),
        )

    # --- models and other objects beside the table

    def put_model(self, digest: str, data: bytes) -> None:
        """Keep a decoder's weights under their SHA-256 (hex). Kept once: the same again is no change."""
        if hashlib.sha256(data).hexdigest() != digest:
            raise InvalidRecord(digest, "the weights' SHA-256 is another")
        name = f"{MODELS}/{digest}.safetensors"
        if not self._store.put_once(name, data) and self._store.size(name) != len(data):
            self._store.put(name, data)  # a torn copy; the digest says what belongs there

    def models(self) -> list[str]:
        """Digests (hex) of the weights that lie in the archive."""
        names = self._store.names(MODELS)
        return [name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")]

    def model(self, digest_prefix: str) -> bytes:
        """The weights whose SHA-256 (hex) begins so."""
        found = [digest for digest in self.models() if digest.startswith(digest_prefix)]
        if len(found) != 1 or not digest_prefix:
            raise MissingModel(self.url, digest_prefix)
        data = self._store.read(f"{MODELS}/{found[0]}.safetensors")
        if data is None or hashlib.sha256(data).hexdigest() != found[0]:
            raise CorruptArchive(self.url, f"the weights {found[0]} have another SHA-256 than their name")
        return data

    def put_object(self, name: str, data: bytes) -> None:
        """Write or replace an object of the ledger, such as ``plans/<digest>.parquet``."""
        self._store.put(f"{LEDGER}/{_ledger_name(name)}", data)

    def put_object_once(self, name: str, data: bytes) -> bool:
        """Write an object of the ledger unless it exists; True where this call made it."""
        return self._store.put_once(f"{LEDGER}/{_ledger_name(name)}", data)

    @contextmanager
    def writing_object(self, name: str) -> Iterator[Sink]:
        """A new object of the ledger that is too large for memory; it stands whole when the block ends."""
        with self._store.writing(f"{LEDGER}/{_ledger_name(name)}") as sink:
            yield sink

    def object(self, name: str) -> bytes | None:
        return self._store.read(f"{LEDGER}/{_ledger_name(name)}")

    def objects(self, folder: str) -> list[str]:
        return self._store.names(f"{LEDGER}/{_ledger_name(folder)}")

    # --- writing

    def write_file(self, records: Sequence[Record], *, stem: str) -> DataFile:
        """Write one data file. Nothing of it is visible before ``commit``; a failed one leaves no file."""
        return write_records(self._store, records, stem=stem)

    def claim_epoch(self, job: str, *, kind: str = "", patience: Patience | None = None) -> int:
        """Take over the job: every earlier holder's commits raise Superseded from now on.

        ``kind`` says what the run does, where that is not what the job's name says: this claim and the commits that
        follow on this handle tell it to whoever reads the log.
        """
        epoch = commits.claim_epoch(self._store, job, kind=kind, patience=patience or Patience())
        self._kinds[job] = kind
        self.refresh()
        return epoch

    def commit(
        self,
        shards: Sequence[tuple[str, DataFile]],
        *,
        job: str,
        epoch: int,
        patience: Patience | None = None,
        absent_at: int | None = None,
    ) -> CommitResult:
        """Make the shards' rows visible in one version, each shard exactly once.

        Rows that stand under the same keys, whoever wrote them, go in the same version: no caller has to name
        them. Calling again with shards that are committed changes nothing. ``absent_at`` may name a version in
        which none of the shards stood, and saves looking for them while the table is still at it.

        Raises:
            Superseded: another run has claimed a later epoch.
            LostDataFile: a file is gone or was changed; its shard has to be written again.
            StoreFull, ArchiveNotWritable, StoreUnreachable, CommitConflict: nothing of this call is visible,
                or all of it; the next call finds out.
        """
        result = commits.commit_shards(
            self._store,
            shards,
            job=job,
            epoch=epoch,
            patience=patience or Patience(),
            absent_at=absent_at,
            kind=self._kinds.get(job, ""),
        )
        self._move_to(result.version)
        return result


_VALUE_ERROR = re.compile(r"cast|divide ?by ?zero|overflow|Compute error", re.IGNORECASE)


def _without_list(text: str) -> str:
    """DataFusion names all the columns after an unknown one; docs and 'recbatch info' do that better."""
    text = re.split(r"\.? (?:Valid fields are|Candidate functions)", text.removeprefix("Schema error: "))[0]
    return re.sub(r"(?<=Did you mean ')archive\.", "", text)


def _open_version(url: str, version: int) -> Archive:
    return Archive.open(url, version=version)


def _ledger_name(name: str) -> str:
    parts = name.split("/")
    if not all(parts) or any(part in (".", "..") for part in parts):
        raise InvalidRecord(name, "it is no name for an object of the ledger")
    return name


def _checked(store: Store, version: int | None) -> DeltaTable:
    """A handle on something that is an archive, and not too new a one."""
    if store.local is not None:
        if not store.local.exists():
            raise ArchiveNotFound(store.url)
        if not store.local.is_dir():
            raise NotAnArchive(store.url, "it is a file")
        with store.errors():
            if not (store.local / LOG).is_dir():
                if any(store.local.iterdir()):
                    raise NotAnArchive(store.url, "the folder has no Delta log")
                raise ArchiveNotFound(store.url)
    table = store.table(version)
    found = table.metadata().configuration.get(FORMAT_PROPERTY)
    if found is None:
        raise NotAnArchive(store.url, "it is a Delta table that recbatch did not make")
    if not found.partition(".")[0].isdecimal() or int(found.partition(".")[0]) > int(FORMAT):
        raise ArchiveTooNew(store.url, f"archive format {found}", f"format {FORMAT}")
    if problem := schema_problem(pa.schema(table.schema().to_arrow())):
        raise CorruptArchive(store.url, f"its table's {problem}")
    return table
