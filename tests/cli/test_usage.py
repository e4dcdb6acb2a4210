"""Wrong calls: one clear line with the remedy, status 2, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compres", "a", "b"], ["No such command 'compres'", "Did you mean 'compress'"]),
        (["compress", "a"], ["ARCHIVE", "recbatch compress --help"]),
        (
            ["compress", "a", "b", "--quality", "50", "--original"],
            ["exclude each other", "--quality", "--original", "--lossless"],
        ),
        (["compress", "a", "b", "--quality", "101"], ["--quality", "100"]),
        (["compress", "a", "b", "--quality", "much"], ["--quality"]),
        (["compress", "a", "b", "--original", "--effort", "0"], ["--effort"]),
        (
            ["compress", "a", "b", "--original", "--keep-originals", "sometimes"],
            ["--keep-originals", "smaller"],
        ),
        (["compress", "a", "b", "--qualty", "5"], ["No such option", "--quality"]),
        (["compress", "a", "b", "--original", "--exact-files"], ["--exact-files", "--original"]),
        (["compress", "a", "b", "--lossless", "--quality", "5"], ["exclude each other"]),
        (["decode", "a.rec", "b.xyz"], ["b.xyz", ".png"]),
        (["verify", "a", "--sample", "200%"], ["200%", "1%"]),
        (["verify", "a", "--sample", "some"], ["some", "1%"]),
        (["verify", "a", "--level", "deep"], ["--level", "pixels"]),
        (["models"], ["Missing command", "recbatch models --help"]),
        (
            ["--json", "jobs", "ls"],
            ["--json belongs behind the command, as in 'recbatch COMMAND ... --json'"],
        ),
        (["models", "show", "photo-xxl"], ["photo-xxl", "models ls"]),
    ],
)
def test_a_wrong_call_gets_one_line_that_names_thing_and_remedy(
    run: Run, arguments: list[str], says: list[str]
) -> None:
    outcome = run(*arguments)
    assert outcome.status == 2
    assert outcome.out == "" or "--json" in arguments
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("Error: ")
    assert all(text in outcome.err for text in says), outcome.err


def test_a_call_without_a_command_shows_the_help_as_an_error(run: Run) -> None:
    outcome = run()
    assert outcome.status == 2
    assert "compress" in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize("command", ["ls", "stats", "info", "verify"])
def test_a_missing_archive_is_status_3(run: Run, tmp_path: Path, command: str) -> None:
    outcome = run(command, tmp_path / "nowhere")
    assert outcome.status == 3
    assert "There is no archive at" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_folder_with_other_files_is_no_archive(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("milk")
    outcome = run("ls", tmp_path)
    assert outcome.status == 3
    assert "not a recbatch archive" in outcome.err


def test_a_missing_input_file_is_status_3(run: Run, tmp_path: Path) -> None:
    outcome = run("decode", tmp_path / "gone.rec", tmp_path / "out.png")
    assert outcome.status == 3
    assert "gone.rec" in outcome.err


def test_a_damaged_stream_is_status_4_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.rec").write_bytes(b"\x93REC\r\n\x1a\n" + bytes(40))
    outcome = run("info", tmp_path / "bad.rec")
    assert outcome.status == 4
    assert "stream" in outcome.err
    outcome = run("decode", tmp_path / "bad.rec", tmp_path / "out.png")
    assert outcome.status == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.rec"]


def test_debug_adds_the_traceback_and_json_the_error_as_an_object(run: Run, tmp_path: Path) -> None:
    outcome = run("stats", tmp_path / "nowhere", "--debug", "--json")
    assert outcome.status == 3
    assert "Traceback" in outcome.err
    (error,) = outcome.lines()
    assert error["event"] == "error"
    assert error["code"] == "archive-not-found"
    assert error["exit_status"] == 3


def test_a_stream_and_a_report_do_not_both_go_to_standard_output(run: Run) -> None:
    outcome = run("encode", "a.png", "-", "--quality", "5", "--json")
    assert outcome.status == 2
    assert "--json" in outcome.err


def test_the_version_is_that_of_the_package(run: Run) -> None:
    import recbatch

    assert run("--version").out == f"recbatch {recbatch.__version__}\n"
