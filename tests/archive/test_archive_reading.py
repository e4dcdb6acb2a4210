from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from archive_helpers import image, quarantined
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.archive import LIGHT_COLUMNS, TABLE, Archive, InvalidFilter, KeyNotFound, Known, Record
from recbatch.errors import UsageError

Add = Callable[..., str]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[str, ...]]]:
    """Every row group that is read, with its columns."""
    seen: list[tuple[int, tuple[str, ...]]] = []
    real = pq.ParquetFile.read_row_group

    def spy(self: pq.ParquetFile, group: int, columns: Any = None, **options: Any) -> Any:
        seen.append((group, tuple(columns)))
        return real(self, group, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    return seen


def test_an_archive_is_a_mapping_from_key_to_record(archive: Archive, add: Add) -> None:
    add(image("b"), image("c/ü %20"))
    add(image("a"), quarantined("d"))
    assert list(archive) == ["a", "d", "b", "c/ü %20"]
    assert len(archive) == 4
    assert archive["c/ü %20"].stream == image("c/ü %20").stream
    assert archive["d"].error_code == "not-an-image"
    assert "b" in archive
    assert "bb" not in archive
    assert 7 not in archive
    assert archive.get("bb") is None
    assert archive.get("bb", "nothing") == "nothing"


def test_a_key_that_is_not_there_is_a_usage_error_and_a_key_error(archive: Archive, add: Add) -> None:
    add(image("b"))
    with pytest.raises(KeyNotFound, match="'bb'") as raised:
        archive["bb"]
    assert isinstance(raised.value, KeyError)
    assert isinstance(raised.value, UsageError)


def test_keys_beyond_the_basic_plane_are_found_by_the_logs_statistics(archive: Archive, add: Add) -> None:
    add(image("a/\U0001f3d4.jpg"), image("b/\U00020000.jpg"))
    assert [(file.min_key, file.max_key) for file in archive.files()] == [
        ("a/\U0001f3d4.jpg", "b/\U00020000.jpg")
    ]
    assert "b/\U00020000.jpg" in archive


def test_one_image_costs_one_row_group_of_one_file(archive: Archive, add: Add, reads: list[Any]) -> None:
    add(*(image(f"a{number:03}", 60_000) for number in range(150)))
    add(*(image(f"b{number:03}", 60_000) for number in range(3)))
    reads.clear()
    assert archive["a075"].stream == image("a075", 60_000).stream
    assert len(reads) == 1
    assert reads[0][0] not in (0,)


def test_a_filter_never_reads_the_streams_of_other_rows(archive: Archive, add: Add, reads: list[Any]) -> None:
    add(*(image(f"a{number:03}", 60_000) for number in range(150)))
    reads.clear()
    (record,) = archive.records(["stream"], "key = 'a149'")
    assert record.stream == image("a149", 60_000).stream
    assert [columns for _, columns in reads if "stream" in columns] == [("key", "stream", "preview")]
    reads.clear()
    assert len(list(archive.records(["width"], "width > 1"))) == 150
    assert not any("stream" in columns for _, columns in reads)


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("status = 'quarantined'", ["q"]),
        ("stream_size > 500 and codec = 'lossy'", ["big"]),
        ("key like 's%' -- the small one", ["small"]),
        ("psnr is null", ["big", "q", "small"]),
        ("width = -1", []),
        ("created_at > timestamp '2020-01-01'", ["big", "q", "small"]),
        ("key in (select key from archive where stream_size < 100)", ["small"]),
    ],
)
def test_filters_are_sql_conditions(archive: Archive, add: Add, where: str, keys: list[str]) -> None:
    add(image("big", 1000), image("small", 10), quarantined("q"))
    assert [record.key for record in archive.records(["key"], where)] == keys
    assert archive.to_arrow(["key"], where).column("key").to_pylist() == keys


@pytest.mark.parametrize(
    "where",
    [
        "",
        "colour = 'red'",
        "width >",
        "width > 'wide'",
        "1",
        "key = 'a'; drop table archive",
        "width / 0 = 1",
        "f(key)",
    ],
)
def test_a_bad_filter_is_named_in_one_line(archive: Archive, add: Add, where: str) -> None:
    add(image("a"))
    with pytest.raises(InvalidFilter) as raised:
        list(archive.records(["key"], where))
    text = str(raised.value)
    assert repr(where) in text
    assert "\n" not in text
    assert "<unknown>" not in text
    assert len(text) < 400


def test_a_column_that_is_none_is_named_with_the_one_that_was_meant(archive: Archive) -> None:
    with pytest.raises(InvalidFilter) as raised:
        list(archive.records(["key"], "statuss = 'ok'"))
    assert "used: No field named statuss. Did you mean 'status'? Write an SQL" in str(raised.value)


def test_records_hold_the_columns_asked_for(archive: Archive, add: Add) -> None:
    add(image("a"))
    (light,) = archive.records(LIGHT_COLUMNS)
    assert light.stream is None
    assert light.stream_size == 500
    assert light.stream_sha256 == image("a").stream_sha256
    (few,) = archive.records(["width"])
    assert few == Record(key="a", width=40)
    with pytest.raises(ValueError, match="colour"):
        list(archive.records(["colour"]))


def test_records_of_chosen_keys_and_files(archive: Archive, add: Add) -> None:
    first = add(image("a"), image("c"))
    add(image("b"), image("d"))
    assert [record.key for record in archive.records(["key"], keys=["d", "a", "nope"])] == ["a", "d"]
    assert [record.key for record in archive.records(["key"], files=[first])] == ["a", "c"]
    assert [
        record.key for record in archive.records(["key"], "key > 'a'", keys=["a", "c"], files=[first])
    ] == ["c"]


def test_an_empty_archive_reads_as_one(archive: Archive) -> None:
    assert list(archive) == []
    assert archive.known() == {}
    assert archive.to_arrow().schema == TABLE
    assert archive.get("a") is None
    assert archive.stats().total.images == 0
    assert archive.stats().total.bpp is None


def test_known_tells_what_the_sources_were_like(archive: Archive, add: Add) -> None:
    add(image("a", 10), quarantined("q"))
    assert archive.known() == {
        "a": Known(30, "first", 1_700_000_000_123_456_789, "ok"),
        "q": Known(9, None, None, "quarantined"),
    }


def test_stats_add_up(archive: Archive, add: Add) -> None:
    add(image("a", 10), image("b", 20), quarantined("q"))
    add(Record(key="o", codec="original", stream=b"12345", source_size=5, width=2, height=2))
    stats = archive.stats()
    assert (stats.rows, stats.quarantined, stats.files) == (4, 1, 2)
    assert (stats.total.images, stats.total.bytes_in, stats.total.bytes_out) == (3, 95, 35)
    assert stats.total.pixels == 2 * 40 * 30 + 4
    assert stats.total.bpp == pytest.approx(8 * 35 / 2404)
    assert {name: group.images for name, group in stats.by_codec.items()} == {"lossy": 2, "original": 1}
    assert {name: group.images for name, group in stats.by_model.items()} == {}
    assert {name: group.images for name, group in stats.by_status.items()} == {"ok": 3, "quarantined": 1}
    assert stats.by_error == {"not-an-image": 1}
    assert stats.file_bytes == sum(file.size for file in archive.files())
    assert stats.to_dict()["by_codec"]["original"]["bpp"] == 10.0


def test_an_open_archive_stays_at_its_version_until_refreshed(archive: Archive, add: Add) -> None:
    add(image("a"))
    reader = Archive.open(archive.url)
    version = reader.version
    add(image("b"))
    assert list(reader) == ["a"]
    assert list(pickle.loads(pickle.dumps(reader))) == ["a"]
    assert [record.key for record in reader.records(where="true")] == ["a"]
    assert list(Archive.open(archive.url, version=version)) == ["a"]
    reader.refresh()
    assert list(reader) == ["a", "b"]


@settings(deadline=None, max_examples=15)
@given(
    st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=8)
)
def test_every_key_is_found_whatever_it_is_made_of(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str]
) -> None:
    archive = Archive.create(tmp_path_factory.mktemp("keys") / "a.rec")
    half = sorted(keys)[::2], sorted(keys)[1::2]
    files = [archive.write_file([image(key, 5) for key in part], stem="s") for part in half if part]
    epoch = archive.claim_epoch("job")
    archive.commit([(str(place), file) for place, file in enumerate(files)], job="job", epoch=epoch)
    assert set(archive) == keys
    for key in keys:
        assert archive[key].stream == image(key, 5).stream


def test_duckdb_reads_the_table_without_recbatch(archive: Archive, add: Add) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    from deltalake import DeltaTable

    add(image("a", 10), quarantined("q"))
    duckdb.register("rows", DeltaTable(archive.url).to_pyarrow_dataset())
    found = duckdb.sql("select key, octet_length(stream) from rows where status = 'ok'").fetchall()
    assert found == [("a", 10)]


def test_polars_reads_the_table_without_recbatch(archive: Archive, add: Add) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    add(image("a", 10), quarantined("q"))
    found = (
        polars.scan_delta(archive.url).filter(polars.col("status") == "ok").select("key", "stream").collect()
    )
    assert found.rows() == [("a", image("a", 10).stream)]


@pytest.mark.parametrize("commits", [1, 12])  # from the log alone, and from a checkpoint
def test_arrow_datasets_of_the_table_filter_by_any_column(archive: Archive, add: Add, commits: int) -> None:
    from deltalake import DeltaTable

    for number in range(commits):
        add(image(f"a{number}", 10), quarantined(f"q{number}"))
    dataset = DeltaTable(archive.url).to_pyarrow_dataset()
    for condition in (ds.field("status") == "ok", ds.field("width") == 40, ds.field("key") < "q"):
        assert dataset.to_table(filter=condition, columns=["key"]).num_rows == commits


def test_deltas_own_reader_sees_every_column(archive: Archive, add: Add) -> None:
    from deltalake import DeltaTable

    add(image("a", 10), quarantined("q"))
    table = DeltaTable(archive.url).to_pyarrow_table()
    assert table.column_names == TABLE.names
    assert table.column("stream").to_pylist() == [image("a", 10).stream, None]
