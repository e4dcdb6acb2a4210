"""The table: one row per image, and the small values that describe its files."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from recbatch.archive.errors import InvalidRecord

FORMAT = "1"  # table property recbatch.format; a reader refuses a higher major
FORMAT_PROPERTY = "recbatch.format"
TABLE_PROPERTIES = {
    FORMAT_PROPERTY: FORMAT,
    "delta.checkpointInterval": "10",
    # else every commit of an old table deletes log entries, and fails where its writer may not; vacuum does it instead
    "delta.enableExpiredLogCleanup": "false",
    # without it deltalake's own dataset takes the bounds that other columns lack for "null", and filters to nothing
    "delta.dataSkippingStatsColumns": "key",
}

_DIGEST_BYTES = 32

TABLE = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("codec", pa.string()),
        pa.field("stream", pa.large_binary()),
        pa.field("preview", pa.large_binary()),
        pa.field("stream_size", pa.int64()),
        pa.field("preview_size", pa.int64()),
        pa.field("stream_sha256", pa.binary()),  # Delta knows no fixed width; the length is checked here
        pa.field("source_uri", pa.string()),
        pa.field("source_size", pa.int64()),
        pa.field("source_etag", pa.string()),
        pa.field("source_mtime", pa.int64()),
        pa.field("source_sha256", pa.binary()),
        pa.field("source_format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("mode", pa.string()),
        pa.field("notes", pa.list_(pa.string())),
        pa.field("model", pa.string()),
        pa.field("quality", pa.float64()),
        pa.field("level", pa.int32()),
        pa.field("effort", pa.int32()),
        pa.field("coder", pa.string()),
        pa.field("kl_bits", pa.float64()),
        pa.field("index_bits", pa.int64()),
        pa.field("side_bits", pa.int64()),
        pa.field("residual_bits", pa.int64()),
        pa.field("psnr", pa.float32()),
        pa.field("ms_ssim", pa.float32()),
        pa.field("pixels_sha256", pa.binary()),
        pa.field("error_code", pa.string()),
        pa.field("error", pa.string()),
        pa.field("encode_ms", pa.float64()),
        pa.field("shard", pa.string()),
        pa.field("created_at", pa.timestamp("us", tz="UTC")),
        pa.field("recbatch_version", pa.string()),
    ]
)
COLUMNS: tuple[str, ...] = tuple(TABLE.names)
HEAVY_COLUMNS = frozenset({"stream", "preview"})
LIGHT_COLUMNS: tuple[str, ...] = tuple(name for name in COLUMNS if name not in HEAVY_COLUMNS)
LATER_COLUMNS = frozenset(
    {"preview", "preview_size"}
)  # archives made before have none; there they read as null


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One row: an archived image (``status`` "ok"), or one that could not be ("quarantined").

    ``stream`` is the whole file, ``preview`` the leading bytes of it that can be read alone, if there are such. The
    table holds every byte once: the column ``stream`` begins where ``preview`` ends, and reading joins them.

    ``stream_size``, ``preview_size`` and ``stream_sha256`` follow from the bytes and are filled in where these are
    given. A record read without the column ``stream`` has ``stream=None`` and keeps them.
    """

    key: str  # path below the source's root; bytes that are no UTF-8 arrive percent-escaped
    status: str = "ok"
    codec: str | None = None  # lossy, lossless, jpeg, original
    stream: bytes | None = None
    preview: bytes | None = None
    stream_size: int | None = None
    preview_size: int | None = None
    stream_sha256: bytes | None = None
    source_uri: str | None = None
    source_size: int | None = None
    source_etag: str | None = None
    source_mtime: int | None = None  # nanoseconds since 1970, as the source's store tells it
    source_sha256: bytes | None = None
    source_format: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    notes: tuple[str, ...] = ()
    model: str | None = None
    quality: float | None = None
    level: int | None = None
    effort: int | None = None
    coder: str | None = None
    kl_bits: float | None = None
    index_bits: int | None = None
    side_bits: int | None = None
    residual_bits: int | None = None
    psnr: float | None = None  # float32 in the table
    ms_ssim: float | None = None  # float32 in the table
    pixels_sha256: bytes | None = None
    error_code: str | None = None
    error: str | None = None
    encode_ms: float | None = None
    shard: str | None = None
    created_at: dt.datetime | None = None  # aware; the writer fills in the time of writing
    recbatch_version: str | None = None

    def __post_init__(self) -> None:
        if self.preview is not None and self.preview_size is None:
            object.__setattr__(self, "preview_size", len(self.preview))
        if self.stream is None:
            return
        if self.stream_size is None:
            object.__setattr__(self, "stream_size", len(self.stream))
        if self.stream_sha256 is None:
            object.__setattr__(self, "stream_sha256", hashlib.sha256(self.stream).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One Parquet file of the table; ``path`` is relative to the archive's root."""

    path: str
    size: int
    rows: int
    min_key: str
    max_key: str
    sha256: str = ""  # of the file, hexadecimal; empty where only the log was asked


_FIELDS = frozenset(field.name for field in fields(Record))
_DIGESTS = ("stream_sha256", "source_sha256", "pixels_sha256")


def check_record(record: Record) -> None:
    """Refuse a record that the table's rules forbid, before a byte of it is written."""

    def refuse(problem: str) -> InvalidRecord:
        return InvalidRecord(record.key, problem)

    if not record.key:
        raise refuse("its key is empty")
    try:
        record.key.encode()
    except UnicodeEncodeError:
        raise refuse("its key is not valid Unicode; escape such bytes with percent signs") from None
    for name in _DIGESTS:
        digest = getattr(record, name)
        if digest is not None and len(digest) != _DIGEST_BYTES:
            raise refuse(f"{name} has {len(digest)} bytes, not {_DIGEST_BYTES}")
    if record.created_at is not None and record.created_at.tzinfo is None:
        raise refuse("created_at has no time zone")
    if record.status == "quarantined":
        if not record.error_code:
            raise refuse("it is quarantined without an error code")
        return
    if record.status != "ok":
        raise refuse(f"its status is {record.status!r}, neither 'ok' nor 'quarantined'")
    if record.stream is None or not record.codec:
        raise refuse("it has no stream or no codec, yet its status is 'ok'")
    if record.stream_size != len(record.stream):
        raise refuse(f"stream_size is {record.stream_size}, the stream has {len(record.stream)} bytes")
    if record.stream_sha256 != hashlib.sha256(record.stream).digest():
        raise refuse("stream_sha256 is not the digest of the stream")
    if (record.preview_size or 0) != len(record.preview or b""):
        raise refuse(
            f"preview_size is {record.preview_size}, the preview has {len(record.preview or b'')} bytes"
        )
    if record.preview is not None and not (record.preview and record.stream.startswith(record.preview)):
        raise refuse("its preview is not the beginning of its stream")


def is_whole(record: Record) -> bool:
    """Whether a row's stream is the one that was archived; a row without one has nothing to lose."""
    if record.stream is None:
        return record.stream_sha256 is None
    return hashlib.sha256(record.stream).digest() == record.stream_sha256


def records_to_table(records: Sequence[Record], *, created_at: dt.datetime) -> pa.Table:
    """Arrow rows in the order given; ``created_at`` fills in where a record has none."""
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in COLUMNS}
    columns["created_at"] = [value or created_at for value in columns["created_at"]]
    columns["stream"] = [_after_preview(record) for record in records]
    try:
        return pa.table(columns, schema=TABLE)
    except (pa.ArrowException, OverflowError) as error:
        if len(records) > 1:  # one of them is at fault; the recursion names it
            for record in records:
                records_to_table([record], created_at=created_at)
        raise InvalidRecord(records[0].key, f"a column can't hold its value ({error})") from error


def table_to_records(table: pa.Table) -> list[Record]:
    """The rows as records; columns that are absent, or unknown to this version, are left out.

    The streams are whole where the table has both columns that they are kept in.
    """
    names = [name for name in table.column_names if name in _FIELDS]
    columns = [table.column(name).to_pylist() for name in names]
    if "notes" in names:
        place = names.index("notes")
        columns[place] = [tuple(notes or ()) for notes in columns[place]]
    if "stream" in names and "preview" in names:
        place, previews = names.index("stream"), columns[names.index("preview")]
        columns[place] = [
            preview + rest if preview and rest is not None else rest
            for preview, rest in zip(previews, columns[place], strict=True)
        ]
    return [Record(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def _after_preview(record: Record) -> bytes | None:
    """What the column ``stream`` holds."""
    if record.stream is None or not record.preview:
        return record.stream
    return record.stream[len(record.preview) :]


def completed(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """These columns in this order; those that the table's file was written before are null."""
    for name in names:
        if name in LATER_COLUMNS and name not in table.column_names:
            field = TABLE.field(name)
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select([name for name in names if name in table.column_names])


def schema_problem(found: pa.Schema, want: Iterable[pa.Field] = TABLE) -> str | None:
    """What keeps a file of schema ``found`` from being read as part of the table; None when nothing does."""
    for field in want:
        place = found.get_field_index(field.name)
        if place < 0:
            if field.name in LATER_COLUMNS:
                continue
            return f"column {field.name} is missing"
        if _plain(found.field(place).type) != _plain(field.type):
            return f"column {field.name} has type {found.field(place).type}, not {field.type}"
    return None


def _plain(kind: pa.DataType) -> str:
    """Types that Parquet stores alike have one name: other writers may choose the other width."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list of {_plain(kind.value_type)}"
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return "string"
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind) or kind == pa.binary_view():
        return "binary"
    return str(kind)
