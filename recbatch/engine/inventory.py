"""A listing file in place of a listing: what S3 Inventory writes, or a table of one's own.

Three forms, told apart by their content: CSV with a header (plain or gzip), Parquet, and S3 Inventory's
``manifest.json`` with the data files that it names. S3 Inventory encodes keys in its CSV as in a URL; a CSV with a
header holds them as they are.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO
from urllib.parse import unquote_plus

from recbatch import s3
from recbatch.engine.bucket import nanoseconds
from recbatch.engine.errors import BadListing, ListingNamesNothing, ListingNotFound, SourceUnreadable
from recbatch.engine.source import Item, Tally, first_line
from recbatch.errors import RecbatchError, UsageError

_NAMES = {  # as others write them, in small letters and digits alone
    "key": ("key", "objectkey"),
    "size": ("size", "sizeinbytes"),
    "etag": ("etag",),
    "changed": ("lastmodified", "lastmodifieddate", "mtime"),
    "bucket": ("bucket", "bucketname"),
    "latest": ("islatest",),
    "deleted": ("isdeletemarker",),
}
_KINDS = {".parquet": "Parquet", ".gz": "gzip"}
GZIP = b"\x1f\x8b"
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a listing, before it is known to belong to the source."""

    place: str  # "FILE, line 12"
    bucket: str  # empty where the listing does not say
    key: str
    size: int
    mtime_ns: int
    etag: str


def find_listed(listing: str, source: str, takes: Callable[[str], bool], tally: Tally) -> Iterator[Item]:
    """The items of ``source`` that a listing names, in its order. Nothing is asked of the source itself.

    Args:
        listing: a path or URL of a CSV file with a header (``key``, ``size``, and ``etag`` or ``last_modified``),
            a Parquet file of such columns, or the ``manifest.json`` of an S3 Inventory. Keys are whole object keys.
        source: the URL of a bucket, or of a prefix in it; keys outside of it are skipped, and said once.

    Raises BadListing, ListingNamesNothing (at the end), ListingNotFound, SourceUnreadable.
    """
    if "://" not in source or source.startswith("file://"):
        raise UsageError(
            f"A listing names the objects of a bucket, and {source} is none. Leave out --listing."
        )
    scheme = source.partition("://")[0]
    bucket, prefix = s3.split(source)
    folder = prefix if not prefix or prefix.endswith("/") else prefix + "/"
    count = _Count()
    for row in read_listing(listing, bucket):
        if row.bucket and row.bucket != bucket:
            raise BadListing(row.place, f"it lists bucket {row.bucket!r}, the source is in {bucket!r}")
        if row.size == 0 and row.key.endswith("/"):
            continue  # what consoles make to show a folder
        if not row.key.startswith(folder) or row.key == folder:
            tally.skipped += 1  # an inventory is of the whole bucket
            count.outside += 1
            count.first_outside = count.first_outside or row.key
            continue
        name = row.key[len(folder) :]
        if not {".", ".."}.isdisjoint(name.split("/")):
            tally.skipped += 1
            count.unsafe += 1
            count.first_unsafe = count.first_unsafe or row.key
            continue
        if not takes(name):
            tally.skipped += 1
            count.not_taken += 1
            count.first_not_taken = count.first_not_taken or row.key
            continue
        count.items += 1
        uri = f"{scheme}://{bucket}/{row.key}"
        yield Item(key=name, uri=uri, size=row.size, mtime_ns=row.mtime_ns, etag=row.etag)
    if count.unsafe:
        tally.problems.append(f"{listing}: {count.unsafe_text()}; left out")
    if not count.items:
        raise count.error(listing, source)


@dataclass(slots=True, kw_only=True)
class _Count:
    """What became of a listing's rows, to tell why none was of use."""

    items: int = 0
    outside: int = 0
    first_outside: str = ""
    not_taken: int = 0
    first_not_taken: str = ""
    unsafe: int = 0  # stores mend such names, or refuse them with an error like one that passes
    first_unsafe: str = ""

    def unsafe_text(self) -> str:
        many = f"{self.unsafe:,} keys have" if self.unsafe > 1 else "1 key has"
        return f"{many} '.' or '..' as a part, such as {self.first_unsafe!r}"

    def error(self, listing: str, source: str) -> ListingNamesNothing:
        if self.unsafe:
            remedy = "Mend the listing: a store may take such a key for another one"
            return ListingNamesNothing(listing, f"names nothing of use: {self.unsafe_text()}", remedy)
        count = self.outside + self.not_taken
        keys = f"{count:,} object" + ("s" if count > 1 else "")
        if not count:
            problem, remedy = "names no object", "Check that it is the right file, and whole"
        elif not self.not_taken:
            problem = f"names {keys}, none of them below {source} (the first is {self.first_outside!r})"
            remedy = "Name the source that its keys lie in: they are whole keys, from the bucket on"
        else:
            problem = f"names {keys}, none of them taken as an image"
            problem += f": {self.not_taken:,} by the name, such as {self.first_not_taken!r}"
            if self.outside:
                problem += f", {self.outside:,} that lie elsewhere, such as {self.first_outside!r}"
            remedy = "Name the files to take with --include, for example --include '*.dat'"
        return ListingNamesNothing(listing, problem, remedy)


def read_listing(listing: str, bucket: str) -> Iterator[Row]:
    """The rows of a listing of any form; versions that are not the latest, and deletions, are left out."""
    with _opened(listing) as file:
        start = file.peek(4)[:4]  # type: ignore[attr-defined]
        if listing.lower().endswith(".json") and start != b"PAR1":
            try:
                manifest = json.loads(file.read())
            except (ValueError, RecursionError) as error:
                raise BadListing(listing, f"it is no JSON ({first_line(error)})") from error
            yield from _read_manifest(listing, manifest, bucket)
        elif start == b"PAR1":
            yield from _read_parquet(listing, file)
        else:
            suffix = next((name for name in _KINDS if listing.lower().endswith(name)), "")
            header = file.peek(4096).partition(b"\n")[0].lower()  # type: ignore[attr-defined]
            if (
                suffix and start[:2] != GZIP and b"key" not in header
            ):  # else it is CSV, whatever its name says
                raise BadListing(listing, f"it is no {_KINDS[suffix]} file, though its name says so")
            yield from _read_csv(listing, file, None)


# --- the manifest of an S3 Inventory


def _read_manifest(listing: str, manifest: Any, bucket: str) -> Iterator[Row]:
    try:
        kind, schema = str(manifest["fileFormat"]).upper(), str(manifest["fileSchema"])
        covered = str(manifest["sourceBucket"])
        target = str(manifest["destinationBucket"]).rpartition(":")[2]
        names = [str(entry["key"]) for entry in manifest["files"]]
    except (TypeError, KeyError) as error:
        raise BadListing(listing, f"it is no manifest of an S3 Inventory ({error} is missing)") from error
    if covered != bucket:
        raise BadListing(listing, f"it is the inventory of bucket {covered!r}, the source is in {bucket!r}")
    if kind not in ("CSV", "PARQUET"):
        raise BadListing(listing, f"its files are {kind}; CSV and Parquet are read")
    for name in names:
        place = _beside(listing, name) or f"s3://{target}/{name}"
        with _opened(place) as file:
            if kind == "CSV":
                yield from _read_csv(place, file, [column.strip() for column in schema.split(",")])
            else:
                yield from _read_parquet(place, file)


def _beside(listing: str, name: str) -> str | None:
    """Where a data file lies if the inventory was copied to this machine: beside the manifest or in ``data/``."""
    path = _local(listing)
    if path is None:
        return None
    folder, last = os.path.dirname(os.path.abspath(path)), name.rpartition("/")[2]
    places = (os.path.join(folder, *up, last) for up in ((), ("data",), (os.pardir, "data")))
    return next((place for place in places if os.path.exists(place)), None)


# --- CSV


def _read_csv(place: str, file: BinaryIO, columns: Sequence[str] | None) -> Iterator[Row]:
    """``columns`` where the file has no header; its keys are URL-encoded then."""
    encoded = columns is not None
    packed = file.peek(2)[:2] == GZIP  # type: ignore[attr-defined]
    raw = gzip.GzipFile(fileobj=file) if packed else file
    text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    try:
        if columns is None:
            columns = next(reader, None)
            if columns is None:
                raise BadListing(place, "it is empty")
        where = _columns(place, columns)
        for fields in reader:
            spot = f"{place}, line {reader.line_num}"
            if not fields:
                continue
            if len(fields) != len(columns):
                raise BadListing(spot, f"it has {len(fields)} fields instead of {len(columns)}")
            row = _row(spot, {name: fields[index] for name, index in where.items()}, encoded)
            if row is not None:
                yield row
    except csv.Error as error:
        raise BadListing(f"{place}, line {reader.line_num}", str(error)) from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise BadListing(
            f"{place}, after line {reader.line_num}", f"the file is cut off ({error})"
        ) from error
    finally:
        text.detach()  # closing is the business of whoever opened the file


def _columns(place: str, columns: Sequence[str]) -> dict[str, int]:
    """The index of each column that we read, by our names."""
    plain = [re.sub(r"[^a-z0-9]", "", column.lower()) for column in columns]
    found = {ours: plain.index(name) for ours, names in _NAMES.items() for name in names if name in plain}
    missing = [name for name in ("key", "size") if name not in found]
    if not found.keys() & {"etag", "changed"}:
        missing.append("etag or last_modified")
    if len(columns) == 1 and (other := re.search(r"[;\t|]", columns[0])):
        raise BadListing(place, f"its columns are separated by {other[0]!r}; a CSV with commas is read")
    if missing:
        raise BadListing(
            place,
            f"no column is named {', none '.join(missing)} (a file without a header needs its manifest.json)",
        )
    return found


def _row(place: str, fields: dict[str, Any], encoded: bool) -> Row | None:
    """A row from its fields, text or typed; None for what is not the object's present state."""
    if _flag(place, fields.get("deleted"), False) or not _flag(place, fields.get("latest"), True):
        return None
    key, size = fields["key"], fields["size"]
    if encoded and isinstance(key, str):
        try:
            key = unquote_plus(key, errors="strict")
        except UnicodeDecodeError:
            raise BadListing(place, f"the key {key!r} is no UTF-8 in URL encoding") from None
    if isinstance(key, bytes):
        key = key.decode("utf-8", "surrogateescape")
    if not key or not isinstance(key, str):
        raise BadListing(place, "the key is empty")
    if re.search("[\ud800-\udfff]", key):
        raise BadListing(place, "the key is no UTF-8")
    if isinstance(size, str) and re.fullmatch(r"[0-9]{1,18}", size):
        size = int(size)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadListing(place, f"the size of {key!r} is {size!r}, no number of bytes")
    return Row(
        place=place,
        bucket=str(fields.get("bucket") or ""),
        key=key,
        size=size,
        mtime_ns=_moment(place, fields.get("changed")),
        etag=str(fields.get("etag") or "").strip('"'),
    )


def _flag(place: str, value: Any, default: bool) -> bool:
    if value is None or value == "":
        return default
    text = str(value).lower()
    if text not in _TRUE + _FALSE:
        raise BadListing(place, f"{value!r} is neither true nor false")
    return text in _TRUE


def _moment(place: str, value: Any) -> int:
    """Nanoseconds: of a date, of an ISO time, or of the milliseconds that Parquet inventories hold."""
    if value is None or value == "":
        return 0
    if isinstance(value, int) and not isinstance(value, bool):
        return value * 10**6
    try:
        return nanoseconds(value.isoformat() if isinstance(value, datetime) else str(value))
    except (ValueError, OverflowError):
        raise BadListing(place, f"{value!r} is no time, such as 2026-01-31T23:59:59Z") from None


# --- Parquet


def _read_parquet(place: str, file: BinaryIO) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file)
        names = parquet.schema_arrow.names
        where = {ours: names[index] for ours, index in _columns(place, names).items()}
        number = 0
        # in this thread: one of Arrow's that still holds bytes of ours at the end would abort the process
        for batch in parquet.iter_batches(columns=list(where.values()), use_threads=False):
            columns = {ours: _values(batch.column(name)) for ours, name in where.items()}
            for values in zip(*columns.values(), strict=True):
                number += 1
                row = _row(f"{place}, row {number}", dict(zip(columns, values, strict=True)), encoded=False)
                if row is not None:
                    yield row
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and (error.errno is not None or isinstance(error, FileNotFoundError)):
            raise  # the system's or the store's; Arrow's own carry no number
        raise BadListing(place, f"it can't be read as Parquet ({first_line(error)})") from error


def _values(column: Any) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):  # Python's times know no nanoseconds
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    return values


# --- files


def _local(url: str) -> str | None:
    if url.startswith("file://"):
        return url.removeprefix("file://")
    return None if "://" in url else url


@contextmanager
def _opened(place: str) -> Iterator[BinaryIO]:
    """A buffered, seekable file; errors of its store become ours."""
    try:
        with _raw(place) as raw:
            yield raw
    except FileNotFoundError:
        raise ListingNotFound(place) from None
    except IsADirectoryError:
        raise BadListing(place, "it is a folder, and one file is read") from None
    except (RecbatchError, GeneratorExit):
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _STORES:
            raise
        from recbatch.archive.store import plain

        told = s3.refusal(str(error)) if s3.is_s3(place) else None
        raise SourceUnreadable(place, *(told or (plain(error),))) from error


_STORES = ("botocore", "obstore", "aiohttp")


@contextmanager
def _raw(place: str) -> Iterator[Any]:
    path = _local(place)
    if path is not None:
        with open(path, "rb") as file:
            yield file
    elif s3.is_s3(place):
        import obstore

        from recbatch.archive.files_s3 import PIECE_BYTES, RangeFile

        bucket, key = s3.split(place)
        store = s3.account().bucket(bucket)
        try:
            size = int(obstore.head(store, key)["size"])
        except FileNotFoundError:
            raise
        except Exception:
            obstore.get_range(store, key, start=0, end=1)  # its refusal says why, a HEAD's has no words
            raise
        with RangeFile(store, key, size) as remote:
            yield io.BufferedReader(remote, PIECE_BYTES)
    else:
        import fsspec

        with fsspec.open(place, "rb") as file:
            yield io.BufferedReader(file)
