"""``recbatch restore`` and ``recbatch get``."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from recbatch.cli import options, streams
from recbatch.cli.display import Progress
from recbatch.cli.maintenance import AtVersion
from recbatch.cli.report import print_report
from recbatch.errors import UsageError

RESTORE_HELP = """Write the archive's images as files again, under the same keys.

\b
Examples:
  recbatch restore photos.rba restored/
  recbatch restore photos.rba restored/ --where "key like '2024/%'" --format webp
  recbatch restore photos.rba previews/ --previews
"""

GET_HELP = """Get one image; without -o it is written here, under the last part of its key.

\b
Examples:
  recbatch get photos.rba 2024/beach.jpg -o beach.png
  recbatch get photos.rba 2024/beach.jpg --raw -o - > beach.rec
  recbatch get photos.rba 2024/beach.jpg --preview
"""


LEPTON_MAGIC = b"\xcf\x84"


class RawPreview(UsageError):
    """The stored bytes and a decoded preview were asked for at once."""

    code = "raw-preview"

    def __str__(self) -> str:
        return "--raw gives stored bytes and --preview a decoded image. Choose one of them."


class Executor(StrEnum):
    auto = "auto"
    ray = "ray"
    processes = "processes"
    inline = "inline"


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
        typer.Option(
            "--format",
            help="Format of the files; by default the source's own file where the archive can give it back, else PNG.",
        ),
    ] = Format.original_or_png,
    previews: Annotated[
        bool,
        typer.Option(
            "--previews",
            help="Write previews, as .jpg unless --format says otherwise; of lossless images only these are read.",
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    version: AtVersion = None,
    workers: options.Workers = None,
    executor: Annotated[
        Executor,
        typer.Option(
            "--executor",
            help="How workers run: by default on Ray where there is much to decode, else inline, as for compress.",
        ),
    ] = Executor.auto,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    log_format: options.LogFormat = None,
    debug: options.Debug = False,
) -> None:
    import recbatch

    with Progress("restore", as_json=as_json, quiet=quiet, log_format=log_format) as progress:
        write = (
            recbatch.open(archive, version).restore_previews
            if previews
            else partial(recbatch.restore, archive, version=version)
        )
        report = write(
            destination,
            where=where,
            format=format.value,
            workers=workers,
            executor=executor.value,
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
        bool,
        typer.Option(
            "--raw", help="The stored bytes, undecoded: a .rec stream, a recoded JPEG or the original file."
        ),
    ] = False,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Its preview, all that is read of a lossless image; an image without one is decoded itself.",
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    version: AtVersion = None,
    debug: options.Debug = False,
) -> None:
    import recbatch
    from recbatch import api

    if raw and preview:
        raise RawPreview
    opened = recbatch.open(archive, version)
    wanted = None if output in (None, "-") or raw else api.file_format(output)
    if preview:
        wanted = wanted or "jpeg"
        data, suffix = opened.preview_file(key, wanted), ".jpg"
    elif raw:
        data = opened.stored(key)
        suffix = raw_suffix(key, opened.record(key, ["codec"]).codec, data)
    else:
        format, data = opened.file(key, wanted)
        row = opened.record(key, ["codec", "source_format"])
        # of what keeps the source's format the key's suffix fits, however unusual
        same = row.codec != "lossy" and format == row.source_format
        suffix = Path(key).suffix if same else f".{format}"
    streams.write_bytes(output or Path(key).stem + suffix, data, overwrite=overwrite)


def raw_suffix(key: str, codec: str | None, data: bytes) -> str:
    """Of a file with a row's stored bytes."""
    if codec == "jpeg":
        return ".lep" if data.startswith(LEPTON_MAGIC) else ".jxl"
    return Path(key).suffix if codec == "original" else ".rec"
