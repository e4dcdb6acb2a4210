"""``recbatch vacuum`` and ``recbatch versions``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from recbatch.cli import options
from recbatch.cli.text import bytes_text, columns, count, days_text, key_text, print_json
from recbatch.errors import UsageError

if TYPE_CHECKING:
    from recbatch.archive import Sweep, Version
    from recbatch.engine.runs import RunStatus

VACUUM_HELP = """Find, or with --delete sweep, data files that no version of the last days needs.

These are the files of rows that were replaced, and files that no commit ever named. Versions
that need one can't be read any more; the newest one is never touched.

\b
Examples:
  recbatch vacuum photos.rba
  recbatch vacuum s3://bucket/photos --older-than 30d --delete
"""

VERSIONS_HELP = """List the commits of an archive, newest first, and which of them can't be read any more.

\b
Examples:
  recbatch versions photos.rba
  recbatch versions s3://bucket/photos --limit 5 --json
"""

AtVersion = Annotated[
    int | None,
    typer.Option("--version", metavar="N", help="As version N left the archive; see 'recbatch versions'."),
]
RANGES_SHOWN = 5
FILES_SHOWN = 20
DELETE = "--delete does it"
DELETE_YOUNG = "--delete --force does it, when no job runs"
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([dhw]?)")
_DAYS = {"": 1.0, "d": 1.0, "h": 1 / 24, "w": 7.0}


class BadSpan(UsageError):
    """A length of time that can't be read."""

    code = "bad-span"

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"{self.text!r} is no length of time. Give days, such as 14d, or 2w for weeks, 36h for hours."


def parse_days(text: str) -> float:
    """``14d``, ``14``, ``2w`` or ``36h``, in days."""
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None:
        raise BadSpan(text)
    return float(match[1]) * _DAYS[match[2]]


def register(app: typer.Typer) -> None:
    app.command("vacuum", help=VACUUM_HELP)(vacuum)
    app.command("versions", help=VERSIONS_HELP)(versions)


def vacuum(
    archive: options.ArchiveUrl,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="TIME", help="Keep what was replaced or written later: 14d, 2w, 36h."
        ),
    ] = "14d",
    delete: Annotated[
        bool, typer.Option("--delete/--dry-run", help="Delete the files; without it they are only named.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Delete after less than 7 days, too. Only when no job runs on the archive."
        ),
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch import api

    days = parse_days(older_than)
    alive = api.live_runs(archive)
    for run in alive:
        typer.echo(live_line(run, short=days < 7), err=True)
    swept = api.vacuum(archive, older_than_days=days, delete=delete, force=force)
    if as_json:
        print_json({**swept.to_dict(), "live_runs": [run.run for run in alive]})
    elif not quiet:
        for line in sweep_lines(swept):
            typer.echo(line)


def live_line(run: RunStatus, *, short: bool) -> str:
    where = f" on {run.host}" if run.host else ""
    line = f"warning: {run.job or 'a run'} {run.run} is at work{where}"
    if short:
        return f"{line}, and its files may be younger than the time given: they are lost then, and it does them again"
    return f"{line}; its files are safe, unless it goes on for longer than the time given"


def sweep_lines(swept: Sweep) -> list[str]:
    done = not swept.dry_run
    if not swept.files and not swept.plans:
        return [f"nothing to sweep: every file is needed, or younger than {days_text(swept.grace_days)}"]
    verb = "deleted" if done else "would delete"
    lines = []
    if swept.files:
        line = f"{verb} {count(len(swept.files), 'data file')}, {bytes_text(swept.bytes)}"
        if swept.orphans:
            line += f"; {swept.orphans:,} of them never committed"
        lines += [line, *named(swept.files)]
    if swept.plans:
        lines.append(f"{verb} {count(len(swept.plans), 'plan')} of old runs, {bytes_text(swept.plan_bytes)}")
        lines += named(swept.plans)
    if swept.unreadable:
        lines.append(f"{ranges_text(swept.unreadable)} can't be read {'any more' if done else 'then'}")
    if not done:
        lines.append(f"nothing was deleted: {DELETE if swept.grace_days >= 7 else DELETE_YOUNG}")
    return lines


def named(files: tuple[str, ...]) -> list[str]:
    lines = [f"  {key_text(file)}" for file in files[:FILES_SHOWN]]
    if len(files) > FILES_SHOWN:
        lines.append(f"  and {len(files) - FILES_SHOWN:,} more; --json names all")
    return lines


def ranges_text(ranges: tuple[tuple[int, int], ...]) -> str:
    """``version 3`` or ``versions 3 to 17, 20``; of very many the newest."""
    shown = [f"{first} to {last}" if last > first else f"{first}" for first, last in ranges[-RANGES_SHOWN:]]
    if len(ranges) > RANGES_SHOWN:
        shown.insert(0, "some before")
    single = len(ranges) == 1 and ranges[0][0] == ranges[0][1]
    return f"version{'' if single else 's'} {', '.join(shown)}"


def versions(
    archive: options.ArchiveUrl,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Only the newest N.")
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    from recbatch import api

    found = api.versions(archive, limit=limit)
    if as_json:
        for version in found:
            print_json(version.to_dict())
        return
    heading = ["version", "committed (UTC)", "shards", "rows", "replaced", "what"]
    typer.echo(columns([heading, *map(version_row, found)], right=(0, 2, 3, 4)))


def version_row(version: Version) -> list[str]:
    numbers = (version.shards, version.rows, version.replaced)
    return [
        str(version.version),
        f"{version.committed_at:%Y-%m-%d %H:%M:%S}",
        *(f"{number:,}" if number else "" for number in numbers),
        what(version),
    ]


def what(version: Version) -> str:
    """Which run made a commit, or what else did, and whether it can't be read any more."""
    text = version.operation.lower()
    if version.job is not None:
        text = f"{version.kind or version.job}, run {version.epoch}" + ("" if version.shards else " begins")
    return f"{text}; can't be read any more" if version.readable is False else text
