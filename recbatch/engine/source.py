"""A folder or a bucket as a sorted list of items, and one item as bytes.

Listing never opens a file: what can't be read shows when a worker reads it, and becomes a quarantined row.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes, unquote_to_bytes

from recbatch.engine import errors
from recbatch.engine.names import is_escaped, key_of
from recbatch.errors import UsageError

EXTENSIONS = frozenset(
    {
        *("apng", "avif", "bmp", "dib", "gif", "heic", "heif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg"),
        *("jpf", "jpg", "jpx", "jxl", "pbm", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    }
)
MAX_FILE_BYTES = 1 << 30  # a data file never grows beyond 1 GiB, so nor may one row of it
READ_ATTEMPTS = 3
ESCAPED_NOTE = "name percent-escaped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file of the source, as listed."""

    key: str
    uri: str  # ASCII: bytes of a local name that are not are percent-encoded
    size: int
    mtime_ns: int
    etag: str = ""


@dataclass(slots=True)
class Tally:
    """What a listing met beside its items; complete when the listing is at its end."""

    skipped: int = 0  # files that are no image by their names, or were excluded
    problems: list[str] = field(default_factory=list)  # folders that could not be listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The bytes of an item, and its state when they were read. To the codec it is a Source: name and data."""

    name: str
    data: bytes
    mtime_ns: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which files count. ``include`` decides instead of the extensions; ``exclude`` has the last word.

    A pattern without '/' is matched against the file's name, any other against the whole key.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, key: str) -> bool:
        if any(_matches(key, pattern) for pattern in self.exclude):
            return False
        if self.include:
            return any(_matches(key, pattern) for pattern in self.include)
        return posixpath.splitext(key)[1][1:].lower() in EXTENSIONS


def _matches(key: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(key if "/" in pattern else posixpath.basename(key), pattern.removeprefix("./"))


def find_items(
    source: str | os.PathLike[str],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    archive: str | None = None,
    listing: str | None = None,
    tally: Tally,
) -> Iterator[Item]:
    """All images under ``source``, or the one file that it is, in any order and as they are found.

    Args:
        archive: where it lies inside the source, it is left out.
        listing: a file that names the source's objects, which is then not listed itself.
        tally: gets what is skipped, and what could not be listed.

    Raises SourceNotFound, SourceUnreadable, SourceEmpty (at the end, where nothing came).
    """
    source = os.fspath(source)
    if not source:
        raise UsageError("The source is an empty name. Give a folder or a URL.")
    choice = Choice(include=tuple(include), exclude=tuple(exclude))
    local = local_path(source)
    inside = f"{_inside(source, archive)}/"

    def takes(key: str) -> bool:
        return choice.takes(key) and (inside == "/" or not key.startswith(inside))

    found: Iterator[Item]
    if listing is not None:
        from recbatch.engine.inventory import find_listed

        found = find_listed(listing, source, takes, tally)
    elif local is not None:
        found = _find_local(local, choice, archive, tally)
    else:
        from recbatch.engine.remote import find_remote

        found = find_remote(source, takes, tally)
    empty = True
    for item in found:
        empty = False
        yield item
    if empty:
        if tally.problems:
            raise errors.SourceUnreadable(source, tally.problems[0])
        raise errors.SourceEmpty(source, tally.skipped)


def _inside(source: str, archive: str | None) -> str:
    """The archive's place in a source that is a URL too, relative to it; empty where it lies elsewhere."""
    above, within = source.rstrip("/") + "/", (archive or "").rstrip("/")
    if local_path(source) is not None or not within.startswith(above.rstrip("/")):
        return ""
    if within + "/" == above:
        raise UsageError(
            f"{source} is both source and archive, the same place. Name another one for the archive."
        )
    return within.removeprefix(above) if within.startswith(above) else ""


def local_path(url: str) -> bytes | None:
    """The path behind a local name or a file:// URL, as bytes; None for any other URL."""
    if url.startswith("file://"):
        return unquote_to_bytes(url.removeprefix("file://"))
    return None if "://" in url else os.fsencode(url)


def file_uri(path: bytes) -> str:
    return "file://" + quote_from_bytes(os.path.abspath(path))


def _find_local(root: bytes, choice: Choice, archive: str | None, tally: Tally) -> Iterator[Item]:
    shown = os.fsdecode(root)
    try:
        is_folder = stat.S_ISDIR(os.stat(root).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise errors.SourceNotFound(shown) from None
    except OSError as error:
        raise errors.SourceUnreadable(shown, error.strerror or str(error)) from error
    if not is_folder:
        folder, name = os.path.split(os.path.abspath(root))
        yield _local_item(folder, name)
        return
    archive_path = local_path(archive) if archive else None
    left_out = os.path.realpath(archive_path) if archive_path is not None else None
    if left_out == os.path.realpath(root):
        raise UsageError(
            f"{shown} is both source and archive, the same place. Name another one for the archive."
        )
    for name in _walk(root, b"", left_out, tally.problems):
        if choice.takes(key_of(name)):
            try:
                yield _local_item(root, name)
            except FileNotFoundError:
                continue  # gone between two looks: as if it had never been there
        else:
            tally.skipped += 1


def _walk(root: bytes, folder: bytes, left_out: bytes | None, problems: list[str]) -> Iterator[bytes]:
    """Names below ``root``. Links to files are followed, links to folders not: they may lead in circles."""
    pending = [folder]
    while pending:
        folder = pending.pop()
        path = os.path.join(root, folder)
        if left_out is not None and os.path.realpath(path) == left_out:
            continue
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(f"{os.fsdecode(path)}: {error.strerror or error}")
            continue
        for entry in found:
            name = os.path.join(folder, entry.name)
            if entry.is_dir(follow_symlinks=False):
                pending.append(name)
            elif entry.is_symlink() and entry.is_dir():
                problems.append(f"{os.fsdecode(entry.path)}: a link to a folder, which is not followed")
            else:
                yield name


def _local_item(root: bytes, name: bytes) -> Item:
    path = os.path.join(root, name)
    try:
        state = os.stat(path)
    except OSError:
        state = os.lstat(path)  # a broken link, or one that may not be followed
    return Item(key=key_of(name), uri=file_uri(path), size=state.st_size, mtime_ns=state.st_mtime_ns)


def read_item(item: Item, *, limit: int = MAX_FILE_BYTES) -> Content:
    """The item's bytes, read while it did not change.

    Raises an ImageError for what is wrong with this file, SourceUnreadable for what is wrong with its store.
    """
    if item.uri.startswith("file://"):
        return _read_local(item, limit)
    from recbatch.engine.remote import read_remote

    return read_remote(item, limit)


def notes_of(item: Item) -> tuple[str, ...]:
    return (ESCAPED_NOTE,) if is_escaped(item.key) else ()


def _read_local(item: Item, limit: int) -> Content:
    path = unquote_to_bytes(item.uri.removeprefix("file://"))
    for attempt in range(READ_ATTEMPTS):
        time.sleep(0.05 * attempt)
        try:
            state = os.stat(path)
            if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
                raise errors.NotAFile(item.key, _kind(state.st_mode))
            if state.st_size > limit:
                raise errors.FileTooLarge(item.key, state.st_size, limit)
            with open(path, "rb") as file:
                before = os.fstat(file.fileno())
                data = file.read(limit + 1)
                after = os.fstat(file.fileno())
        except FileNotFoundError:
            if os.path.islink(path):
                raise errors.BrokenLink(item.key, os.fsdecode(os.readlink(path))) from None
            raise errors.SourceVanished(item.key) from None
        except OSError as error:
            raise errors.UnreadableFile(item.key, error.strerror or str(error)) from error
        if len(data) > limit:
            raise errors.FileTooLarge(item.key, len(data), limit)
        if _same(before, after) and len(data) == after.st_size:
            return Content(name=item.key, data=data, mtime_ns=after.st_mtime_ns, etag="")
    raise errors.SourceChanged(item.key)


def _same(a: os.stat_result, b: os.stat_result) -> bool:
    return (a.st_size, a.st_mtime_ns, a.st_ino) == (b.st_size, b.st_mtime_ns, b.st_ino)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
    return next((name for test, name in kinds if test(mode)), "device")


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
