"""``recbatch doctor``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from recbatch.cli import options
from recbatch.cli.text import count, print_json

if TYPE_CHECKING:
    from recbatch.health import Check

HELP = """Check this machine, stores and archives, and a cluster; say what to do where something is wrong.

Without URLs only this machine is looked at. One small object is written into each archive and
removed again; into a source nothing is written. Secrets are never printed. Exit status 1 where
there is a problem; warnings alone are 0.

\b
Examples:
  recbatch doctor
  recbatch doctor s3://bucket/archive --address http://head:8265
"""


def register(app: typer.Typer) -> None:
    app.command("doctor", help=HELP)(doctor)


def doctor(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[URL]...", help="Archives or sources: folders, or URLs such as s3://bucket/prefix."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="URL", help="A cluster's job server, such as http://head:8265."),
    ] = None,
    models: Annotated[
        bool,
        typer.Option("--models/--no-models", help="Code a test picture with the models; takes seconds."),
    ] = True,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch import api

    checks: list[Check] = []
    for check in api.doctor(*(targets or ()), address=address, models=models):
        checks.append(check)
        if not as_json and not (quiet and check.state == "ok"):
            typer.echo(check_text(check))
    states = Counter(check.state.value for check in checks)
    problems, warnings = states["problem"], states["warning"]
    if as_json:
        print_json({"schema": 1, "problems": problems, "warnings": warnings, "checks": checks})
    elif not quiet:
        found = [count(each, noun) for each, noun in ((problems, "problem"), (warnings, "warning")) if each]
        typer.echo(f"{count(len(checks), 'check')}: {' and '.join(found) or 'all well'}")
    raise typer.Exit(1 if problems else 0)


def check_text(check: Check) -> str:
    line = f"{check.state.value:<8} {check.name}: {check.text}"
    return f"{line}\n         {check.remedy}" if check.remedy else line
