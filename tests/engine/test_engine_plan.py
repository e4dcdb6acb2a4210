import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.archive import Known
from recbatch.engine.plan import cut, is_done, make_plan
from recbatch.engine.source import Item
from recbatch.engine.spool import row_of


def item(key="a", size=10, mtime_ns=5, etag=""):
    return Item(key=key, uri=f"file:///{key}", size=size, mtime_ns=mtime_ns, etag=etag)


def known(size=10, mtime=5, etag="", status="ok"):
    return Known(size=size, mtime=mtime, etag=etag, status=status)


def plan(items, archived=None, *, epoch=1, **options):
    rows, known_rows = sorted(map(row_of, items)), sorted((archived or {}).items())
    made = make_plan(rows, known_rows, Path("unused"), **({"settings": "s", "workers": 2} | options))
    return made.of_epoch(epoch)


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 100), st.integers(1, 9))
def test_shards_hold_every_item_once_in_order_and_keep_their_bounds(sizes, shard_bytes, max_items):
    items = [item(key=f"{number:03d}", size=size) for number, size in enumerate(sizes)]
    shards = cut(items, shard_bytes, max_items=max_items)
    assert [each for shard in shards for each in shard.items] == items
    assert len({shard.name for shard in shards}) == len(shards)
    for shard in shards:
        assert 1 <= len(shard.items) <= max_items
        assert shard.bytes <= shard_bytes or len(shard.items) == 1
    for left, right in itertools.pairwise(shards):  # no cut without need
        assert len(left.items) == max_items or left.bytes + right.items[0].size > shard_bytes


@settings(deadline=None)
@given(st.integers(2, 40))
def test_halves_make_up_the_whole(count):
    (shard,) = cut([item(key=f"{number:03d}") for number in range(count)], 10**6)
    left, right = shard.split()
    assert left.items + right.items == shard.items
    assert left.items
    assert right.items
    assert left.name != right.name


@pytest.mark.parametrize(
    ("listed", "row", "done"),
    [
        (item(), None, False),
        (item(), known(), True),
        (item(size=11), known(), False),
        (item(mtime_ns=6), known(), False),
        (item(etag="x", mtime_ns=6), known(etag="x"), True),  # touched, the same content
        (item(etag="y"), known(etag="x"), False),
        (item(), known(status="quarantined"), True),
        (item(size=11), known(status="quarantined"), False),
    ],
)
def test_an_item_is_done_when_the_archive_has_its_present_state(listed, row, done):
    assert is_done(listed, row, retry_quarantined=False) is done


def test_quarantined_items_are_tried_again_when_asked():
    assert not is_done(item(), known(status="quarantined"), retry_quarantined=True)
    assert is_done(item(), known(), retry_quarantined=True)


def test_the_plan_holds_what_is_missing():
    made = plan([item("a"), item("b"), item("c")], {"b": known()})
    assert [each.key for shard in made.shards() for each in shard.items] == ["a", "c"]
    assert (made.images, made.known) == (2, 1)


def test_the_digest_tells_plans_apart():
    items = [item("a"), item("b")]
    same = plan(items).digest
    assert plan(items).digest == same
    others = [
        plan(items, epoch=2),
        plan(items, settings="t"),
        plan(items, shard_bytes=10),
        plan(items[:1]),
        *(
            plan([replace(items[0], **change), items[1]])
            for change in ({"size": 9}, {"mtime_ns": 4}, {"etag": "e"})
        ),
    ]
    assert len({same, *(other.digest for other in others)}) == len(others) + 1


def test_a_small_source_gives_every_worker_something():
    items = [item(key=f"{number:03d}", size=1 << 20) for number in range(16)]
    assert plan(items, workers=4).count_shards() == 16
    assert plan(items, workers=1).count_shards() == 4
