"""Curves by quantisers, complexity and crops on a model that compresses nothing well: what is counted must be right."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from rich.console import Console, RenderableType

from recbatch.bench import crops, crops_render, lossy_plot, rec_contestants, render
from recbatch.bench.bd import Curve, Point
from recbatch.bench.complexity import ANALYSIS, PARTS, SYNTHESIS, ModelRow, Tally, complexity_benchmark
from recbatch.bench.crops import OTHERS, SIDE, best_quality, busiest, crops_benchmark
from recbatch.bench.inputs import load_images
from recbatch.bench.lossy import ImageComparison, LossyResult, joined_images
from recbatch.bench.lossy_plot import APART, spaced
from recbatch.bench.quantisers import CONTESTANTS, QuantiserResult, mean_jpeg, quantiser_benchmark
from recbatch.bench.rec_contestants import Contestant
from recbatch.cli import main
from recbatch.errors import UsageError
from recbatch.rec.coders.trellis import Trellis

FEW = (
    Contestant(coder="ecsq", effort=None, setting="scalar"),
    Contestant(coder="trellis", effort=1, setting="effort 1"),
    Contestant(coder="pfr", effort=None, setting=""),
)
LEVELS = (2.0, 14.0, 26.0)


def text(renderable: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(renderable)
    return out.getvalue()


@pytest.fixture(scope="module")
def compared(folder: Path, model: str) -> Iterator[QuantiserResult]:
    """A small trellis stands in for scalar quantisation, whose design takes a while, and for a slow coder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            rec_contestants, "baseline", lambda name, tables: Trellis.from_parameters(b"\x09", tables=tables)
        )
        yield quantiser_benchmark(folder, model=model, levels=LEVELS, contestants=FEW, slow_images=1)


def test_every_contestant_codes_its_images_at_every_level(compared: QuantiserResult) -> None:
    assert [one.coder for one in compared.contestants] == ["ecsq", "trellis", "pfr"]
    for one in compared.contestants:
        assert one.images == (1 if one.coder == "pfr" else 2)
        assert len(one.files) == one.images * len(LEVELS)
        assert [point.bpp for point in one.curve().points] == sorted(p.bpp for p in one.curve().points)
        assert all(row.file_bytes > 0 and row.encode_s >= 0 for row in one.files)
        assert len(one.jpeg) == len(one.scalar) == 2


def test_the_same_coder_takes_the_same_bits(compared: QuantiserResult) -> None:
    scalar, trellis, slow = compared.contestants  # all of them are trellises of effort 1 here
    assert [row.file_bytes for row in scalar.files] == [row.file_bytes for row in trellis.files]
    assert scalar.scalar == (None, None)
    assert all(rate.percent == pytest.approx(0, abs=1e-9) for rate in trellis.scalar if rate is not None)
    one = scalar.curve(["a.png"])
    assert one.points != scalar.curve().points
    assert one.points == slow.curve().points
    assert all(rate.percent == pytest.approx(0, abs=1e-9) for rate in slow.scalar if rate is not None)


def test_the_contest_reads_as_a_table_and_as_a_plot(compared: QuantiserResult, tmp_path: Path) -> None:
    document = json.loads(json.dumps(compared.to_dict(), allow_nan=False))
    assert [one["coder"] for one in document["contestants"]] == ["ecsq", "trellis", "pfr"]
    assert len(document["contestants"][0]["curve"]["points"]) == len(LEVELS)
    shown = text(render.quantiser_tables(compared))
    assert "ecsq, scalar" in shown
    assert "…" not in shown
    lossy_plot.quantiser_plot(compared, tmp_path / "quantisers.png")
    assert (tmp_path / "quantisers.png").read_bytes().startswith(b"\x89PNG")


def test_the_contest_needs_a_curve(folder: Path, model: str) -> None:
    with pytest.raises(UsageError, match="make no curve"):
        quantiser_benchmark(folder, model=model, levels=(2, 14, 14), contestants=FEW)
    assert {one.coder for one in CONTESTANTS} == {"ecsq", "tcq8", "tcq64", "trellis", "irec"}


def test_a_mean_of_curves_is_taken_setting_by_setting() -> None:
    def curve(factor: float) -> Curve:
        return Curve(name="jpeg", points=tuple(Point(bpp=factor * n, psnr=30.0 + n + factor) for n in (1, 2)))

    got = mean_jpeg({"a": curve(1), "b": curve(3)}, ["a", "b"])
    assert [(p.bpp, p.psnr) for p in got.points] == [(2, 33), (4, 34)]
    assert mean_jpeg({"a": curve(1), "b": curve(3)}, ["b"]).points == curve(3).points


def test_multiplications_are_those_of_the_layers(model: str) -> None:
    (row,) = complexity_benchmark([model, model], size=(64, 128), repeats=1).rows
    assert [part.name for part in row.parts] == list(PARTS)
    parts = {part.name: part.kmac_per_pixel for part in row.parts}
    # 96 latents, widths 8; a layer's multiplications per output over the pixels that an output stands for
    down = 12 * 8 * 9 / 16 + 8 * 8 * 9 / 64 + 8 * 8 * 9 / 256
    blocks = 2 * 8 * 4 * 9 * (1 / 16 + 1 / 64 + 1 / 256)
    assert parts[ANALYSIS] == pytest.approx((down + blocks + 8 * 96 / 256 + 3 * 96) / 1000)
    up = 96 * 8 * 9 / 256 + 8 * 32 / 256 + 8 * 32 / 64
    assert parts[SYNTHESIS] == pytest.approx((up + blocks + 8 * 48 * 9 / 16 + 96 * 768 / 256) / 1000)
    assert all(part.kmac_per_pixel > 0 and part.mp_per_s > 0 for part in row.parts)
    assert row.passes == 2


def test_parts_together_add_multiplications_and_time(model: str) -> None:
    result = complexity_benchmark([model], size=(64, 64), repeats=1)
    row: ModelRow = result.rows[0]
    decoder = row.decoder
    assert decoder.kmac_per_pixel == pytest.approx(sum(part.kmac_per_pixel for part in row.parts[2:]))
    assert 1 / decoder.mp_per_s == pytest.approx(sum(1 / part.mp_per_s for part in row.parts[2:]))
    assert json.loads(json.dumps(result.to_dict()))["rows"][0]["encoder"]["kmac_per_pixel"] > 0
    assert "tiny" in text(render.complexity_tables(result))


def test_a_part_inside_another_has_its_own_count() -> None:
    tally = Tally()
    tally.count(5)  # of no part
    with tally.part("outer"):
        tally.count(1)
        with tally.part("inner"):
            tally.count(10)
        tally.count(2)
    assert tally.macs == {"outer": 3, "inner": 10}
    assert set(tally.seconds) == {"outer", "inner"}
    assert min(tally.seconds.values()) >= 0


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images that are large enough for a crop; the right half of the first is busy."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(2)
    coarse = Pillow.fromarray(rng.integers(0, 256, (13, 28, 3), np.uint8))
    pixels = np.asarray(coarse.resize((448, 208), Pillow.Resampling.BICUBIC)).copy()
    pixels[:, 256:] ^= rng.integers(0, 32, (208, 192, 3), np.uint8)
    Pillow.fromarray(pixels).save(root / "busy.png")
    Pillow.fromarray(pixels[:, :200, 0]).save(root / "grey.png")
    return root


@pytest.fixture(scope="module")
def cropped(photographs: Path, model: str) -> crops.CropResult:
    names = ["busy.png", "grey.png@8,0"]
    return crops_benchmark(photographs, model=model, levels=(20,), effort=1, names=names)


def test_no_file_is_larger_than_ours(cropped: crops.CropResult) -> None:
    assert [(row.image, row.left, row.top) for row in cropped.rows][1] == ("grey.png", 8, 0)
    assert cropped.rows[0].left == 256
    for row in cropped.rows:
        assert [cell.codec for cell in row.cells] == ["source", *OTHERS, "recbatch"]
        ours = row.cells[-1]
        for cell in row.cells[1:]:
            assert cell.crop.shape == (SIDE, SIDE, 3)
            assert cell.psnr is not None
            assert (cell.file_bytes <= ours.file_bytes) == cell.fits
        assert ours.fits


def test_a_page_needs_no_other_file_and_a_sheet_holds_every_crop(
    cropped: crops.CropResult, tmp_path: Path
) -> None:
    page = crops_render.crops_page(cropped)
    assert page.count("<img ") == page.count("data:image/webp;base64,") == 2 * (len(OTHERS) + 2)
    assert "http" not in page
    crops_render.save_sheet(cropped, tmp_path / "crops.png")
    sheet = np.asarray(Pillow.open(tmp_path / "crops.png"))
    left = crops_render.MARGIN + 4 * (SIDE + crops_render.GAP)
    top = crops_render.MARGIN + 2 * crops_render.TITLE
    assert np.array_equal(sheet[top : top + SIDE, left : left + SIDE], cropped.rows[0].cells[-1].crop)
    assert "AVIF" in text(render.crops_tables(cropped))
    assert json.loads(json.dumps(cropped.to_dict()))["rows"][0]["cells"][1]["codec"] == "JPEG 4:2:0"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.png", "no image"),
        ("busy.png@1", "no place"),
        ("busy.png@300,0", "not fit"),
        ("busy.png@-1,0", "fit"),
    ],
)
def test_a_crop_that_is_nowhere_is_refused(name: str, said: str, photographs: Path, model: str) -> None:
    with pytest.raises(UsageError, match=said):
        crops_benchmark(photographs, model=model, names=[name])


def comparison(name: str, percent: float) -> ImageComparison:
    from recbatch.bench.bd import BdRate

    return ImageComparison(image=name, psnr=(None, BdRate(percent=percent, low=30, high=35)))


def ranked(*rows: ImageComparison) -> LossyResult:
    return LossyResult(
        model="m",
        digest="d",
        weights_bytes=1,
        coder="trellis",
        effort=5,
        images=len(rows),
        levels=(),
        rows=(),
        comparisons=(),
        per_image=rows,
    )


def test_best_median_and_worst_are_chosen(
    photographs: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = ranked(comparison("busy.png", -40.0), comparison("grey.png", -10.0))
    monkeypatch.setattr(crops, "lossy_benchmark", lambda *_, **__: rates)
    result = crops_benchmark(photographs, model=model, levels=(20,), effort=1)
    assert [(row.image, row.why) for row in result.rows] == [
        ("busy.png", "gains most on JPEG: -40.0 %"),
        ("grey.png", "gains least on JPEG: -10.0 %"),
    ]
    monkeypatch.setattr(crops, "lossy_benchmark", lambda *_, **__: ranked())
    with pytest.raises(UsageError, match="Name some"):
        crops_benchmark(photographs, model=model)


def test_the_hardest_images_gain_least_on_jpeg() -> None:
    unknown = ImageComparison(image="none", psnr=(None, None))
    result = ranked(comparison("a", -40.0), unknown, comparison("b", 5.0), comparison("c", -20.0))
    assert [row.image for row in result.hardest()] == ["b", "c", "a"]
    assert [row.image for row in result.hardest(2)] == ["b", "c"]
    assert result.worst is not None
    assert result.worst.image == "b"
    assert ranked(unknown).worst is None


def test_images_of_several_folders_are_named_by_them(folder: Path, photographs: Path) -> None:
    names = [image.name for image in joined_images([folder, photographs])]
    assert names == [
        *(f"{folder.name}/{n}" for n in ("a.png", "b.png")),
        *(f"{photographs.name}/{n}" for n in ("busy.png", "grey.png")),
    ]
    assert [i.name for i in joined_images([folder])] == [i.name for i in load_images(folder)]


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=100, max_size=100), limit=st.integers(0, 600))
def test_the_best_quality_within_a_limit_is_found(sizes: list[int], limit: int) -> None:
    total = np.cumsum([7, *sizes])  # rising, as sizes of files are

    def encode(quality: int) -> bytes:
        return bytes(int(total[quality]))

    quality, data = best_quality(encode, limit, 100)
    assert len(data) == total[quality]
    assert quality == max((q for q in range(101) if total[q] <= limit), default=0)


@settings(deadline=None)
@given(shape=st.tuples(st.integers(SIDE, 250), st.integers(SIDE, 250)), seed=st.integers(0, 5))
def test_the_busiest_window_lies_inside(shape: tuple[int, int], seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 1), np.uint8)
    left, top = busiest(pixels)
    assert left >= 0 <= top
    assert left + SIDE <= shape[1]
    assert top + SIDE <= shape[0]


@settings(deadline=None)
@given(wanted=st.lists(st.floats(0, 1), max_size=20))
def test_names_keep_their_order_and_their_distance(wanted: list[float]) -> None:
    places = spaced(sorted(wanted))
    assert len(places) == len(wanted)
    assert max(places, default=0) <= 1 + 1e-9
    assert all(b - a >= APART - 1e-9 for a, b in itertools.pairwise(places))


def quiet(call: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = call()
    out = capsys.readouterr()
    return status, out.out + out.err


def test_the_commands_run(
    photographs: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = quiet(lambda: main(["bench", "complexity", "--model", model, "--json"]), capsys)
    assert (status, json.loads(said)["rows"][0]["model"]) == (0, "tiny")
    page, words = str(tmp_path / "c.html"), ["--image", "busy.png", "--level", "20", "--effort", "1"]
    command = ["bench", "crops", str(photographs), "--model", model, *words, "--out", page, "--quiet"]
    status, said = quiet(lambda: main(command), capsys)
    assert status == 0
    assert "recbatch" in said
    assert "<img" in Path(page).read_text(encoding="utf-8")
    refused = ["bench", "lossy", str(photographs), "--quantisers", "--every-image"]
    status, said = quiet(lambda: main(refused), capsys)
    assert status != 0
    assert "comparison of its own" in said
