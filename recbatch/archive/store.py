"""Where an archive lies: one place for addresses, files, durability and the meaning of storage errors."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from recbatch import s3
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
from recbatch.archive.files_local import LocalFiles, fsync
from recbatch.errors import RecbatchError

if TYPE_CHECKING:
    from recbatch.archive.files_s3 import S3Files

T = TypeVar("T")
LISTINGS = 4  # of one folder, where their answers break off
LEDGER = "_recbatch"
LOG = "_delta_log"

# deltalake decodes percent signs once too often: it writes such a folder in one place and reads it in another
_UNSAFE_PATH = re.compile(r"%[0-9A-Fa-f]{2}|\\|[\x00-\x1f]")
_UNSAFE_PREFIX = re.compile(r"%[0-9A-Fa-f]{2}|[?#\\\x00-\x1f\x7f]|//|(^|/)\.\.?(/|$)")
_FULL = re.compile(r"No space left|Disk quota exceeded|os error (28|122)\b|XMinioStorageFull", re.IGNORECASE)
_DENIED = re.compile(
    r"Permission ?denied|Access ?Denied|necessary privileges|Read-only file system|Forbidden"
    r"|Missing AccessKeyId|169\.254\.169\.254"
    r"|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|valid authentication credentials"
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
_REMOTE_LIBRARIES = ("botocore", "obstore")  # their errors are no OSErrors


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
            if _UNSAFE_PREFIX.search(rest):
                raise InvalidLocation(
                    text,
                    "Delta tables can't lie under '%' with two digits, '?', '#', '//', '.' or a line break",
                )
            self.url = self.table_uri = f"s3://{rest}"
        else:
            raise InvalidLocation(text, f"{scheme}:// is not a store that archives can lie on")

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    # --- the table

    @property
    def storage_options(self) -> dict[str, str] | None:
        """What deltalake is told: address and keys of this moment, so never kept. Raises StoreUnreachable."""
        if self.local is not None:
            return None
        if "AWS_S3_ALLOW_UNSAFE_RENAME" in os.environ:
            raise InvalidLocation(
                self.url, "AWS_S3_ALLOW_UNSAFE_RENAME is set, which would let commits overwrite one another"
            )
        try:
            return s3.account().delta_options()
        except PermissionError as error:  # there are no keys
            raise self.explain(error) from error
        except Exception as error:  # botocore's own, from whoever was asked for keys
            raise StoreUnreachable(self.url, plain(error)) from error

    def table(self, version: int | None = None) -> DeltaTable:
        """A fresh handle; one is never used again after a commit."""
        try:
            options = self.storage_options
            return listed(lambda: DeltaTable(self.table_uri, version=version, storage_options=options))
        except (OSError, DeltaError) as error:
            problem = self.explain(error)
            if isinstance(problem, CorruptArchive) and (torn := self._torn_entry()):
                problem = TornLog(self.url, torn)
            if isinstance(problem, ArchiveNotFound) and self.local is None:
                self.names(
                    LOG
                )  # a missing bucket looks like a missing table to Delta; this call tells them apart
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
                    fsync(log / name)
            fsync(log)
            fsync(self.local)

    # --- files

    @functools.cached_property
    def files(self) -> LocalFiles | S3Files:
        if self.local is not None:
            return LocalFiles(self.local)
        from recbatch.archive.files_s3 import S3Files

        name, prefix = s3.split(self.url)
        return S3Files(s3.account().bucket(name, prefix))

    def size(self, name: str) -> int | None:
        """Bytes of a file, None when there is none."""
        with self.errors():
            try:
                return self.files.size(name)
            except (FileNotFoundError, NotADirectoryError):
                return None

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Any]:
        """A seekable binary file that reads no more than it is asked for; FileNotFoundError passes through."""
        with self.files.reading(name) as file:
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
        with self.errors(writing=True), self.files.writing(name) as file:
            yield Sink(file)

    def put(self, name: str, data: bytes) -> None:
        """Write or replace a small file; readers see the old bytes or the new ones."""
        with self.errors(writing=True):
            self.files.put(name, data)

    def put_once(self, name: str, data: bytes) -> bool:
        """Write a small file unless it exists; True when this call made it."""
        with self.errors(writing=True):
            return self.files.put_once(name, data)

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted; empty when there is none."""
        with self.errors():
            try:
                return listed(lambda: self.files.names(folder))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def top(self) -> list[str]:
        """Names of the files directly under the root; of an object store with its folders, which end in a slash."""
        if self.local is not None:
            return self.names("")
        files: Any = self.files
        with self.errors():
            found: list[str] = listed(files.top)
        return found

    def strangers(self) -> list[str]:
        """What stands directly under an object store's prefix and is no part of an archive."""
        if self.local is not None:
            return []
        return [name for name in self.top() if name not in (f"{LEDGER}/", f"{LOG}/")]

    def delete(self, name: str) -> None:
        with self.errors(writing=True), contextlib.suppress(FileNotFoundError):
            self.files.delete(name)

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
            told = None if self.local else s3.refusal(f"{text} {whole}")  # its keys, not its permissions
            return (ArchiveNotWritable if writing else ArchiveNotReadable)(self.url, *(told or (text,)))
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
        told = None if self.local else s3.silence(whole)
        return StoreUnreachable(self.url, *(told or (text,)))


def listed(ask: Callable[[], T]) -> T:
    """Ask again where a listing broke off: object_store repeats failed requests, but not half an answer."""
    for turn in range(1, LISTINGS):
        try:
            return ask()
        except Exception as error:
            if not is_storage_error(error) or "list response body" not in str(error):
                raise
            time.sleep(0.2 * turn)
    return ask()


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
    text = re.sub(r"\x1b\[[0-9;]*m|\u21b3 ?", "", str(error)) or type(error).__name__
    text = re.split(r"\n\s*Debug source:", text)[0]
    kept = [
        line.strip()
        for line in text.splitlines()
        if not re.match(r"\s*(\d+: |at [./<])|\s*stack backtrace", line)
    ]
    line = re.sub(
        r"^((Generic )?(delta )?kernel error(:| ->) )", "", " ".join(filter(None, kept)), flags=re.IGNORECASE
    )
    if answer := re.search(r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", line):  # what S3 itself says
        line = f"{answer[1]}: {answer[2]}"
    if re.search(r"169\.254\.169\.254|Missing AccessKeyId|no AWS credentials", line):
        line = "no AWS credentials were found"
    if len(line) > _LONGEST_TEXT:  # stores like to send whole pages
        return line[:_LONGEST_TEXT].rstrip() + " ..."
    return line.rstrip(". ")


def _file_path(url: str) -> str:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise InvalidLocation(url, f"file:// names another machine, {parts.netloc}")
    return unquote(parts.path)
