"""Checks of the store below an archive or a source, for ``recbatch doctor``: reachable, readable, writable, and does
it keep the promises that commits rest on?

One small object is written below ``_recbatch/`` of an archive, or of an empty place, and removed again. Into a source
nothing is written, not even for a moment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from recbatch import s3
from recbatch.archive.store import LEDGER, LOG, Store, plain
from recbatch.errors import RecbatchError
from recbatch.health import Check, State, of_error, ok, problem, warning

CONNECT_S = 5.0
LOW_DISK_BYTES = 2 << 30
SKEW_WARNING_S, SKEW_PROBLEM_S = 60, 300  # S3 refuses from 15 minutes on
READ_ONLY = "That is enough for a source, and to verify and restore; to archive here, allow s3:PutObject."
NO_CONDITIONS = "Archive to a store with conditional writes: without them commits can overwrite one another."


def probe_store(url: str) -> Iterator[Check]:
    """Checks of a path or an s3:// URL; what comes after a check that failed for good is left out."""
    scheme = url.partition("://")[0] if "://" in url else "file"
    if scheme in ("s3", "s3a"):
        yield from _probe_s3(url)
    elif scheme == "file":
        yield from _probe_folder(url)
    else:
        yield ok(url, f"{scheme}:// can be a source; nothing is looked at here beside its listing")


# --- a folder


def _probe_folder(url: str) -> Iterator[Check]:
    try:
        local = Store(url).local
    except RecbatchError as error:
        yield of_error(url, error)
        return
    assert local is not None  # for the type checker: the scheme says so
    if local.is_file():
        yield ok(url, "a file")
        return
    parent = local
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    where = "a folder" if parent == local else f"not there yet, below {parent}"
    if free < LOW_DISK_BYTES:
        yield warning(url, f"{where}, {free / 1e9:.2f} GB free", "Free some space before you archive there.")
    else:
        yield ok(url, f"{where}, {free / 1e9:.1f} GB free")
    if not os.access(parent, os.R_OK | os.X_OK):
        yield problem(url, f"{parent} can't be read", "Check its permissions, and whose it is.")
    elif not os.access(parent, os.W_OK):
        remedy = "That is enough for a source, and to verify and restore; to archive there, change its permissions."
        yield warning(url, f"{parent} can't be written", remedy)
    elif _is_ours(local):
        yield _links(url, local / LEDGER)


def _is_ours(folder: Path) -> bool:
    """Whether it is an archive."""
    return (folder / LEDGER).is_dir()


def _links(url: str, folder: Path) -> Check:
    """Commits to a folder rest on hard links, which a second writer can't make under the same name."""
    try:
        with tempfile.TemporaryDirectory(prefix="probe-", dir=folder) as name:
            first, second = Path(name, "a"), Path(name, "b")
            first.write_bytes(b"recbatch")
            os.link(first, second)
            with contextlib.suppress(FileExistsError):
                os.link(first, second)
                return problem(url, "a name can be taken twice there", NO_CONDITIONS)
    except OSError as error:
        text = f"no hard links there ({error.strerror or error}), by which two jobs at once stay apart"
        return warning(url, text, "Let one job at a time write there.")
    return ok(url, "can be written, and a name can be taken only once")


# --- S3


def _probe_s3(url: str) -> Iterator[Check]:
    if wrong := s3.bucket_problem(url):
        yield problem(url, wrong, "Give a URL such as s3://bucket/prefix.")
        return
    if "AWS_S3_ALLOW_UNSAFE_RENAME" in os.environ:
        text = "AWS_S3_ALLOW_UNSAFE_RENAME is set, which would let commits overwrite one another"
        yield problem(url, text, "Unset it: recbatch refuses to open archives until then.")
    try:
        account = (
            s3.Account()
        )  # not the shared one: a listing of the engine changes how its client reads pages
        keys = _credentials(url, account)
        yield keys
        reached = _reached(url, account)
    except Exception as error:
        yield of_error(url, error, remedy="Check the AWS_* variables and ~/.aws/config.")
        return
    yield reached
    if State.problem in (keys.state, reached.state):
        return
    bucket, prefix = s3.split(url.rstrip("/"))
    listed = False
    for check in _listed(url, account, bucket, prefix):
        listed = check.state is not State.problem
        yield check
    if not listed:
        return
    if _is_foreign(account, bucket, prefix):
        yield ok(url, "no archive, so nothing is written there to try it")
        return
    yield from _written(url, account, bucket, f"{prefix}/{LEDGER}".lstrip("/"))
    yield from _housekeeping(url, account, bucket)


def _is_foreign(account: s3.Account, bucket: str, prefix: str) -> bool:
    """Whether other things than an archive lie there, such as a source's images."""
    folder = f"{prefix}/".lstrip("/")

    def holds(name: str) -> bool:
        return bool(
            account.client().list_objects_v2(Bucket=bucket, Prefix=folder + name, MaxKeys=1).get("KeyCount")
        )

    return holds("") and not holds(f"{LOG}/")


def _credentials(url: str, account: s3.Account) -> Check:
    """Where keys come from; never what they are."""
    if account.anonymous:
        return ok(url, "no credentials: requests are not signed, as asked")
    import botocore.session  # type: ignore[import-untyped]

    found = botocore.session.Session().get_credentials()
    if found is None:
        text, remedy = s3.no_keys()
        return problem(url, text, f"{remedy}.")
    keys = account.keys()
    token = ", with a session token" if keys is not None and keys.token else ""
    return ok(url, f"credentials by {found.method}{token}, region {account.region}")


def _reached(url: str, account: s3.Account) -> Check:
    """A connection alone, because the clients below try for long."""
    endpoint = account.endpoint or account.amazon
    parts = urlsplit(endpoint)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return ok(url, f"{host}:{port} is reached through a proxy")
    if parts.scheme not in ("http", "https") or not host:
        remedy = "Begin AWS_ENDPOINT_URL with https:// or http://."
        return problem(url, f"the endpoint {endpoint} is no URL", remedy)
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except (OSError, UnicodeError) as error:  # the latter of a name that no host can have
        remedy = "Check AWS_ENDPOINT_URL, the network, and whether a proxy or firewall is in between."
        what = getattr(error, "strerror", None) or error
        return problem(url, f"{host}:{port} does not answer: {what}", remedy)
    return ok(url, f"{host}:{port} answers")


def _listed(url: str, account: s3.Account, bucket: str, prefix: str) -> Iterator[Check]:
    try:
        answer = account.client().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except Exception as error:
        yield _refusal(url, error, bucket)
        return
    yield ok(url, "can be listed" + ("" if answer.get("KeyCount") else "; nothing is there yet"))
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if date:
        yield _clocks(url, (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
    for entry in answer.get("Contents", ()):
        try:
            account.client().head_object(Bucket=bucket, Key=entry["Key"])
            yield ok(url, "can be read")
        except Exception as error:
            yield problem(url, f"can't be read: {_code(error) or plain(error)}", "Allow s3:GetObject there.")


def _clocks(url: str, ahead_s: float) -> Check:
    way = "ahead of" if ahead_s > 0 else "behind"
    text = f"this machine's clock is {abs(ahead_s):.0f} s {way} the store's"
    if abs(ahead_s) < SKEW_WARNING_S:
        return ok(url, "clocks agree")
    make = problem if abs(ahead_s) >= SKEW_PROBLEM_S else warning
    return make(url, text, "Set the clock, for example by NTP: S3 refuses requests of 15 minutes off.")


def _refusal(url: str, error: Exception, bucket: str) -> Check:
    code = _code(error)
    if code == "NoSuchBucket":
        return problem(
            url, f"there is no bucket '{bucket}'", "Check its name and the region, or make it first."
        )
    if told := s3.refusal(code or str(error)):
        return problem(url, told[0], f"{told[1]}.")
    if code in (
        "AuthorizationHeaderMalformed",
        "PermanentRedirect",
        "IllegalLocationConstraintException",
        "301",
    ):
        return problem(url, f"the bucket lies in another region: {plain(error)}", "Set AWS_REGION to it.")
    if code in ("AccessDenied", "403", "Forbidden"):
        remedy = (
            f"Allow s3:ListBucket on '{bucket}' and s3:GetObject on what is in it; see docs/operations.md."
        )
        return problem(url, f"these credentials may not list it: {code}", remedy)
    return of_error(url, error, remedy="Check the endpoint and the bucket's name.")


def _written(url: str, account: s3.Account, bucket: str, folder: str) -> Iterator[Check]:
    """Write, create once, replace by tag, remove."""
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    store: Any = account.bucket(bucket, folder)
    name = f"probe-{uuid.uuid4().hex}"
    whole = f"s3://{bucket}/{folder}/{name}"
    try:
        first = obstore.put(store, name, b"1", mode="create")
    except Exception as error:
        if _is_denied(error):
            yield warning(url, "can't be written with these credentials", READ_ONLY)
        else:
            yield of_error(url, error, remedy=NO_CONDITIONS)
        return
    try:
        try:
            obstore.put(store, name, b"2", mode="create")
            yield problem(url, "the store lets an object be made twice", NO_CONDITIONS)
        except AlreadyExistsError:
            yield ok(url, "can be written, and an object can be made only once")
        obstore.put(store, name, b"3", mode={"e_tag": first["e_tag"]})
        try:
            obstore.put(store, name, b"4", mode={"e_tag": first["e_tag"]})
            yield problem(url, "the store replaces an object that has changed", NO_CONDITIONS)
        except PreconditionError:
            yield ok(url, "an object is replaced only as it was known")
    except Exception as error:
        yield of_error(url, error, remedy=NO_CONDITIONS)
    finally:
        yield from _removed(url, store, name, whole)


def _removed(url: str, store: Any, name: str, whole: str) -> Iterator[Check]:
    import obstore

    remedy = f"Allow s3:DeleteObject, which 'recbatch vacuum' needs as well, and remove {whole}."
    try:
        obstore.delete(store, name)
        obstore.head(store, name)
    except FileNotFoundError:
        return
    except Exception as error:
        yield warning(url, f"nothing can be deleted: {plain(error)}", remedy)
        return
    yield warning(url, "what is deleted there stays", remedy)


def _housekeeping(url: str, account: s3.Account, bucket: str) -> Iterator[Check]:
    """Hints that save money. Many stores and policies do not tell, which is as well."""
    with contextlib.suppress(Exception):
        if account.client().get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled":
            remedy = "Let a lifecycle rule expire noncurrent versions, or 'recbatch vacuum' frees nothing."
            yield warning(url, "the bucket keeps old versions of its objects", remedy)
    if account.endpoint is not None:
        return
    rules: list[dict[str, Any]] = []
    try:
        rules = account.client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    except Exception as error:
        if _code(error) != "NoSuchLifecycleConfiguration":
            return
    if not any("AbortIncompleteMultipartUpload" in rule for rule in rules):
        remedy = "Add a rule that aborts them after some days; see docs/operations.md."
        yield warning(url, "uploads that were cut off stay for ever, unseen and paid for", remedy)


def _code(error: BaseException) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def _is_denied(error: Exception) -> bool:
    from recbatch.archive.errors import ArchiveNotWritable

    return isinstance(Store("s3://any").explain(error, writing=True), ArchiveNotWritable)
