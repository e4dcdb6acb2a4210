"""What long commands say on standard error: lines that read well in a file, or JSON for a collector."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recbatch.cli import display, logs
from recbatch.cli.display import Progress, VerifyProgress
from recbatch.cli.logs import LogFormat
from recbatch.engine import Report, events

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ "
PLANNED = events.Planned(images=10, bytes=4_000_000, shards=2, known=0, skipped=0, workers=2)
DONE = events.ShardDone(
    shard="000000",
    images=9,
    quarantined=1,
    bytes_in=2_000_000,
    bytes_out=500_000,
    pixels=5_000_000,
    seconds=2.0,
)
BAD = events.ImageQuarantined(key="a\nb.png", code="not-an-image", error="It is no image. Look at it.")
COMMIT = events.Committed(version=7, shards=32, images=1, seconds=0.4)
FINISHED = events.Finished(report=Report(images=9, quarantined=1, failures=(("k", "c", "e"),)))
ALL = (PLANNED, events.WorkersReady(workers=2, seconds=1.0), BAD, DONE, COMMIT, COMMIT, FINISHED)


@pytest.fixture(autouse=True)
def no_format_is_left_behind() -> Iterator[None]:
    yield
    logs.use(None)


def tell(capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[list[str], list[str]]:
    """Standard output and error of a job's events."""
    with Progress("compress", **options) as progress:
        for event in ALL:
            progress.event(event)
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_a_log_file_has_a_line_for_what_matters_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = tell(capsys, log_format=LogFormat.text)
    assert all(re.match(TIME, line) for line in err)  # a key with a line break begins no line of its own
    said = [re.sub(f"^{TIME}", "", line) for line in err]
    assert said[0] == "10 images, 4.00 MB, in 2 shards"
    assert said[1] == "quarantined [not-an-image] a\\nb.png: It is no image. Look at it."
    assert said[2] == "committed 1 image in 32 shards: version 7, in 0.4 s"  # the second one came too soon
    assert said[3].startswith("compress: finished, 10 of 10 images, ")
    assert said[3].endswith(", 1.50 MB saved (75%), 1 quarantined")
    assert len(said) == 4


def test_a_json_log_has_an_object_for_each_event_but_shards(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = tell(capsys, log_format=LogFormat.json)
    assert out == []
    found = [json.loads(line) for line in err]
    assert [line["event"] for line in found] == [
        "planned",
        "workers-ready",
        "image-quarantined",
        "committed",
        "committed",
        "finished",
    ]
    assert [line["level"] for line in found] == ["info", "info", "warning", "info", "info", "info"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$", line["time"]) for line in found)
    assert found[0]["images"] == 10
    assert found[2]["key"].startswith("a\nb")
    assert found[5]["images"] == 9
    assert "failures" not in found[5]  # each had its own line


def test_a_log_goes_beside_the_json_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = tell(capsys, as_json=True, log_format=LogFormat.json)
    assert "shard-done" in [json.loads(line)["event"] for line in out]
    assert json.loads(err[-1])["event"] == "finished"
    logs.use(None)
    out, err = tell(capsys, as_json=True)
    assert err == []
    assert len(out) == len(ALL) - 1


def test_quiet_is_quiet_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    for chosen in (None, LogFormat.text, LogFormat.json):
        assert tell(capsys, quiet=True, log_format=chosen) == ([], [])


def test_a_terminal_gets_lines_where_a_log_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    _, err = tell(capsys, log_format=LogFormat.text)
    assert "\x1b" not in "".join(err)
    assert len(err) >= 4


@pytest.mark.parametrize("chosen", [None, *LogFormat])
def test_lines_come_by_themselves_in_the_format_asked_for(
    chosen: LogFormat | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "LINE_EVERY_S", 0.01)
    logs.use(chosen)
    with VerifyProgress():
        err = ""
        while err.count("\n") < 2:  # from the ticker's own thread
            time.sleep(0.01)
            err += capsys.readouterr().err
    line = err.splitlines()[0]
    if chosen is LogFormat.json:
        assert json.loads(line)["verb"] == "verify"
        assert json.loads(line)["event"] == "progress"
    else:
        assert re.fullmatch((TIME if chosen else "") + "verify: 0 of 0 images, starting", line)


@pytest.mark.parametrize(
    ("words", "variable", "wanted"),
    [
        ([], None, None),
        (["compress", "--log-format", "json"], None, LogFormat.json),
        (["compress", "--log-format=text"], "json", LogFormat.text),
        (["compress"], "json", LogFormat.json),
        (["compress", "--log-format"], None, None),
        (["compress", "--log-format", "xml"], None, None),
    ],
)
def test_the_format_is_known_before_the_line_is_parsed(
    words: list[str], variable: str | None, wanted: LogFormat | None
) -> None:
    assert logs.asked(words, {logs.VARIABLE: variable} if variable else {}) is wanted


def test_errors_are_objects_in_a_json_log(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run("compress", tmp_path / "none", tmp_path / "a", "--log-format", "json")
    (line,) = map(json.loads, outcome.err.splitlines())
    assert (outcome.status, line["level"], line["event"], line["code"]) == (
        3,
        "error",
        "error",
        "source-not-found",
    )
    monkeypatch.setenv(logs.VARIABLE, "json")
    outcome = run("compress", "--no-such-option", "--debug")
    (line,) = map(json.loads, outcome.err.splitlines())
    assert (outcome.status, line["code"]) == (2, "usage")
    assert "Traceback" in line["traceback"]
    monkeypatch.delenv(logs.VARIABLE)
    assert run("compress", tmp_path / "none", tmp_path / "a").err.startswith("Error: ")


def test_a_job_s_whole_standard_error_is_json(run: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_text("no image")
    outcome = run(
        "compress",
        tmp_path / "in",
        tmp_path / "a",
        "--original",
        "--executor",
        "inline",
        "--log-format",
        "json",
    )
    found = [json.loads(line) for line in outcome.err.splitlines()]
    assert outcome.status == 1
    names = [line["event"] for line in found]
    assert (names[0], names[-2:]) == ("planned", ["finished", "message"])
    assert "quarantined" in found[-1]["message"]
