"""Progress: what the events add up to, and where it is shown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from recbatch.archive.verify import Checked
from recbatch.cli.display import WARNINGS_SHOWN, Progress, Tally, VerifyProgress, stopping_line
from recbatch.cli.report import report_lines
from recbatch.engine import Report, events
from recbatch.engine.driver import Tuning

PLANNED = events.Planned(images=10, bytes=4_000_000, shards=2, known=3, skipped=1, workers=2)
READY = events.WorkersReady(workers=2, seconds=1.0)
DONE = events.ShardDone(
    shard="000000",
    images=4,
    quarantined=1,
    bytes_in=2_000_000,
    bytes_out=500_000,
    pixels=5_000_000,
    seconds=2.0,
)
BAD = events.ImageQuarantined(key="a/b.png", code="not-an-image", error="The file is no image. Look at it.")


def test_rate_time_left_and_savings_come_from_the_finished_shards() -> None:
    tally = Tally(started_s=0.0)
    tally.update(PLANNED, now_s=1.0)
    assert tally.facts(5.0, restoring=False) == ["starting"]
    tally.update(READY, now_s=10.0)
    tally.update(DONE, now_s=12.0)
    assert tally.rate(12.0) == pytest.approx(2.5)  # start-up does not count
    # 2 of 4 MB in two seconds, and the bad image counts as one of middle size
    assert tally.eta_s(12.0) == pytest.approx(2.0 * 1.6 / 2.4)
    assert tally.facts(12.0, restoring=False) == [
        "2.5 images/s",
        "1.3 s left",
        "1.50 MB saved (75%)",
        "1 quarantined",
    ]
    assert "500 kB written" in tally.facts(12.0, restoring=True)


def test_images_of_unfinished_shards_count_before_their_shard_is_done() -> None:
    tally = Tally(started_s=0.0)
    for event in (PLANNED, READY, events.Working(images=3, bytes_in=1_200_000, bytes_out=300_000)):
        tally.update(event, now_s=10.0)
    assert tally.facts(13.0, restoring=False) == ["1.0 images/s", "7.0 s left", "900 kB saved (75%)"]
    tally.update(events.Working(), now_s=14.0)
    assert tally.facts(14.0, restoring=False) == ["starting"]
    tally.update(DONE, now_s=14.0)
    assert "left" in " ".join(tally.facts(14.0, restoring=False))
    tally.update(events.Finished(report=Report(interrupted=True)), now_s=15.0)
    assert "left" not in " ".join(tally.facts(15.0, restoring=False))
    assert (tally.images, tally.bytes) == (5, (2_000_000, 500_000))


def test_without_a_terminal_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("compress") as progress:
        for event in (PLANNED, READY, BAD, DONE):
            progress.event(event)
        line = progress.screen.line()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "10 images, 4.00 MB, in 2 shards; 3 archived already; 1 other file skipped",
        "quarantined [not-an-image] a/b.png: The file is no image. Look at it.",
    ]
    assert line.startswith("compress: 5 of 10 images, ")
    assert "saved" in line


def test_a_flood_of_quarantined_images_is_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("compress") as progress:
        for i in range(WARNINGS_SHOWN + 20):
            progress.event(replace(BAD, key=f"{i}.png", error=f"{i}.png: broken. Look at it."))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == WARNINGS_SHOWN + 1
    assert lines[0] == "quarantined [not-an-image] 0.png: broken. Look at it."


def test_json_events_go_to_standard_output_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("compress", as_json=True) as progress:
        for event in (PLANNED, READY, BAD, DONE, events.Finished(report=Report())):
            progress.event(event)
    captured = capsys.readouterr()
    found = [json.loads(line) for line in captured.out.splitlines()]
    assert [event["event"] for event in found] == [
        "planned",
        "workers-ready",
        "image-quarantined",
        "shard-done",
    ]
    assert found[2]["key"] == "a/b.png"
    assert captured.err == ""


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("compress", quiet=True) as progress:
        for event in (PLANNED, READY, BAD, DONE):
            progress.event(event)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("compress") as progress:
        for event in (PLANNED, READY, DONE):
            progress.event(event)
        bar, _ = progress.screen._bar or (None, None)
        assert bar is not None
        bar.refresh()
    text = capsys.readouterr().err
    assert "5/10" in text
    assert "1.50 MB saved" in text
    assert "\x1b[3" not in text  # no colours


def test_a_dumb_terminal_gets_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with Progress("compress") as progress:
        progress.event(PLANNED)
    assert "\x1b" not in capsys.readouterr().err


def test_a_verification_tells_how_far_it_is() -> None:
    with VerifyProgress(quiet=True) as progress:
        assert progress.screen.line() == "verify: 0 of 0 images, starting"
        progress.event(Checked(files=1, files_total=2, rows=50, rows_total=90, bytes=7_000_000, findings=2))
        assert progress.screen.line() == "verify: 50 of 90 images, 7.00 MB read, 2 wrong"


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (Report(known=5), ["nothing new: a.rba has all 5 images"]),
        (
            Report(dry_run=True, images=7, bytes_in=2_000),
            ["would archive 7 images (2.00 kB); nothing was written"],
        ),
        (
            Report(images=1, bytes_in=1000, bytes_out=250, pixels=1000, seconds=2.0, known=1),
            [
                "archived 1 image in 2.0 s (0.00 MP/s)",
                "1.00 kB in, 250 B out (25%, 2.000 bpp)",
                "1 image archived before",
            ],
        ),
        (
            Report(images=1, interrupted=True, deaths=1, retries=2),
            [
                "archived 1 image in 0.0 s (0.00 MP/s)",
                "0 B in, 0 B out (0%)",
                "1 worker lost, 2 shards done again",
                "interrupted: run the same command again to go on",
            ],
        ),
        (
            Report(kind="restore", images=3, skipped=1),
            ["restored 3 images in 0.0 s (0.00 MP/s)", "1 row without an image skipped"],
        ),
    ],
)
def test_a_report_says_what_was_done(report: Report, says: list[str]) -> None:
    assert report_lines(report, archive="a.rba") == says


def test_a_stop_says_how_long_workers_are_waited_for() -> None:
    assert "for up to 40 s" in stopping_line(events.Stopping(signal="SIGTERM", patience_s=Tuning().stop_s))
    assert stopping_line(events.Stopping(signal="SIGINT")) == "SIGINT: stopping ..."
