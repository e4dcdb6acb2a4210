"""An archive in a bucket: puts that are whole or absent, creates that one wins, refusals that say what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from archive_helpers import image
from proxy import Proxy, Request, Times
from seaweed import READER, User

from recbatch import s3
from recbatch.archive import (
    Archive,
    ArchiveNotFound,
    ArchiveNotReadable,
    ArchiveNotWritable,
    BucketNotFound,
    InvalidLocation,
    files_s3,
)
from recbatch.archive.commit import Patience
from recbatch.archive.errors import StoreUnreachable
from recbatch.archive.store import Store
from recbatch.errors import RecbatchError

As = Callable[..., None]


def objects(bucket: str) -> list[str]:
    return [entry["path"] for page in s3.account().bucket(bucket).list() for entry in page]


def uploads(bucket: str) -> list[str]:
    answer = s3.account().client().list_multipart_uploads(Bucket=bucket)
    return [upload["Key"] for upload in answer.get("Uploads", [])]


def add(archive: Archive, shard: str, *keys: str) -> None:
    file = archive.write_file([image(key) for key in keys], stem="s")
    archive.commit([(shard, file)], job="job", epoch=archive.claim_epoch("job"))


@pytest.mark.parametrize("name", ["plain", "a b/c", "ünï", "x+y&z"])
def test_an_archive_may_lie_under_any_usual_prefix(bucket: str, name: str) -> None:
    archive = Archive.create(f"s3://{bucket}/{name}")
    add(archive, "0", "a", "b")
    again = Archive.open(f"s3://{bucket}/{name}/")
    assert list(again) == ["a", "b"]
    assert [record.key for record in again.records(where="width = 40")] == ["a", "b"]
    assert again["a"].stream == image("a").stream
    assert all(key.startswith(f"{name}/") for key in objects(bucket))


@pytest.mark.parametrize("name", ["a%20b", "a?b", "a#b", "a//b", "../b", "a\nb"])
def test_prefixes_that_delta_would_write_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InvalidLocation):
        Store(f"s3://bucket/{name}")


def test_the_ledger_keeps_replaces_and_lists_objects(bucket: str) -> None:
    archive = Archive.create(f"s3://{bucket}/a")
    archive.put_object("plans/p.json", b"1")
    archive.put_object("plans/p.json", b"22")
    assert archive.object("plans/p.json") == b"22"
    assert archive.object("plans/none.json") is None
    assert archive.objects("plans") == ["p.json"]
    assert archive.objects("none") == []
    archive.store.delete("_recbatch/plans/p.json")
    archive.store.delete("_recbatch/plans/p.json")
    assert archive.objects("plans") == []


def test_of_many_creators_one_wins(bucket: str) -> None:
    store = Store(f"s3://{bucket}/a")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: store.put_once("once", bytes([number])), range(8)))
    assert won.count(True) == 1
    assert store.read("once") == bytes([won.index(True)])


def put_of(name: str) -> Callable[[Request], bool]:
    return lambda request: request.method == "PUT" and request.path.endswith(name)


@pytest.mark.parametrize("fault", ["lost", "slow_down", "reset"])
def test_a_creator_whose_answer_was_lost_knows_that_it_won(proxy: Proxy, bucket: str, fault: str) -> None:
    store = Store(f"s3://{bucket}/a")
    proxy.plan = Times(fault, 1, put_of("once"))
    assert store.put_once("once", b"mine")
    assert proxy.spoilt() == 1
    assert not store.put_once("once", b"mine")  # the same bytes, but another call's


def test_a_write_that_fails_leaves_neither_object_nor_upload(bucket: str) -> None:
    store = Store(f"s3://{bucket}/a")

    def interrupted() -> None:
        with store.writing("file") as sink:
            sink.write(b"x" * (20 << 20))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (objects(bucket), uploads(bucket)) == ([], [])


def test_an_upload_in_parts_that_is_killed_is_not_visible(proxy: Proxy, bucket: str) -> None:
    """The parts of a dead process stay pending, unseen, until the bucket's lifecycle rule removes them."""
    proxy.plan = Times("stall", 99, lambda request: "partNumber=2" in request.query)
    code = f"""
        from recbatch.archive.store import Store
        with Store("s3://{bucket}/a").writing("file") as sink:
            sink.write(b"x" * (20 << 20))
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)]) as process:
        deadline = time.monotonic() + 60
        while not proxy.spoilt("stall") and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    assert proxy.spoilt("stall")
    assert Store(f"s3://{bucket}/a").size("file") is None
    assert objects(bucket) == []
    assert uploads(bucket) == ["a/file"]


@pytest.mark.parametrize("fault", ["slow_down", "reset", "lost"])
def test_an_upload_in_parts_goes_on_after_faults_and_is_whole(proxy: Proxy, bucket: str, fault: str) -> None:
    store, data = Store(f"s3://{bucket}/a"), bytes(range(256)) * (18 << 12)
    faults = [
        Times(fault, 1, lambda request, part=part: f"partNumber={part}&" in request.query + "&")
        for part in (1, 3)
    ]
    proxy.plan = lambda request: next(filter(None, (each(request) for each in faults)), None)
    with store.writing("file") as sink:
        sink.write(data)
    proxy.plan = Times("cut", 1, lambda request: request.method == "GET" and request.path.endswith("file"))
    assert store.read("file") == data
    assert proxy.spoilt() == 3
    assert uploads(bucket) == []


def test_a_commit_whose_answer_was_lost_happens_once(proxy: Proxy, bucket: str) -> None:
    archive = Archive.create(f"s3://{bucket}/a")
    file = archive.write_file([image("k")], stem="s")
    epoch = archive.claim_epoch("job")
    proxy.plan = Times("lost", 2, put_of(f"{archive.version + 1:020d}.json"))
    result = archive.commit([("0", file)], job="job", epoch=epoch, patience=Patience(first_wait_s=0.01))
    assert (result.committed, result.rows) == (("0",), 1)
    assert list(Archive.open(archive.url)) == ["k"]
    assert Archive.open(archive.url).version == result.version


def test_a_reader_may_read_and_is_told_when_it_writes(bucket: str, as_user: As) -> None:
    url = f"s3://{bucket}/a"
    add(Archive.create(url), "0", "k")
    as_user(READER)
    archive = Archive.open(url)
    assert [record.key for record in archive.records(where="width = 40")] == ["k"]
    for attempt in (
        lambda: Archive.create(f"s3://{bucket}/new"),
        lambda: archive.write_file([image("x")], stem="s"),
        lambda: archive.put_object("x", b""),
        lambda: archive.put_object_once("x", b""),
        lambda: archive.claim_epoch("job"),
        lambda: archive.store.delete(archive.files()[0].path),
    ):
        with pytest.raises(ArchiveNotWritable, match=r"AccessDenied|Access Denied"):
            attempt()
    assert list(archive) == ["k"]


@pytest.mark.parametrize(
    ("user", "says"),
    [
        (User(access_key="reader-key", secret_key="wrong"), "SignatureDoesNotMatch"),
        (User(access_key="nobody", secret_key="wrong"), "InvalidAccessKeyId"),
    ],
)
def test_a_wrong_secret_and_an_unknown_key_are_said(bucket: str, as_user: As, user: User, says: str) -> None:
    as_user(user)
    for attempt in (Archive.open, Archive.create):
        with pytest.raises(ArchiveNotReadable, match=says) as raised:
            attempt(f"s3://{bucket}/a")
        assert raised.value.exit_status == 3
        assert str(raised.value).count(". ") == 1  # what; what to do: not the store's own advice as well
        assert "AWS_" in str(raised.value).partition(". ")[2]


def test_no_credentials_at_all_are_said(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ArchiveNotReadable, match=r"no AWS credentials were found\. Set AWS_ACCESS_KEY_ID"):
        Archive.open(f"s3://{bucket}/a")


def test_deltalake_never_looks_for_a_region_or_keys_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would ask the machine's metadata service at each open, wait for it, and warn on standard error."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(ArchiveNotReadable, match="no AWS credentials"):
        _ = Store("s3://bucket/a").storage_options
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    options = Store("s3://bucket/a").storage_options
    assert options is not None
    assert options["AWS_ENDPOINT_URL"] == "https://s3.us-east-1.amazonaws.com"
    monkeypatch.setenv("AWS_REGION", "cn-north-1")
    options = Store("s3://bucket/a").storage_options
    assert options is not None
    assert options["AWS_ENDPOINT_URL"] == "https://s3.cn-north-1.amazonaws.com.cn"


def test_rows_are_read_in_the_callers_thread_and_neighbours_in_one_request(
    proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of Arrow that still holds bytes of ours when the process ends would abort it."""
    archive = Archive.create(f"s3://{bucket}/a")
    epoch = archive.claim_epoch("job")
    file = archive.write_file([image(f"k{number}") for number in range(5)], stem="s")
    archive.commit([("0", file)], job="job", epoch=epoch)
    threads = set()
    read = files_s3.RangeFile.read

    def noted(self: files_s3.RangeFile, size: int | None = -1) -> bytes:
        threads.add(threading.get_ident())
        return read(self, size)

    monkeypatch.setattr(files_s3.RangeFile, "read", noted)
    before = len(proxy.log)
    assert [row.key for row in Archive.open(archive.url).records()] == [f"k{number}" for number in range(5)]
    assert threads == {threading.get_ident()}
    requests = [method for method, path, *_ in proxy.log[before:] if path.endswith(".parquet")]
    assert requests.count("GET") <= 3  # the footer's length, the footer, all columns of all rows


def test_a_missing_bucket_is_told_from_a_missing_archive(bucket: str) -> None:
    for attempt in (Archive.open, Archive.create):
        with pytest.raises(BucketNotFound):
            attempt("s3://no-such-bucket-here/a")
    with pytest.raises(ArchiveNotFound):
        Archive.open(f"s3://{bucket}/a")


def test_a_dead_endpoint_is_said_within_half_a_minute(bucket: str, as_user: As) -> None:
    as_user(url="http://127.0.0.1:9")  # nobody listens there
    start = time.monotonic()
    for attempt in (Archive.open, Archive.create):
        with pytest.raises(StoreUnreachable) as raised:
            attempt(f"s3://{bucket}/a")
        assert str(raised.value) == (
            f"The store of s3://{bucket}/a failed: "
            "the endpoint http://127.0.0.1:9 does not answer (Connection refused). "
            "AWS_ENDPOINT_URL, or the profile, names it: check it and the connection, and run the same command again."
        )
    assert time.monotonic() - start < 30


def test_a_large_read_is_asked_for_in_pieces(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_s3, "PIECE_BYTES", 1000)
    store = Store(f"s3://{bucket}/a")
    store.put("x", bytes(range(250)) * 10)
    with store.reading("x") as file:
        assert file.read() == bytes(range(250)) * 10
        assert file.seek(-5, 2) == 2495
        assert file.read(100) == bytes(range(245, 250))
        assert file.read(1) == b""


def test_every_error_of_the_store_is_one_short_line(
    proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "RETRIES", 1)
    store = Store(f"s3://{bucket}/a")
    proxy.plan = lambda request: "internal"
    with pytest.raises(RecbatchError) as raised:
        store.put("x", b"1")
    assert str(raised.value) == (
        f"The store of s3://{bucket}/a failed: InternalError: As planned. "
        "Check the connection and run the command again."
    )


def test_a_prefix_that_holds_other_things_becomes_no_archive(bucket: str) -> None:
    s3.account().bucket(bucket).put("pictures/2024/a.png", b"x")
    with pytest.raises(RecbatchError, match="other objects, such as 2024/") as caught:
        Archive.create(f"s3://{bucket}/pictures")
    assert caught.value.code == "not-an-archive"
    Archive.create(f"s3://{bucket}/other")
