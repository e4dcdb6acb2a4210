"""The commands that code pixels, over the model that comes with the package."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from cli.conftest import Run


class Terminal(io.TextIOWrapper):
    """Standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


PHOTOGRAPHS = Path(__file__).parents[2] / "docs" / "demo" / "photographs"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    ramp = Image.linear_gradient("L").resize((96, 64))
    Image.merge("RGB", (ramp, ramp.rotate(180), ramp)).save(tmp_path / "photo.png", compress_level=0)
    return tmp_path / "photo.png"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A natural picture, whose curve of quality over size is even enough to hit what is asked for."""
    with Image.open(PHOTOGRAPHS / "coffee.png") as image:
        image.convert("RGB").crop((150, 100, 342, 228)).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def test_encode_and_decode_single_files(run: Run, photo: Path, tmp_path: Path) -> None:
    outcome = run("encode", photo, tmp_path / "photo.rec", "--quality", "50")
    assert outcome.status == 0
    assert outcome.out == ""
    assert "bpp" in outcome.err
    assert "PSNR" in outcome.err
    assert run("decode", tmp_path / "photo.rec", tmp_path / "back.webp").status == 0
    with Image.open(tmp_path / "back.webp") as image:
        assert (image.format, image.size) == ("WEBP", (96, 64))
    info = run("info", tmp_path / "photo.rec").out
    assert "96 x 64, RGB" in info
    assert "photo-s2" in info
    (found,) = run("info", tmp_path / "photo.rec", "--json").lines()
    assert sum(found["bytes"].values()) == (tmp_path / "photo.rec").stat().st_size
    assert run("encode", photo, tmp_path / "photo.rec", "--quality", "50").status == 2  # it is there


def test_encode_reports_in_json(run: Run, photo: Path, tmp_path: Path) -> None:
    (report,) = run("encode", photo, tmp_path / "a.rec", "--quality", "50", "--json").lines()
    assert report["bytes_out"] == (tmp_path / "a.rec").stat().st_size
    assert report["level"] == 15.5
    assert report["psnr"] > 25


def test_encode_takes_a_size_a_quality_and_bounds(run: Run, scene: Path, photo: Path, tmp_path: Path) -> None:
    (report,) = run("encode", scene, tmp_path / "a.rec", "--psnr", "35", "--json").lines()
    assert report["psnr"] == pytest.approx(35, abs=0.1)
    (report,) = run("encode", scene, tmp_path / "b.rec", "--max-bytes", "1500", "--json").lines()
    assert 1400 < report["bytes_out"] <= 1500
    (report,) = run("encode", photo, tmp_path / "c.rec", "--bpp", "50", "--json").lines()
    assert report["level"] == 31
    assert "at best quality, asked for 50" in report["notes"][0]
    outcome = run("encode", photo, tmp_path / "d.rec", "--max-bytes", "300", "--min-psnr", "45")
    assert outcome.status == 1
    assert "asked for at least 45 in at most 300" in outcome.err
    assert not (tmp_path / "d.rec").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--quality", "5", "--bpp", "1"], "--quality and --bpp exclude each other"),
        (["--lossless", "--max-bytes", "1000"], "--max-bytes means nothing with --lossless"),
        (["--psnr", "30", "--min-psnr", "35"], "at least min_psnr, which is 35"),
        (["--bpp", "0"], "bpp can't be 0.0"),
        (["--psnr", "good"], "--psnr"),
    ],
)
def test_wishes_that_contradict_each_other_are_wrong_usage(
    run: Run, photo: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    for outcome in (
        run("encode", photo, tmp_path / "a.rec", *arguments),
        run("compress", photo.parent, tmp_path / "a.rba", *arguments),
    ):
        assert outcome.status == 2
        assert says in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png"]  # nothing was begun


def test_an_archive_has_the_sizes_that_were_asked_for(run: Run, scene: Path, tmp_path: Path) -> None:
    source, archive = tmp_path / "in", tmp_path / "a.rba"
    source.mkdir()
    scene.rename(source / "scene.png")
    Image.new("RGB", (64, 64), "red").save(source / "flat.bmp")
    assert run("compress", source, archive, "--bpp", "0.9", "--executor", "inline").status == 0
    (row,) = run("info", archive, "scene.png", "--json").lines()
    assert 8 * row["stream_size"] / (192 * 128) == pytest.approx(0.9, rel=0.02)
    assert abs(row["quality"] * 0.31 - row["level"]) <= 0.51
    (flat,) = run("info", archive, "flat.bmp", "--json").lines()
    assert flat["notes"][-1].endswith("quality, asked for 0.9")


def test_standard_streams_carry_bytes(
    photo: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbatch.cli import main

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo.read_bytes())))
    assert main(["encode", "-", "-", "--quality", "20", "--quiet"]) == 0
    stream = capfdbinary.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stream)))
    assert main(["decode", "-", "-"]) == 0
    with Image.open(io.BytesIO(capfdbinary.readouterr().out)) as image:
        assert (image.format, image.size) == ("PNG", (96, 64))


def test_bytes_are_not_printed_to_a_terminal(run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO()))
    outcome = run("encode", photo, "-", "--quality", "20")
    assert outcome.status == 2
    assert "terminal" in outcome.err


def test_a_bomb_and_a_large_stream_are_refused(run: Run, photo: Path, tmp_path: Path) -> None:
    outcome = run("encode", photo, tmp_path / "a.rec", "--quality", "5", "--max-pixels", "100")
    assert outcome.status == 1
    assert not (tmp_path / "a.rec").exists()
    run("encode", photo, tmp_path / "a.rec", "--quality", "5")
    outcome = run("decode", tmp_path / "a.rec", tmp_path / "a.png", "--max-pixels", "100")
    assert outcome.status == 4
    assert "--max-pixels" in outcome.err


@pytest.mark.parametrize("arguments", [["--model", "photo-xxl"], ["--coder", "huffman"]])
def test_an_unknown_model_or_coder_is_wrong_usage(
    run: Run, photo: Path, tmp_path: Path, arguments: list[str]
) -> None:
    outcome = run("encode", photo, tmp_path / "a.rec", "--quality", "5", *arguments)
    assert outcome.status == 2
    assert arguments[1] in outcome.err
    outcome = run("compress", photo.parent, tmp_path / "a.rba", "--quality", "5", *arguments)
    assert outcome.status == 2
    assert arguments[1] in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png"]  # nothing was begun


def test_the_models_of_the_package_are_listed_shown_and_sound(run: Run) -> None:
    assert "photo-s" in run("models", "ls").out
    (shown,) = run("models", "show", "photo-s", "--json").lines()
    assert shown["digest"] in run("models", "show", "photo-s").out
    (listed,) = run("models", "ls", "--json").lines()
    assert shown in listed
    checks = run("models", "verify").out.splitlines()[:-1]
    assert [line.split(",")[0] for line in checks] == [f"{entry['name']}: ok" for entry in listed]


def test_the_demo_archives_verifies_restores_and_draws(run: Run, photo: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    photo.rename(source / "photo.png")
    for _ in range(2):  # the second one empties the folder of the first
        outcome = run("demo", source, "--output", output, "--executor", "inline", "--quality", "60")
        assert outcome.status == 0
    assert "all well" in outcome.out
    assert "96x64" in outcome.out
    assert f"Originals beside restorations: {output / 'comparison.png'}" in outcome.out
    with (
        Image.open(output / "comparison.png") as sheet,
        Image.open(output / "restored" / "photo.png") as restored,
    ):
        assert sheet.width > 2 * 96
        colours = {sheet.getpixel((x, y)) for x in range(sheet.width) for y in range(0, sheet.height, 7)}
        assert restored.size == (96, 64)
        assert len(colours) > 100  # the photographs themselves are on it


def test_a_lossy_archive_can_be_asked_for_one_image(run: Run, photo: Path, tmp_path: Path) -> None:
    source, archive = tmp_path / "in", tmp_path / "a.rba"
    source.mkdir()
    photo.rename(source / "photo.png")
    outcome = run("compress", source, archive, "--quality", "30", "--executor", "inline", "--json")
    assert outcome.status == 0
    assert run("get", archive, "photo.png", "--raw", "-o", tmp_path / "a.rec").status == 0
    assert run("get", archive, "photo.png", "-o", tmp_path / "a.png").status == 0
    assert run("decode", tmp_path / "a.rec", tmp_path / "b.png").status == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    (stats,) = run("stats", archive, "--json").lines()
    assert stats["by_codec"]["lossy"]["images"] == 1
    assert json.dumps(stats["kl_bits"]) != "0.0"
    assert "of relative entropy" in run("stats", archive).out
