"""``recbatch plan``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from recbatch.cli import options
from recbatch.cli.compress import KeepOriginals
from recbatch.cli.display import Progress
from recbatch.cli.text import bytes_text, columns, count, duration_text, print_json

if TYPE_CHECKING:
    from recbatch.engine.forecast import Forecast
    from recbatch.engine.sampling import Estimate

HELP = """Say what 'compress' would archive, how large it becomes, and how long it takes.

Takes the options of 'compress' that say what is archived and how. Lists SOURCE, compares it with
ARCHIVE, and encodes a sample of what is missing into a temporary folder, on this machine. Neither
SOURCE nor ARCHIVE is written to.

\b
Examples:
  recbatch plan photos/ photos.rba --quality 50
  recbatch plan s3://bucket/raw s3://bucket/archive --workers 64 --price-hour 0.04
"""


def register(app: typer.Typer) -> None:
    app.command("plan", help=HELP)(plan)


def plan(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder or URL with images.")],
    archive: options.ArchiveUrl,
    lossless: options.Lossless = False,
    quality: options.Quality = None,
    bpp: options.Bpp = None,
    psnr: options.Psnr = None,
    max_bytes: options.MaxBytes = None,
    min_psnr: options.MinPsnr = None,
    auto: options.Auto = False,
    original: Annotated[
        bool, typer.Option("--original", help="Keep the files' own bytes instead of coding their pixels.")
    ] = False,
    preview: options.Preview = True,
    exact_files: Annotated[
        bool,
        typer.Option(
            "--exact-files", help="Lossless: the very source files come back, or are kept as they are."
        ),
    ] = False,
    model: options.Model = None,
    coder: options.Coder = options.DEFAULT_CODER,
    effort: options.Effort = options.DEFAULT_EFFORT,
    keep_originals: Annotated[
        KeepOriginals,
        typer.Option("--keep-originals", help="Store a file's own bytes instead of its stream: when?"),
    ] = KeepOriginals.smaller,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="GLOB", help="Only keys that match; may be repeated."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="GLOB", help="Not keys that match; may be repeated."),
    ] = None,
    listing: Annotated[
        str | None,
        typer.Option(
            "--listing",
            metavar="FILE",
            help="Do not list SOURCE: its objects stand in this CSV, Parquet or S3 Inventory manifest.json.",
        ),
    ] = None,
    max_pixels: options.MaxPixels = options.DEFAULT_MAX_PIXELS,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, metavar="N", help="Workers of the job; by default one a core."),
    ] = None,
    gpus_per_worker: Annotated[
        float,
        typer.Option("--gpus-per-worker", min=0, metavar="N", help="Above 0 the pilot encodes on the GPU."),
    ] = 0,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Count images that were quarantined before, too.")
    ] = False,
    sample: Annotated[
        int, typer.Option("--sample", min=1, metavar="N", help="Images that the pilot encodes.")
    ] = 200,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="The pilot begins no image after these.")
    ] = 60,
    price_hour: Annotated[
        float | None,
        typer.Option("--price-hour", min=0, metavar="X", help="What one worker costs an hour."),
    ] = None,
    price_gb_month: Annotated[
        float | None,
        typer.Option("--price-gb-month", min=0, metavar="Y", help="What it costs to keep a GB for a month."),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    import recbatch

    with Progress("pilot", quiet=quiet or as_json) as progress:
        forecast = recbatch.plan(
            source,
            archive,
            lossless=lossless,
            quality=quality,
            bpp=bpp,
            psnr=psnr,
            max_bytes=max_bytes,
            min_psnr=min_psnr,
            auto=auto,
            original=original,
            preview=preview,
            exact_files=exact_files,
            model=model,
            coder=coder,
            effort=effort,
            keep_originals=keep_originals.value,
            include=include or (),
            exclude=exclude or (),
            listing=listing,
            max_pixels=max_pixels,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            retry_quarantined=retry_quarantined,
            sample=sample,
            seconds=seconds,
            price_hour=price_hour,
            price_gb_month=price_gb_month,
            progress=progress.event,
        )
    if as_json:
        print_json({"schema": 1, **forecast.to_dict()})
        return
    for problem in forecast.problems:
        typer.echo(f"warning: {problem}", err=True)
    typer.echo(columns([list(row) for row in forecast_rows(forecast)]))


def forecast_rows(forecast: Forecast) -> Iterator[tuple[str, str]]:
    """What is foretold, one thing a row."""
    yield "images", ", ".join(_images(forecast))
    if not forecast.images:
        yield "to do", f"nothing: {forecast.archive} has all of them"
        return
    yield "pilot", _pilot(forecast)
    if forecast.streams is None or forecast.added is None or forecast.after is None:
        yield "archive", "not known: the pilot saw no image; give more --seconds"
        return
    beside = [
        f"images {range_text(forecast.streams, bytes_text)}",
        f"table {bytes_text(forecast.rows_bytes)}",
        f"log {bytes_text(forecast.log_bytes)}",
    ]
    if forecast.models_bytes:
        beside.append(f"models {bytes_text(forecast.models_bytes)}")
    yield (
        "archive",
        f"{range_text(forecast.added, bytes_text)}{' more' * bool(forecast.archive_bytes)}: {', '.join(beside)}",
    )
    if forecast.archive_bytes:
        yield "afterwards", range_text(forecast.after, bytes_text)
    yield "ratio", f"{forecast.streams.value / max(forecast.bytes, 1):.1%} of the files' bytes"
    yield "codecs", ", ".join(_codecs(forecast))
    yield "quarantined", _quarantined(forecast)
    if forecast.psnr is not None and forecast.bpp is not None:
        yield "quality", f"PSNR {forecast.psnr.value:.1f} dB, {forecast.bpp.value:.3f} bpp in the pilot"
    yield "time", _time(forecast)
    yield "work", _money(forecast.work_price, "--price-hour")
    yield "storage", _money(forecast.month_price, "--price-gb-month", " a month")


def _images(forecast: Forecast) -> Iterator[str]:
    yield f"{count(forecast.images, 'image')} to archive, {bytes_text(forecast.bytes)}"
    if forecast.known:
        yield f"{forecast.known:,} archived already"
    if forecast.replaces:
        yield f"{forecast.replaces:,} replace a row"
    if forecast.skipped:
        yield f"{count(forecast.skipped, 'other file')} skipped"


def _pilot(forecast: Forecast) -> str:
    text = f"{count(forecast.seen, 'image')}, {bytes_text(forecast.seen_bytes)}, in {duration_text(forecast.pilot_s)}"
    if forecast.out_of_time:
        text += f"; the time was up, {forecast.sampled:,} were drawn (--seconds gives more)"
    elif forecast.seen == forecast.images:
        text += "; these are all"
    return text


def _codecs(forecast: Forecast) -> Iterator[str]:
    for codec, part in forecast.parts.items():
        if codec:
            size = f"{bytes_text(part.bytes_in)} to {bytes_text(part.bytes_out)}"
            yield f"{codec} {part.images.value:.0%} of the images ({size})"


def _quarantined(forecast: Forecast) -> str:
    if forecast.quarantined is None:
        return "not known"
    text = f"{forecast.quarantined.value:.1%} of the images"
    if forecast.seen < forecast.images:
        text += f" ({forecast.quarantined.low:.1%} to {forecast.quarantined.high:.1%})"
    codes = ", ".join(f"{code} {number}" for code, number in forecast.errors.items())
    return f"{text}: {codes} in the pilot" if codes else text


def _time(forecast: Forecast) -> str:
    if forecast.wall_s is None or forecast.worker_s is None:
        return "not known"
    text = f"{range_text(forecast.wall_s, duration_text)} on {count(forecast.workers, 'worker')}"
    text += f" like {'those' if forecast.pilot_workers > 1 else 'that'} of the pilot ({forecast.device})"
    if forecast.shards < forecast.workers:
        text += f", of which {forecast.shards:,} have something to do"
    text += f"; their start {duration_text(forecast.startup_s)}"
    return f"{text}; {duration_text(forecast.worker_s.value)} of work in all"


def _money(price: Estimate | None, option: str, per: str = "") -> str:
    if price is None:
        return f"price not known: give {option}"
    return range_text(price, price_text) + per


def price_text(price: float) -> str:
    """Two digits after the point, or two that say something."""
    return f"{price:,.2f}" if price >= 0.1 or not price else f"{price:.2g}"


def range_text(estimate: Estimate, text: Callable[[float], str]) -> str:
    """``1.20 GB (1.15 GB to 1.25 GB)``, the interval being that of 95 %."""
    if not math.isfinite(estimate.value):
        return "not known"
    value, low, high = text(estimate.value), text(estimate.low), text(estimate.high)
    return value if low == high else f"{value} ({low} to {high})"
