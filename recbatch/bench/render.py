"""Results of ``lossy``, ``complexity`` and ``speed`` as tables for people; ``rec_render`` has those of ``rec``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recbatch.bench.bd import MS_SSIM_RANGES, PSNR_RANGES, BdRate
from recbatch.bench.complexity import PARTS, ComplexityResult, Part
from recbatch.bench.crops import CropResult
from recbatch.bench.lossy import ImageComparison, LossyResult
from recbatch.bench.lossy_plot import lossy_plot as lossy_plot
from recbatch.bench.quantisers import QuantiserResult
from recbatch.bench.speed import SpeedResult


def lossy_tables(result: LossyResult, *, every: bool = False, hardest: int | None = None) -> RenderableType:
    """Rates, comparisons, all images or so many of the hardest."""
    parts: list[RenderableType] = [_rates(result)]
    if result.comparisons:
        parts.append(_comparisons(result))
        parts.append(Text("The curves are means over their own images: compare only on those same images."))
    if every:
        parts.append(_images(result, result.per_image, "Each image"))
    if hardest:
        worst_first = result.hardest(hardest)
        parts.append(
            _images(result, worst_first, f"The {len(worst_first)} hardest of {result.images} images")
        )
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
            f"{row.level:g}",
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


def _images(result: LossyResult, images: Sequence[ImageComparison], title: str) -> Table:
    """BD-rates of each image, and its rate and quality at the middle one of the levels."""
    level = result.levels[len(result.levels) // 2].level
    ranges = "|".join(f"BD {_range(*bounds)}" for bounds in PSNR_RANGES)
    heads = f"image|{ranges}|bpp at level {level:g}|PSNR dB|MS-SSIM"
    table = table_of(f"{title}, BD-rate % against JPEG 4:2:0 of the same image", heads)
    by_image = {row.image: row for row in result.rows if row.level == level}
    for image in images:
        row = by_image[image.image]
        table.add_row(
            image.image,
            *(_bd(rate, bounds) for rate, bounds in zip(image.psnr, PSNR_RANGES, strict=True)),
            f"{row.bpp:.3f}",
            f"{row.psnr:.2f}",
            number(row.ms_ssim, 4),
        )
    return table


def quantiser_tables(result: QuantiserResult) -> RenderableType:
    """A row for each contestant: BD-rates of its mean curve, and its time."""
    ranges = [*(f"JPEG, {_range(*bounds)}" for bounds in PSNR_RANGES)]
    ranges += [*(f"scalar, {_range(*bounds)}" for bounds in PSNR_RANGES)]
    ranges += [f"scalar, MS-SSIM {_range(*bounds)}" for bounds in MS_SSIM_RANGES[:1]]
    levels = ", ".join(f"{level:g}" for level in result.levels)
    table = table_of(
        f"{result.images} images, model {result.digest[:12]}, levels {levels}; BD-rate in % over dB (PSNR) against",
        "|".join(["coder", "images", *ranges, "encode s/MP", "decode s/MP"]),
    )
    asked = (*PSNR_RANGES, *PSNR_RANGES, *MS_SSIM_RANGES[:1])
    for one in result.contestants:
        rates = (*one.jpeg, *one.scalar, *one.scalar_ms_ssim[:1])
        cells = (_bd(rate, bounds) for rate, bounds in zip(rates, asked, strict=True))
        speeds = f"{one.encode_s_per_mp:.2f}", f"{one.decode_s_per_mp:.2f}"
        table.add_row(one.label + (" *" if one.default else ""), str(one.images), *cells, *speeds)
    notes = Text(
        "* archives are written by it unless told otherwise. Complete files, decoded from their bytes; means over the "
        "images of a row, and the curve it is compared with is of these. Times: the processor's, one thread, networks "
        "included."
    )
    return Group(table, notes)


def complexity_tables(result: ComplexityResult) -> RenderableType:
    """A row for each model: kMAC per pixel and MP/s of its parts."""
    table = table_of(
        f"kMAC per pixel / MP per second on one core; {result.width}x{result.height} pixels",
        "|".join(["model", "MB", "passes", *PARTS, "encoder", "decoder"]),
    )
    for row in result.rows:
        cells = [_part(part) for part in (*row.parts, row.encoder, row.decoder)]
        table.add_row(row.model, f"{row.weights_bytes / 1e6:.1f}", str(row.passes), *cells)
    return table


def crops_tables(result: CropResult) -> RenderableType:
    """A row for each file."""
    table = table_of(
        f"Files at most as large as those of {result.model} ({result.digest[:12]}); * its least is larger",
        "image|level|crop|codec|bpp|PSNR dB|MS-SSIM",
    )
    for row in result.rows:
        for cell in row.cells:
            where = f"{row.left},{row.top}"
            figures = f"{cell.bpp:.4f}", number(cell.psnr, 2), number(cell.ms_ssim, 5)
            table.add_row(
                row.image, f"{row.level:g}", where, cell.codec + ("" if cell.fits else " *"), *figures
            )
    return table


def _part(part: Part) -> str:
    return f"{part.kmac_per_pixel:.2f} / {part.mp_per_s:.3g}"


def speed_tables(result: SpeedResult) -> RenderableType:
    table = table_of(
        f"{result.images} images, {result.megapixels:.1f} MP, {result.workers} processes; load average before: "
        f"{result.load_average:.1f}",
        "job|MP/s|MP/s without start|seconds|start s|CPU s/MP|bpp|PSNR dB",
    )
    for n, job in enumerate(result.jobs):
        table.add_row(
            f"recbatch level {result.level}, run {n + 1}",
            f"{job.megapixels_per_second:.2f}",
            f"{job.megapixels_per_second_started:.2f}",
            f"{job.seconds:.1f}",
            f"{job.startup_seconds:.1f}",
            f"{job.cpu_s_per_mp:.3f}",
            f"{job.bpp:.3f}",
            f"{job.psnr:.2f}",
        )
    encode_cpu = {back.name: back.encode_cpu_s_per_mp for back in result.other_decoders}
    for other in result.others:
        cells = (
            f"{other.megapixels_per_second:.2f}",
            f"{other.seconds:.1f}",
            "-",
            number(encode_cpu.get(other.name), 3),
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
    back = [_way_back(result)] if result.restores or result.other_decoders else []
    return Group(table, *back, memory, stages)


def _way_back(result: SpeedResult) -> Table:
    table = table_of("The way back, to PNG files", "job|MP/s|MP/s without start|seconds|start s|CPU s/MP")
    for n, run in enumerate(result.restores):
        table.add_row(
            f"recbatch level {result.level}, run {n + 1}",
            f"{run.megapixels_per_second:.2f}",
            f"{run.megapixels_per_second_started:.2f}",
            f"{run.seconds:.1f}",
            f"{run.startup_seconds:.1f}",
            f"{run.cpu_s_per_mp:.3f}",
        )
    for other in result.other_decoders:
        cells = (
            f"{other.megapixels_per_second:.2f}",
            f"{other.seconds:.1f}",
            "-",
            f"{other.cpu_s_per_mp:.3f}",
        )
        table.add_row(other.name, "-", *cells)
    return table


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
