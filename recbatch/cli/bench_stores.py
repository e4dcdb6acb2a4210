"""``recbatch bench stores``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from recbatch.cli import options

HELP = """Megapixels and megabytes a second of the whole job in a bucket, beside the local disk.

Uploads the images below a name of its own under --url, and deletes at the end all that it made.

\b
Examples:
  recbatch bench stores kodak/ --url s3://bucket/bench
  recbatch bench stores photos/ --url s3://bucket --mode original --repeats 5 --json
"""


class Mode(StrEnum):
    original = "original"
    lossless = "lossless"


def stores(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of images.")],
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="s3://bucket/prefix where objects may be made.")
    ],
    mode: Annotated[
        list[Mode] | None, typer.Option("--mode", help="Only this mode of the job; may be repeated.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, metavar="N", help="Worker processes.")] = 2,
    repeats: Annotated[int, typer.Option("--repeats", min=1, metavar="N", help="Runs of each job.")] = 3,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.bench import stores as measure
    from recbatch.cli.bench import show, talk

    result = measure.stores_benchmark(
        folder,
        url,
        modes=tuple(each.value for each in mode or Mode),
        workers=workers,
        repeats=repeats,
        progress=talk(quiet=quiet),
    )
    show(result, lambda: measure.stores_table(result), as_json=as_json)
