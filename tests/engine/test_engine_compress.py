import io
import json
import os
import signal
import sys

import pyarrow.parquet as pq
import pytest
from engine_fakes import BrokenSetup, FakeSettings, fill

from recbatch import archive as archives
from recbatch.archive import Archive
from recbatch.engine import compress, errors, events, feed
from recbatch.engine.cluster_errors import ClusterAddressUnusable, ClusterUnreachable
from recbatch.engine.driver import Tuning
from recbatch.errors import UsageError


def rows(path):
    return {record.key: record for record in Archive.open(str(path)).records()}


def test_a_folder_becomes_rows_with_the_files_bytes(tmp_path, quick_compress):
    written = fill(tmp_path / "in", ["a.png", "b/c d.JPG", "b/é.webp", "notes.txt"])
    del written["notes.txt"]
    os.utime(tmp_path / "in/a.png", ns=(1, 1_700_000_000_123_456_789))
    report = quick_compress(tmp_path / "in")
    assert (report.images, report.quarantined, report.skipped, report.exit_status) == (3, 0, 1, 0)
    assert (report.bytes_in, report.bytes_out, report.pixels) == (300, 300, 24)
    found = rows(tmp_path / "archive")
    assert {key: record.stream for key, record in found.items()} == written
    record = found["a.png"]
    assert (record.status, record.source_size, record.shard) == ("ok", 100, "000000")
    assert record.source_mtime == 1_700_000_000_123_456_789
    assert record.source_uri == (tmp_path / "in/a.png").as_uri()
    assert record.recbatch_version
    assert record.encode_ms is not None


def test_the_same_command_again_does_only_what_is_missing(tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png", "b.png", "c-bad.png"])
    first = quick_compress(tmp_path / "in")
    again = quick_compress(tmp_path / "in")
    assert (again.images, again.known, again.version) == (0, 3, first.version)
    assert again.exit_status == 0

    (tmp_path / "in/b.png").write_bytes(b"other bytes")
    fill(tmp_path / "in", ["d.png"])
    third = quick_compress(tmp_path / "in")
    assert (third.images, third.known) == (2, 2)
    assert rows(tmp_path / "archive")["b.png"].stream == b"other bytes"
    assert sorted(Archive.open(str(tmp_path / "archive"))) == ["a.png", "b.png", "c-bad.png", "d.png"]


def test_bad_images_are_rows_and_are_retried_only_when_asked(tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png", "b-bad.png", "c-raise.png"])
    told = []
    report = quick_compress(tmp_path / "in", progress=told.append)
    assert (report.images, report.quarantined, report.exit_status) == (1, 2, 1)
    found = rows(tmp_path / "archive")
    assert (found["b-bad.png"].status, found["b-bad.png"].error_code) == ("quarantined", "bad-fake")
    assert found["b-bad.png"].error == "b-bad.png: it is called bad. Call it something else."
    assert found["c-raise.png"].error_code == "internal"
    assert "ValueError: a bug" in found["c-raise.png"].error
    assert {event.key for event in told if isinstance(event, events.ImageQuarantined)} == {
        "b-bad.png",
        "c-raise.png",
    }
    assert quick_compress(tmp_path / "in").quarantined == 0
    for _ in range(2):  # a second try must not be taken for a replay of the first
        again = quick_compress(tmp_path / "in", retry_quarantined=True)
        assert (again.images, again.quarantined, again.known) == (0, 2, 1)
    assert len(Archive.open(str(tmp_path / "archive"))) == 3


def test_a_mended_image_replaces_its_quarantined_row(tmp_path, quick_compress):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.png").symlink_to("target")
    assert quick_compress(tmp_path / "in").quarantined == 1
    assert rows(tmp_path / "archive")["x.png"].error_code == "broken-link"
    assert quick_compress(tmp_path / "in").known == 1
    (tmp_path / "in/target").write_bytes(b"here now")
    assert quick_compress(tmp_path / "in").images == 1
    record = rows(tmp_path / "archive")["x.png"]
    assert (record.status, record.stream) == ("ok", b"here now")


def test_a_dry_run_writes_nothing(tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png", "b.png"])
    report = quick_compress(tmp_path / "in", dry_run=True)
    assert (report.images, report.bytes_in, report.dry_run) == (2, 200, True)
    assert not (tmp_path / "archive").exists()


def test_events_and_report_tell_the_same(tmp_path, quick_compress):
    fill(tmp_path / "in", [f"{number}.png" for number in range(10)])
    told = []
    tuning = Tuning(poll_s=0.01, commit_shards=2, commit_s=60, commit_rest=0)
    report = quick_compress(tmp_path / "in", shard_bytes=200, progress=told.append, tuning=tuning)
    planned = next(event for event in told if isinstance(event, events.Planned))
    assert (planned.images, planned.shards, planned.bytes) == (10, 5, 1000)
    done = [event for event in told if isinstance(event, events.ShardDone)]
    commits = [event for event in told if isinstance(event, events.Committed)]
    assert (
        sum(event.images for event in done) == sum(event.images for event in commits) == report.images == 10
    )
    assert [event.shards for event in commits] == [2, 2, 1]
    assert isinstance(told[-1], events.Finished)
    assert told[-1].report == report
    assert set(report.stages) == {"read", "encode", "write", "commit"}
    assert json.loads(json.dumps(report.to_dict()))["exit_status"] == 0
    assert report.peak_rss_bytes > 0


def test_plan_and_report_lie_in_the_archive(tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png", "b.png"])
    report = quick_compress(tmp_path / "in")
    archive = Archive.open(str(tmp_path / "archive"))
    (plan,) = archive.objects("plans")
    table = pq.read_table(io.BytesIO(archive.object(f"plans/{plan}")))
    assert table.column("key").to_pylist() == ["a.png", "b.png"]
    assert table.schema.metadata[b"recbatch.plan"].decode() == report.plan
    (job,) = archive.objects("jobs")
    assert json.loads(archive.object(f"jobs/{job}"))["images"] == 2


def test_bad_calls_are_refused_before_anything_is_made(tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png"])
    for options in ({"workers": 0}, {"shard_bytes": 0}, {"executor": "magic"}):
        with pytest.raises(UsageError):
            quick_compress(tmp_path / "in", **options)
    with pytest.raises(errors.SourceNotFound):
        quick_compress(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.SourceEmpty):
        quick_compress(tmp_path / "empty")
    assert not (tmp_path / "archive").exists()
    with pytest.raises(UsageError, match="the same place"):
        quick_compress(tmp_path / "in", tmp_path / "in")
    fill(tmp_path / "other", ["a.png"])
    with pytest.raises(archives.NotAnArchive):
        quick_compress(tmp_path / "in", tmp_path / "other")
    assert os.listdir(tmp_path / "other") == ["a.png"]


@pytest.mark.parametrize(
    ("address", "error"), [("127.0.0.1:1", ClusterUnreachable), ("nonsense", ClusterAddressUnusable)]
)
def test_a_cluster_that_is_not_there_is_told_before_an_archive_is_made(tmp_path, monkeypatch, address, error):
    fill(tmp_path / "in", ["a.png"])
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.delitem(sys.modules, "ray", raising=False)  # another test's may be connected
    with pytest.raises(error):
        compress(str(tmp_path / "in"), str(tmp_path / "archive"), settings=FakeSettings())
    assert not (tmp_path / "archive").exists()


def test_an_unknown_model_is_named_before_anything_is_encoded(tmp_path):
    codec = pytest.importorskip("recbatch.codec")
    fill(tmp_path / "in", ["a.png"])
    with pytest.raises(UsageError, match="no-such-model"):
        compress(
            str(tmp_path / "in"),
            str(tmp_path / "archive"),
            settings=codec.Settings(model="no-such-model"),
            executor="inline",
        )
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize(("how", "error"), [("ours", BrokenSetup), ("import", errors.WorkerSetupFailed)])
def test_a_worker_that_cant_start_says_why(tmp_path, quick_compress, how, error):
    fill(tmp_path / "in", ["a.png"])
    with pytest.raises(error, match=r"as asked|a_module_that_is_not_there"):
        quick_compress(tmp_path / "in", settings=FakeSettings(fail_setup=how))


def test_a_full_disk_ends_the_job_and_keeps_what_was_committed(tmp_path, quick_compress, monkeypatch):
    fill(tmp_path / "in", [f"{number}.png" for number in range(6)])
    real, calls = Archive.write_file, []

    def write_file(self, records, *, stem):
        calls.append(stem)
        if len(calls) == 3:
            raise archives.StoreFull(self.url)
        return real(self, records, stem=stem)

    monkeypatch.setattr(Archive, "write_file", write_file)
    with pytest.raises(archives.StoreFull):
        quick_compress(tmp_path / "in", shard_bytes=100)
    assert len(Archive.open(str(tmp_path / "archive"))) == 2
    report = quick_compress(tmp_path / "in", shard_bytes=100)
    assert (report.images, report.known) == (4, 2)


def test_a_data_file_that_is_lost_before_its_commit_is_written_again(tmp_path, quick_compress, monkeypatch):
    fill(tmp_path / "in", ["a.png", "b.png"])
    real, lost = Archive.write_file, []

    def write_file(self, records, *, stem):
        file = real(self, records, stem=stem)
        if not lost:
            lost.append(file.path)
            os.unlink(os.path.join(self.url, file.path))
        return file

    monkeypatch.setattr(Archive, "write_file", write_file)
    report = quick_compress(tmp_path / "in", shard_bytes=100)
    assert report.images == 2
    assert sorted(rows(tmp_path / "archive")) == ["a.png", "b.png"]


def test_a_later_run_fences_an_earlier_one_out(tmp_path, quick_compress):
    fill(tmp_path / "in", [f"{number}.png" for number in range(4)])
    inner = []

    def progress(event):
        if isinstance(event, events.ShardDone) and not inner:
            inner.append(quick_compress(tmp_path / "in"))  # another driver, at the worst moment

    with pytest.raises(archives.Superseded):
        quick_compress(tmp_path / "in", shard_bytes=100, progress=progress)
    assert inner[0].images == 4
    assert len(rows(tmp_path / "archive")) == len(Archive.open(str(tmp_path / "archive"))) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_commits_what_is_finished_and_the_next_run_goes_on(tmp_path, quick_compress, number):
    fill(tmp_path / "in", [f"{number}.png" for number in range(6)])
    before = signal.getsignal(number)

    def progress(event):
        if isinstance(event, events.ShardDone) and event.shard == "000001":
            signal.raise_signal(number)

    report = quick_compress(tmp_path / "in", shard_bytes=100, progress=progress)
    assert report.interrupted
    assert report.exit_status == 130
    assert report.images == 2
    assert signal.getsignal(number) == before
    again = quick_compress(tmp_path / "in", shard_bytes=100)
    assert (again.images, again.known, again.exit_status) == (4, 2, 0)


def test_a_second_signal_is_obeyed_at_once(tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png"])

    def progress(event):
        if isinstance(event, events.ShardDone):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        quick_compress(tmp_path / "in", progress=progress)


def test_the_source_as_it_was_read_is_what_the_row_tells(tmp_path, quick_compress, monkeypatch):
    fill(tmp_path / "in", ["a.png"])
    real = feed.read_item

    def read_item(item):
        (tmp_path / "in/a.png").write_bytes(b"changed since it was listed")
        return real(item)

    monkeypatch.setattr(feed, "read_item", read_item)
    quick_compress(tmp_path / "in")
    monkeypatch.undo()
    record = rows(tmp_path / "archive")["a.png"]
    assert (record.stream, record.source_size) == (b"changed since it was listed", 27)
    assert quick_compress(tmp_path / "in").known == 1


def test_folders_that_cant_be_listed_are_told_and_set_the_exit_status(tmp_path, quick_compress, monkeypatch):
    fill(tmp_path / "in", ["a.png", "locked/b.png"])
    real = os.scandir

    def scandir(path):
        if isinstance(path, bytes) and path.endswith(b"locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = quick_compress(tmp_path / "in")
    assert (report.images, report.exit_status) == (1, 1)
    assert "locked" in report.problems[0]
