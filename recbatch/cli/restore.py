"""``recbatch restore`` and ``recbatch get``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from recbatch.cli import options, streams
from recbatch.cli.display import Progress
from recbatch.cli.report import print_report

RESTORE_HELP = """Write the archive's images as files again, under the same keys.

\b
Examples:
  recbatch restore photos.rba restored/
  recbatch restore photos.rba restored/ --where "key like '2024/%'" --format webp
"""

GET_HELP = """Get one image; without -o it is written here, under the last part of its key.

\b
Examples:
  recbatch get photos.rba 2024/beach.jpg -o beach.png
  recbatch get photos.rba 2024/beach.jpg --raw -o - > beach.rec
"""


class Format(StrEnum):
    original_or_png = "original-or-png"
    png = "png"
    webp = "webp"
    jpeg = "jpeg"
    tiff = "tiff"
    original = "original"


def register(app: typer.Typer) -> None:
    app.command("restore", help=RESTORE_HELP)(restore)
    app.command("get", help=GET_HELP)(get)


def restore(
    archive: options.ArchiveUrl,
    destination: Annotated[str, typer.Argument(metavar="DEST", help="Folder to write to.")],
    where: options.Where = None,
    format: Annotated[
        Format,
        typer.Option("--format", help="Format of the files; originals keep their own bytes by default."),
    ] = Format.original_or_png,
    overwrite: options.Overwrite = False,
    workers: options.Workers = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    import recbatch

    with Progress("restore", as_json=as_json, quiet=quiet) as progress:
        report = recbatch.restore(
            archive,
            destination,
            where=where,
            format=format.value,
            workers=workers,
            overwrite=overwrite,
            progress=progress.event,
        )
    print_report(report, archive=archive, as_json=as_json, quiet=quiet)
    raise typer.Exit(report.exit_status)


def get(
    archive: options.ArchiveUrl,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key of the image, as 'recbatch ls' prints it.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write, its suffix names the format; '-' is stdout.",
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The stored bytes, undecoded: a .rec stream or the original file.")
    ] = False,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    import recbatch
    from recbatch import api

    opened = recbatch.open(archive)
    if raw:
        record = opened[key]
        suffix, data = Path(key).suffix if record.codec == "original" else ".rec", opened.stored(key)
    else:
        wanted = None if output in (None, "-") else api.file_format(output)
        format, data = opened.file(key, wanted)
        suffix = Path(key).suffix if opened[key].codec == "original" and wanted is None else f".{format}"
    streams.write_bytes(output or Path(key).stem + suffix, data, overwrite=overwrite)
