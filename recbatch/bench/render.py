"""Results of ``lossy`` and ``speed`` as tables for people, and as plots; ``rec_render`` has those of ``rec``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recbatch.bench.bd import MS_SSIM_RANGES, PSNR_RANGES, BdRate, Curve
from recbatch.bench.extras import need
from recbatch.bench.lossy import LossyResult
from recbatch.bench.speed import SpeedResult

SHOWN_ANCHORS = (
    "jpeg-420",
    "webp-m6",
    "jxl-e7",
    "avif-s6-420-default",
    "bpg-444-tfc",
    "irec2020-mse",
    "vtm-intra",
)


def lossy_tables(result: LossyResult, *, every: bool = False) -> RenderableType:
    """Rates, comparisons, images."""
    parts: list[RenderableType] = [_rates(result)]
    if result.comparisons:
        parts.append(_comparisons(result))
        parts.append(Text("The curves are means over their own images: compare only on those same images."))
    if every:
        parts.append(_images(result))
    if (worst := result.worst) is not None:
        rate = next(rate for rate in worst.psnr if rate is not None)
        parts.append(
            Text(
                f"Worst image: {worst.image}, {rate.percent:+.1f} % against JPEG 4:2:0 "
                f"({_range(rate.low, rate.high)} dB)"
            )
        )
    stored = [row.archive for row in result.levels if row.archive is not None]
    if stored:
        n = stored[0].images
        columns = sum(s.data - s.streams for s in stored) / len(stored) / n
        log = sum(s.log for s in stored) / len(stored) / n
        parts.append(
            Text(
                f"An archive of {n} images adds {columns:,.0f} bytes an image in data files (columns, footers) and "
                f"{log:,.0f} in its log; the decoder's weights, {stored[0].weights / 1e6:.1f} MB once, are not counted."
            )
        )
    return Group(*parts)


def _rates(result: LossyResult) -> Table:
    table = table_of(
        f"{result.images} images, model {result.digest[:12]}, {result.coder}, effort {result.effort}",
        "level|bpp file|bpp archive|bpp KL|over KL %|side %|PSNR dB|MS-SSIM|MS-SSIM dB",
    )
    for row in result.levels:
        table.add_row(
            str(row.level),
            f"{row.bpp:.4f}",
            number(row.archive_bpp, 4),
            f"{row.kl_bpp:.4f}",
            f"{100 * row.overhead:+.2f}",
            f"{100 * row.side_share:.2f}",
            f"{row.psnr:.3f}",
            number(row.ms_ssim, 5),
            number(row.ms_ssim_db, 3),
        )
    return table


def _comparisons(result: LossyResult) -> Table:
    heads = [
        *(f"PSNR {_range(*bounds)}" for bounds in PSNR_RANGES),
        *(f"archive {_range(*bounds)}" for bounds in PSNR_RANGES[:1]),
        *(f"MS-SSIM {_range(*bounds)}" for bounds in MS_SSIM_RANGES),
    ]
    table = table_of(
        "BD-rate in %, over dB (negative: fewer bits); * published, not measured here; part: of the range",
        "|".join(["against", *heads]),
    )
    for row in result.comparisons:
        rates = (*row.psnr, *row.archive_psnr[:1], *row.ms_ssim)
        bounds = (*PSNR_RANGES, *PSNR_RANGES[:1], *MS_SSIM_RANGES)
        cells = (_bd(rate, asked) for rate, asked in zip(rates, bounds, strict=True))
        table.add_row(row.anchor + ("" if row.measured else " *"), *cells)
    return table


def _images(result: LossyResult) -> Table:
    """BD-rates of each image, and its rate and quality at the middle one of the levels."""
    level = result.levels[len(result.levels) // 2].level
    ranges = "|".join(f"BD {_range(*bounds)}" for bounds in PSNR_RANGES)
    heads = f"image|{ranges}|bpp at level {level}|PSNR dB|MS-SSIM"
    table = table_of("Each image, BD-rate % against JPEG 4:2:0", heads)
    by_image = {row.image: row for row in result.rows if row.level == level}
    for image in result.per_image:
        row = by_image[image.image]
        table.add_row(
            image.image,
            *(_bd(rate, bounds) for rate, bounds in zip(image.psnr, PSNR_RANGES, strict=True)),
            f"{row.bpp:.3f}",
            f"{row.psnr:.2f}",
            number(row.ms_ssim, 4),
        )
    return table


def speed_tables(result: SpeedResult) -> RenderableType:
    table = table_of(
        f"{result.images} images, {result.megapixels:.1f} MP, {result.workers} processes; load average before: "
        f"{result.load_average:.1f}",
        "job|MP/s|MP/s without start|seconds|start s|bpp|PSNR dB",
    )
    for n, job in enumerate(result.jobs):
        table.add_row(
            f"recbatch level {result.level}, run {n + 1}",
            f"{job.megapixels_per_second:.2f}",
            f"{job.megapixels_per_second_started:.2f}",
            f"{job.seconds:.1f}",
            f"{job.startup_seconds:.1f}",
            f"{job.bpp:.3f}",
            f"{job.psnr:.2f}",
        )
    for other in result.others:
        cells = (
            f"{other.megapixels_per_second:.2f}",
            f"{other.seconds:.1f}",
            "-",
            f"{other.bpp:.3f}",
            f"{other.psnr:.2f}",
        )
        table.add_row(other.name, "-", *cells)
    peak = result.memory
    memory = Text(
        f"Peak memory: {peak.together / 1e6:,.0f} MB all processes together (shared pages once), driver "
        f"{peak.driver / 1e6:,.0f} MB, largest other process {peak.largest_child / 1e6:,.0f} MB."
    )
    stages = table_of("Where the time goes, one thread", "stage|s/MP|share %")
    total = sum(result.stages.values())
    for name, seconds in result.stages.items():
        stages.add_row(name, f"{seconds:.4f}", f"{100 * seconds / total:.1f}")
    stages.add_section()
    stages.add_row("all", f"{total:.4f}", "100.0")
    return Group(table, memory, stages)


def lossy_plot(result: LossyResult, anchors: Sequence[Curve], path: str | Path) -> None:
    """Rate-distortion curves, PSNR beside MS-SSIM."""
    need("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    shown = [curve for curve in anchors if curve.name in SHOWN_ANCHORS] or list(anchors)
    left, right = figure.subplots(1, 2)
    for axes, metric, label in ((left, "psnr", "PSNR, dB"), (right, "ms_ssim_db", "MS-SSIM, dB")):
        for curve in shown:
            quality, rate = curve.series(metric)
            style = "-" if curve.measured else "--"
            axes.plot(
                rate, quality, style, lw=1, label=curve.name + ("" if curve.measured else " (published)")
            )
        for curve, style in ((result.curve(), "k-o"), (result.curve(archive=True), "k:")):
            quality, rate = curve.series(metric)
            if rate:
                axes.plot(rate, quality, style, lw=2, ms=4, label=curve.name)
        quality, rate = result.curve().series(metric)
        if rate:
            axes.set_xlim(0, 1.15 * max(rate))
            axes.set_ylim(min(quality) - 1, max(quality) + 1)
        axes.set_xlabel("bits per pixel")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    left.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)


def table_of(title: str, heads: str) -> Table:
    """An empty table; ``heads`` are separated by bars, and words stand on the left."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for n, head in enumerate(heads.split("|")):
        left = n == 0 or head == "setting"
        table.add_column(head, justify="left" if left else "right", no_wrap=left)
    return table


def number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def _range(low: float, high: float) -> str:
    return f"{round(low, 1):g}..{round(high, 1):g}"


def _bd(rate: BdRate | None, asked: tuple[float, float]) -> str:
    """Percent, marked where the curves do not cover the whole range."""
    if rate is None:
        return "-"
    whole = abs(rate.low - asked[0]) < 0.05 and abs(rate.high - asked[1]) < 0.05
    return f"{rate.percent:+.1f}" + ("" if whole else " part")
