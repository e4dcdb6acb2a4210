"""Rows of files whose ranges meet, in the order of keys."""

from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.archive.merging import AHEAD, merged
from recbatch.archive.schema import DataFile


def files_of(contents):
    files = [
        DataFile(path=str(number), size=1, rows=len(keys), min_key=min(keys), max_key=max(keys))
        for number, keys in enumerate(contents)
    ]
    return sorted(files, key=lambda file: (file.min_key, file.path))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.text(max_size=2), min_size=1, max_size=8, unique=True), max_size=25))
def test_all_rows_come_in_order(contents):
    files = files_of(contents)
    got = list(merged(files, lambda file: [(key, file.path) for key in sorted(contents[int(file.path)])]))
    assert [key for key, _ in got] == sorted(key for keys in contents for key in keys)
    assert sorted(got) == sorted((key, str(place)) for place, keys in enumerate(contents) for key in keys)


def test_files_are_read_only_a_few_ahead_of_their_turn():
    files = files_of([[f"{number:03}"] for number in range(100)])
    read = []

    def rows(file):
        read.append(file.path)
        return [(file.min_key, None)]

    found = merged(files, rows)
    for _ in range(10):
        next(found)
    assert len(read) <= 10 + AHEAD + 1
