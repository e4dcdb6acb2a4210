"""Pictures of other kinds than photographs: the same each time, and codecs compared on them at equal quality."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from recbatch.bench import kinds, kinds_plot
from recbatch.bench.bd import Curve, Point
from recbatch.bench.inputs import NoImages
from recbatch.bench.kinds import DEFAULT_LEVELS, KindsResult, PictureRow, kinds_benchmark
from recbatch.bench.kinds_codecs import LOSSLESS, RIVALS, Rival, load, lossless_bytes, nearest, save
from recbatch.bench.kinds_render import kinds_tables
from recbatch.bench.pictures import MAKERS, Drawing, pictures
from recbatch.cli import main

PHOTOGRAPHS = Path(__file__).parents[2] / "docs" / "demo" / "photographs"
SMALL = (224, 256)  # holds the crop of the plot, and the five scales of MS-SSIM


@pytest.fixture(scope="module")
def page() -> Drawing:
    (drawing,) = pictures(only=["text-page"])
    return Drawing(drawing.name, np.ascontiguousarray(drawing.pixels_HWC[: SMALL[0], : SMALL[1]]))


def test_every_kind_is_drawn_at_the_size_of_a_small_photograph() -> None:
    drawn = pictures(PHOTOGRAPHS)
    names = [drawing.name for drawing in drawn]
    assert set(MAKERS) < set(names)
    assert {"screenshot-photo", "face-astronaut", "photo-coffee"} < set(names)
    assert len(set(names)) == len(names)
    for drawing in drawn:
        height, width, channels = drawing.pixels_HWC.shape
        assert drawing.pixels_HWC.dtype == np.uint8, drawing.name
        assert channels in (1, 3), drawing.name
        assert 0.1e6 < height * width < 0.5e6, drawing.name
        assert np.ptp(drawing.pixels_HWC) > 50, drawing.name


@pytest.mark.parametrize("name", ["text-code", "comic", "pixel-art", "night"])
def test_a_picture_is_the_same_each_time_and_alone_as_among_others(name: str) -> None:
    (one,) = pictures(only=[name])
    again = pictures(only=["squares", name])[-2:]
    assert np.array_equal(one.pixels_HWC, next(d.pixels_HWC for d in again if d.name == name))


def test_without_photographs_there_are_no_faces(tmp_path: Path) -> None:
    assert {drawing.name for drawing in pictures(tmp_path, only=["squares", "face-astronaut"])} == {"squares"}
    with pytest.raises(NoImages):
        kinds_benchmark(only=["face-astronaut"])


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_every_rivals_curve_climbs_and_is_of_whole_files(rival: Rival, page: Drawing) -> None:
    colour_HWC = np.repeat(page.pixels_HWC, 3, axis=2)
    for pixels_HWC in (page.pixels_HWC, colour_HWC):
        points = rival.curve(pixels_HWC, (20, 60, 95)).points
        assert [p.bpp for p in points] == sorted(p.bpp for p in points)
        assert [p.psnr for p in points] == sorted(p.psnr for p in points)
        assert all(p.ms_ssim is not None and 0.5 < p.ms_ssim <= 1 for p in points)
        assert points[0].bpp == 8 * len(rival.file(pixels_HWC, 20)) / (SMALL[0] * SMALL[1])


def test_lossless_rivals_give_every_pixel_back(page: Drawing) -> None:
    sizes = lossless_bytes(page.pixels_HWC)
    assert set(sizes) == set(LOSSLESS)
    for name, (format, options, is_colour) in LOSSLESS.items():
        data = save(page.pixels_HWC, format, is_colour=is_colour, **options)
        assert len(data) == sizes[name]
        assert np.array_equal(load(data, 1), page.pixels_HWC)


def test_bisection_finds_the_quality_of_a_size(page: Drawing) -> None:
    jpeg = RIVALS[0]
    sizes = [len(jpeg.file(page.pixels_HWC, quality)) for quality in range(1, 100)]
    for target in (0, 5_000, 9_000, 10**6):
        _, data = nearest(jpeg, page.pixels_HWC, target)
        assert abs(len(data) - target) == min(abs(size - target) for size in sizes)


def made_up() -> KindsResult:
    """Ours takes twice the bits of "half" at each PSNR, and is nowhere as good as "far"."""
    points = [Point(bpp=2.0**n, psnr=20.0 + 5 * n, ms_ssim=1 - 10.0 ** -(1 + n)) for n in range(4)]
    half = [Point(bpp=p.bpp / 2, psnr=p.psnr, ms_ssim=p.ms_ssim) for p in points]
    far = [Point(bpp=p.bpp, psnr=60.0 + n, ms_ssim=None) for n, p in enumerate(points)]
    rows = [
        PictureRow(
            picture=name,
            width=100,
            height=50,
            ours=Curve(
                name="recbatch",
                points=tuple(Point(bpp=p.bpp * more, psnr=p.psnr, ms_ssim=p.ms_ssim) for p in points),
            ),
            others=(Curve(name="half", points=tuple(half)), Curve(name="far", points=tuple(far))),
            lossless={"recbatch": 5000, "png": 10000},
        )
        for name, more in (("easy", 1), ("hard", 2))
    ]
    return KindsResult(
        model="m", digest="d" * 64, coder="trellis", effort=5, levels=DEFAULT_LEVELS, rows=tuple(rows)
    )


def test_twice_the_bits_are_100_percent_more_and_the_worst_is_named() -> None:
    result = made_up()
    rate = result.rows[0].against("half", "psnr")
    assert rate is not None
    assert rate.percent == pytest.approx(100)
    assert (rate.low, rate.high) == (20, 35)
    assert result.rows[0].against("half", "ms_ssim_db").percent == pytest.approx(100)  # type: ignore[union-attr]
    assert result.rows[0].against("far", "psnr") is None
    worst = result.worst("half")
    assert worst is not None
    assert worst[0] == "hard"
    assert result.worst("far") is None
    assert result.rows[0].lossless_bpp == 8.0


def test_tables_and_json_say_so() -> None:
    result = made_up()
    out = io.StringIO()
    Console(file=out, width=140).print(kinds_tables(result))
    text = out.getvalue()
    assert "+100" in text
    assert "Worst against half: hard +300 % at equal PSNR, hard +300 % at equal MS-SSIM." in text
    assert "Worst against far: -." in text
    report = json.loads(json.dumps(result.to_dict()))
    assert report["bd_rates"]["easy"]["psnr"]["half"]["percent"] == pytest.approx(100)
    assert report["bd_rates"]["easy"]["psnr"]["far"] is None


def test_the_command_measures_whole_files_and_draws_crops(
    page: Drawing,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def only_page(photographs: object = None, *, only: object = None) -> list[Drawing]:
        return [page]

    monkeypatch.setattr(kinds, "pictures", only_page)
    monkeypatch.setattr(kinds_plot, "pictures", only_page)
    plot = tmp_path / "crops.png"
    levels = [word for level in (2, 14, 28) for word in ("--level", str(level))]
    assert main(["bench", "kinds", "--model", model, "--json", "--plot", str(plot), *levels]) == 0
    said = capsys.readouterr()
    (row,) = json.loads(said.out)["rows"]
    assert said.err.startswith("text-page: ")
    assert len(row["ours"]["points"]) == 3
    assert row["lossless"]["png"] == lossless_bytes(page.pixels_HWC)["png"]
    assert set(row["lossless"]) == {"recbatch", *LOSSLESS}
    with Image.open(plot) as image:
        assert image.width > 4 * kinds_plot.CROP[0] * kinds_plot.ZOOM
