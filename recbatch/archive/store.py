"""Where an archive lies: one place for addresses, files, durability and the meaning of storage errors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from recbatch.archive.errors import (
    ArchiveNotFound,
    ArchiveNotReadable,
    ArchiveNotWritable,
    ArchiveTooNew,
    BucketNotFound,
    CommitConflict,
    CorruptArchive,
    InvalidLocation,
    StoreFull,
    StoreUnreachable,
    TornLog,
)
from recbatch.errors import RecbatchError

LEDGER = "_recbatch"
LOG = "_delta_log"

# deltalake decodes percent signs once too often: it writes such a folder in one place and reads it in another
_UNSAFE_PATH = re.compile(r"%[0-9A-Fa-f]{2}|\\|[\x00-\x1f]")
_FULL = re.compile(r"No space left|Disk quota exceeded|os error (28|122)\b|XMinioStorageFull", re.IGNORECASE)
_DENIED = re.compile(
    r"Permission ?denied|Access ?Denied|necessary privileges|Read-only file system|Forbidden"
    r"|os error (1|13|30)\b",
    re.IGNORECASE,
)
_NO_BUCKET = re.compile(r"NoSuchBucket|bucket does not exist", re.IGNORECASE)
_PASSING = re.compile(
    r"Generic S3 error|HTTP error|error sending request|timed? ?out|connect|os error", re.IGNORECASE
)
_TOO_NEW = re.compile(r"Unsupported minimum (reader|writer) version \d+|Feature '[^']*' is not supported")
_DAMAGED = re.compile(r"Json|Parquet|Arrow|Truncated|contiguous|log segment|kernel error", re.IGNORECASE)
_LONGEST_TEXT = 300
_REMOTE_LIBRARIES = ("botocore", "aiobotocore", "aiohttp")  # their errors are no OSErrors


class Store:
    """Access to one archive's files, by names relative to its root."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        text = os.fspath(url)
        scheme, separator, rest = text.partition("://")
        self.local: Path | None = None
        if not separator or scheme == "file":
            path = _file_path(text) if separator else text
            if not path:
                raise InvalidLocation(text, "the path is empty")
            self.local = Path(os.path.abspath(os.path.expanduser(path)))
            if _UNSAFE_PATH.search(str(self.local)):
                raise InvalidLocation(
                    text, "Delta tables can't lie under '%' with two digits, '\\' or a line break"
                )
            self.url = str(self.local)
            self.table_uri = self.local.as_uri()
        elif scheme in ("s3", "s3a"):
            rest = rest.strip("/")
            if not rest:
                raise InvalidLocation(text, "no bucket is named")
            self.url = self.table_uri = f"s3://{rest}"
        else:
            raise InvalidLocation(text, f"{scheme}:// is not a store that archives can lie on")

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    # --- the table

    @property
    def storage_options(self) -> dict[str, str] | None:
        """What deltalake is told beside the AWS_* variables, which it reads itself."""
        if self.local is not None:
            return None
        if "AWS_S3_ALLOW_UNSAFE_RENAME" in os.environ:
            raise InvalidLocation(
                self.url, "AWS_S3_ALLOW_UNSAFE_RENAME is set, which would let commits overwrite one another"
            )
        options = {"max_retries": "3", "retry_timeout": "30s"}  # the loop around a commit tries again itself
        if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
            options["AWS_ALLOW_HTTP"] = "true"
        return options

    def table(self, version: int | None = None) -> DeltaTable:
        """A fresh handle; one is never used again after a commit."""
        try:
            return DeltaTable(self.table_uri, version=version, storage_options=self.storage_options)
        except (OSError, DeltaError) as error:
            problem = self.explain(error)
            if isinstance(problem, CorruptArchive) and (torn := self._torn_entry()):
                problem = TornLog(self.url, torn)
            raise problem from error

    def _torn_entry(self) -> str | None:
        """The name of the newest log entry that is not whole, if it is among the last few."""
        entries = [name for name in self.names(LOG) if re.fullmatch(r"\d{20}\.json", name)]
        for name in reversed(entries[-10:]):
            try:
                for line in (self.read(f"{LOG}/{name}") or b"").splitlines():
                    json.loads(line)
            except ValueError:
                return f"{LOG}/{name}"
        return None

    def settle(self, version: int) -> None:
        """Make the log of a commit survive a power cut (on object stores a put already does)."""
        if self.local is None:
            return
        log = self.local / LOG
        names = (f"{version:020d}.json", f"{version:020d}.checkpoint.parquet", "_last_checkpoint")
        with self.errors(writing=True):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    _fsync(log / name)
            _fsync(log)
            _fsync(self.local)

    # --- files

    @property
    def fs(self) -> Any:
        return fsspec.filesystem("s3")

    def where(self, name: str) -> str:
        return (
            f"{self.table_uri.removeprefix('s3://')}/{name}" if self.local is None else str(self.local / name)
        )

    def size(self, name: str) -> int | None:
        """Bytes of a file, None when there is none."""
        with self.errors():
            try:
                if self.local is not None:
                    return (self.local / name).stat().st_size
                self.fs.invalidate_cache(self.where(name).rpartition("/")[0])
                return int(self.fs.info(self.where(name))["size"])
            except (FileNotFoundError, NotADirectoryError):
                return None

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Any]:
        """A seekable binary file; FileNotFoundError passes through."""
        if self.local is not None:
            with open(self.local / name, "rb") as file:
                yield file
        else:
            # no cache: Parquet knows what it needs, and the default one would read 50 MB ahead of every piece
            with self.fs.open(self.where(name), "rb", cache_type="none") as file:
                yield file

    def read(self, name: str) -> bytes | None:
        with self.errors():
            try:
                with self.reading(name) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Sink]:
        """A new file that stands whole and durably when the block ends, and not at all when it fails."""
        with self.errors(writing=True):
            if self.local is not None:
                yield from self._write_local(self.local / name)
            else:
                yield from self._write_remote(self.where(name))

    def _write_local(self, path: Path) -> Iterator[Sink]:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb", buffering=1 << 20) as file:
            try:
                yield Sink(file)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    path.unlink()
                with contextlib.suppress(OSError):
                    file.close()  # flushes; on a full disk it fails once more
                raise
        _fsync(path.parent)

    def _write_remote(self, path: str) -> Iterator[Sink]:
        file = self.fs.open(path, "wb", autocommit=False)
        try:
            yield Sink(file)
            file.close()
            file.commit()
        except BaseException:
            with contextlib.suppress(Exception):
                file.discard()
            raise

    def put(self, name: str, data: bytes) -> None:
        """Write or replace a small file; readers see the old bytes or the new ones."""
        with self.errors(writing=True):
            if self.local is None:
                self.fs.pipe_file(self.where(name), data)
                return
            temporary = f"{name}.{uuid.uuid4().hex[:8]}.tmp"
            with self.writing(temporary) as file:
                file.write(data)
            os.replace(self.local / temporary, self.local / name)
            _fsync((self.local / name).parent)

    def put_once(self, name: str, data: bytes) -> bool:
        """Write a small file unless it exists; True when this call made it."""
        with self.errors(writing=True):
            if self.local is None:
                try:
                    self.fs.pipe_file(self.where(name), data, mode="create")
                except OSError as error:
                    if isinstance(error, FileExistsError) or _precondition_failed(error):
                        return False
                    raise
                return True
            temporary = f"{name}.{uuid.uuid4().hex[:8]}.tmp"
            with self.writing(temporary) as file:
                file.write(data)
            try:
                os.link(self.local / temporary, self.local / name)
            except FileExistsError:
                return False
            except OSError:  # no hard links here: nearly as good
                if (self.local / name).exists():
                    return False
                shutil.copyfile(self.local / temporary, self.local / name)
                _fsync(self.local / name)
            finally:
                os.unlink(self.local / temporary)
            _fsync((self.local / name).parent)
            return True

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted; empty when there is none."""
        with self.errors():
            try:
                if self.local is not None:
                    return sorted(entry.name for entry in os.scandir(self.local / folder) if entry.is_file())
                self.fs.invalidate_cache(self.where(folder))
                return sorted(
                    path.rpartition("/")[2] for path in self.fs.ls(self.where(folder), detail=False)
                )
            except (FileNotFoundError, NotADirectoryError):
                return []

    def delete(self, name: str) -> None:
        with self.errors(writing=True), contextlib.suppress(FileNotFoundError):
            if self.local is not None:
                (self.local / name).unlink()
            else:
                self.fs.rm_file(self.where(name))

    # --- errors

    @contextlib.contextmanager
    def errors(self, *, writing: bool = False) -> Iterator[None]:
        """Whatever a storage library raises inside becomes one of ours."""
        try:
            yield
        except Exception as error:
            if not is_storage_error(error):
                raise
            raise self.explain(error, writing=writing) from error

    def explain(self, error: Exception, *, writing: bool = False) -> RecbatchError:
        if isinstance(error, RecbatchError):
            return error
        text, whole = plain(error), str(error)
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(whole):
            return StoreFull(self.url)
        if isinstance(error, PermissionError) or number == errno.EROFS or _DENIED.search(whole):
            return (ArchiveNotWritable if writing else ArchiveNotReadable)(self.url, text)
        if self.local is None and _NO_BUCKET.search(whole):
            return BucketNotFound(self.url)
        if isinstance(error, CommitFailedError):
            return CommitConflict(self.url, text)
        if isinstance(error, (TableNotFoundError, FileNotFoundError, NotADirectoryError)):
            return ArchiveNotFound(self.url)
        if too_new := _TOO_NEW.search(whole):
            return ArchiveTooNew(self.url, f"Delta: {too_new[0]}", "Delta protocol (1, 2)")
        if isinstance(error, DeltaError) and _DAMAGED.search(whole) and not _PASSING.search(whole):
            return CorruptArchive(self.url, text)
        return StoreUnreachable(self.url, text)


def is_storage_error(error: Exception) -> bool:
    """Whether an error comes from below: the system, Delta, or what speaks to an object store."""
    return (
        isinstance(error, (OSError, DeltaError))
        or type(error).__module__.partition(".")[0] in _REMOTE_LIBRARIES
    )


class Sink(io.RawIOBase):
    """A file being written that counts and hashes what passes."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._hash.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def plain(error: BaseException) -> str:
    """An error's text in one line: without colours, native stack traces and full stop."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)) or type(error).__name__
    kept = [
        line.strip()
        for line in text.splitlines()
        if not re.match(r"\s*(\d+: |at [./<])|\s*stack backtrace", line)
    ]
    line = re.sub(
        r"^((Generic )?(delta )?kernel error: )", "", " ".join(filter(None, kept)), flags=re.IGNORECASE
    )
    if len(line) > _LONGEST_TEXT:  # stores like to send whole pages
        return line[:_LONGEST_TEXT].rstrip() + " ..."
    return line.rstrip(". ")


def _file_path(url: str) -> str:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise InvalidLocation(url, f"file:// names another machine, {parts.netloc}")
    return unquote(parts.path)


def _precondition_failed(error: OSError) -> bool:
    response = getattr(error.__cause__, "response", None) or {}
    return bool(response.get("Error", {}).get("Code") in ("PreconditionFailed", "ConditionalRequestConflict"))


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
