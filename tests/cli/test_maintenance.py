"""Upkeep from the command line: recompress, vacuum, versions, and verifications spread over days."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.conftest import Run
from cli.test_jobs import png
from recbatch.cli.maintenance import BadSpan, parse_days, ranges_text
from recbatch.cli.recompress import RecompressProgress
from recbatch.engine.events import ImageQuarantined


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(number))
    return folder


@pytest.fixture
def archive(source: Path, tmp_path: Path) -> Path:
    """Its version 2 has three rows; version 4 has another 0.png."""
    import recbatch

    path = tmp_path / "a.rba"
    recbatch.compress(source, path, original=True, executor="inline")
    (source / "0.png").write_bytes(png(10))
    recbatch.compress(source, path, original=True, executor="inline")
    return path


def age(path: Path, days: float) -> None:
    then = (datetime.now(UTC) - timedelta(days=days)).timestamp()
    os.utime(path, (then, then))


# --- versions


def test_versions_are_listed_and_can_be_read(run: Run, archive: Path, tmp_path: Path) -> None:
    lines = run("versions", archive).out.splitlines()
    assert lines[0].split() == ["version", "committed", "(UTC)", "shards", "rows", "replaced", "what"]
    assert [line.split()[0] for line in lines[1:]] == ["4", "3", "2", "1", "0"]
    assert lines[1].endswith("compress, run 2")
    assert lines[2].endswith("compress, run 2 begins")
    assert lines[-1].endswith("create table")
    (newest,) = run("versions", archive, "--limit", "1", "--json").lines()
    assert (newest["version"], newest["rows"], newest["replaced"]) == (4, 1, 1)

    for command in ("stats", "info"):
        (found,) = run(command, archive, "--version", "2", "--json").lines()
        assert (found["version"], found["rows"]) == (2, 3)
    assert run("ls", archive, "--version", "1").out == ""
    assert run("get", archive, "0.png", "--version", "2", "--raw", "-o", tmp_path / "old.png").status == 0
    assert (tmp_path / "old.png").read_bytes() == png(0)
    assert run("restore", archive, tmp_path / "out", "--version", "2").status == 0
    assert (tmp_path / "out/0.png").read_bytes() == png(0)
    outcome = run(
        "restore", archive, tmp_path / "previews", "--version", "2", "--previews", "--format", "png"
    )
    assert outcome.status == 0
    assert (tmp_path / "previews/0.png").read_bytes() == png(0)


@pytest.mark.parametrize("version", ["5", "-1", "99999999999"])
def test_a_version_that_never_was_is_wrong_usage(
    run: Run, archive: Path, version: str, tmp_path: Path
) -> None:
    for command in (["ls"], ["restore"]):
        place = [tmp_path / "out"] if command == ["restore"] else []
        outcome = run(*command, archive, *place, "--version", version)
        assert outcome.status == 2
        assert "the newest is 4" in outcome.err


# --- vacuum


def test_vacuum_names_what_it_would_sweep_and_sweeps_when_told(run: Run, archive: Path) -> None:
    assert run("vacuum", archive).out == "nothing to sweep: every file is needed, or younger than 14 days\n"
    assert run("vacuum", archive, "--older-than", "6d").status == 2
    outcome = run("vacuum", archive, "--older-than", "0d", "--force")
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert lines[0].startswith("would delete 1 data file, ")
    assert lines[1].startswith("would delete 2 plans of old runs, ")
    assert lines[2:] == ["versions 2 to 3 can't be read then", "nothing was deleted: --delete does it"]
    assert run("ls", archive, "--version", "2").status == 0

    (swept,) = run("vacuum", archive, "--older-than", "0d", "--force", "--delete", "--json").lines()
    assert (len(swept["files"]), swept["unreadable"], swept["versions_lost"]) == (1, [[2, 3]], 2)
    assert (swept["orphans"], swept["dry_run"], len(swept["plans"])) == (0, False, 2)
    assert run("vacuum", archive, "--older-than", "0d", "--force").out.startswith("nothing to sweep")
    assert run("ls", archive, "--version", "2").status == 4
    assert len(run("ls", archive).out.splitlines()) == 3
    assert run("verify", archive).status == 0


def test_vacuum_takes_orphans_and_old_plans_and_leaves_young_ones(run: Run, archive: Path) -> None:
    import recbatch.archive

    opened = recbatch.archive.Archive.open(archive)
    record = recbatch.archive.Record(key="x", codec="original", stream=b"12")
    old, young = (opened.write_file([record], stem="s").path for _ in range(2))
    age(archive / old, 15)
    plans = sorted((archive / "_recbatch/plans").iterdir())
    age(plans[0], 15)
    (swept,) = run("vacuum", archive, "--delete", "--json").lines()
    assert (swept["files"], swept["orphans"], swept["unreadable"]) == ([old], 1, [])
    assert swept["plans"] == [f"_recbatch/plans/{plans[0].name}"]
    assert (archive / young).exists()
    assert plans[1].exists()
    assert not plans[0].exists()


def test_vacuum_warns_of_a_run_that_is_at_work(run: Run, archive: Path) -> None:
    from recbatch.archive import Archive
    from recbatch.engine.runs import RunStatus, status_name

    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%SZ}-0123456789abcdef"
    status = RunStatus(run=name, state="running", started=now, heartbeat=now, job="compress", host="node-1")
    opened = Archive.open(archive)
    opened.put_object(f"jobs/{name}.json", b"{}")
    opened.put_object(status_name(name), json.dumps(status.to_dict()).encode())
    outcome = run("vacuum", archive)
    assert outcome.status == 0
    assert f"warning: compress {name} is at work on node-1; its files are safe" in outcome.err
    assert "they are lost" in run("vacuum", archive, "--older-than", "1d", "--force").err
    assert run("vacuum", archive, "--json").lines()[0]["live_runs"] == [name]


@pytest.mark.parametrize(("text", "days"), [("14d", 14), ("14", 14), ("2w", 14), ("36h", 1.5), ("0.5d", 0.5)])
def test_lengths_of_time_are_days_unless_they_say_otherwise(text: str, days: float) -> None:
    assert parse_days(text) == days


@pytest.mark.parametrize("text", ["", "d", "-1d", "1y", "soon", "1 2d"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(BadSpan):
        parse_days(text)


def test_ranges_of_versions_read_well() -> None:
    assert ranges_text(((3, 3),)) == "version 3"
    assert ranges_text(((3, 5), (7, 7))) == "versions 3 to 5, 7"
    assert ranges_text(tuple((n, n) for n in range(9))) == "versions some before, 4, 5, 6, 7, 8"


# --- verify


def test_a_rotating_verification_says_which_part_it_was_and_is_kept(run: Run, archive: Path) -> None:
    outcome = run("verify", archive, "--rotate", "1d")
    assert outcome.status == 0
    assert "3 rows of 3" in outcome.out
    assert "part 1 of 1; all has its turn in 1 day" in outcome.out
    (report,) = run("verify", archive, "--level", "pixels", "--rotate", "4w", "--json").lines()
    assert (report["rotate_days"], len(report["slots"]), report["recorded"]) == (28, 1, True)
    names = sorted((archive / "_recbatch/verify").iterdir())
    assert len(names) == 2
    record = json.loads(names[0].read_text())
    record |= {"day": record["day"] - 5, "days": 30, "slots": [(record["day"] - 5) % 30]}
    names[0].write_text(json.dumps(record))
    outcome = run("verify", archive, "--rotate", "30")
    assert "made up for 4 days without a run" in outcome.out
    text = run("stats", archive).out
    assert "verified at level pixels: 20" in text
    assert "1 of 28 parts: all well" in text
    assert "5 of 30 parts: all well" in text
    (stats,) = run("stats", archive, "--json").lines()
    assert stats["verified"]["digests"]["days"] == 30


def test_the_first_run_of_a_rotation_says_so(run: Run, archive: Path) -> None:
    out = run("verify", archive, "--rotate", "30d", "--no-record").out
    assert "the first run of this rotation" in out
    assert "the first run of this rotation" in run("verify", archive, "--rotate", "30d").out


@pytest.mark.parametrize(
    "options",
    [
        ("--rotate", "0"),
        ("--rotate", "5000d"),
        ("--rotate", "1.5d"),
        ("--rotate", "often"),
        ("--rotate", "30d", "--sample", "1%"),
        ("--rotate", "30d", "--level", "structure"),
        ("--where", "nonsense >"),
    ],
)
def test_rotations_that_cant_be_are_wrong_usage(run: Run, archive: Path, options: tuple[str, ...]) -> None:
    outcome = run("verify", archive, *options)
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1


def test_where_chooses_what_is_verified(run: Run, archive: Path) -> None:
    (report,) = run("verify", archive, "--where", "key < '2'", "--json").lines()
    assert (report["rows_checked"], report["where"]) == (2, "key < '2'")


def test_an_archive_that_cant_be_written_is_verified_all_the_same(
    run: Run, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbatch.archive import Archive, ArchiveNotWritable

    def refuse(self: Archive, name: str, data: bytes) -> bool:
        raise ArchiveNotWritable(self.url, "read-only")

    monkeypatch.setattr(Archive, "put_object_once", refuse)
    outcome = run("verify", archive, "--rotate", "1d")
    assert outcome.status == 0
    assert "so the result is not kept; days without a run can't be caught up" in outcome.err
    assert run("verify", archive, "--no-record").err == ""


# --- recompress


def test_recompress_says_what_it_would_do_and_what_stays(run: Run, archive: Path, source: Path) -> None:
    outcome = run("recompress", archive, "--original", "--executor", "inline")
    assert outcome.status == 0
    assert outcome.out == f"nothing to do in {archive}\n3 rows with these settings left alone\n"
    (source / "1.png").unlink()
    outcome = run("recompress", archive, "--quality", "50", "--dry-run")
    assert outcome.status == 1
    assert outcome.out.startswith("would code 2 images again (")
    assert "warning: rows that would stay as they are [source-vanished]: 1" in outcome.err
    report = run("recompress", archive, "--quality", "50", "--dry-run", "--json").lines()[-1]
    assert (report["kind"], report["images"], report["quarantined"], report["dry_run"]) == (
        "recompress",
        2,
        1,
        True,
    )


def test_recompress_codes_again_and_names_what_stays(run: Run, archive: Path, source: Path) -> None:
    (source / "1.png").write_bytes(png(7))
    outcome = run("recompress", archive, "--no-preview", "--executor", "inline")
    assert outcome.status == 1
    assert outcome.out.startswith("2 images coded again in ")
    assert "not coded again, and as before: 1 row" in outcome.out
    assert "stays as it is [source-differs] 1.png" in outcome.err
    assert sorted(run("ls", archive).out.split()) == ["0.png", "1.png", "2.png"]


def test_a_row_that_stays_is_no_quarantined_image_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    with RecompressProgress("recompress", as_json=True) as progress:
        progress.event(ImageQuarantined(key="1.png", code="source-differs", error="1.png: it differs."))
    event = json.loads(capsys.readouterr().out)
    assert (event["event"], event["key"], event["code"]) == ("row-kept", "1.png", "source-differs")


@pytest.mark.parametrize(
    "options",
    [
        ("--lossless", "--quality", "5"),
        ("--sources-moved", "nowhere"),
        ("--lossy-again",),
        ("--from-archive", "--changed", "take"),
        ("--where", "nonsense >", "--original"),
    ],
)
def test_recompressions_that_cant_be_are_wrong_usage(
    run: Run, archive: Path, options: tuple[str, ...]
) -> None:
    outcome = run("recompress", archive, "--executor", "inline", *options)
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1


def test_recompress_needs_an_archive(run: Run, tmp_path: Path) -> None:
    assert run("recompress", tmp_path / "none", "--original").status == 3
    assert run("vacuum", tmp_path / "none").status == 3
    assert run("versions", tmp_path / "none").status == 3
