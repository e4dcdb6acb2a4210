"""Sorting more than memory holds gives what sorting all at once would."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.engine.source import Item
from recbatch.engine.spool import Spool, item_of, row_of

ROWS = st.lists(
    st.tuples(
        st.text(max_size=3), st.just("memory://x"), st.integers(0, 2**40), st.integers(0, 2**62), st.just("e")
    ),
    max_size=60,
)


def newest(rows):
    kept = {}
    for row in sorted(rows):
        if row[0] not in kept or row[3] > kept[row[0]][3]:
            kept[row[0]] = row
    return [kept[key] for key in sorted(kept)]


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(1, 9))
def test_any_order_comes_out_by_key_and_each_key_once(rows, run_rows):
    with tempfile.TemporaryDirectory() as folder:
        spool, dropped = Spool.sorting(rows, Path(folder), run_rows=run_rows)
        want = newest(rows)
        for _ in range(2):  # as often as one likes
            assert [row[0] for row in spool] == [row[0] for row in want]
            assert [row[3] for row in spool] == [row[3] for row in want]
        assert (spool.count, dropped) == (len(want), len(rows) - len(want))
        assert spool.bytes == sum(row[2] for row in spool)


@settings(deadline=None, max_examples=30)
@given(ROWS, st.integers(1, 9))
def test_rows_in_order_are_kept_as_they_come(rows, run_rows):
    rows = newest(rows)
    with tempfile.TemporaryDirectory() as folder:
        assert list(Spool.of(rows, Path(folder), run_rows=run_rows)) == rows
        assert len(list(Path(folder).iterdir())) == max(
            0, -(-len(rows) // run_rows) - 1
        )  # the last run stays in memory


def test_an_item_is_its_row():
    item = Item(key="a/b", uri="s3://bucket/a/b", size=3, mtime_ns=7, etag="x")
    assert item_of(row_of(item)) == item


def test_few_rows_touch_no_disk(tmp_path):
    rows = [(f"{number:02}", "", 1, 0, "") for number in range(20)]
    spool, _ = Spool.sorting(reversed(rows), tmp_path)
    assert list(spool) == rows
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", [1, -1])
def test_runs_that_are_merged_leave_only_what_is_needed(tmp_path, order):
    rows = [(f"{number:02}", "", 1, 0, "") for number in range(20)][::order]
    spool, _ = Spool.sorting(rows, tmp_path, run_rows=6)
    assert len(list(tmp_path.iterdir())) == 3
    assert len(list(spool)) == 20
