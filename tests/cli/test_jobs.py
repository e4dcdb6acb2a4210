"""The commands over a small archive of originals, in this process."""

from __future__ import annotations

import io
import json
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.conftest import Run


def png(seed: int, size: tuple[int, int] = (24, 16)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "sub").mkdir()
    for i, name in enumerate(["a.png", "sub/b ä%20.png", "c.png"]):
        (folder / name).write_bytes(png(i))
    (folder / "bad.png").write_text("no image at all")
    return folder


@pytest.fixture(scope="module")
def archive(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import recbatch

    path = tmp_path_factory.mktemp("archives") / "a.rba"
    report = recbatch.compress(source, path, original=True, executor="inline")
    assert (report.images, report.quarantined) == (3, 1)
    return path


GOOD = ["a.png", "c.png", "sub/b ä%20.png"]


def test_compress_tells_json_events_and_a_report(run: Run, source: Path, tmp_path: Path) -> None:
    outcome = run("compress", source, tmp_path / "new", "--original", "--executor", "inline", "--json")
    assert outcome.status == 1  # one image is quarantined
    events = outcome.lines()
    assert events[0]["event"] == "planned"
    assert [e["key"] for e in events if e["event"] == "image-quarantined"] == ["bad.png"]
    report = events[-1]
    assert (report["event"], report["schema"]) == ("report", 1)
    assert (report["images"], report["quarantined"], report["exit_status"]) == (3, 1, 1)
    assert outcome.err == ""


def test_compress_says_what_it_did_and_how_to_see_the_rest(run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    outcome = run("compress", source, target, "--original", "--executor", "inline")
    assert outcome.status == 1
    assert outcome.out.startswith("archived 3 images in ")
    assert "1 image quarantined: see them with recbatch ls" in outcome.err
    again = run("compress", source, target, "--original", "--executor", "inline")
    assert again.status == 0
    assert (
        again.out
        == f"nothing new: {target} has all 4 images, 1 of them quarantined (--retry-quarantined tries those again)\n"
    )


def test_a_dry_run_writes_nothing(run: Run, source: Path, tmp_path: Path) -> None:
    outcome = run("compress", source, tmp_path / "new", "--original", "--dry-run", "--exclude", "bad*")
    assert outcome.status == 0
    assert outcome.out.startswith("would archive 3 images")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_and_an_empty_source_are_status_3(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("gone", "empty"):
        outcome = run("compress", tmp_path / name, tmp_path / "new", "--original", "--executor", "inline")
        assert outcome.status == 3
        assert str(tmp_path / name) in outcome.err
        assert outcome.err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_ls_lists_keys_and_with_long_what_became_of_them(run: Run, archive: Path) -> None:
    assert sorted(run("ls", archive).out.splitlines()) == sorted([*GOOD, "bad.png"])
    lines = {line.split("\t")[0]: line.split("\t") for line in run("ls", archive, "--long").out.splitlines()}
    assert lines["a.png"][1:4] == ["ok", "original", "24x16"]
    assert lines["bad.png"][1:3] == ["quarantined", "[not-an-image]"]
    assert run("ls", archive, "--null", "--where", "status <> 'ok'").out == "bad.png\0"
    assert run("ls", archive, "--null", "--long").status == 2
    rows = run("ls", archive, "--json", "--where", "status = 'ok'").lines()
    assert sorted(row["key"] for row in rows) == GOOD
    assert "stream" not in rows[0]


def test_a_filter_with_a_mistake_is_wrong_usage(run: Run, archive: Path) -> None:
    outcome = run("ls", archive, "--where", "psnr >")
    assert outcome.status == 2
    assert "psnr >" in outcome.err


def test_stats_and_info_count_the_rows(run: Run, archive: Path) -> None:
    (stats,) = run("stats", archive, "--json").lines()
    assert stats["rows"] == 4
    assert stats["by_status"]["quarantined"]["images"] == 1
    text = run("stats", archive).out
    assert "quarantined [not-an-image]: 1" in text
    assert run("info", archive, "--json").lines()[0]["rows"] == 4
    assert "quarantined" in run("info", archive).out
    (row,) = run("info", archive, "a.png", "--json").lines()
    assert (row["width"], row["height"], row["codec"]) == (24, 16, "original")
    assert run("info", archive, "nothing").status == 2


@pytest.mark.parametrize("level", ["structure", "digests", "pixels"])
def test_verify_finds_nothing_wrong_with_a_good_archive(run: Run, archive: Path, level: str) -> None:
    outcome = run("verify", archive, "--level", level)
    assert outcome.status == 0
    assert f"level {level}: 4 rows of 4" in outcome.out
    assert outcome.out.endswith("all well\n")


def test_verify_names_what_is_damaged(run: Run, source: Path, tmp_path: Path) -> None:
    import recbatch

    path = tmp_path / "damaged"
    recbatch.compress(source, path, original=True, executor="inline", include=["a.png"])
    (file,) = [p for p in path.rglob("*.parquet") if "_recbatch" not in p.parts]
    data = bytearray(file.read_bytes())
    where = data.index(png(0)) + 60
    data[where] ^= 1
    file.write_bytes(data)
    outcome = run("verify", path)
    assert outcome.status == 1
    assert "a.png: [wrong-digest]" in outcome.out
    assert "NOT well" in outcome.out
    command = f"""recbatch recompress {path} --again --original --where "key in ('a.png')"\n"""
    assert outcome.err.endswith(command)
    *findings, report = run("verify", path, "--json").lines()
    assert [(f["event"], f["code"], f["key"]) for f in findings] == [("finding", "wrong-digest", "a.png")]
    assert (report["ok"], report["findings"]) == (False, 1)
    outcome = run(*shlex.split(command)[1:], "--executor", "inline")
    assert (outcome.status, run("verify", path).status) == (0, 0)


def test_a_restore_counts_images_whose_names_it_can_not_even_read() -> None:
    from recbatch.cli.report import remedy_line
    from recbatch.engine import Report

    failures = (
        ("a.png .. d.png", "corrupt-archive", "It is damaged."),
        ("x.png", "corrupt-stream", "It is."),
    )
    report = Report(kind="restore", quarantined=5, unnamed=4, failures=failures)
    assert remedy_line(report, "photos.rba") == (
        "5 images could not be restored, 4 of them in data files whose names can't be read: "
        "a.png .. d.png [corrupt-archive]; x.png [corrupt-stream]"
    )


def test_get_writes_the_original_bytes_or_another_format(
    run: Run, archive: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("get", archive, "sub/b ä%20.png").status == 0
    assert (tmp_path / "b ä%20.png").read_bytes() == (source / "sub/b ä%20.png").read_bytes()
    assert run("get", archive, "a.png", "-o", "a.webp").status == 0
    with Image.open("a.webp") as restored, Image.open(source / "a.png") as original:
        assert restored.format == "WEBP"
        assert restored.tobytes() == original.tobytes()
    assert run("get", archive, "a.png", "-o", "a.webp").status == 2
    assert run("get", archive, "a.png", "-o", "a.webp", "--overwrite").status == 0
    assert run("get", archive, "a.png", "--raw", "-o", "raw.png").status == 0
    assert (tmp_path / "raw.png").read_bytes() == (source / "a.png").read_bytes()


def test_get_says_why_there_is_no_image(run: Run, archive: Path) -> None:
    missing, bad = run("get", archive, "a.jpg", "-o", "-"), run("get", archive, "bad.png", "-o", "-")
    assert (missing.status, bad.status) == (2, 2)
    assert "a.jpg" in missing.err
    assert "not-an-image" in bad.err
    assert "--retry-quarantined" in bad.err


def test_restore_gives_every_file_back(run: Run, archive: Path, source: Path, tmp_path: Path) -> None:
    outcome = run("restore", archive, tmp_path / "out", "--executor", "inline", "--json")
    assert outcome.status == 0
    assert outcome.lines()[-1]["images"] == 3
    for key in GOOD:
        assert (tmp_path / "out" / key).read_bytes() == (source / key).read_bytes()
    assert run("restore", archive, tmp_path / "out").status == 0  # what is there already is left alone


def test_the_demo_shows_a_table_and_refuses_a_folder_of_others(
    run: Run, source: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter.txt").write_text("dear")
    outcome = run("demo", source, "--output", taken, "--executor", "inline")
    assert outcome.status == 2
    assert (taken / "letter.txt").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_status_130(
    run: Run, archive: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    import recbatch

    def interrupted(*_: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(recbatch, "open", interrupted, raising=False)
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # a Ray that ran in this process left a handler of its own
    try:
        outcome = run("ls", archive)
        left = signal.getsignal(number)
    finally:
        signal.signal(number, before)
    assert outcome.status == 130
    assert "run the same command again" in outcome.err
    assert left == usual


def test_json_documents_are_single_lines(run: Run, archive: Path) -> None:
    for command in (["stats", archive], ["info", archive]):
        assert len(run(*command, "--json").out.splitlines()) == 1
        json.loads(run(*command, "--json").out)
