from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_helpers import flip, image, noise, quarantined
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction

from recbatch.archive import TABLE, Archive, CorruptArchive, DecoderNeeded, Finding, Record, verify
from recbatch.archive.verify import check_record, in_sample
from recbatch.errors import CorruptStream

Add = Callable[..., str]


def codes(archive: Archive, level: str = "digests") -> list[tuple[str, str | None]]:
    report = verify(archive, level=level)
    assert report.exit_status == bool(report.findings)
    for finding in report.findings:
        assert "\n" not in finding.problem
    return [(finding.code, finding.key) for finding in report.findings]


def log_file(archive: Archive, path: str, rows: int, low: str, high: str) -> None:
    """Commit a file the way another writer would: behind recbatch's back."""
    statistics = {"numRecords": rows, "minValues": {"key": low}, "maxValues": {"key": high}}
    size = Path(archive.url, path).stat().st_size
    action = AddAction(path, size, {}, 1, True, json.dumps(statistics))
    DeltaTable(archive.url).create_write_transaction([action], "append", Schema.from_arrow(TABLE), [])
    archive.refresh()


@pytest.mark.parametrize("level", ["structure", "digests"])
def test_a_sound_archive_has_no_findings_and_the_counts_say_what_was_checked(
    archive: Archive, add: Add, level: str
) -> None:
    add(image("a"), image("b"), quarantined("q"))
    add(image("c", 60_000))
    report = verify(archive, level=level)
    assert report.ok
    assert (report.files, report.files_checked, report.rows, report.rows_checked) == (2, 2, 4, 4)
    assert report.streams_checked == (3 if level == "digests" else 0)
    assert (report.bytes_checked > 61_000) == (level == "digests")
    assert report.bytes_checked > 0
    assert report.mb_per_s > 0
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_an_empty_archive_is_sound(archive: Archive) -> None:
    assert verify(archive).ok


def test_progress_is_told_after_each_file(archive: Archive, add: Add) -> None:
    add(image("a"))
    add(image("b"))
    told: list[tuple[int, int, int]] = []
    verify(archive, progress=lambda now: told.append((now.files, now.files_total, now.rows)))
    assert told == [(1, 2, 1), (2, 2, 2)]


def test_a_missing_file_is_found(archive: Archive, add: Add) -> None:
    path = add(image("a"))
    add(image("b"))
    Path(archive.url, path).unlink()
    for level in ("structure", "digests"):
        report = verify(archive, level=level)
        assert [(finding.code, finding.file) for finding in report.findings] == [("missing-file", path)]
        assert report.rows_checked == 1
    with pytest.raises(CorruptArchive, match=path):
        archive["a"]
    with pytest.raises(CorruptArchive, match="missing"):
        list(archive)


@pytest.mark.parametrize("kept", [0, 3, 200, -1])
def test_a_truncated_file_is_found(archive: Archive, add: Add, kept: int) -> None:
    path = add(image("a"))
    file = Path(archive.url, path)
    file.write_bytes(file.read_bytes()[:kept])
    assert codes(archive, "structure")[:2] == [("truncated-file", None), ("unreadable-file", None)]
    with pytest.raises(CorruptArchive, match=path):
        archive["a"]


def test_a_grown_file_is_found(archive: Archive, add: Add) -> None:
    file = Path(archive.url, add(image("a")))
    file.write_bytes(b"PAR1" + file.read_bytes())
    assert codes(archive, "structure")[0] == ("grown-file", None)


def test_a_foreign_file_is_found(archive: Archive) -> None:
    pq.write_table(pa.table({"key": ["a"], "picture": [b"x"]}), Path(archive.url, "other.parquet"))
    log_file(archive, "other.parquet", 1, "a", "a")
    (finding,) = verify(archive, level="structure").findings
    assert (finding.code, finding.file) == ("foreign-file", "other.parquet")
    assert "column status is missing" in finding.problem


def test_a_wrong_row_count_and_a_wrong_key_range_are_found(archive: Archive) -> None:
    file = archive.write_file([image("a"), image("b"), image("c")], stem="s")
    log_file(archive, file.path, 4, "a", "b")
    assert codes(archive, "structure") == [("wrong-row-count", None), ("misplaced-key", "c")]


def test_keys_that_stand_twice_are_found_across_files_and_within_one(archive: Archive, add: Add) -> None:
    add(image("a"), image("m"), image("z"))
    file = archive.write_file([image("b"), image("m", state="other")], stem="s")
    log_file(archive, file.path, 2, "b", "m")
    assert codes(archive, "structure") == [("duplicate-key", "m")]
    double = pa.concat_tables([pq.read_table(Path(archive.url, file.path)).slice(0, 1)] * 2)
    pq.write_table(double, Path(archive.url, "double.parquet"))
    log_file(archive, "double.parquet", 2, "b", "b")
    assert codes(archive, "structure") == [("duplicate-key", "b")] * 2 + [("duplicate-key", "m")] or codes(
        archive, "structure"
    ) == [("duplicate-key", "b"), ("duplicate-key", "m"), ("duplicate-key", "b")]


def test_bit_rot_in_a_stream_names_its_image_and_no_other(archive: Archive, add: Add) -> None:
    file = Path(archive.url, add(image("a", 5000), image("b", 5000), image("c", 5000)))
    flip(file, file.read_bytes().index(image("b", 5000).stream or b"") + 77)
    assert codes(archive, "structure") == []
    assert codes(archive) == [("wrong-digest", "b")]
    assert verify(archive).rows_checked == 3
    with pytest.raises(CorruptArchive, match="can't be read"):
        archive["b"]


def test_bit_rot_in_any_other_column_is_found_by_the_pages_checksums(archive: Archive, add: Add) -> None:
    file = Path(archive.url, add(*(image(f"{number:03}") for number in range(50))))
    column = next(
        chunk
        for chunk in (pq.ParquetFile(file).metadata.row_group(0).column(place) for place in range(len(TABLE)))
        if chunk.path_in_schema == "stream_sha256"
    )
    flip(file, column.data_page_offset + column.total_compressed_size - 5)
    (finding,) = verify(archive).findings
    assert (finding.code, finding.file) == ("unreadable-rows", file.name)
    assert "'000'" in finding.problem
    assert "stream_sha256" in finding.problem


def test_keys_that_can_not_be_read_are_one_finding_that_says_how_many(archive: Archive, add: Add) -> None:
    file = Path(archive.url, add(*(image(f"{number:03}") for number in range(50))))
    group = pq.ParquetFile(file).metadata.row_group(0)
    (column,) = (c for c in map(group.column, range(len(TABLE))) if c.path_in_schema == "key")
    flip(file, column.data_page_offset + column.total_compressed_size - 5)
    report = verify(archive)
    assert [(finding.code, finding.file) for finding in report.findings] == [("unreadable-keys", file.name)]
    assert "50 rows from '000' to '049'" in report.findings[0].problem
    assert report.damaged_streams == ()


def test_damage_of_one_row_group_does_not_hide_the_others(archive: Archive, add: Add) -> None:
    file = Path(archive.url, add(*(image(f"{number:03}", 60_000) for number in range(120))))
    for key in ("003", "110"):
        flip(file, file.read_bytes().index(image(key, 60_000).stream or b"") + 9)
    report = verify(archive)
    assert [(finding.code, finding.key) for finding in report.findings] == [
        ("wrong-digest", "003"),
        ("wrong-digest", "110"),
    ]


def test_every_flipped_byte_class_is_noticed(archive: Archive, add: Add) -> None:
    """Header, pages, footer: a flip anywhere in what is read is found, and never taken for a sound archive."""
    file = Path(archive.url, add(*(image(f"{number:03}", 300) for number in range(40))))
    sound = file.read_bytes()
    missed = []
    for offset in [*range(4, len(sound), 997), len(sound) - 6, len(sound) - 2]:
        flip(file, offset)
        try:
            if verify(archive).ok:
                missed.append(offset)
        finally:
            file.write_bytes(sound)
    # page headers and the footer carry no checksum; what a flip there changes may be without effect
    for offset in missed:
        flip(file, offset)
        assert {record.key: record.stream for record in archive.records()} == {
            f"{number:03}": image(f"{number:03}", 300).stream for number in range(40)
        }
        file.write_bytes(sound)
    assert len(missed) < 6


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (Record(key="a", status="quarantined"), "no-error-code"),
        (Record(key="a", status="odd"), "unknown-status"),
        (Record(key="a"), "missing-stream"),
        (Record(key="a", stream=b"x", stream_size=2), "wrong-stream-size"),
        (Record(key="a", stream=b"x", stream_sha256=b"0" * 32), "wrong-digest"),
    ],
)
def test_a_row_is_judged_by_what_it_says_of_itself(record: Record, code: str) -> None:
    finding = check_record(record)
    assert finding is not None
    assert (finding.code, finding.key) == (code, "a")


def test_a_sample_is_the_same_each_time_and_about_its_share(archive: Archive, add: Add) -> None:
    keys = [f"k{number}" for number in range(400)]
    chosen = {key for key in keys if in_sample(key, 0.25)}
    assert 60 <= len(chosen) <= 140
    assert chosen < {key for key in keys if in_sample(key, 0.5)}
    add(*(image(key, 20) for key in keys))
    seen: list[str] = []
    report = verify(archive, level="pixels", sample=0.25, decoder=lambda record: seen.append(record.key))
    assert set(seen) == chosen
    assert report.rows_checked == report.streams_decoded == len(chosen)


def test_a_small_archive_is_never_sampled_down_to_nothing(archive: Archive, add: Add) -> None:
    add(image("a"), image("b"))
    report = verify(archive, sample=1e-9)
    assert report.ok
    assert report.rows_checked == 2


def test_a_verification_that_checked_nothing_fails(
    archive: Archive, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["recbatch.archive.verify"], "LEAST_SAMPLED", 0)
    add(image("a"))
    report = verify(archive, sample=1e-9)
    assert [finding.code for finding in report.findings] == ["nothing-checked"]
    assert report.exit_status == 1
    assert verify(archive, level="structure", sample=1e-9).ok  # the structure is always checked whole


def test_weights_that_rows_need_and_that_are_gone_are_found_at_every_level(
    archive: Archive, add: Add
) -> None:
    add(replace(image("a"), model="0123abcd" * 8))
    for level in ("structure", "digests"):
        findings = verify(archive, level=level).findings
        assert [finding.code for finding in findings] == ["missing-model"]
        assert "0123abcd" in findings[0].problem


def test_pixels_are_judged_by_the_decoder_that_is_handed_over(archive: Archive, add: Add) -> None:
    add(*(image(key) for key in "abcd"), quarantined("q"))

    def decoder(record: Record) -> Finding | None:
        assert record.stream == image(record.key).stream
        if record.key == "b":
            return Finding(code="psnr-fell", problem="it fell", key="b")
        if record.key == "c":
            raise CorruptStream("bad magic", 0)
        if record.key == "d":
            raise IndexError("a decoder's own mistake")
        return None

    report = verify(archive, level="pixels", decoder=decoder)
    assert [(finding.code, finding.key) for finding in report.findings] == [
        ("psnr-fell", "b"),
        ("corrupt-stream", "c"),
        ("decoder-failed", "d"),
    ]
    assert all(finding.file for finding in report.findings)
    assert report.streams_decoded == 4


def test_pixels_without_a_decoder_and_odd_arguments_are_refused(archive: Archive) -> None:
    with pytest.raises(DecoderNeeded):
        verify(archive, level="pixels")
    with pytest.raises(ValueError, match="level"):
        verify(archive, level="everything")  # type: ignore[arg-type]
    for share in (0, -0.1, 1.5):
        with pytest.raises(ValueError, match="sample"):
            verify(archive, sample=share)


def test_a_damaged_model_is_found(archive: Archive, add: Add) -> None:
    add(image("a"))
    weights = noise("weights", 1000)
    digest = hashlib.sha256(weights).hexdigest()
    archive.put_model(digest, weights)
    assert verify(archive).models_checked == 1
    flip(Path(archive.url, "_recbatch", "models", f"{digest}.safetensors"), 500)
    assert codes(archive) == [("wrong-model-digest", None)]


def test_verifying_writes_nothing(archive: Archive, add: Add) -> None:
    add(image("a"))

    def state() -> list[tuple[str, int, int]]:
        return sorted(
            (
                os.path.join(folder, name),
                os.stat(os.path.join(folder, name)).st_size,
                os.stat(os.path.join(folder, name)).st_mtime_ns,
            )
            for folder, _, names in os.walk(archive.url)
            for name in names
        )

    before = state()
    verify(archive)
    assert state() == before
