from __future__ import annotations

import errno
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from archive_helpers import image, quarantined
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.archive import Archive, DuplicateKey, InvalidRecord, StoreFull
from recbatch.archive import store as store_module
from recbatch.archive.writer import GROUP_MAX_BYTES, GROUP_MIN_BYTES, group_bounds, unique_name


@settings(deadline=None)
@given(st.lists(st.integers(1, 6 * 2**20), max_size=40))
def test_row_groups_cover_all_rows_and_hold_two_to_four_mebibytes(sizes: list[int]) -> None:
    bounds = list(group_bounds(sizes))
    assert [place for start, stop in bounds for place in range(start, stop)] == list(range(len(sizes)))
    for start, stop in bounds:
        total = sum(sizes[start:stop])
        assert total <= GROUP_MAX_BYTES or stop == start + 1
        if stop < len(sizes) and total < GROUP_MIN_BYTES:
            assert total + sizes[stop] > GROUP_MAX_BYTES  # only a large neighbour cuts one short


@given(st.text())
def test_file_names_keep_to_the_characters_that_delta_leaves_alone(stem: str) -> None:
    name = unique_name(stem)
    assert re.fullmatch(r"[A-Za-z0-9=][A-Za-z0-9._=-]*-[0-9a-f]{8}\.parquet", name)
    assert unique_name(stem) != name


def test_a_data_file_is_what_its_description_says(archive: Archive) -> None:
    file = archive.write_file([image("b/ü"), image("a"), quarantined("c")], stem="job/0001")
    path = Path(archive.url, file.path)
    assert file.size == path.stat().st_size
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (file.rows, file.min_key, file.max_key) == (3, "a", "c")
    assert pq.read_table(path).column("key").to_pylist() == ["a", "b/ü", "c"]


def test_parquet_is_laid_out_for_single_images(archive: Archive) -> None:
    file = archive.write_file([image(f"{number:03}", 60_000) for number in range(120)], stem="s")
    metadata = pq.ParquetFile(Path(archive.url, file.path)).metadata
    sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    assert all(GROUP_MIN_BYTES <= size <= GROUP_MAX_BYTES * 1.02 for size in sizes[:-1])
    assert len(sizes) > 2
    columns = [metadata.row_group(0).column(place) for place in range(metadata.num_columns)]
    stream = next(column for column in columns if column.path_in_schema == "stream")
    assert stream.compression == "UNCOMPRESSED"
    assert not stream.has_dictionary_page
    assert [column.path_in_schema for column in columns if column.is_stats_set] == ["key"]
    assert metadata.metadata[b"recbatch.format"] == b"1"


def test_the_same_key_twice_in_a_file_is_refused(archive: Archive) -> None:
    with pytest.raises(DuplicateKey, match="'a'"):
        archive.write_file([image("a"), image("b"), image("a")], stem="s")


def test_a_refused_record_leaves_no_file(archive: Archive) -> None:
    before = os.listdir(archive.url)
    with pytest.raises(InvalidRecord):
        archive.write_file([image("a"), quarantined("")], stem="s")
    assert os.listdir(archive.url) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("room", [0, 100, 70_000, 200_000])
def test_a_full_disk_says_so_and_leaves_no_partial_file(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, code: int, room: int
) -> None:
    write = store_module.Sink.write

    def limited(self: Any, data: Any) -> int:
        if self.size + len(memoryview(data)) > room:
            raise OSError(code, os.strerror(code))
        return write(self, data)

    before = sorted(os.listdir(archive.url))
    monkeypatch.setattr(store_module.Sink, "write", limited)
    with pytest.raises(StoreFull, match="Free some space"):
        archive.write_file([image(str(number), 60_000) for number in range(5)], stem="s")
    assert sorted(os.listdir(archive.url)) == before


def test_an_interrupted_write_leaves_no_partial_file(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Any, data: Any) -> int:
        raise KeyboardInterrupt

    before = sorted(os.listdir(archive.url))
    monkeypatch.setattr(store_module.Sink, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        archive.write_file([image("a")], stem="s")
    assert sorted(os.listdir(archive.url)) == before


def test_files_and_their_folder_are_synced_before_anyone_may_commit_them(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    fsync = os.fsync

    def spy(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    file = archive.write_file([image("a")], stem="s")
    assert synced == [os.stat(path).st_ino for path in (f"{archive.url}/{file.path}", archive.url)]
