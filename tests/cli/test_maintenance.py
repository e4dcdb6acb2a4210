"""Upkeep from the command line: recompress, vacuum, versions, and verifications spread over days."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.conftest import Run
from cli.test_jobs import png
from recbatch.cli.maintenance import DELETE_YOUNG, BadSpan, named, parse_days, ranges_text
from recbatch.cli.recompress import RecompressProgress
from recbatch.cli.text import days_text
from recbatch.engine.errors import NotAFile, PoisonImage, SourceVanished, UnreadableFile
from recbatch.engine.events import ImageQuarantined
from recbatch.engine.kept import of_row


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
    assert (newest["version"], newest["rows"], newest["replaced"], newest["readable"]) == (4, 1, 1, True)

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


def test_stats_count_the_weights_of_an_archive_without_rows(run: Run, tmp_path: Path) -> None:
    from recbatch.archive import Archive

    weights = b"w" * 9000
    Archive.create(tmp_path / "w.rba").put_model(hashlib.sha256(weights).hexdigest(), weights)
    assert run("stats", tmp_path / "w.rba").out == "0 rows in 0 files, 0 B; 1 model, 9.00 kB\n"


# --- vacuum


def test_vacuum_names_what_it_would_sweep_and_sweeps_when_told(run: Run, archive: Path) -> None:
    assert run("vacuum", archive).out == "nothing to sweep: every file is needed, or younger than 14 days\n"
    refused = run("vacuum", archive, "--older-than", "6d", "--delete")
    assert (refused.status, "or give --force when no job runs" in refused.err) == (2, True)
    outcome = run("vacuum", archive, "--older-than", "0d")  # to look is safe
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert lines[0].startswith("would delete 1 data file, ")
    assert (archive / lines[1].strip()).is_file()
    assert lines[2].startswith("would delete 2 plans of old runs, ")
    assert all((archive / line.strip()).is_file() for line in lines[3:5])
    assert lines[5:] == ["versions 2 to 3 can't be read then", f"nothing was deleted: {DELETE_YOUNG}"]
    assert run("ls", archive, "--version", "2").status == 0
    assert "any more" not in run("versions", archive).out

    (swept,) = run("vacuum", archive, "--older-than", "0d", "--force", "--delete", "--json").lines()
    assert (len(swept["files"]), swept["unreadable"], swept["versions_lost"]) == (1, [[2, 3]], 2)
    assert (swept["orphans"], swept["dry_run"], len(swept["plans"])) == (0, False, 2)
    assert run("vacuum", archive, "--older-than", "0d", "--force").out.startswith("nothing to sweep")
    assert len(run("ls", archive).out.splitlines()) == 3
    assert run("verify", archive).status == 0


def test_a_version_that_vacuum_took_is_wrong_usage_and_marked_as_gone(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    run("vacuum", archive, "--older-than", "0d", "--force", "--delete")
    key, out = ["get", archive, "0.png", "-o", tmp_path / "0.png"], tmp_path / "out"
    for command in (
        ["ls", archive],
        ["ls", archive, "--where", "width > 3"],
        ["stats", archive],
        ["info", archive, "0.png"],
        key,
        ["restore", archive, out],
    ):
        outcome = run(*command, "--version", "2")
        assert outcome.status == 2
        assert outcome.err == (
            f"Error: Version 2 of {archive} is gone: a vacuum removed files that it needs. "
            f"'recbatch versions {archive}' shows which versions can still be read.\n"
        )
    lines = run("versions", archive).out.splitlines()
    gone = [line.split()[0] for line in lines if line.endswith("; can't be read any more")]
    assert gone == ["3", "2"]
    readable = {entry["version"]: entry["readable"] for entry in run("versions", archive, "--json").lines()}
    assert readable == {0: True, 1: True, 2: False, 3: False, 4: True, 5: True, 6: True}
    *_, third, fourth = run("versions", archive, "--limit", "4", "--json").lines()
    assert [(entry["version"], entry["readable"]) for entry in (third, fourth)] == [(4, True), (3, False)]


def test_the_newest_version_without_a_file_is_damaged_and_so_is_an_older_one_that_shares_it(
    run: Run, archive: Path
) -> None:
    from recbatch.archive import Archive

    for file in Archive.open(archive).files():
        (archive / file.path).unlink()
    assert run("ls", archive).status == 4
    assert run("ls", archive, "--version", "4").status == 4
    assert run("ls", archive, "--version", "3").status == 0
    assert all(entry["readable"] for entry in run("versions", archive, "--json").lines())


def test_of_many_files_the_first_are_named() -> None:
    lines = named(tuple(f"{number}.parquet" for number in range(25)))
    assert (len(lines), lines[0], lines[-1]) == (21, "  0.parquet", "  and 5 more; --json names all")


@pytest.mark.parametrize(
    ("days", "text"), [(1, "1 day"), (0, "0 days"), (1.5, "1.5 days"), (14.0, "14 days")]
)
def test_one_day_is_no_plural(days: float, text: str) -> None:
    assert days_text(days) == text


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
    one = ("--where", "key = '0.png'", "--executor", "inline")
    assert run("recompress", archive, "--original", "--again", *one).out.startswith("1 image coded again in ")
    (source / "1.png").unlink()
    outcome = run("recompress", archive, "--quality", "50", "--dry-run")
    assert outcome.status == 1
    assert outcome.out.startswith("would code 2 images again (")
    assert "warning: rows that would stay as they are [source-vanished]: 1" in outcome.err
    report = run("recompress", archive, "--quality", "50", "--dry-run", "--json").lines()[-1]
    assert (report["kind"], report["images"], report["dry_run"]) == ("recompress", 2, True)
    assert (report["kept"], report["quarantined"]) == (1, 0)
    ((key, code, sentence),) = report["failures"]
    assert (key, code) == ("1.png", "source-vanished")
    assert "Put it back and run the same command again, or use --sources-moved" in sentence


def test_recompress_codes_again_and_names_what_stays(run: Run, archive: Path, source: Path) -> None:
    (source / "1.png").write_bytes(png(7))
    outcome = run("recompress", archive, "--no-preview", "--executor", "inline")
    assert outcome.status == 1
    assert outcome.out.startswith("2 images coded again in ")
    assert "kept as before, not coded again: 1 row" in outcome.out
    assert "stays as it is [source-differs] 1.png" in outcome.err
    assert outcome.err.splitlines()[-1].endswith(", 1 kept as before")
    assert "quarantined" not in outcome.err
    assert sorted(run("ls", archive).out.split()) == ["0.png", "1.png", "2.png"]
    lines = run("versions", archive).out.splitlines()
    assert lines[1].endswith("recompress, run 3")
    assert lines[2].endswith("recompress, run 3 begins")
    assert lines[3].endswith("compress, run 2")

    *_, done, _, report = run(
        "recompress", archive, "--effort", "2", "--executor", "inline", "--json"
    ).lines()
    assert (done["event"], done["images"], done["quarantined"], done["kept"]) == ("shard-done", 2, 0, 1)
    assert (report["images"], report["quarantined"], report["kept"]) == (2, 0, 1)
    page = run("report", archive, report["run"], "--json").lines()[0]
    assert (page["run"]["kept"], page["run"]["quarantined"]) == (1, 0)
    assert [row["key"] for row in page["kept"]] == ["1.png"]
    assert "1 row was kept as it was" in run("report", archive, report["run"], "-o", "-").out


def test_a_row_that_stays_has_no_remedy_of_compress() -> None:
    failed = (
        SourceVanished("k"),
        UnreadableFile("k", "Permission denied"),
        NotAFile("k", "pipe"),
        PoisonImage("k", 3, "killed"),
    )
    for error in failed:
        key, code, sentence = of_row("k", error.code, str(error))
        assert (key, code) == ("k", error.code)
        assert sentence != str(error)
        assert "ts row stays. " in sentence
        assert "--retry-quarantined" not in sentence
        assert "--exclude" not in sentence
    assert of_row("k", "source-differs", "k: as it is.")[2] == "k: as it is."


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
