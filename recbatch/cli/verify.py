"""``recbatch verify``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from recbatch.cli import options
from recbatch.cli.display import VerifyProgress
from recbatch.cli.maintenance import BadSpan, parse_days
from recbatch.cli.text import bytes_text, count, days_text, duration_text, key_text, one_line, print_json
from recbatch.errors import UsageError

if TYPE_CHECKING:
    from recbatch.archive.verify import Finding, VerifyReport

HELP = """Check an archive. No image changes; the result is kept in the archive's ledger.

\b
Levels, each including those before it:
  structure  log and footers: missing, truncated or foreign files, row counts, duplicate keys
  digests    every stream's bytes against its SHA-256
  pixels     every stream decoded, and compared with what was measured when it was written

\b
Examples:
  recbatch verify photos.rba
  recbatch verify s3://bucket/photos --level pixels --sample 1%
  recbatch verify s3://bucket/photos --level pixels --rotate 30d

\b
Exit status: 1 where a check failed, 4 where the archive can't be read at all.
"""


SLOTS_SHOWN = 12
REMEDY = (
    "Put the data files named back from another copy of the archive. Where there is none, compress the sources into a "
    "new archive; 'recbatch restore' gives the images that can still be read."
)
RECODE = (
    "Images of which only the stream is damaged are coded anew from their sources so; where they were archived with "
    "more settings, such as --exact-files, add these:"
)


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
    rotate: Annotated[
        str | None,
        typer.Option(
            "--rotate", metavar="DAYS", help="Check what is due today, so that all has its turn in DAYS: 30d."
        ),
    ] = None,
    where: options.Where = None,
    record: Annotated[
        bool, typer.Option("--record/--no-record", help="Keep the result in the archive's ledger, or not.")
    ] = True,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    log_format: options.LogFormat = None,
    debug: options.Debug = False,
) -> None:
    import recbatch

    share, days = parse_share(sample), None if rotate is None else whole_days(rotate)
    with VerifyProgress(as_json=as_json, quiet=quiet, log_format=log_format) as progress:
        report = recbatch.verify(
            archive,
            level=level.value,
            sample=share,
            rotate_days=days,
            where=where,
            record=record,
            progress=progress.event,
        )
    if as_json:
        for finding in report.findings:
            print_json({"event": "finding", **finding.to_dict()})
        facts = {name: value for name, value in report.to_dict().items() if name != "findings"}
        print_json({"event": "report", "schema": 1, **facts, "findings": len(report.findings)})
    else:
        for finding in report.findings:
            typer.echo(finding_line(finding))
        if not quiet:
            typer.echo(summary(report))
            for line in rotation_lines(report):
                typer.echo(line)
        if report.findings:
            for line in remedy_lines(archive, report):
                typer.echo(line, err=True)
    if record and not report.recorded and not quiet:
        remedy = "; days without a run can't be caught up" if days else ""
        typer.echo(f"warning: {archive} can't be written, so the result is not kept{remedy}", err=True)
    raise typer.Exit(report.exit_status)


def remedy_lines(archive: str, report: VerifyReport) -> list[str]:
    """What is to be done: about the images whose streams are damaged, and about the rest."""
    from recbatch import api

    head = f"{archive}: {count(len(report.findings), 'thing')} wrong."
    commands = api.mending_commands(report)
    lines = []
    if len(report.findings) > len(report.damaged_streams) or not commands:
        lines.append(f"{head} {REMEDY}")
    if commands:
        lines.append(RECODE if lines else f"{head} {RECODE}")
        lines += [f"  {line}" for line in commands]
    return lines


def whole_days(text: str) -> int:
    """``30d`` or ``4w``."""
    days = parse_days(text)
    if days != int(days):
        raise BadSpan(text)
    return int(days)


def rotation_lines(report: VerifyReport) -> list[str]:
    """Which part of all it was, and what was made up for."""
    turn = report.rotation
    if turn is None:
        return []
    line = f"part {', '.join(str(slot + 1) for slot in sorted(turn.slots)[:SLOTS_SHOWN])}"
    line += " and more" if len(turn.slots) > SLOTS_SHOWN else ""
    lines = [f"{line} of {turn.days}; all has its turn in {count(turn.days, 'day')}"]
    if turn.is_first:
        lines.append(
            f"the first run of this rotation: the whole of it is checked {days_text(turn.days - 1)} from now"
        )
    if turn.missed:
        lines.append(f"made up for {count(turn.missed, 'day')} without a run")
    if turn.lost:
        lines.append(f"some images had to wait {days_text(turn.days + turn.lost)}: run it more often")
    return lines


def finding_line(finding: Finding) -> str:
    where = key_text(finding.key or finding.file or "archive")
    beside = f" (in {finding.file})" if finding.key and finding.file else ""
    return f"{where}: [{finding.code}] {one_line(finding.problem)}{beside}"


def summary(report: VerifyReport) -> str:
    parts = [
        f"{count(report.rows_checked, 'row')} of {report.rows:,} in {count(report.files_checked, 'file')} checked",
        f"{bytes_text(report.bytes_checked)} read",
    ]
    if report.level != "structure":
        parts.append(f"{count(report.streams_checked, 'stream')} by digest")
    if report.level == "pixels":
        parts.append(f"{report.streams_decoded:,} decoded")
    if report.models_checked:
        parts.append(count(report.models_checked, "model"))
    line = f"level {report.level}: {', '.join(parts)}, in {duration_text(report.seconds)}"
    return f"{line} ({report.mb_per_s:.1f} MB/s): {'all well' if report.ok else 'NOT well'}"
