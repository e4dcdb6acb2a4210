"""Whole jobs with the source and the archive in buckets: there and back, through faults, and with too few rights."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store
from proxy import Proxy, Request, Seeded, Times
from s3_helpers import data_of, put_all, run
from seaweed import READER, Seaweed

import recbatch
from recbatch.archive import Archive, ArchiveNotWritable, BucketNotFound, verify
from recbatch.archive.errors import StoreUnreachable
from recbatch.engine import errors, restore

As = Callable[..., None]
PHOTOGRAPHS = Path(__file__).parents[2] / "docs" / "demo" / "photographs"


def rows(archive: str) -> dict[str, tuple[str, str | None]]:
    return {
        row.key: (row.status, row.stream_sha256.hex() if row.stream_sha256 else row.error_code)
        for row in Archive.open(archive).records()
    }


def digests(written: dict[str, bytes]) -> dict[str, tuple[str, str]]:
    return {
        key.removeprefix("in/"): ("ok", hashlib.sha256(data).hexdigest()) for key, data in written.items()
    }


def names(count: int) -> list[str]:
    return [f"in/{number % 3}/{number:03} é.png" for number in range(count)]


def test_images_go_from_bucket_to_bucket_and_back_to_files(bucket: str, tmp_path: Path) -> None:
    written = put_all(bucket, names(40), size=3_000)
    source, archive = f"s3://{bucket}/in", f"s3://{bucket}/archive"
    report = run(source, archive, executor="processes", workers=2, shard_bytes=20_000)
    assert (report.images, report.quarantined, report.exit_status) == (40, 0, 0)
    assert report.shards > 1
    assert rows(archive) == digests(written)
    assert run(source, archive).images == 0  # nothing is new
    checked = verify(Archive.open(archive))
    assert checked.ok
    assert restore(archive, str(tmp_path / "out")).images == 40
    for key, data in written.items():
        assert (tmp_path / "out" / key.removeprefix("in/")).read_bytes() == data


@pytest.mark.long
def test_photographs_are_archived_without_loss_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    store = recbatch.s3.account().bucket(bucket)
    names = ("chelsea.png", "coffee.png", "flower.jpg", "rocket.jpg")
    files = {name: (PHOTOGRAPHS / name).read_bytes() for name in names}
    for name, data in files.items():
        obstore.put(store, f"in/{name}", data)
    archive = f"s3://{bucket}/archive"
    report = recbatch.compress(f"s3://{bucket}/in", archive, lossless=True, exact_files=True, workers=1)
    assert (report.images, report.exit_status) == (len(files), 0)
    assert recbatch.verify(archive, level="pixels").ok
    recbatch.restore(archive, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files


def test_what_changed_or_vanished_between_listing_and_reading_is_stated(
    proxy: Proxy, seaweed: Seaweed, bucket: str, as_user: As
) -> None:
    written = put_all(bucket, names(6), size=500)
    first, second = sorted(written)[:2]
    as_user()
    direct = S3Store(
        bucket,
        config={"endpoint": seaweed.url, "region": "us-east-1"},
        client_options={"allow_http": True},
    )
    as_user(url=proxy.url)
    done: list[str] = []
    lock = threading.Lock()  # reads come side by side: none passes before the deed is done

    def meddle(request: Request) -> None:
        with lock:
            if request.method == "GET" and ".png" in request.path and not done:
                done.append(request.path)
                obstore.delete(direct, first)
                obstore.put(direct, second, b"newer")

    proxy.plan = meddle
    source, archive = f"s3://{bucket}/in", f"s3://{bucket}/archive"
    report = run(source, archive)
    expected = digests({**written, second: b"newer"})
    expected[first.removeprefix("in/")] = ("quarantined", "source-vanished")
    assert (report.images, report.quarantined, report.exit_status) == (5, 1, 1)
    assert rows(archive) == expected
    assert run(source, archive).images == 0  # the changed one stands in its new state


SEEDS = [7, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(100, 120))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_completes_through_throttling_and_broken_connections(
    proxy: Proxy, bucket: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = put_all(bucket, names(30), size=2_000)
    monkeypatch.setenv("RECBATCH_S3_TIMEOUT", "1")
    proxy.plan = Seeded(seed=seed, share=0.15)
    source, archive = f"s3://{bucket}/in", f"s3://{bucket}/archive"
    for _ in range(3):
        try:
            report = run(source, archive, shard_bytes=10_000)
            break
        except (StoreUnreachable, errors.SourceUnreadable):
            continue  # said so, and the same command goes on
    assert report.quarantined == 0
    proxy.plan = None
    assert rows(archive) == digests(written)
    assert verify(Archive.open(archive)).ok
    assert proxy.spoilt() >= 5


def test_a_store_that_throttles_for_a_while_is_waited_for(proxy: Proxy, bucket: str) -> None:
    written = put_all(bucket, names(10), size=500)
    every = Times("slow_down", 12, lambda request: request.method in ("GET", "PUT") and request.number == 0)
    proxy.plan = every  # each request's first try, the listing's as well
    archive = f"s3://{bucket}/archive"
    assert run(f"s3://{bucket}/in", archive).images == 10
    assert proxy.spoilt() == 12
    assert rows(archive) == digests(written)


def test_a_source_may_be_read_only_and_an_archive_may_not(bucket: str, as_user: As, tmp_path: Path) -> None:
    written = put_all(bucket, names(3))
    as_user(READER)
    with pytest.raises(ArchiveNotWritable) as raised:
        run(f"s3://{bucket}/in", f"s3://{bucket}/archive")
    assert raised.value.exit_status == 3
    run(f"s3://{bucket}/in", tmp_path / "archive")
    assert rows(str(tmp_path / "archive")) == digests(written)


def test_a_missing_bucket_is_said_for_the_source_and_for_the_archive(bucket: str, tmp_path: Path) -> None:
    put_all(bucket, names(1))
    with pytest.raises(errors.SourceNotFound):
        run("s3://no-such-bucket-here/in", tmp_path / "archive")
    with pytest.raises(BucketNotFound):
        run(f"s3://{bucket}/in", "s3://no-such-bucket-here/archive")
    assert not (tmp_path / "archive").exists()


def test_a_dead_store_is_said_before_any_work(bucket: str, as_user: As, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(data_of("a"))
    as_user(url="http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(StoreUnreachable):
        run(str(tmp_path), f"s3://{bucket}/archive")
    assert time.monotonic() - start < 30
