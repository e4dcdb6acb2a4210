"""``recbatch bench scale``: what a job's driver costs as images become millions."""

from __future__ import annotations

from typing import Annotated

import typer

from recbatch.cli import options
from recbatch.cli.bench import bench_app, show, talk

SCALE_HELP = """Seconds and memory of listing, planning and committing 10^5 to 10^7 images.

Source and workers are simulated; all that lies between them is what real jobs run.

\b
Examples:
  recbatch bench scale
  recbatch bench scale --images 100000 --images 1000000 --files 10000 --json
"""


def register(app: typer.Typer) -> None:
    bench_app.command("scale", help=SCALE_HELP)(scale)


def scale(
    images: Annotated[
        list[int] | None,
        typer.Option("--images", min=1, metavar="N", help="Images of the source; may be repeated."),
    ] = None,
    files: Annotated[
        list[int] | None,
        typer.Option(
            "--files", min=1, metavar="N", help="Files in the log; may be repeated, smallest first."
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, metavar="N", help="Simulated workers.")] = 64,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.bench import log_growth, scale, scale_render

    result = scale.scale_benchmark(
        sizes=tuple(images or scale.SIZES),
        files=tuple(sorted(files or log_growth.FILES)),
        workers=workers,
        progress=talk(quiet=quiet) or (lambda text: None),
    )
    show(result, lambda: scale_render.scale_tables(result), as_json=as_json)
