"""Where the rows to be coded again come from: sources that changed, vanished, moved, or lie behind a URL."""

import os

import pytest
from engine_fakes import fill
from hypothesis import given
from hypothesis import strategies as st
from recompress_fakes import STAMP, StampSettings, stamped
from recompress_steps import again, all_stamped, streams

from recbatch.archive import Archive
from recbatch.engine import compress
from recbatch.engine.recompress_plan import BadMove, Move, parse_move
from recbatch.errors import UsageError


def test_a_source_that_is_gone_or_another_file_now_keeps_its_row_unless_told_otherwise(place):
    folder, written = place
    (folder / "in/0.png").unlink()
    changed = fill(folder / "other", ["1.png"], size=101)["1.png"]
    (folder / "in/1.png").write_bytes(changed)
    (folder / "in/2.png").write_bytes(written["5.png"])  # the same size
    os.utime(folder / "in/3.png", ns=(1, 1))  # the same bytes
    outlook = again(folder, dry_run=True)
    assert (outlook.images, outlook.quarantined, outlook.dry_run) == (4, 2, True)
    assert {code for _, code, _ in outlook.failures} == {"source-vanished", "source-differs"}
    assert outlook.bytes_in == 400
    report = again(folder)
    assert {key: code for key, code, _ in report.failures} == {
        "0.png": "source-vanished",
        "1.png": "source-differs",
        "2.png": "source-differs",
    }
    assert streams(folder) == all_stamped(written, "two", **{"0": "one", "1": "one", "2": "one"})
    report = again(folder, changed="take")
    assert (report.images, report.quarantined, report.known) == (2, 1, 3)
    assert streams(folder)["1.png"] == stamped("two", changed)
    row = Archive.open(str(folder / "archive"))["1.png"]
    assert row.source_size == 101


def test_sources_behind_a_url_are_looked_at_and_read(tmp_path):
    import fsspec

    bucket = f"memory://{tmp_path.name}"
    files = {f"{name} %41.png": name.encode() * 50 for name in "abc"}
    for name, data in files.items():
        fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{name}", data)
    archive = str(tmp_path / "archive")
    compress(bucket, archive, settings=StampSettings(), executor="inline", codec_factory=STAMP)
    fsspec.filesystem("memory").rm_file(f"/{tmp_path.name}/a %41.png")
    outlook = again(tmp_path, dry_run=True)
    assert (outlook.images, [failure[:2] for failure in outlook.failures]) == (
        2,
        [("a %41.png", "source-vanished")],
    )
    assert again(tmp_path).images == 2
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    uri = Archive.open(archive)["a %41.png"].source_uri
    assert again(tmp_path, sources_moved=[f"{uri.rpartition('/')[0]}={tmp_path / 'in'}"]).images == 1
    assert streams(tmp_path) == {name: stamped("two", data) for name, data in files.items()}


def test_sources_that_moved_are_read_where_they_are(place):
    folder, _ = place
    (folder / "in").rename(folder / "new home %41")
    move = f"{folder / 'in'}={folder / 'new home %41'}"
    assert again(folder).quarantined == 6
    report = again(folder, sources_moved=[move])
    assert (report.images, report.quarantined) == (6, 0)
    assert Archive.open(str(folder / "archive"))["0.png"].source_uri.endswith("/new%20home%20%2541/0.png")
    assert again(folder, sources_moved=[move]).known == 6
    with pytest.raises(UsageError, match="No row"):
        again(folder, stamp="three", sources_moved=["/nowhere=/else"])


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20))
def test_a_move_between_folders_and_buckets_keeps_names(name):
    from recbatch.engine.source import file_uri

    there = Move(old=file_uri(b"/old"), new="s3://bucket/new")
    back = Move(old="s3://bucket/new", new=file_uri(b"/old"))
    uri = (
        file_uri(b"/old") + "/" + file_uri(b"/" + name.encode()).removeprefix("file:///")
        if "/" not in name
        else None
    )
    if uri is not None and name not in (".", ".."):
        assert there.apply(uri) == f"s3://bucket/new/{name}"
        assert back.apply(f"s3://bucket/new/{name}") == uri
    assert there.apply("file:///older/x") is None


def test_a_move_needs_two_places():
    for text in ("/a", "=/b", "/a=", "="):
        with pytest.raises(BadMove):
            parse_move(text)
    assert parse_move("s3://a/b/=/c").old == "s3://a/b"
