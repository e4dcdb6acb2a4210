"""``recbatch report``: the page of one run."""

from __future__ import annotations

from typing import Annotated

import typer

from recbatch.cli import options, streams
from recbatch.cli.text import print_json

HELP = """Show a run in one HTML file: totals, quality, throughput, what is quarantined, the worst images.

The file needs no network and no other file. Without RUN it is the newest run. The worst images of a lossy run stand
beside their sources, as far as these can still be read.

\b
Examples:
  recbatch report photos.rba
  recbatch report s3://bucket/photos 20260301T020000Z -o night.html
  recbatch report photos.rba --json
"""


def register(app: typer.Typer) -> None:
    app.command("report", help=HELP)(report)


def report(
    archive: options.ArchiveUrl,
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="The run's name, or the beginning of it; the newest by default."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write, by default named after the run in this folder; '-' is stdout.",
        ),
    ] = None,
    sources: Annotated[
        bool,
        typer.Option("--sources/--no-sources", help="Read the worst images' sources and show them too."),
    ] = True,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    from recbatch import api

    if as_json:
        print_json(api.run_page(archive, run, sources=False, pictures=False).to_dict())
        return
    if output:
        streams.check_free(output, overwrite=overwrite)
    page = api.run_page(archive, run, sources=sources)
    name = output or f"recbatch-{page.status.run}.html"
    streams.write_bytes(name, page.html().encode(), overwrite=overwrite)
    if name != "-":
        typer.echo(name)
