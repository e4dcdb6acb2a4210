"""The benchmarks end to end on a model that compresses nothing well: what they count must add up all the same."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest
from rich.console import Console, RenderableType

from recbatch.bench import (
    LossyResult,
    RecResult,
    SpeedResult,
    lossy_benchmark,
    rec_benchmark,
    rec_contestants,
    rec_plot,
    rec_render,
    render,
    synthetic,
)
from recbatch.bench.bd import PSNR_RANGES, Curve, Point
from recbatch.bench.inputs import NoImages, load_images, load_weights
from recbatch.bench.lossy import jpeg_curve
from recbatch.bench.memory import Peak, PeakMemory, descendants
from recbatch.bench.others import SETTINGS, OtherCodec, encode_file
from recbatch.bench.others_decode import OtherDecoder
from recbatch.bench.profile import Clock, profile
from recbatch.bench.rec_contestants import DEFAULT_EFFORTS, contestants
from recbatch.bench.rec_measure import Measured, Sample
from recbatch.bench.rec_progress import Progress, duration
from recbatch.bench.rec_rows import RecRow, rate_against
from recbatch.bench.speed import Job, Restore
from recbatch.errors import UsageError
from recbatch.models.weights import UnknownModel
from recbatch.rec.coders.registry import NUMBERS
from recbatch.rec.coders.trellis import Trellis
from recbatch.rec.yardstick import measure


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
def quick_baselines() -> Iterator[None]:
    """Baselines that need no design: a small trellis stands in for scalar quantisation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rec_contestants, "BASELINES", {"ecsq": None, "tcq8": None})
        patch.setattr(
            rec_contestants, "baseline", lambda name, tables: Trellis.from_parameters(b"\x09", tables=tables)
        )
        yield


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def rec(folder: Path, model: str, quick_baselines: None, said: list[str]) -> RecResult:
    return rec_benchmark(
        folder, model=model, levels=(6, 20), efforts=(5,), coders=["trellis", "irec"], images=2, slow_images=1,
        piece_size=1500, progress=said.append,
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured_rows(rec: RecResult) -> list[RecRow]:
    """One thread, real latents."""
    return [row for row in rec.rows if row.level is not None and (row.threads, row.device) == (1, "cpu")]


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


CODERS = {("trellis", 5), ("irec", 5), ("irec", 9), ("ecsq", None), ("posterior", None)}


def test_every_coder_is_measured_at_every_level(measured_rows: list[RecRow], folder: Path) -> None:
    assert {row.key for row in measured_rows} == CODERS
    assert len(measured_rows) == 2 * len(CODERS)
    assert [row.key for row in measured_rows if row.default] == [("trellis", 5)] * 2
    assert all(row.images == (1 if row.coder == "irec" else 2) for row in measured_rows)
    assert {row.latents for row in measured_rows} == {folder.name}
    assert {row.level for row in measured_rows} == {6, 20}


def test_every_coder_is_measured_on_every_kind_of_synthetic_latents(rec: RecResult) -> None:
    for name in synthetic.LAWS:
        rows = [row for row in rec.rows if row.latents == name and (row.threads, row.device) == (1, "cpu")]
        assert {row.key for row in rows} == CODERS
        for row in rows:
            assert row.level is row.psnr is row.psnr_loss is row.s_per_megapixel is None
            assert row.rate_vs_posterior is row.rate_vs_irec is row.rate_vs_ecsq is None
            assert row.bits_per_dim >= row.rate > 0  # dimensions that are not coded count for the rate only
            assert (row.nats_per_s is None) == row.ideal


def test_exact_samples_are_the_yardstick_of_all(
    rec: RecResult, measured_rows: list[RecRow], folder: Path
) -> None:
    for row in measured_rows:
        if row.coder == "posterior":
            assert row.ideal
            assert row.psnr_loss == 0
            assert row.rate_vs_posterior is row.s_per_megapixel is row.speed_vs_irec is None
            assert row.error_variance == pytest.approx(1, abs=0.1)
        else:
            assert row.rate_vs_posterior is not None
            assert row.s_per_megapixel is not None
            assert row.s_per_megapixel > 0
            assert row.decode_s_per_megapixel is not None
    means = {row.key: row for row in rec.means() if row.latents == folder.name and row.threads == 1}
    trellis, irec = means["trellis", 5], means["irec", 9]
    assert trellis.rate_vs_irec is not None
    assert trellis.rate_vs_irec < 0
    assert trellis.rate_vs_ecsq is not None
    assert trellis.eq < irec.eq
    assert trellis.level is irec.rate_vs_irec is None
    assert irec.speed_vs_irec == pytest.approx(1)


def test_other_threads_repeat_the_rates_and_have_times_of_their_own(rec: RecResult) -> None:
    others = [row for row in rec.rows if row.device == "cpu" and row.threads == 2]
    if numba.get_num_threads() < 2:
        assert not others
        return
    assert {row.key for row in others} == {key for key in CODERS if key[0] in NUMBERS}
    by_place = {(row.latents, row.key, row.level, row.threads): row for row in rec.rows}
    for row in others:
        one = by_place[row.latents, row.key, row.level, 1]
        assert (row.rate, row.eq, row.psnr, row.side_share) == (one.rate, one.eq, one.psnr, one.side_share)
        assert row.nats_per_s not in (None, one.nats_per_s)


def test_a_run_says_what_it_does(said: list[str], rec: RecResult, folder: Path) -> None:
    parts = len(CODERS) * (2 + len(synthetic.LAWS))
    assert len(said) == parts
    assert said[0].startswith(f"1/{parts} {folder.name}, level 6: trellis, effort 5; ")
    assert "synthetic uniform: irec, lossless" in " ".join(said)
    assert "left" in said[-1]


def test_the_coders_table_and_plot(rec: RecResult, folder: Path, tmp_path: Path) -> None:
    shown = text(rec_render.rec_tables(rec))
    assert "trellis 5 *" in shown
    assert f"{folder.name}: latents of 2 images" in shown
    assert "mean of levels 6, 20" in shown
    assert "irec lossless" in shown
    assert all(f"{name}\n" in shown.replace(" \n", "\n") or name in shown for name in synthetic.LAWS)
    assert "…" not in shown
    every = text(rec_render.rec_tables(rec, every_level=True))
    assert len(every.splitlines()) > len(shown.splitlines())
    assert "mean" in every
    rec_plot.rec_plot(rec, tmp_path / "rec.png")
    assert (tmp_path / "rec.png").read_bytes().startswith(b"\x89PNG")


def test_the_coders_rows_are_json(rec: RecResult) -> None:
    document = json.loads(json.dumps(rec.to_dict(), allow_nan=False))
    assert document["images"] == document["pieces"] == 2
    assert document["slow_images"] == 1
    wanted = (
        "coder effort default latents rate eq excess bits_per_dim side_share psnr_loss rate_vs_posterior rate_vs_irec "
        "rate_vs_ecsq nats_per_s s_per_megapixel threads device setting images level kl_rate error_mean "
        "error_variance psnr ideal"
    )
    assert all(set(wanted.split()) <= row.keys() for row in document["rows"])


def test_a_table_for_a_gpu_has_a_column_for_it(rec: RecResult) -> None:
    rows = [
        dataclasses.replace(row, device="cuda")
        for row in rec.rows
        if row.coder == "trellis" and row.threads == 1
    ]
    shown = text(rec_render.rec_tables(dataclasses.replace(rec, gpu="a device", rows=(*rec.rows, *rows))))
    assert "GPU" in shown
    assert "a device" in shown
    assert "…" not in shown


def test_a_run_can_be_limited_but_not_its_references() -> None:
    everyone = contestants()
    assert [one.key for one in everyone if one.coder == "trellis"] == [
        ("trellis", n) for n in DEFAULT_EFFORTS
    ]
    assert {one.coder for one in everyone} == set(rec_contestants.names())
    assert [one.key for one in everyone if one.default] == [("trellis", 5)]
    some = contestants([5, 5], ["tcq8"])
    assert {one.key for one in some} == {("tcq8", None), *rec_contestants.REFERENCES}
    assert not any(one.few for one in contestants(slow=False))
    with pytest.raises(UsageError, match="no coder 'zip'"):
        contestants(coders=["zip"])
    with pytest.raises(UsageError, match="no latents"):
        rec_benchmark(with_synthetic=False)


def test_bits_at_equal_psnr_by_hand() -> None:
    one = synthetic.piece("synthetic uniform", 0, 50)
    mark = measure(one.target_N, one.scale_N, one.scale_N.astype("int32"), 100)

    def at(*points: tuple[str, float, int]) -> Measured:
        samples = [
            Sample(
                image=i, pixels=9, dimensions=9, coded=9, bits=bits, side_bits=0, psnr=quality, yardstick=mark
            )
            for i, quality, bits in points
        ]
        return Measured(samples=samples)

    # the other doubles its bits every 2 dB; mine has 30 % fewer on one image and 40 % more on the other
    other = {1: at(("a", 30.0, 100), ("b", 31.0, 100)), 2: at(("a", 32.0, 200), ("b", 33.0, 200))}
    mine = {1: at(("a", 32.0, 140), ("b", 31.0, 140), ("c", 40.0, 1))}
    measured = {("mine", None): mine, ("other", None): other}
    got = rate_against(measured, ("mine", None), ("other", None), 1)
    assert got == pytest.approx((0.7 * 1.4) ** 0.5 - 1)
    assert rate_against(measured, ("other", None), ("other", None), 1) is None
    assert rate_against(measured, ("mine", None), ("third", None), 1) is None
    assert rate_against(measured, ("other", None), ("mine", None), 1) is None  # one point is no curve


def test_progress_foresees_what_it_has_seen() -> None:
    now, said = [0.0], list[str]()
    progress = Progress(said.append, clock=lambda: now[0])
    for kind, parts in (("fast", 2), ("slow", 2)):
        progress.expect(kind, parts)
    for kind, seconds in (("fast", 5), ("slow", 100), ("fast", 7), ("slow", 100)):
        with progress.part(kind, f"the {kind} one") as step:
            step(1, 4)
            now[0] += seconds / 2
            step(2, 4)
            now[0] += seconds / 2
            step(4, 4)
    assert said == [
        "1/4 the fast one; 0 s so far",
        "2/4 the slow one; 5 s so far",
        "2/4 the slow one: 2 of 4; 55 s so far",
        "3/4 the fast one; 1 min 45 s so far, about 1 min 45 s left",
        "4/4 the slow one; 1 min 52 s so far, about 1 min 40 s left",
        "4/4 the slow one: 2 of 4; 2 min 42 s so far, about 1 min 40 s left",
    ]
    assert duration(7620) == "2 h 07 min"


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
    for stage in ("analysis", "prior", "search, hyper", "search, passes"):
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
    assert "way back" not in shown


def test_speed_of_the_way_back_stands_in_a_table_of_its_own() -> None:
    run = Restore(
        seconds=4.0,
        startup_seconds=1.0,
        megapixels_per_second=2.25,
        megapixels_per_second_started=3.0,
        cpu_s_per_mp=0.617,
    )
    job = Job(
        seconds=9.0,
        startup_seconds=1.0,
        megapixels_per_second=1.0,
        megapixels_per_second_started=1.125,
        bpp=0.6,
        psnr=33.0,
        cpu_s_per_mp=1.234,
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
        jobs=(job,),
        memory=Peak(together=1, driver=1, largest_child=1),
        others=(OtherCodec(name="AVIF", megapixels_per_second=1.8, seconds=5.0, bpp=0.9, psnr=35.0),),
        stages={"verify: synthesis": 0.1},
        restores=(run,),
        other_decoders=(
            OtherDecoder(
                name="AVIF",
                megapixels_per_second=7.5,
                seconds=1.2,
                cpu_s_per_mp=0.111,
                encode_cpu_s_per_mp=0.555,
            ),
        ),
    )
    there, back = text(render.speed_tables(result)).split("The way back")
    assert "1.234" in there  # processor seconds of the job, then of the other codec
    assert "0.555" in there
    for figure in ("2.25", "3.00", "0.617", "7.50", "0.111"):
        assert figure in back


def test_images_are_spread_over_the_folder(folder: Path, tmp_path: Path) -> None:
    assert [image.name for image in load_images(folder)] == ["a.png", "b.png"]
    assert [image.name for image in load_images(folder, 1)] == ["a.png"]
    with pytest.raises(NoImages, match="No images"):
        load_images(tmp_path)
    with pytest.raises(NoImages):
        load_images(tmp_path / "missing")
    with pytest.raises(UnknownModel):
        load_weights("no such model")
