"""``recbatch verify``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from recbatch.cli import options
from recbatch.errors import UsageError

HELP = """Check an archive. Changes nothing.

\b
Levels, each including those before it:
  structure  log and footers: missing, truncated or foreign files, row counts, duplicate keys
  digests    every stream's bytes against its SHA-256
  pixels     every stream decoded, and compared with what was measured when it was written

\b
Examples:
  recbatch verify photos.rba
  recbatch verify s3://bucket/photos --level pixels --sample 1%

\b
Exit status: 1 where a check failed, 4 where the archive can't be read at all.
"""


class Level(StrEnum):
    structure = "structure"
    digests = "digests"
    pixels = "pixels"


class BadSample(UsageError):
    """``--sample`` is no share of the rows."""

    code = "bad-sample"

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return (
            f"'{self.text}' is no share of the images. Give a percentage such as 1%, or a fraction like 0.01."
        )


def register(app: typer.Typer) -> None:
    app.command("verify", help=HELP)(verify)


def parse_share(text: str) -> float:
    """``1%`` or ``0.01``: a share of 0 < share <= 1."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise BadSample(text) from None
    if not 0 < share <= 1:
        raise BadSample(text)
    return share


def verify(
    archive: options.ArchiveUrl,
    level: Annotated[Level, typer.Option("--level", help="How deep to look.")] = Level.digests,
    sample: Annotated[
        str,
        typer.Option("--sample", metavar="SHARE", help="Check the content of only this share of the images."),
    ] = "100%",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    import recbatch

    report = recbatch.verify(archive, level=level.value, sample=parse_share(sample))
    raise typer.Exit(report.exit_status)
