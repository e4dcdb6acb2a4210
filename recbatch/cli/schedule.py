"""``recbatch schedule``: commands that run at the times of a cron expression, once each, whoever asks."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from recbatch.cli import options
from recbatch.cli.text import columns, count, plain, print_json

if TYPE_CHECKING:
    from recbatch.engine.schedule import Status, Step, Tick

HELP = """Run commands at the times of a cron expression, each time once, from any number of machines."""

ADD_HELP = """Keep a schedule in an archive: COMMAND is run at the times of --cron.

COMMAND is read by its own parser first, with the defaults of this folder and environment. The
schedule lies in the archive that COMMAND works on, or in --archive. Something has to call
'schedule run' then: a daemon, or what 'schedule render' writes for cron, systemd or Kubernetes.

\b
Examples:
  recbatch schedule add nightly --cron '0 3 * * *' --timezone Europe/Berlin \\
    -- compress s3://photos s3://archives/photos --lossless
  recbatch schedule add weekly --cron '30 4 * * SUN' --missed skip \\
    -- verify s3://archives/photos --level pixels --sample 1%
"""
LS_HELP = """List an archive's schedules: what comes next, what is due, how the last run went.

\b
Examples:
  recbatch schedule ls s3://archives/photos
  recbatch schedule ls photos.rba --json
"""
SHOW_HELP = """Show one schedule and its last ticks.

\b
Examples:
  recbatch schedule show s3://archives/photos nightly
  recbatch schedule show photos.rba nightly --json
"""
RM_HELP = """Remove a schedule. A run that is going goes on; the record of its ticks stays.

\b
Examples:
  recbatch schedule rm s3://archives/photos nightly
  recbatch schedule rm photos.rba nightly
"""
DUE_HELP = """Say what 'schedule run' would run now. Changes nothing.

\b
Examples:
  recbatch schedule due s3://archives/photos
  recbatch schedule due photos.rba nightly --json
"""
RUN_HELP = """Run what is due, one tick of a schedule at most, and return; or wait for each tick with --daemon.

Any number of machines may call it: each planned time is run once, and one run at a time. Of
several that were missed only the latest is run. SIGTERM asks the run under way to commit what
is finished and to end.

\b
Examples:
  recbatch schedule run s3://archives/photos
  recbatch schedule run s3://archives/photos nightly --daemon --submit http://head:8265

\b
Exit status: the highest of the runs' own, 0 where nothing was due.
"""
RENDER_HELP = """Write a schedule for another scheduler, which then calls 'schedule run ARCHIVE NAME --once'.

\b
Examples:
  recbatch schedule render s3://archives/photos nightly --as systemd
  recbatch schedule render s3://archives/photos nightly --as cronjob --image registry/recbatch:1
"""

schedule_app = typer.Typer(rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
AnyName = Annotated[str | None, typer.Argument(metavar="NAME", help="This schedule alone.")]
Submit = Annotated[
    str | None,
    typer.Option(
        "--submit",
        metavar="URL",
        help="Let the Ray cluster at this address do it, as 'recbatch submit' does.",
    ),
]
SharedPaths = Annotated[
    bool, typer.Option("--shared-paths", help="With --submit: every node sees the paths of this machine.")
]


class Missed(StrEnum):
    latest = "latest"
    skip = "skip"


class Target(StrEnum):
    cron = "cron"
    systemd = "systemd"
    cronjob = "cronjob"
    raycronjob = "raycronjob"


def register(app: typer.Typer) -> None:
    app.add_typer(schedule_app, name="schedule", help=HELP)


@schedule_app.callback()
def before(debug: options.Debug = False) -> None:
    """Options before the command."""


@schedule_app.command("add", help=ADD_HELP)
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Up to 38 of a-z, 0-9 and '-'.")],
    words: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND ARGS...", help="The command, as it would run here.")
    ],
    cron: Annotated[
        str,
        typer.Option(
            "--cron",
            metavar="EXPR",
            help="Five fields: minute, hour, day of month, month, day of week; or @daily and the like.",
        ),
    ],
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="ZONE", help="Whose clock shows those times.")
    ] = "UTC",
    missed: Annotated[
        Missed,
        typer.Option("--missed", help="Of runs that were missed: make up for the latest, or for none."),
    ] = Missed.latest,
    archive: Annotated[
        str | None,
        typer.Option(
            "--archive", metavar="URL", help="Where the schedule lies; by default COMMAND's archive."
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.api import schedule
    from recbatch.cli.command_line import parsed

    line = parsed(context, words, "be scheduled")
    made = schedule.add_schedule(
        archive or line.archive,
        name,
        cron=cron,
        command=line.words,
        timezone=timezone,
        missed=missed.value,
    )
    if as_json:
        print_json(made)
    elif not quiet:
        coming = made.next(datetime.now(UTC))
        typer.echo(f"{name} is kept in {made.archive}; its first run is due {when(coming, timezone)}")


@schedule_app.command("ls", help=LS_HELP)
def ls(archive: options.ArchiveUrl, as_json: options.Json = False, debug: options.Debug = False) -> None:
    from recbatch.api import schedule

    found = schedule.schedules(archive)
    if as_json:
        print_json([plain(status) for status in found])
        return
    rows = [["NAME", "CRON", "ZONE", "NEXT", "STATE", "COMMAND"]]
    for status in found:
        kept = status.schedule
        state = state_text(status)
        command = shlex.join(kept.command)
        rows.append([kept.name, kept.cron, kept.timezone, when(status.next, kept.timezone), state, command])
    typer.echo(columns(rows))


@schedule_app.command("show", help=SHOW_HELP)
def show(
    archive: options.ArchiveUrl, name: Name, as_json: options.Json = False, debug: options.Debug = False
) -> None:
    from recbatch.api import schedule

    status = schedule.schedule_status(archive, name)
    ticks = schedule.schedule_history(archive, name)
    if as_json:
        print_json({**plain(status), "ticks": ticks})
        return
    kept = status.schedule
    rows = [
        ["name", kept.name],
        ["archive", kept.archive],
        ["times", f"{kept.cron} ({kept.timezone})"],
        ["missed runs", kept.missed],
        ["command", f"recbatch {shlex.join(kept.command)}"],
        ["created", when(kept.created, kept.timezone)],
        ["next", when(status.next, kept.timezone)],
        ["state", state_text(status)],
    ]
    typer.echo(columns(rows))
    if ticks:
        table = [["TICK", "STATE", "EXIT", "IMAGES", "NOTE"]]
        typer.echo("\n" + columns([*table, *(tick_row(tick, kept.timezone) for tick in ticks)]))


@schedule_app.command("rm", help=RM_HELP)
def rm(archive: options.ArchiveUrl, name: Name, debug: options.Debug = False) -> None:
    from recbatch.api import schedule

    schedule.remove_schedule(archive, name)


@schedule_app.command("due", help=DUE_HELP)
def due(
    archive: options.ArchiveUrl,
    name: AnyName = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.api import schedule

    found = schedule.schedules(archive) if name is None else [schedule.schedule_status(archive, name)]
    if as_json:
        print_json([plain(status) for status in found])
        return
    for status in found:
        kept = status.schedule
        if status.due is None:
            typer.echo(f"{kept.name}: nothing is due; next {when(status.next, kept.timezone)}")
            continue
        waits = f"; waits for {status.running}" if status.running else ""
        again = " again" if status.again else ""
        missed = f", {count(status.missed, 'earlier tick')} missed" if status.missed else ""
        typer.echo(f"{kept.name}: {when(status.due, kept.timezone)} is due{again}{missed}{waits}")


@schedule_app.command("run", help=RUN_HELP)
def run(
    archive: options.ArchiveUrl,
    name: AnyName = None,
    daemon: Annotated[
        bool, typer.Option("--daemon/--once", help="Wait for each tick until SIGTERM, or return.")
    ] = False,
    submit: Submit = None,
    shared_paths: SharedPaths = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.api import schedule

    check_shared(submit, shared_paths)

    def say(line: str) -> None:
        if not quiet:
            typer.echo(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}", err=True)

    def report(step: Step) -> None:
        if as_json and step.tick is not None:
            print_json({"event": "tick", "schema": 1, "id": step.tick.id, **plain(step.tick)})

    if daemon:
        schedule.watch_schedules(
            archive, name, submit=submit, shared_paths=shared_paths, say=say, report=report
        )
        return
    steps = schedule.run_schedules(archive, name, submit=submit, shared_paths=shared_paths, say=say)
    for step in steps:
        report(step)
    if not quiet and not as_json and all(step.tick is None and not step.waits_for for step in steps):
        typer.echo("nothing is due", err=True)
    ran = [step.tick.exit_status for step in steps if step.tick is not None]
    raise typer.Exit(max((status or 0 for status in ran), default=0))


@schedule_app.command("render", help=RENDER_HELP)
def render(
    archive: options.ArchiveUrl,
    name: Name,
    target: Annotated[Target, typer.Option("--as", help="For which scheduler.")],
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="IMAGE", help="For Kubernetes: a container with recbatch."),
    ] = None,
    submit: Submit = None,
    shared_paths: SharedPaths = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.api import schedule

    check_shared(submit, shared_paths)
    text = schedule.render_schedule(
        archive, name, target.value, image=image, submit=submit, shared_paths=shared_paths
    )
    typer.echo(text, nl=False)


def check_shared(submit: str | None, shared_paths: bool) -> None:
    if shared_paths and submit is None:
        raise typer.BadParameter("--shared-paths says what a cluster's nodes see; it goes with --submit URL")


def when(instant: datetime | None, timezone: str) -> str:
    """A time as a clock in the schedule's zone shows it."""
    from zoneinfo import ZoneInfo

    return "never" if instant is None else f"{instant.astimezone(ZoneInfo(timezone)):%Y-%m-%d %H:%M %Z}"


def state_text(status: Status) -> str:
    if status.running.partition("/")[0] == status.schedule.name:
        return "running"
    if status.due is not None:
        return "due"
    return "new" if status.last is None else status.last.state


def tick_row(tick: Tick, timezone: str) -> list[str]:
    images = tick.report.get("images", "")
    note = "; ".join(
        part
        for part in (
            f"{tick.attempt} attempts" if tick.attempt > 1 else "",
            f"{tick.passed_over} missed before" if tick.passed_over else "",
            tick.reason,
        )
        if part
    )
    status = "" if tick.exit_status is None else str(tick.exit_status)
    return [when(tick.tick, timezone), tick.state, status, str(images), note]
