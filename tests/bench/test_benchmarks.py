"""The benchmarks end to end on a model that compresses nothing well: what they count must add up all the same."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from recbatch.bench import (
    BENCHMARKS,
    LossyResult,
    RecResult,
    SpeedResult,
    lossy_benchmark,
    rec_benchmark,
    render,
)
from recbatch.bench.bd import PSNR_RANGES, Curve, Point
from recbatch.bench.inputs import NoImages, load_images, load_weights
from recbatch.bench.lossy import jpeg_curve
from recbatch.bench.memory import Peak, PeakMemory, descendants
from recbatch.bench.others import SETTINGS, encode_file
from recbatch.bench.profile import Clock, profile
from recbatch.bench.speed import Job
from recbatch.models.weights import UnknownModel


def text(renderable: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(renderable)
    return out.getvalue()


@pytest.fixture(scope="module")
def lossy(folder: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> LossyResult:
    points = [{"bpp": 0.05 * 2**n, "psnr": 10.0 + 3 * n, "msssim": 1 - 0.5 ** (n + 1)} for n in range(10)]
    anchors = tmp_path_factory.mktemp("anchors") / "anchors.json"
    anchors.write_text(json.dumps({"codecs": {"doubling": {"measured": True, "points": points}}}))
    return lossy_benchmark(folder, model=model, levels=(2, 14, 26), anchors=anchors)


@pytest.fixture(scope="module")
def rec(folder: Path, model: str) -> RecResult:
    return rec_benchmark(folder, model=model, levels=(6, 20), irec_images=1)


def test_every_bit_of_a_file_is_counted_once(lossy: LossyResult) -> None:
    assert len(lossy.rows) == 2 * len(lossy.levels)
    for row in lossy.rows:
        assert row.index_bits + row.symbol_bits + row.side_bits == 8 * row.file_bytes
        assert row.kl_bits > 0
    for level in lossy.levels:
        mine = [row for row in lossy.rows if row.level == level.level]
        assert level.bpp == pytest.approx(sum(8 * row.file_bytes / row.pixels for row in mine) / len(mine))


def test_an_archive_holds_the_streams_and_more(lossy: LossyResult) -> None:
    for level in lossy.levels:
        stored = level.archive
        assert stored is not None
        assert level.archive_bpp is not None
        assert stored.streams == sum(row.file_bytes for row in lossy.rows if row.level == level.level)
        assert stored.streams < stored.data < stored.total
        assert level.archive_bpp > level.bpp


def test_more_bits_less_error(lossy: LossyResult) -> None:
    assert [row.bpp for row in lossy.levels] == sorted(row.bpp for row in lossy.levels)
    assert [row.psnr for row in lossy.levels] == sorted(row.psnr for row in lossy.levels)


def test_the_result_is_json_and_reads_as_tables(lossy: LossyResult, tmp_path: Path) -> None:
    copy = json.loads(json.dumps(lossy.to_dict()))
    assert copy["levels"][0]["level"] == 2
    shown = text(render.lossy_tables(lossy, every=True))
    assert "doubling" in shown
    assert "b.png" in shown
    anchor = Curve(name="doubling", points=(Point(bpp=0.1, psnr=20.0), Point(bpp=0.2, psnr=23.0)))
    render.lossy_plot(lossy, [anchor], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_worst_image_gains_least_on_jpeg(lossy: LossyResult) -> None:
    scores = {
        row.image: next((rate.percent for rate in row.psnr if rate is not None), None)
        for row in lossy.per_image
    }
    known = {name: score for name, score in scores.items() if score is not None}
    expected = max(known, key=lambda name: known[name]) if known else None
    assert (lossy.worst.image if lossy.worst else None) == expected
    assert len(lossy.per_image[0].psnr) == len(PSNR_RANGES)


def test_jpeg_of_an_image_is_a_rising_curve(folder: Path) -> None:
    quality, rate = jpeg_curve(load_images(folder)[0]).series("psnr")
    assert rate == sorted(rate)
    assert len(quality) > 10


def test_every_coder_is_measured_at_every_level(rec: RecResult) -> None:
    coders = {("trellis", 5), ("posterior", 0), ("ecsq", 0), ("irec", 5), ("irec", 9)}
    assert {(row.coder, row.effort) for row in rec.rows} == coders
    assert len(rec.rows) == 2 * len(coders)
    assert [row.coder for row in rec.rows if row.default] == ["trellis"] * 2
    assert all(row.images == (1 if row.coder == "irec" else 2) for row in rec.rows)
    assert {row.latents for row in rec.rows} == {rec.rows[0].latents}


def test_exact_samples_are_the_yardstick_of_all(rec: RecResult) -> None:
    for row in rec.rows:
        if row.coder == "posterior":
            assert row.psnr_loss == 0
            assert row.rate_vs_posterior is None
            assert row.error_variance == pytest.approx(1, abs=0.1)
        else:
            assert row.rate_vs_posterior is not None
            assert row.ideal or row.s_per_megapixel > 0
    trellis, irec = (next(row for row in rec.means() if row.coder == name) for name in ("trellis", "irec"))
    assert trellis.rate_vs_irec is not None
    assert trellis.rate_vs_irec < 0
    assert trellis.eq < irec.eq
    assert trellis.level == -1


def test_the_coders_table_and_plot(rec: RecResult, tmp_path: Path) -> None:
    shown = text(render.rec_tables(rec))
    assert "trellis, effort 5" in shown
    assert "mean" in shown
    assert json.loads(json.dumps(rec.to_dict()))["rows"][0]["coder"] == "trellis"
    render.rec_plot(rec, tmp_path / "rec.png")
    assert (tmp_path / "rec.png").stat().st_size > 1000


def test_stages_add_up_and_inner_ones_are_taken_off() -> None:
    clock = Clock()
    start = time.perf_counter()
    with clock.stage("outer"):
        time.sleep(0.02)
        clock.phase = "part"
        with clock.stage("inner"):
            time.sleep(0.03)
    whole = time.perf_counter() - start
    assert set(clock.seconds) == {"outer", "part: inner"}
    assert clock.seconds["part: inner"] >= 0.03
    assert sum(clock.seconds.values()) == pytest.approx(whole, abs=0.01)


def test_a_profile_names_the_stages_of_a_worker(folder: Path, model: str) -> None:
    import numba
    import torch

    before = torch.get_num_threads(), numba.get_num_threads()
    stages = profile(load_images(folder), load_weights(model), level=10, coder="trellis", effort=1)
    assert (torch.get_num_threads(), numba.get_num_threads()) == before
    for stage in ("analysis", "prior", "search, hyper", "search, pass 0", "search, pass 1"):
        assert stages[f"encode: {stage}"] > 0
    assert stages["verify: synthesis"] > 0
    assert stages["verify: entropy decoding"] > 0
    assert stages["measure: MS-SSIM"] > 0
    assert "encode: synthesis" not in stages


@pytest.mark.parametrize("name", list(SETTINGS))
def test_other_codecs_write_files(name: str, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl")
    kind, options = SETTINGS[name]
    written = encode_file(folder / "a.png", kind=kind, options=dict(options), out=str(tmp_path))
    assert 0 < written.stat().st_size < (folder / "a.png").stat().st_size


def test_processes_of_processes_are_found_and_weighed() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        try:
            deadline = time.monotonic() + 20
            while not descendants(child.pid):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert child.pid in descendants(os.getpid())
            assert set(descendants(child.pid)) < set(descendants(os.getpid()))
            with PeakMemory() as memory:
                pass
        finally:
            child.communicate(b"\n")
    assert memory.peak.driver > memory.peak.largest_child > 1e6
    assert memory.peak.together > 1e6


def test_speed_reads_as_tables() -> None:
    job = Job(
        seconds=10.0,
        startup_seconds=4.0,
        megapixels_per_second=0.9,
        megapixels_per_second_started=1.5,
        bpp=0.6,
        psnr=33.0,
    )
    result = SpeedResult(
        model="m",
        level=16,
        coder="trellis",
        effort=5,
        images=2,
        megapixels=9.0,
        workers=2,
        load_average=0.1,
        jobs=(job, dataclasses.replace(job, seconds=9.0)),
        memory=Peak(together=10**9, driver=10**8, largest_child=10**8),
        others=(),
        stages={"encode: analysis": 0.3, "verify: synthesis": 0.1},
    )
    shown = text(render.speed_tables(result))
    assert "75.0" in shown
    assert "1,000 MB" in shown
    assert result.best.seconds == 9.0
    assert json.loads(json.dumps(result.to_dict()))["jobs"][1]["seconds"] == 9.0


def test_images_are_spread_over_the_folder(folder: Path, tmp_path: Path) -> None:
    assert [image.name for image in load_images(folder)] == ["a.png", "b.png"]
    assert [image.name for image in load_images(folder, 1)] == ["a.png"]
    with pytest.raises(NoImages, match="No images"):
        load_images(tmp_path)
    with pytest.raises(NoImages):
        load_images(tmp_path / "missing")
    with pytest.raises(UnknownModel):
        load_weights("no such model")


def test_benchmarks_are_listed_by_their_commands() -> None:
    assert set(BENCHMARKS) == {"lossy", "rec", "speed"}
