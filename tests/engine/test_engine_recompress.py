"""Rows coded again: the new one in the old one's place, and never a bad one for a good one."""

import signal

import pytest
from engine_fakes import fill
from recompress_fakes import STAMP, StampSettings
from recompress_steps import again, all_stamped, streams

from recbatch import archive as archives
from recbatch.archive import Archive, verify, versions
from recbatch.engine import compress, errors, events, feed
from recbatch.engine.runs import read_runs
from recbatch.errors import UsageError


def test_rows_are_coded_again_from_their_sources_and_the_old_version_stays(place):
    folder, written = place
    before = Archive.open(str(folder / "archive"))
    rows = {row.key: row for row in before.records()}
    report = again(folder)
    assert (report.kind, report.images, report.replaces, report.known) == ("recompress", 6, 6, 0)
    assert (report.exit_status, report.bytes_in) == (0, 600)
    assert streams(folder) == all_stamped(written, "two")
    assert streams(folder, before.version) == all_stamped(written, "one")
    for row in Archive.open(str(folder / "archive")).records():
        for name in ("source_uri", "source_size", "source_mtime", "source_sha256"):
            assert getattr(row, name) == getattr(rows[row.key], name)
    assert versions(before)[0].replaced == 6
    assert verify(before).ok
    (run,) = (
        run for run in read_runs(before) if run.job == "recompress"
    )  # both began within a second, perhaps
    assert (run.state, run.archived, run.settings["stamp"]) == ("finished", 6, "two")


def test_rows_that_have_the_settings_are_left_alone(place):
    folder, _ = place
    again(folder, where="key < '2'")
    report = again(folder)
    assert (report.images, report.known) == (4, 2)
    version = Archive.open(str(folder / "archive")).version
    report = again(folder)
    assert (report.images, report.known, report.version) == (0, 6, version)
    assert again(folder, stamp="one").images == 6
    assert (
        compress(
            str(folder / "in"), str(folder / "archive"), settings=StampSettings(), executor="inline"
        ).known
        == 6
    )


def test_where_chooses_rows_and_a_quarantined_one_is_not_tried(place):
    folder, written = place
    fill(folder / "in", ["bad.png"])
    settings = StampSettings(bad="bad")
    compress(
        str(folder / "in"), str(folder / "archive"), settings=settings, executor="inline", codec_factory=STAMP
    )
    report = again(folder, where="key >= '4'")
    assert (report.images, report.skipped, report.exit_status) == (2, 1, 0)
    found = streams(folder)
    assert found.pop("bad.png") is None
    assert found == all_stamped(written, "one", **{"4": "two", "5": "two"})


def test_what_fails_keeps_its_row_and_is_told(place):
    folder, written = place
    told = []
    report = again(folder, bad="3", progress=told.append)
    assert (report.images, report.quarantined, report.exit_status) == (5, 1, 1)
    assert report.failures[0][:2] == ("3.png", "bad-fake")
    assert [event.key for event in told if isinstance(event, events.ImageQuarantined)] == ["3.png"]
    assert streams(folder) == all_stamped(written, "two", **{"3": "one"})
    assert {row.status for row in Archive.open(str(folder / "archive")).records(["status"])} == {"ok"}


def test_where_all_fail_nothing_is_committed(place):
    folder, written = place
    report = again(folder, bad="png")
    assert (report.images, report.quarantined) == (0, 6)
    assert streams(folder) == all_stamped(written, "one")


def test_what_no_worker_can_do_keeps_its_row(place, monkeypatch):
    folder, written = place
    real = feed.read_item

    def read_item(item):
        if item.key == "2.png":
            raise errors.SourceUnreadable(item.uri, "no answer")
        return real(item)

    monkeypatch.setattr(feed, "read_item", read_item)
    report = again(folder)
    assert (report.images, report.quarantined) == (5, 1)
    assert report.failures[0][:2] == ("2.png", "unreadable-file")
    assert streams(folder) == all_stamped(written, "two", **{"2": "one"})


@pytest.mark.long
def test_an_image_that_kills_its_worker_keeps_its_row(place):
    folder, written = place
    report = again(folder, kill="2", executor="processes", workers=1)
    assert (report.images, report.quarantined) == (5, 1)
    assert report.failures[0][:2] == ("2.png", "poison-image")
    assert streams(folder) == all_stamped(written, "two", **{"2": "one"})


def test_lossy_rows_of_the_archive_are_not_coded_again_by_themselves(place):
    folder, written = place
    report = again(folder, from_archive=True)
    assert (report.images, report.quarantined) == (0, 6)
    assert {code for _, code, _ in report.failures} == {"generation-loss"}
    assert streams(folder) == all_stamped(written, "one")


def test_a_dry_run_writes_nothing(place):
    folder, _ = place
    version = Archive.open(str(folder / "archive")).version
    report = again(folder, dry_run=True)
    assert (report.images, report.bytes_in, report.exit_status, report.version) == (6, 600, 0, version)
    assert Archive.open(str(folder / "archive")).version == version


def test_wrong_calls_are_refused_before_any_work(place):
    folder, _ = place
    for options in (
        {"changed": "perhaps"},
        {"lossy_again": True},
        {"from_archive": True, "changed": "take"},
        {"workers": 0},
    ):
        with pytest.raises(UsageError):
            again(folder, **options)
    with pytest.raises(archives.InvalidFilter):
        again(folder, where="nonsense >")


def test_a_signal_commits_what_is_finished_and_the_next_run_goes_on(place):
    folder, written = place

    def progress(event):
        if isinstance(event, events.ShardDone) and event.shard == "000001":
            signal.raise_signal(signal.SIGTERM)

    report = again(folder, shard_bytes=100, progress=progress)
    assert (report.interrupted, report.exit_status, report.images) == (True, 130, 2)
    report = again(folder)
    assert (report.images, report.known) == (4, 2)
    assert streams(folder) == all_stamped(written, "two")
