"""Rows give way to new ones where the file that holds them is damaged, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archive_helpers import flip, image

from recbatch.archive import TABLE, Archive, CorruptArchive, verify

Add = Callable[..., str]


def test_a_rotten_stream_gives_way_and_its_neighbours_can_be_read_again(archive: Archive, add: Add) -> None:
    file = Path(archive.url, add(*(image(key, 5000) for key in "abc")))
    flip(file, file.read_bytes().index(image("b", 5000).stream or b"") + 77)
    with pytest.raises(CorruptArchive):
        archive["b"]
    with pytest.raises(CorruptArchive):  # they share a page
        list(archive.records(["stream"], keys=["a"]))
    add(image("b", 5000, state="second"))
    archive.refresh()
    assert [archive[key].stream for key in "abc"] == [
        image("a", 5000).stream,
        image("b", 5000, state="second").stream,
        image("c", 5000).stream,
    ]
    assert verify(archive).ok


def test_a_rotten_stream_that_stays_is_not_hidden(archive: Archive, add: Add) -> None:
    file = Path(archive.url, add(*(image(key, 5000) for key in "abc")))
    flip(file, file.read_bytes().index(image("b", 5000).stream or b"") + 77)
    add(image("a", 5000, state="second"))
    archive.refresh()
    assert [(finding.code, finding.key) for finding in verify(archive).findings] == [("wrong-digest", "b")]
    assert archive["c"].stream == image("c", 5000).stream


def test_damage_of_another_column_keeps_rows_that_stay_from_being_copied(archive: Archive, add: Add) -> None:
    file = Path(archive.url, add(*(image(key) for key in "abc")))
    chunks = pq.ParquetFile(file).metadata.row_group(0)
    (column,) = (
        chunk for chunk in map(chunks.column, range(len(TABLE))) if chunk.path_in_schema == "stream_sha256"
    )
    flip(file, column.data_page_offset + column.total_compressed_size - 5)
    version = archive.version
    with pytest.raises(CorruptArchive, match="can't be read"):
        add(image("b", state="second"))
    archive.refresh()
    assert len(archive) == 3
    assert archive.version == version + 1  # the claim alone
    add(*(image(key, state="second") for key in "abc"))  # none stays
    archive.refresh()
    assert verify(archive).ok
    assert len(archive) == 3
