"""Conditional writes in folders and on a real S3 server: one of several writers is let through."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from schedule_fakes import make_schedule
from seaweed import READER

from recbatch.archive import ArchiveNotWritable
from recbatch.archive.conditional import put_if, read_tagged
from recbatch.archive.store import Store
from recbatch.engine.lease import Lease
from recbatch.engine.schedule.book import Book, StoreDrawer

NAME = "_recbatch/leases/x.json"
HERE = Path(__file__).parent


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(tmp_path / "archive")
    return Store(f"s3://{request.getfixturevalue('bucket')}/some/archive")


def test_a_write_lands_where_its_writer_knows_what_stands_there(store: Store) -> None:
    assert read_tagged(store, NAME) is None
    assert put_if(store, NAME, b"1", etag="a tag of old") is None
    first = put_if(store, NAME, b"1", etag=None)
    assert first is not None
    assert put_if(store, NAME, b"2", etag=None) is None
    second = put_if(store, NAME, b"2", etag=first)
    assert second not in (None, first)
    assert put_if(store, NAME, b"3", etag=first) is None
    found = read_tagged(store, NAME)
    assert found is not None
    assert (found.data, found.etag) == (b"2", second)
    assert -1.5 <= found.age_s < 60
    store.delete(NAME)
    assert put_if(store, NAME, b"3", etag=second) is None


def test_a_writer_whose_answer_was_lost_finds_that_it_was_let_through(store: Store) -> None:
    first = put_if(store, NAME, b"of one writer", etag=None)
    assert put_if(store, NAME, b"of one writer", etag=None) == first
    second = put_if(store, NAME, b"of one writer, renewed", etag=first)
    assert put_if(store, NAME, b"of one writer, renewed", etag=first) == second
    assert put_if(store, NAME, b"of another", etag=first) is None


def test_of_many_writers_at_once_one_is_let_through(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: put_if(store, NAME, b"maker %d" % n, etag=None), range(8)))
        (etag,) = [tag for tag in made if tag]
        changed = list(pool.map(lambda n: put_if(store, NAME, b"changer %d" % n, etag=etag), range(8)))
    assert sum(tag is not None for tag in changed) == 1


def test_the_age_is_the_stores(store: Store) -> None:
    assert put_if(store, NAME, b"1", etag=None)
    if store.local is not None:
        long_ago_s = (store.local / NAME).stat().st_mtime - 90
        os.utime(store.local / NAME, (long_ago_s, long_ago_s))
    else:
        time.sleep(2.1)  # S3 counts in whole seconds
    found = read_tagged(store, NAME)
    assert found is not None
    assert found.age_s >= (90 if store.local is not None else 1)


def test_a_lease_goes_from_hand_to_hand(store: Store) -> None:
    drawer = StoreDrawer(store)
    first, second = (Lease(drawer, "archive", owner=name, purpose=name) for name in ("first", "second"))
    assert first.take()
    assert first.renew()
    assert not second.take()
    assert second.holder.purpose == "first"
    first.release()
    assert second.take()
    assert (first.renew(), second.renew()) == (False, True)


def test_who_may_not_write_is_told(bucket: str, as_user: Callable[..., None]) -> None:
    store = Store(f"s3://{bucket}/archive")
    assert put_if(store, NAME, b"1", etag=None)
    as_user(READER)
    assert read_tagged(store, NAME) is not None
    with pytest.raises(ArchiveNotWritable):
        put_if(store, NAME, b"2", etag=None)


def test_a_folder_keeps_what_a_killed_writer_left_half_done_out_of_sight(tmp_path: Path) -> None:
    store = Store(tmp_path / "archive")
    put_if(store, "_recbatch/schedules/a.json", b"1", etag=None)
    (tmp_path / "archive/_recbatch/schedules/b.json.0123abcd.tmp").write_bytes(b"torn")
    assert Book(StoreDrawer(store), store.url).names() == ["a"]


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_two_processes_run_each_tick_once_and_one_at_a_time(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = (
        str(tmp_path / "archive")
        if place == "folder"
        else f"s3://{request.getfixturevalue('bucket')}/archive"
    )
    book = Book.open_or_create(url)
    names = [f"s{number}" for number in range(3)]
    for name in names:
        book.add(make_schedule(name, archive=url, created=datetime.now(UTC) - timedelta(days=3)))
    racers = [
        subprocess.Popen(
            [sys.executable, str(HERE / "racer.py"), url, str(tmp_path), *names],
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        for _ in range(2)
    ]
    try:
        while len(list(tmp_path.glob("ready-*"))) < 2 and all(racer.poll() is None for racer in racers):
            time.sleep(0.01)
        (tmp_path / "go").touch()
        for racer in racers:
            _, errors = racer.communicate(timeout=120)
            assert racer.returncode == 0, errors
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    runs = (tmp_path / "runs").read_text().splitlines()
    expected = [f"{name}/{book.entries(name, 1)[0].tick.tick:%Y%m%dT%H%M%SZ} 1" for name in names]
    assert sorted(runs) == expected
    assert [entry.tick.state for name in names for entry in book.entries(name, 10)] == ["done"] * 3
