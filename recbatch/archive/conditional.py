"""Small objects beside the table that several machines write under conditions: leases, schedules, ticks.

A write says what it found before: nothing, or an object of a certain tag. The store lets one of several such
writes through and refuses the rest. On S3 that is a conditional put (``If-None-Match``, ``If-Match``); in a
folder it is a comparison under a lock that the operating system frees when its holder dies.

Ages are the store's own: its clock now, less its clock when it took the object. What the clock of this machine
says does not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from recbatch import s3
from recbatch.archive.store import LEDGER, Store

LOCK = f"{LEDGER}/conditional.lock"
_REFUSED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_ABSENT = frozenset({"NoSuchKey", "404"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """An object as it was read."""

    data: bytes
    etag: str
    age_s: float  # by the store's clock; whole seconds on S3
    now: datetime | None = None  # by a store that has a clock of its own


def read_tagged(store: Store, name: str) -> Tagged | None:
    """An object with its tag and age; None where there is none.

    Raises ArchiveNotReadable, StoreUnreachable.
    """
    with store.errors():
        if store.local is None:
            return _get_remote(store, name)
        with _locked(store) as now_s:
            path = store.local / name
            try:
                data = path.read_bytes()
                return Tagged(data=data, etag=_tag(data), age_s=now_s - path.stat().st_mtime)
            except FileNotFoundError:
                return None


def put_if(store: Store, name: str, data: bytes, *, etag: str | None) -> str | None:
    """Write an object if it is still as its writer knows it.

    An answer may be lost after the store has taken the object, and the client then asks again and is refused. So a
    refused writer looks whether its own bytes stand there. They must be its own: let them name their writer.

    Args:
        etag: the tag that the object has to have; None where there must be no object.

    Returns:
        The new tag; None where the store refused, because somebody else has been there.

    Raises:
        ArchiveNotWritable, StoreFull, StoreUnreachable: whether the object was written is not known.
    """
    with store.errors(writing=True):
        if store.local is None:
            tag = _put_remote(store, name, data, etag)
            if tag is None and (found := _get_remote(store, name)) is not None and found.data == data:
                return found.etag
            return tag
        with _locked(store):
            path = store.local / name
            try:
                present = _tag(path.read_bytes())
            except FileNotFoundError:
                present = None
            if present == _tag(data):
                return present
            if present != etag:
                return None
            store.put(name, data)
            return _tag(data)


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def _locked(store: Store) -> Iterator[float]:
    """The archive's lock; gives the time of the file system, which on a network is another machine's."""
    import fcntl

    assert store.local is not None
    path = store.local / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.utime(handle)
        yield os.fstat(handle).st_mtime
    finally:
        os.close(handle)


def _place(store: Store, name: str) -> dict[str, str]:
    bucket, prefix = s3.split(store.url)
    return {"Bucket": bucket, "Key": f"{prefix}/{name}" if prefix else name}


def _get_remote(store: Store, name: str) -> Tagged | None:
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    try:
        answer = s3.account().client().get_object(**_place(store, name))
        data = answer["Body"].read()
    except ClientError as error:
        if _code(error) in _ABSENT:
            return None
        raise
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    age_s = (now - answer["LastModified"]).total_seconds()
    return Tagged(data=data, etag=answer["ETag"], age_s=age_s, now=now)


def _put_remote(store: Store, name: str, data: bytes, etag: str | None) -> str | None:
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
    try:
        answer = s3.account().client().put_object(**_place(store, name), Body=data, **condition)
    except ClientError as error:
        if _code(error) in (_REFUSED if etag is None else _REFUSED | _ABSENT):
            return None
        raise
    return str(answer["ETag"])


def _code(error: Any) -> str:
    """The store's own word for what went wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))
