"""Rows in two parts: what stands for browsing in a column of its own, and tables that were made before it existed."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_helpers import HASTY, image, noise, quarantined
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction
from obstore.store import LocalStore

from recbatch.archive import HEAVY_COLUMNS, LATER_COLUMNS, TABLE, Archive, Record, Superseded, verify
from recbatch.archive.files_s3 import S3Files
from recbatch.archive.schema import TABLE_PROPERTIES, records_to_table
from recbatch.archive.store import Store

Add = Callable[..., str]
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
OLD_TABLE = pa.schema([field for field in TABLE if field.name not in LATER_COLUMNS])


def lossless(key: str, size: int = 5000, *, preview: int = 120) -> Record:
    whole = noise(key, size)
    return replace(
        image(key),
        codec="lossless",
        stream=whole,
        preview=whole[:preview] or None,
        stream_size=None,
        preview_size=None,
        stream_sha256=None,
    )


def old_archive(path: Path, *records: Record) -> Archive:
    """As archives were before rows had previews."""
    table = DeltaTable.create(
        str(path),
        OLD_TABLE,
        name="recbatch archive",
        configuration=TABLE_PROPERTIES,
        raise_if_key_not_exists=False,
    )
    rows = records_to_table(records, created_at=NOW).select(OLD_TABLE.names)
    pq.write_table(rows.cast(OLD_TABLE), path / "old.parquet", write_page_checksum=True)
    keys = sorted(record.key for record in records)
    statistics = {"numRecords": len(keys), "minValues": {"key": keys[0]}, "maxValues": {"key": keys[-1]}}
    action = AddAction(
        "old.parquet", (path / "old.parquet").stat().st_size, {}, 1, True, json.dumps(statistics)
    )
    table.create_write_transaction([action], "append", Schema.from_arrow(OLD_TABLE), [])
    return Archive.open(path)


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each piece that is read of a data file."""
    pieces: list[int] = []
    reading = Store.reading

    class Counting(io.RawIOBase):
        def __init__(self, file: Any) -> None:
            self._file = file

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> int:
            return int(self._file.seek(offset, whence))

        def tell(self) -> int:
            return int(self._file.tell())

        def read(self, size: int = -1) -> bytes:
            data = bytes(self._file.read(size))
            pieces.append(len(data))
            return data

    @contextlib.contextmanager
    def counted(self: Store, name: str) -> Iterator[Any]:
        with reading(self, name) as file:
            yield Counting(file)

    monkeypatch.setattr(Store, "reading", counted)
    return pieces


def test_a_stream_is_stored_once_and_read_whole(archive: Archive, add: Add) -> None:
    rows = [lossless("a"), lossless("b", preview=0), image("c"), quarantined("d")]
    path = Path(archive.url, add(*rows))
    for row in rows:
        found = archive[row.key]
        assert (found.stream, found.preview) == (row.stream, row.preview)
        assert (found.stream_size, found.preview_size) == (row.stream_size, row.preview_size)
    assert {r.key: r.stream for r in archive.records(["stream"])} == {r.key: r.stream for r in rows}
    table = pq.read_table(path)
    parts = zip(table.column("preview").to_pylist(), table.column("stream").to_pylist(), strict=True)
    assert [(len(a or b""), len(b or b"")) for a, b in parts] == [(120, 4880), (0, 5000), (0, 500), (0, 0)]
    assert path.read_bytes().count(rows[0].preview or b"?") == 1
    column = next(
        chunk
        for chunk in (pq.ParquetFile(path).metadata.row_group(0).column(i) for i in range(len(TABLE)))
        if chunk.path_in_schema == "preview"
    )
    assert (column.compression, column.has_dictionary_page) == ("UNCOMPRESSED", False)


def test_a_reader_of_previews_reads_hardly_more_than_previews(
    archive: Archive, add: Add, bytes_read: list[int]
) -> None:
    rows = [lossless(f"{number:02}", 200_000, preview=5_000) for number in range(30)]
    add(*rows)
    bytes_read.clear()
    found = {row.key: row.preview for row in archive.records(["preview"])}
    assert found == {row.key: row.preview for row in rows}
    assert (
        150_000 < sum(bytes_read) < 150_000 + 3 * 70_000
    )  # and what Parquet reads of a file's end, at least 64 KiB
    bytes_read.clear()
    assert archive.record("07", ["preview"]).preview == rows[7].preview
    assert sum(bytes_read) < 200_000
    bytes_read.clear()
    assert archive["07"].stream == rows[7].stream
    assert sum(bytes_read) > 2_000_000  # a row group


def test_an_object_store_is_asked_for_nothing_ahead(
    archive: Archive, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(*(lossless(f"{number:02}", 200_000, preview=5_000) for number in range(30)))
    asked: list[int] = []
    get_range, get_ranges = obstore.get_range, obstore.get_ranges

    def counted(store: Any, name: str, *, start: int, end: int) -> Any:
        asked.append(end - start)
        return get_range(store, name, start=start, end=end)

    def all_counted(store: Any, name: str, *, starts: list[int], ends: list[int], coalesce: int) -> Any:
        reached = 0
        for start, end in sorted(zip(starts, ends, strict=True)):
            asked.append(end - (reached if reached and start - reached <= coalesce else start))
            reached = end
        return get_ranges(store, name, starts=starts, ends=ends, coalesce=coalesce)

    monkeypatch.setattr(obstore, "get_range", counted)
    monkeypatch.setattr(obstore, "get_ranges", all_counted)
    files = archive.files()
    monkeypatch.setitem(archive.store.__dict__, "files", S3Files(LocalStore(archive.url)))
    assert sum(len(row.preview or b"") for row in archive.records(["preview"])) == 150_000
    assert 150_000 < sum(asked) < 150_000 + 3 * 70_000
    assert files[0].size > 6_000_000


def test_previews_go_along_where_rows_around_them_are_replaced(archive: Archive, add: Add) -> None:
    add(lossless("a"), lossless("b"), image("c"))
    add(image("c", state="new"))
    add(lossless("b", 4000, preview=99))
    for row in (lossless("a"), lossless("b", 4000, preview=99)):
        assert (archive[row.key].stream, archive[row.key].preview) == (row.stream, row.preview)
    assert verify(archive).ok


def test_stats_say_what_browsing_reads(archive: Archive, add: Add) -> None:
    add(lossless("a"), lossless("b", preview=0), image("c"), quarantined("d"))
    stats = archive.stats()
    assert (stats.total.previews, stats.total.preview_bytes) == (1, 120)
    assert stats.by_codec["lossless"].preview_share == pytest.approx(0.012)
    assert stats.by_codec["lossy"].preview_share == 0
    assert stats.to_dict()["by_codec"]["lossless"]["preview_bytes"] == 120


@pytest.mark.parametrize("place", [10, 3000])  # in the preview, behind it
def test_bit_rot_in_either_part_names_its_image_and_no_other(archive: Archive, add: Add, place: int) -> None:
    path = Path(archive.url, add(lossless("a"), lossless("b"), image("c")))
    data = bytearray(path.read_bytes())
    whole = lossless("b").stream or b""
    data[data.index(whole[place : place + 50]) + 7] ^= 4
    path.write_bytes(data)
    report = verify(archive)
    assert [(finding.code, finding.key) for finding in report.findings] == [("wrong-digest", "b")]


def test_a_preview_of_another_length_than_its_row_says_is_found(archive: Archive) -> None:
    from recbatch.archive.verify import check_record

    finding = check_record(replace(lossless("a"), preview_size=7))
    assert finding is not None
    assert (finding.code, finding.key) == ("wrong-preview-size", "a")


# --- archives that were made before


def test_an_older_archive_reads_as_one_without_previews(tmp_path: Path) -> None:
    archive = old_archive(tmp_path / "old", image("a"), quarantined("b"))
    assert archive["a"].stream == image("a").stream
    assert (archive["a"].preview, archive["a"].preview_size) == (None, None)
    assert archive.record("a", ["preview"]) == Record(key="a")
    assert archive.to_arrow().schema == TABLE
    assert archive.to_arrow(["preview"]).column("preview").to_pylist() == [None, None]
    assert archive.stats().total.previews == 0
    assert [record.key for record in archive.records(where="width = 40")] == ["a"]
    for level in ("structure", "digests"):
        assert verify(archive, level=level).ok


@pytest.mark.parametrize("checkpoint", [False, True])
def test_an_older_archive_takes_new_rows_and_keeps_its_old_ones(tmp_path: Path, checkpoint: bool) -> None:
    archive = old_archive(tmp_path / "old", image("a"), image("b"), quarantined("c"))
    before = archive.version
    file = archive.write_file([lossless("b"), lossless("d")], stem="new")
    epoch = archive.claim_epoch("job")
    result = archive.commit([("0", file)], job="job", epoch=epoch)
    assert (result.rows, result.replaced, result.committed) == (2, 1, ("0",))
    assert archive.version == before + 3  # epoch, columns, rows
    if checkpoint:
        DeltaTable(archive.url).create_checkpoint()
    archive = Archive.open(archive.url)
    assert sorted(archive) == ["a", "b", "c", "d"]
    assert (archive["a"].stream, archive["a"].preview) == (image("a").stream, None)
    assert (archive["b"].stream, archive["b"].preview) == (lossless("b").stream, lossless("b").preview)
    assert verify(archive).ok
    assert sorted(row.key for row in archive.records(["key"], "preview is not null")) == ["b", "d"]
    dataset = DeltaTable(archive.url).to_pyarrow_dataset()
    found = dataset.to_table(columns=["key", "preview"]).to_pylist()
    assert {row["key"]: row["preview"] for row in found}["d"] == lossless("d").preview
    archive.commit(
        [("1", archive.write_file([image("e")], stem="new"))], job="job", epoch=archive.claim_epoch("job")
    )
    assert archive.version == before + 5  # the columns are added once
    assert sorted(Archive.open(archive.url, version=before)) == ["a", "b", "c"]


def test_two_runs_that_both_widen_an_older_archive_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import recbatch.archive.commit as commits

    archive = old_archive(tmp_path / "old", image("a"))
    other = Archive.open(archive.url)
    mine = archive.claim_epoch("mine")
    theirs = other.claim_epoch("theirs")
    widen = commits.widen
    raced = []

    def race(store: Store, table: DeltaTable) -> bool:
        if not raced:
            raced.append(True)
            file = other.write_file([lossless("b")], stem="theirs")
            other.commit([("theirs/0", file)], job="theirs", epoch=theirs, patience=HASTY)
        return widen(store, table)

    monkeypatch.setattr(commits, "widen", race)
    file = archive.write_file([lossless("c")], stem="mine")
    assert archive.commit([("mine/0", file)], job="mine", epoch=mine, patience=HASTY).turns == 2
    assert sorted(archive) == ["a", "b", "c"]
    assert archive["b"].stream == lossless("b").stream
    assert DeltaTable(archive.url).schema().to_arrow().names.count("preview") == 1


def test_an_overtaken_run_adds_no_columns(tmp_path: Path) -> None:
    archive = old_archive(tmp_path / "old", image("a"))
    epoch = archive.claim_epoch("job")
    Archive.open(archive.url).claim_epoch("job")
    file = archive.write_file([lossless("c")], stem="mine")
    with pytest.raises(Superseded):
        archive.commit([("0", file)], job="job", epoch=epoch)
    assert "preview" not in DeltaTable(archive.url).schema().to_arrow().names


def test_no_heavy_column_is_among_the_light_ones() -> None:
    from recbatch.archive import COLUMNS, LIGHT_COLUMNS

    assert set(LIGHT_COLUMNS) | HEAVY_COLUMNS == set(COLUMNS)
    assert HEAVY_COLUMNS.isdisjoint(LIGHT_COLUMNS)
