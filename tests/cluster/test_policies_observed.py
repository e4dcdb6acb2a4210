"""The bucket policies against what the commands really ask of a store, as a proxy before a real one sees it."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from test_policies import granted

import recbatch
from recbatch import s3
from recbatch.archive import Archive

TESTS = Path(__file__).parent.parent
sys.path += [str(TESTS / "s3"), str(TESTS / "engine")]

from s3_fixtures import as_user, bucket, proxy, seaweed  # noqa: E402
from s3_helpers import put_all, run  # noqa: E402
from seaweed import READER  # noqa: E402

__all__ = ["as_user", "bucket", "proxy", "seaweed"]

Grant = dict[str, set[str]]


def permission(method: str, path: str, query: str) -> tuple[str, str, str]:
    """The bucket, the object ("" for the bucket itself), and the permission that S3 asks for such a request."""
    name, _, key = unquote(path).lstrip("/").partition("/")
    asked = parse_qs(query, keep_blank_values=True)
    if not key:
        return name, "", "s3:DeleteObject" if method == "POST" and "delete" in asked else "s3:ListBucket"
    if method == "DELETE":
        return name, key, "s3:AbortMultipartUpload" if "uploadId" in asked else "s3:DeleteObject"
    return name, key, "s3:GetObject" if method in ("GET", "HEAD") else "s3:PutObject"


def allows(grant: Grant, key: str, action: str) -> bool:
    resource = f"/{key}" if key else ""
    if action == "s3:DeleteObject" and not key:  # several at once: their names are in the body
        return action in grant.get("/*", set())
    return any(action in actions and fnmatch.fnmatchcase(resource, where) for where, actions in grant.items())


def test_the_commands_need_no_more_than_the_policies_grant(
    bucket: str, proxy: Any, as_user: Callable[..., None]
) -> None:
    source, archive = bucket, f"{bucket}-archive"
    s3.account().client().create_bucket(Bucket=archive)
    url = f"s3://{archive}/photos.rba"
    put_all(source, [f"photos/{number}.png" for number in range(6)])

    def asked(run: Callable[[], object]) -> set[tuple[str, str, str]]:
        with proxy.lock:
            proxy.log.clear()
        run()
        with proxy.lock:
            return {permission(method, path, query) for method, path, query, _ in proxy.log}

    written = asked(lambda: run(f"s3://{source}/photos", url))
    policies = {source: granted("source-reader"), archive: granted("archive-writer")}
    assert {name for name, _, _ in written} == set(policies)
    assert [one for one in written if not allows(policies[one[0]], *one[1:])] == []
    needed = {(name, action) for name, _, action in written}
    assert needed >= {(source, "s3:GetObject"), (source, "s3:ListBucket"), (archive, "s3:PutObject")}

    def read() -> None:
        assert recbatch.verify(url, level="digests").ok
        assert Archive.open(url)["0.png"].stream

    as_user(READER, url=proxy.url)
    seen = asked(read)
    beyond = [one for one in seen if one[0] != archive or not allows(granted("archive-reader"), *one[1:])]
    # a check leaves a note of itself where it may, and does without where it may not
    assert [one for one in beyond if "/_recbatch/verify/" not in one[1]] == []


def test_a_request_beyond_a_policy_is_seen() -> None:
    writer = granted("archive-writer")
    assert allows(writer, "a/_delta_log/0.json", "s3:PutObject")
    assert allows(writer, "a/_recbatch/ticks/nightly/1.json", "s3:DeleteObject")
    assert not allows(writer, "a/_delta_log/0.json", "s3:DeleteObject")
    assert not allows(writer, "", "s3:DeleteObject")
    assert not allows(granted("archive-reader"), "a/x.parquet", "s3:PutObject")
    assert permission("POST", "/b", "delete=") == ("b", "", "s3:DeleteObject")
    assert permission("POST", "/b/k", "uploads") == ("b", "k", "s3:PutObject")
    assert permission("DELETE", "/b/k", "uploadId=1") == ("b", "k", "s3:AbortMultipartUpload")
    assert permission("GET", "/b/", "list-type=2") == ("b", "", "s3:ListBucket")
