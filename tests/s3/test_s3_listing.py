"""A listing file in place of a listing: any key comes through, and a bad row is named by file and line."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import gzip
import io
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from proxy import Proxy
from s3_helpers import found, put_all, run

from recbatch import s3
from recbatch.archive import Archive
from recbatch.engine.errors import BadListing, ListingNamesNothing, SourceNotFound, SourceUnreadable
from recbatch.engine.inventory import find_listed, read_listing
from recbatch.engine.source import Choice, Item, Tally
from recbatch.errors import UsageError

SOURCE = "s3://bucket/in"
MOMENT = "2026-01-02T03:04:05.678Z"
SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"

characters = st.characters(exclude_categories=["Cs"])
keys = st.text(characters, min_size=1, max_size=40)
sizes = st.integers(0, 10**15)


def listed(path: object, source: str = SOURCE, *include: str) -> tuple[list[Item], Tally]:
    tally = Tally()
    return list(find_listed(str(path), source, Choice(include=include or ("*",)).takes, tally)), tally


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def inventory(folder: Path, rows: list[list[str]], *, schema: str = SCHEMA, **changes: object) -> Path:
    """What S3 Inventory leaves: headerless CSV in gzip, and a manifest that tells of it."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    write(folder / "data" / "one.csv.gz", gzip.compress(text.getvalue().encode()))
    manifest = {
        "sourceBucket": "bucket",
        "destinationBucket": "arn:aws:s3:::elsewhere",
        "fileFormat": "CSV",
        "fileSchema": schema,
        "files": [{"key": "inventories/bucket/all/data/one.csv.gz", "size": 1, "MD5checksum": ""}],
        **changes,
    }
    (folder / "2026-01-31T01-00Z").mkdir(exist_ok=True)
    return write(folder / "2026-01-31T01-00Z" / "manifest.json", json.dumps(manifest))


def line_of(key: str, size: int = 3, *, latest: str = "true", deleted: str = "false") -> list[str]:
    return ["bucket", quote(key, safe=""), "v1", latest, deleted, str(size), MOMENT, "tag", "STANDARD"]


# --- any key comes through


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("listings")


@settings(deadline=None)
@given(st.lists(st.tuples(keys, sizes), max_size=8), st.booleans())
@example([("a,b", 1), ('"', 2), ("\r", 3), ("\n\r\n", 4), ("\x00", 5), ("%2F+ ", 6), ("\ufeff", 7)], True)
def test_keys_of_any_kind_come_through_a_csv_with_a_header(
    folder: Path, rows: list[tuple[str, int]], packed: bool
) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["Key", "Size", "ETag"])
    writer.writerows([key, size, '"tag"'] for key, size in rows)
    data = text.getvalue().encode()
    path = write(folder / "any.csv", gzip.compress(data) if packed else data)
    read = list(read_listing(str(path), "bucket"))
    assert [(row.key, row.size, row.etag) for row in read] == [(key, size, "tag") for key, size in rows]


@settings(deadline=None)
@given(st.lists(st.tuples(keys, sizes), max_size=8), st.sampled_from([quote, quote_plus]))
@example([("a+b c%20d", 1), ("ü/é", 2), ("//", 3)], quote_plus)
def test_keys_of_any_kind_come_through_an_s3_inventory(
    folder: Path, rows: list[tuple[str, int]], encode
) -> None:
    lines = [["bucket", encode(key), "", "true", "false", str(size), MOMENT, "t", ""] for key, size in rows]
    read = list(read_listing(str(inventory(folder / "csv", lines)), "bucket"))
    assert [(row.key, row.size) for row in read] == rows


@settings(deadline=None)
@given(st.lists(st.tuples(keys, sizes), max_size=8))
def test_keys_of_any_kind_come_through_parquet(folder: Path, rows: list[tuple[str, int]]) -> None:
    columns = [[key for key, _ in rows], [size for _, size in rows], ["t"] * len(rows)]
    types = [pa.string(), pa.int64(), pa.string()]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    pq.write_table(pa.table(arrays, names=["key", "size", "e_tag"]), folder / "any.parquet")
    read = list(read_listing(str(folder / "any.parquet"), "bucket"))
    assert [(row.key, row.size) for row in read] == rows


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["x.csv", "x.json", "x.csv.gz", "x.parquet"]))
@example(b"key,size,etag\n\xff\xfe,1,t\n", "x.csv")
@example(b"key,size,etag\na\x00b,1\n", "x.csv")
@example(b'key,size,etag\n"a,1,t\n', "x.csv")
@example(b"PAR1" + bytes(40) + b"PAR1", "x.parquet")
@example(b"\x1f\x8b" + bytes(30), "x.csv.gz")
@example(gzip.compress(b"key,size,etag\na,1,t\n" * 50)[:60], "x.csv.gz")
@example(b'{"files": [1]}', "x.json")
@example(b"[]", "x.json")
@example(b"[" * 100_000, "x.json")
@example(
    b'{"sourceBucket": 1, "fileFormat": {}, "fileSchema": [], "destinationBucket": 0, "files": 3}', "x.json"
)
def test_bytes_of_any_kind_are_rows_or_a_bad_listing(folder: Path, data: bytes, name: str) -> None:
    path = write(folder / name, data)
    with contextlib.suppress(BadListing):
        list(read_listing(str(path), "bucket"))


# --- what is taken and what is not


def test_items_are_those_that_listing_would_have_given(tmp_path: Path) -> None:
    rows = f'key,size,etag,last_modified\nin/b.png,5,"""tag""",{MOMENT}\nin/a.png,0,t,2026-01-02 03:04:05\n'
    items, tally = listed(write(tmp_path / "l.csv", rows))
    assert items == [
        Item(key="b.png", uri="s3://bucket/in/b.png", size=5, mtime_ns=1_767_323_045_678_000_000, etag="tag"),
        Item(key="a.png", uri="s3://bucket/in/a.png", size=0, mtime_ns=1_767_323_045_000_000_000, etag="t"),
    ]
    assert tally == Tally()


def test_keys_outside_of_the_source_are_skipped(tmp_path: Path) -> None:
    rows = (
        "key,size,etag\nin/a.png,1,t\nother/a.png,1,t\nindex.png,1,t\nin/notes.txt,1,t\nin/,0,t\nin/f/,0,t\n"
    )
    tally = Tally()
    path = write(tmp_path / "l.csv", rows)
    items = list(find_listed(str(path), SOURCE, Choice().takes, tally))
    assert [item.key for item in items] == ["a.png"]
    assert tally.skipped == 3
    assert tally.problems == []


def test_keys_that_lead_elsewhere_are_left_out_and_said(tmp_path: Path) -> None:
    rows = "key,size,etag\nin/a.png,1,t\nin/x/../b.png,1,t\nin/./c.png,1,t\nin/d..png,1,t\n"
    items, tally = listed(write(tmp_path / "l.csv", rows))
    assert [item.key for item in items] == ["a.png", "d..png"]
    (problem,) = tally.problems
    assert "2 keys have '.' or '..' as a part, such as 'in/x/../b.png'" in problem
    assert tally.skipped == 2


def test_a_key_that_is_listed_twice_is_a_remark_and_no_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "l.csv", "key,size,etag\nin/a.png,1,t\nin/b.png,1,t\nin/b.png,1,t\n")
    report = run(SOURCE, tmp_path / "archive", listing=str(path), dry_run=True)
    assert (report.images, report.problems, report.exit_status) == (2, (), 0)
    assert report.remarks == (f"{SOURCE}: 1 key is listed more than once; the newest row of each counts",)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("", r"l\.csv names no object\. Check that it is the right file"),
        ("in/,0,t\n", r"names no object\."),
        (
            "other/a.png,1,t\nb.png,1,t\n",
            r"names 2 objects, none of them below s3://bucket/in .*'other/a\.png'",
        ),
        ("in/../a.png,1,t\n", r"nothing of use: 1 key has '\.' or '\.\.' as a part"),
        ("in/a.txt,1,t\n", r"names 1 object, .*'in/a\.txt'\. .*--include"),
        (
            "in/a.txt,1,t\nb.png,1,t\n",
            r"names 2 objects, .* 1 by the name, .*, 1 that lie elsewhere, .*'b\.png'",
        ),
    ],
)
def test_a_listing_of_which_nothing_is_of_use_says_why(tmp_path: Path, rows: str, says: str) -> None:
    path = write(tmp_path / "l.csv", "key,size,etag\n" + rows)
    with pytest.raises(ListingNamesNothing, match=says) as raised:
        list(find_listed(str(path), SOURCE, Choice().takes, Tally()))
    assert raised.value.exit_status == 2


def test_old_versions_and_deletions_are_no_objects(tmp_path: Path) -> None:
    rows = [
        line_of("in/a.png"),
        line_of("in/old.png", latest="false"),
        ["bucket", "in/gone.png", "v2", "true", "true", "", MOMENT, "", ""],
    ]
    assert [item.key for item in listed(inventory(tmp_path, rows))[0]] == ["a.png"]


def test_a_parquet_inventory_is_read_with_its_own_names_and_times(tmp_path: Path) -> None:
    time = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
    for kind in (pa.timestamp("ms"), pa.timestamp("ns", "UTC"), pa.int64()):
        when = [int(time.timestamp() * 1000)] if kind == pa.int64() else [time]
        table = pa.table(
            {
                "bucket": ["bucket"],
                "key": ["in/a b%20.png"],
                "is_latest": [True],
                "is_delete_marker": [False],
                "size": [3],
                "last_modified_date": pa.array(when, kind),
                "e_tag": ["tag"],
            }
        )
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "data" / "one.parquet")
        path = inventory(
            tmp_path,
            [],
            schema="message s3.inventory { ... }",
            fileFormat="Parquet",
            files=[{"key": "x/data/one.parquet"}],
        )
        (item,) = listed(path)[0]
        assert (item.key, item.size, item.etag) == ("a b%20.png", 3, "tag")
        assert item.mtime_ns == 1_767_323_045_678_000_000


def test_an_inventory_of_several_files_is_read_whole(tmp_path: Path) -> None:
    path = inventory(tmp_path, [line_of("in/a.png")])
    write(tmp_path / "data" / "two.csv.gz", gzip.compress(b"bucket,in/b.png,,true,false,1,,t,\n"))
    manifest = json.loads(path.read_text())
    manifest["files"].append({"key": "x/data/two.csv.gz"})
    path.write_text(json.dumps(manifest))
    assert [item.key for item in listed(path)[0]] == ["a.png", "b.png"]


# --- bad rows, bad files


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty"),
        ("in/a.png,3,tag\n", "no column is named key, none size"),
        ("key,size\nin/a.png,3\n", "none is named|no column is named etag or last_modified"),
        ("key,size,etag\nin/a.png,3\n", r"line 2: it has 2 fields instead of 3"),
        ("key,size,etag\nin/a.png,3,t\nin/b.png,many,t\n", r"line 3: the size of 'in/b.png' is 'many'"),
        ("key,size,etag\nin/a.png,-3,t\n", "no number of bytes"),
        ("key,size,etag\nin/a.png,,t\n", "no number of bytes"),
        ("key,size,etag\n,3,t\n", "line 2: the key is empty"),
        ("key,size,last_modified\na,3,yesterday\n", "line 2: 'yesterday' is no time"),
        ("key,size,etag,is_latest\na,3,t,perhaps\n", "neither true nor false"),
        ("key,size,etag,bucket\nin/a.png,3,t,another\n", "line 2: it lists bucket 'another'"),
        ('key,size,etag\n"in/a\nb.png",3,t\nx\n', r"line 4: it has 1 fields"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "l.csv", text)
    with pytest.raises(BadListing, match=says) as raised:
        listed(path)
    assert str(path) in str(raised.value)
    assert raised.value.exit_status == 2


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("l.parquet", b"\x93\x01\n,", "it is no Parquet file"),
        ("l.csv.gz", b"\x93\x01\n,", "it is no gzip file"),
        ("l.csv", b"key;size;etag\nin/a.png;1;t\n", "separated by ';'"),
        ("l.csv", None, "it is a folder"),
    ],
)
def test_a_file_of_another_kind_is_called_so(
    tmp_path: Path, name: str, data: bytes | None, says: str
) -> None:
    path = tmp_path / name
    if data is None:
        path.mkdir()
    else:
        path.write_bytes(data)
    with pytest.raises(BadListing, match=says) as raised:
        listed(path)
    assert raised.value.exit_status == 2


def test_a_bad_row_of_an_inventory_names_the_data_file(tmp_path: Path) -> None:
    rows = [line_of("in/a.png"), ["bucket", "%FF", "", "true", "false", "1", "", "t", ""]]
    with pytest.raises(BadListing, match=r"one\.csv\.gz, line 2: the key '%FF' is no UTF-8"):
        listed(inventory(tmp_path, rows))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sourceBucket": "another"}, "it is the inventory of bucket 'another'"),
        ({"fileFormat": "ORC"}, "its files are ORC"),
        ({"files": None}, "no manifest of an S3 Inventory"),
        ({"fileSchema": "Bucket, Key"}, "no column is named size"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(BadListing, match=says):
        listed(inventory(tmp_path, [line_of("in/a.png")], **changes))


def test_a_listing_that_is_not_there_and_a_source_that_is_no_bucket_are_said(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="There is no listing at"):
        listed(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="Leave out --listing"):
        listed(write(tmp_path / "l.csv", "key,size,etag\n"), str(tmp_path))


# --- on a real server


def test_an_inventory_in_a_bucket_stands_for_a_listing_of_the_source(proxy: Proxy, bucket: str) -> None:
    written = put_all(bucket, [f"in/{number} é+%.png" for number in range(12)])
    store = s3.account().bucket(bucket)
    by_key = {item.key: item for item in found(f"s3://{bucket}/in")[0]}
    lines = io.StringIO()
    writer = csv.writer(lines, quoting=csv.QUOTE_ALL)
    for key, data in written.items():
        item = by_key[key.removeprefix("in/")]
        time = dt.datetime.fromtimestamp(item.mtime_ns / 1e9, dt.UTC).isoformat()
        writer.writerow([bucket, quote_plus(key), str(len(data)), time, item.etag])
    obstore.put(store, "inv/data/1.csv.gz", gzip.compress(lines.getvalue().encode()))
    manifest = {
        "sourceBucket": bucket,
        "destinationBucket": f"arn:aws:s3:::{bucket}",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, LastModifiedDate, ETag",
        "files": [{"key": "inv/data/1.csv.gz"}],
    }
    obstore.put(store, "inv/manifest.json", json.dumps(manifest).encode())
    source, archive, listing = (f"s3://{bucket}/{name}" for name in ("in", "arc", "inv/manifest.json"))
    before = len(proxy.log)
    assert run(source, archive, listing=listing).images == 12
    asked = [query for _, _, query, _ in proxy.log[before:] if "list-type" in query]
    assert not [query for query in asked if "prefix=in" in query]
    assert set(Archive.open(archive)) == set(by_key)
    assert run(source, archive).images == 0  # a real listing finds nothing new
    with pytest.raises(SourceNotFound):
        run(source, archive, listing=f"s3://{bucket}/inv/none.json")
    with pytest.MonkeyPatch.context() as wrong:
        wrong.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(SourceUnreadable, match=r"\(SignatureDoesNotMatch\)\. The secret"):
            run(source, archive, listing=listing)
    obstore.delete(store, "inv/data/1.csv.gz")
    with pytest.raises((SourceNotFound, SourceUnreadable), match=r"1\.csv\.gz"):
        run(source, archive, listing=listing)
