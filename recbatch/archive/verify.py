"""Does an archive still hold what it says? Reads only.

Levels, each with all of the one before:
    structure   the log, every file's footer and keys: missing, truncated, foreign files; counts; duplicate keys
    digests     every row: its pages' checksums, its stream's SHA-256; the models' SHA-256
    pixels      every stream through a decoder that the caller hands over
"""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbatch.archive.archive import Archive
from recbatch.archive.errors import CorruptArchive, DecoderNeeded, VersionGone
from recbatch.archive.reader import key_range, opened, read_group
from recbatch.archive.rotation import LEVELS, Check, Level, Rotation, day_of
from recbatch.archive.schema import (
    COLUMNS,
    HEAVY_COLUMNS,
    DataFile,
    Record,
    schema_problem,
    table_to_records,
)
from recbatch.archive.store import Store, plain
from recbatch.errors import RecbatchError


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong: with a row (``key``), a data file (``file``), or the archive (neither)."""

    code: str
    problem: str  # a sentence
    key: str | None = None
    file: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How far a verification has come; sent after each row group."""

    files: int  # checked so far
    files_total: int
    rows: int
    rows_total: int
    bytes: int
    findings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    url: str
    version: int
    level: Level
    sample: float
    files: int  # in the archive
    rows: int
    files_checked: int
    rows_checked: int
    streams_checked: int  # by their digest
    streams_decoded: int
    models_checked: int
    bytes_checked: int  # read and looked at
    seconds: float
    findings: tuple[Finding, ...]
    where: str | None = None
    rotation: Rotation | None = None
    began: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    recorded: bool = False  # in the archive's ledger

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def damaged_streams(self) -> tuple[str, ...]:
        """Keys of the rows of which only the stream is wrong."""
        of_rows = (finding for finding in self.findings if finding.code not in _OF_THE_ROW)
        return tuple(dict.fromkeys(finding.key for finding in of_rows if finding.key is not None))

    @property
    def exit_status(self) -> int:
        return 1 if self.findings else 0

    @property
    def mb_per_s(self) -> float:
        return self.bytes_checked / 1e6 / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        facts = {name: value for name, value in asdict(self).items() if name not in ("rotation", "began")}
        turn = self.rotation
        return {
            **facts,
            "began": self.began.isoformat(),
            "rotate_days": turn.days if turn else None,
            "slots": sorted(turn.slots) if turn else None,
            "missed_days": turn.missed if turn else None,
            "ok": self.ok,
            "mb_per_s": self.mb_per_s,
        }

    def record(self) -> Check:
        """What the ledger keeps of it."""
        codes = Counter(finding.code for finding in self.findings)
        return Check(
            finished=dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
            day=day_of(self.began),
            level=self.level,
            version=self.version,
            rows=self.rows,
            rows_checked=self.rows_checked,
            findings=len(self.findings),
            seconds=round(self.seconds, 3),
            sample=self.sample,
            where=self.where,
            days=self.rotation.days if self.rotation else None,
            slots=tuple(sorted(self.rotation.slots)) if self.rotation else (),
            codes=tuple(sorted(codes.items())),
        )


Decode = Callable[[Record], Finding | None]
Progress = Callable[[Checked], None]

_OF_THE_ROW = frozenset({"misplaced-key", "duplicate-key", "no-error-code", "unknown-status"})
LEAST_SAMPLED = 16  # rows that a sample aims at, however small the archive


def verify(
    archive: Archive,
    *,
    level: Level = "digests",
    sample: float = 1.0,
    rotation: Rotation | None = None,
    where: str | None = None,
    decoder: Decode | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check an archive; what is wrong comes back as findings, in the order of keys.

    Args:
        sample: the share of rows whose content is checked, chosen by a hash of their keys: the same rows each
            time; raised in a small archive, so that about 16 are. The structure is always checked whole.
        rotation: instead of a sample: only the content of these slots' rows, see ``rotation.due``.
        where: an SQL condition over the archive's columns: only the content of rows that meet it.
        decoder: for level "pixels"; gets each sampled record with status "ok".

    Raises:
        DecoderNeeded: level "pixels" without a decoder.
        InvalidFilter: ``where`` is no condition.
        StoreError: the store fails; that is no finding about the archive.
    """
    if level not in LEVELS:
        raise ValueError(f"no such level: {level}")
    if not 0 < sample <= 1:
        raise ValueError(f"the sample must be above 0 and at most 1, not {sample}")
    if rotation is not None and sample < 1:
        raise ValueError("a sample and a rotation each choose the rows: give one of them")
    if level == "pixels" and decoder is None:
        raise DecoderNeeded
    only = None
    if where is not None:
        only = frozenset(archive.to_arrow(["key"], where).column("key").to_pylist())
    run = _Run(
        archive=archive,
        level=level,
        sample=sample,
        rotation=rotation,
        where=where,
        only=only,
        decoder=decoder,
        progress=progress,
    )
    return run.report()


def in_sample(key: str, sample: float) -> bool:
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8, person=b"rec-sample").digest()
    return sample >= 1 or int.from_bytes(digest, "big") < sample * 2**64


def check_record(record: Record) -> Finding | None:
    """What is wrong with a row by its own digests."""

    def wrong(code: str, problem: str) -> Finding:
        return Finding(code=code, problem=problem, key=record.key)

    if record.status == "quarantined":
        return None if record.error_code else wrong("no-error-code", "it is quarantined and does not say why")
    if record.status != "ok":
        return wrong("unknown-status", f"its status is {record.status!r}")
    if record.stream is None:
        return wrong("missing-stream", "it has no stream")
    if record.stream_size != len(record.stream):
        return wrong(
            "wrong-stream-size", f"its stream has {len(record.stream)} bytes, not {record.stream_size}"
        )
    if record.stream_sha256 != hashlib.sha256(record.stream).digest():
        return wrong("wrong-digest", "its stream's SHA-256 is not the row's")
    if (record.preview_size or 0) != len(record.preview or b""):
        found = f"its preview has {len(record.preview or b'')} bytes, not {record.preview_size}"
        return wrong("wrong-preview-size", found)
    return None


@dataclass(slots=True, kw_only=True)
class _Run:
    archive: Archive
    level: Level
    sample: float
    rotation: Rotation | None
    where: str | None
    only: frozenset[str] | None  # keys of the rows that meet ``where``
    decoder: Decode | None
    progress: Progress | None
    findings: list[Finding] = field(default_factory=list)
    files_checked: int = 0
    rows_checked: int = 0
    streams_checked: int = 0
    streams_decoded: int = 0
    models_checked: int = 0
    bytes_checked: int = 0
    overlap: set[str] = field(default_factory=set)  # keys of the files whose ranges meet the current one's
    overlap_end: str = ""

    @property
    def store(self) -> Store:
        return self.archive.store

    def report(self) -> VerifyReport:
        began, start = dt.datetime.now(dt.UTC), time.perf_counter()
        files = self.archive.files()
        rows = sum(file.rows for file in files)
        if self.sample < 1:
            self.sample = max(self.sample, min(1.0, LEAST_SAMPLED / max(rows, 1)))
        for file in files:
            self._file(file)
            self.files_checked += 1
            self._tell(files)
        self._models()
        may_be_none = self.rotation is not None or self.only is not None
        if rows and not self.rows_checked and not self.findings and not may_be_none:
            share = f"; the sample of {self.sample:g} hit none, raise it" if self.sample < 1 else ""
            self._find("nothing-checked", f"the archive has {rows} rows and not one was checked{share}")
        return VerifyReport(
            url=self.archive.url,
            version=self.archive.version,
            level=self.level,
            sample=self.sample,
            files=len(files),
            rows=rows,
            files_checked=self.files_checked,
            rows_checked=self.rows_checked,
            streams_checked=self.streams_checked,
            streams_decoded=self.streams_decoded,
            models_checked=self.models_checked,
            bytes_checked=self.bytes_checked,
            seconds=time.perf_counter() - start,
            findings=tuple(self.findings),
            where=self.where,
            rotation=self.rotation,
            began=began,
        )

    def _find(self, code: str, problem: str, *, key: str | None = None, file: str | None = None) -> None:
        self.findings.append(Finding(code=code, problem=problem, key=key, file=file))

    def _tell(self, files: Sequence[DataFile]) -> None:
        if self.progress is not None:
            self.progress(
                Checked(
                    files=self.files_checked,
                    files_total=len(files),
                    rows=self.rows_checked,
                    rows_total=sum(file.rows for file in files),
                    bytes=self.bytes_checked,
                    findings=len(self.findings),
                )
            )

    def _file(self, file: DataFile) -> None:
        size = self.store.size(file.path)
        if size is None:
            return self._find("missing-file", "the data file is gone", file=file.path)
        if size != file.size:
            text = f"the data file has {size} bytes, the log says {file.size}"
            self._find("truncated-file" if size < file.size else "grown-file", text, file=file.path)
        try:
            with opened(self.store, file.path) as parquet:
                if problem := schema_problem(parquet.schema_arrow):
                    return self._find("foreign-file", f"its {problem}", file=file.path)
                if parquet.metadata.num_rows != file.rows:
                    text = f"the data file has {parquet.metadata.num_rows} rows, the log says {file.rows}"
                    self._find("wrong-row-count", text, file=file.path)
                named = self._keys(file, parquet)
                if self.level != "structure":
                    for group in named:
                        self._content(file, parquet, group)
        except CorruptArchive as error:
            self._find("unreadable-file", error.problem, file=file.path)

    def _keys(self, file: DataFile, parquet: pq.ParquetFile) -> list[int]:
        """Every key lies where a search would look for it, and stands once. Returns the row groups that have keys."""
        named = []
        if file.min_key > self.overlap_end:
            self.overlap.clear()
        self.overlap_end = max(self.overlap_end, file.max_key)
        for group in range(parquet.num_row_groups):
            try:
                keys = read_group(self.store, file.path, parquet, group, ["key"]).column("key").to_pylist()
            except CorruptArchive as error:
                low, high = key_range(parquet, group) or (file.min_key, file.max_key)
                rows = parquet.metadata.row_group(group).num_rows
                text = f"the keys of {rows} rows from {low!r} to {high!r} can't be read; {error.problem}"
                self._find("unreadable-keys", text, file=file.path)
                continue
            named.append(group)
            low, high = key_range(parquet, group) or ("", max(keys, default=""))
            low, high = max(low, file.min_key), min(high, file.max_key)
            for key in keys:
                if not low <= key <= high:
                    text = "it lies outside the key range of its file or row group, so a search would miss it"
                    self._find("misplaced-key", text, key=key, file=file.path)
                if key in self.overlap:
                    self._find("duplicate-key", "it stands more than once", key=key, file=file.path)
                self.overlap.add(key)
            self.bytes_checked += _column_bytes(parquet, group, ["key"])
            if self.level == "structure":
                self.rows_checked += len(keys)
        return named

    def _content(self, file: DataFile, parquet: pq.ParquetFile, group: int) -> None:
        try:
            chosen = self._chosen(read_group(self.store, file.path, parquet, group, ["key"]))
            if chosen is None:
                return
            names = [name for name in COLUMNS if name in parquet.schema_arrow.names]
            table = read_group(self.store, file.path, parquet, group, names)
        except CorruptArchive as error:
            return self._damaged(file, parquet, group, error)
        self.bytes_checked += _column_bytes(parquet, group, names)
        for record in table_to_records(table.filter(chosen)):
            self._record(record, file)

    def _chosen(self, keys: pa.Table) -> Any:
        """Which rows of a group are to be looked at; None for not one."""
        mask = pa.array([self._takes(key) for key in keys.column("key").to_pylist()], pa.bool_())
        return mask if pc.any(mask).as_py() else None

    def _takes(self, key: str) -> bool:
        if self.only is not None and key not in self.only:
            return False
        return in_sample(key, self.sample) if self.rotation is None else self.rotation.takes(key)

    def _record(self, record: Record, file: DataFile) -> None:
        self.rows_checked += 1
        finding = check_record(record)
        self.streams_checked += record.stream is not None
        if finding is None and self.level == "pixels" and record.status == "ok" and self.decoder is not None:
            finding = _decoded(self.decoder, record)
            self.streams_decoded += 1
        if finding is not None:
            self.findings.append(replace(finding, key=finding.key or record.key, file=file.path))

    def _damaged(self, file: DataFile, parquet: pq.ParquetFile, group: int, error: CorruptArchive) -> None:
        """A page's checksum failed: name the columns that are hit, and by the streams' digests the rows."""
        bad = list(self._bad_columns(file, parquet, group))
        before = len(self.findings)
        if bad and HEAVY_COLUMNS.issuperset(bad):
            try:
                with opened(self.store, file.path, checksums=False) as unchecked:
                    names = [name for name in COLUMNS if name in unchecked.schema_arrow.names]
                    table = read_group(self.store, file.path, unchecked, group, names)
                for record in table_to_records(table):
                    finding = check_record(record)
                    if finding is not None or self._takes(record.key):
                        self.rows_checked += 1
                        self.streams_checked += record.stream is not None
                    if finding is not None:
                        self.findings.append(replace(finding, file=file.path))
            except (CorruptArchive, ValueError):
                pass  # not even that: the group is named as a whole
        if len(self.findings) == before:
            low, high = key_range(parquet, group) or (file.min_key, file.max_key)
            columns = ", ".join(bad) or "some column"
            text = f"rows from {low!r} to {high!r}: {columns} can't be read; {error.problem}"
            self._find("unreadable-rows", text, file=file.path)

    def _bad_columns(self, file: DataFile, parquet: pq.ParquetFile, group: int) -> Iterator[str]:
        for name in parquet.schema_arrow.names:
            try:
                read_group(self.store, file.path, parquet, group, [name])
            except CorruptArchive:
                yield name

    def _models(self) -> None:
        """Every model that a row names is there and, above the structure, whole."""
        present = set(self.archive.models())
        try:
            columns = self.archive.tables(["model"])
            named = {name for table in columns for name in table.column("model").to_pylist() if name}
        except (CorruptArchive, VersionGone, KeyError):
            named = set()  # a file that can't be read, or is no file of ours, has its finding already
        for digest in sorted(named - present):
            self._find("missing-model", f"rows were made with the model {digest}, and its weights are gone")
        if self.level == "structure":
            return
        for digest in sorted(present):
            self.models_checked += 1
            try:
                self.bytes_checked += len(self.archive.model(digest))
            except CorruptArchive as error:
                self._find("wrong-model-digest", error.problem)


def _decoded(decoder: Decode, record: Record) -> Finding | None:
    try:
        return decoder(record)
    except RecbatchError as error:
        return Finding(code=error.code, problem=str(error), key=record.key)
    except (
        Exception
    ) as error:  # damage can make a decoder fail in any way; the other rows are checked all the same
        return Finding(
            code="decoder-failed", problem=f"{type(error).__name__}: {plain(error)}", key=record.key
        )


def _column_bytes(parquet: pq.ParquetFile, group: int, names: Sequence[str]) -> int:
    row_group = parquet.metadata.row_group(group)
    columns = (row_group.column(place) for place in range(row_group.num_columns))
    wanted = set(names)
    return sum(
        column.total_compressed_size
        for column in columns
        if column.path_in_schema.partition(".")[0] in wanted
    )
