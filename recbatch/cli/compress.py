"""``recbatch compress``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from recbatch.cli import options
from recbatch.cli.display import Progress
from recbatch.cli.report import print_report

HELP = """Archive what is new or changed under SOURCE.

Without --original or a lossy option (--quality, --bpp, --psnr, --max-bytes, --min-psnr) every
pixel comes back, and JPEG files come back byte for byte. Every image is decoded again and
compared or measured before its row exists. A bad image becomes a quarantined row and the rest
goes on (exit status 1). Run the same command again after any interruption: it does only what
is missing.

\b
Examples:
  recbatch compress photos/ photos.rba
  recbatch compress photos/ photos.rba --quality 50
  recbatch compress photos/ photos.rba --bpp 0.5 --min-psnr 32
  recbatch compress s3://bucket/raw archive/ --original --include '*.tif'
"""


class Executor(StrEnum):
    ray = "ray"
    processes = "processes"
    inline = "inline"


class KeepOriginals(StrEnum):
    never = "never"
    smaller = "smaller"
    always = "always"


def register(app: typer.Typer) -> None:
    app.command("compress", help=HELP)(compress)


def compress(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Folder or URL with images; every file under it is an item."),
    ],
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
    workers: options.Workers = None,
    gpus_per_worker: Annotated[
        float,
        typer.Option("--gpus-per-worker", min=0, metavar="N", help="GPUs per worker; fractions share one."),
    ] = 0,
    wait_for_workers: Annotated[
        float | None,
        typer.Option(
            "--wait-for-workers",
            min=0,
            metavar="SECONDS",
            help="On a cluster that grows: how long the first worker may wait for its place; 0 not at all.",
        ),
    ] = None,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try images again that were quarantined before.")
    ] = False,
    executor: Annotated[
        Executor,
        typer.Option(
            "--executor",
            help="How workers run: on Ray, as plain processes, or inline (unprotected from crashes).",
        ),
    ] = Executor.ray,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Count what would be done; write nothing. 'recbatch plan' foretells size and time.",
        ),
    ] = False,
    page: Annotated[
        bool,
        typer.Option("--report", help="Keep the run's page in the archive, as 'recbatch report' makes it."),
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    log_format: options.LogFormat = None,
    debug: options.Debug = False,
) -> None:
    import recbatch

    with Progress("compress", as_json=as_json, quiet=quiet, log_format=log_format) as progress:
        report = recbatch.compress(
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
            wait_s=wait_for_workers,
            page=page,
            retry_quarantined=retry_quarantined,
            dry_run=dry_run,
            executor=executor.value,
            progress=progress.event,
        )
    print_report(report, archive=archive, as_json=as_json, quiet=quiet)
    if dry_run and report.images and not (as_json or quiet):
        typer.echo(
            "'recbatch plan' with the same options foretells how large it becomes, and how long it takes"
        )
    raise typer.Exit(report.exit_status)
