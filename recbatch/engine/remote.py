"""Objects behind a URL: found and read, each in one state."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from recbatch.engine import errors
from recbatch.engine.source import READ_ATTEMPTS, Content, Item, Tally, first_line
from recbatch.s3 import is_s3


def find_remote(source: str, takes: Callable[[str], bool], tally: Tally) -> Iterator[Item]:
    """What lies below a URL, lazily; from S3 sorted by key, from other stores as fsspec lists them, all at once.

    Raises SourceNotFound, SourceUnreadable.
    """
    if is_s3(source):
        from recbatch.engine.bucket import find_objects

        yield from find_objects(source, takes, tally)
        return
    filesystem, root = _filesystem(source)
    try:
        filesystem.invalidate_cache()
        found: dict[str, dict[str, Any]] = filesystem.find(root, detail=True)
        if not found and not filesystem.exists(root):
            raise errors.SourceNotFound(source)
    except FileNotFoundError:
        raise errors.SourceNotFound(source) from None
    except errors.SourceNotFound:
        raise
    except Exception as error:  # every fsspec backend has exceptions of its own
        raise errors.SourceUnreadable(source, first_line(error)) from error
    for path, info in found.items():
        key = path[len(root) :].lstrip("/") or posixpath.basename(path)
        if path != root and not takes(key):
            tally.skipped += 1
            continue
        size, mtime_ns, etag = _remote_state(info)
        yield Item(key=key, uri=filesystem.unstrip_protocol(path), size=size, mtime_ns=mtime_ns, etag=etag)


def read_remote(item: Item, limit: int) -> Content:
    """The object's bytes in one state.

    Raises SourceVanished, SourceChanged, UnreadableFile, FileTooLarge for the object, SourceUnreadable for its store.
    """
    if is_s3(item.uri):
        from recbatch.engine.bucket import read_object

        return read_object(item, limit)
    if item.size > limit:
        raise errors.FileTooLarge(item.key, item.size, limit)
    filesystem, path = _filesystem(item.uri)
    expected = (item.size, item.etag)
    problem = ""
    for attempt in range(READ_ATTEMPTS):
        time.sleep(0.5 * attempt)
        try:
            data: bytes = filesystem.cat_file(path)
            filesystem.invalidate_cache(posixpath.dirname(path))
            size, mtime_ns, etag = _remote_state(filesystem.info(path))
        except FileNotFoundError:
            raise errors.SourceVanished(item.key) from None
        except Exception as error:  # every fsspec backend has exceptions of its own
            problem = first_line(error)
            continue
        problem = ""
        if (size, etag) == expected and len(data) == size:
            return Content(name=item.key, data=data, mtime_ns=mtime_ns, etag=etag)
        expected = (size, etag)  # changed since it was listed, or while it was read: look again
    if problem:
        raise errors.SourceUnreadable(item.uri, problem)
    raise errors.SourceChanged(item.key)


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise errors.SourceUnreadable(url, first_line(error)) from error
    return filesystem, path.rstrip("/")


def _remote_state(info: dict[str, Any]) -> tuple[int, int, str]:
    changed = (
        info.get("LastModified") or info.get("last_modified") or info.get("mtime") or info.get("created")
    )
    if isinstance(changed, datetime):
        mtime_ns = int(changed.timestamp()) * 10**9 + changed.microsecond * 1000
    else:
        mtime_ns = int(float(changed) * 1e9) if isinstance(changed, int | float) else 0
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    return int(info.get("size") or 0), mtime_ns, etag
