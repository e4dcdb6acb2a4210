"""``recbatch jobs``: what runs on a cluster, and what an archive's ledger knows of its runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from recbatch.cli import options
from recbatch.cli.submit import Address, done_but, job_facts, say, tell_job, tell_submitted, wait_for
from recbatch.cli.text import bytes_text, columns, count, duration_text, plain, print_json
from recbatch.errors import RecbatchError, UsageError

if TYPE_CHECKING:
    from recbatch.engine.orders import JobState
    from recbatch.engine.runs import RunStatus

HELP = """Jobs on a Ray cluster, and the runs that an archive remembers."""

LS_HELP = """List the cluster's jobs, newest first.

\b
Examples:
  recbatch jobs ls --address http://head:8265
  recbatch jobs ls --json
"""
STATUS_HELP = """How far a job is: by the cluster, and by the ledger of its archive.

With --archive the ledger alone is read: it needs no cluster, and outlives it.

\b
Examples:
  recbatch jobs status recbatch-compress-0123456789abcdef
  recbatch jobs status --archive s3://archives/photos --limit 3
"""
LOGS_HELP = """What a job's driver has printed.

\b
Examples:
  recbatch jobs logs recbatch-compress-0123456789abcdef
  recbatch jobs logs --follow recbatch-compress-0123456789abcdef
"""
STOP_HELP = """Ask a job to commit what is finished and to end; waits until it has.

\b
Examples:
  recbatch jobs stop recbatch-compress-0123456789abcdef
  recbatch jobs stop --address http://head:8265 nightly
"""
RESUME_HELP = """Submit a job's command again: its next attempt does only what is missing.

\b
Examples:
  recbatch jobs resume recbatch-compress-0123456789abcdef
  recbatch jobs resume --wait nightly
"""
WAIT_HELP = """Follow a job to its end, and exit as it does. Ctrl-C leaves it alone.

\b
Examples:
  recbatch jobs wait recbatch-compress-0123456789abcdef
  recbatch jobs wait --quiet nightly
"""

Job = Annotated[
    str, typer.Argument(metavar="ID", help="A job's id; without its last number, the newest attempt.")
]


class NothingNamed(UsageError):
    """``jobs status`` names neither a job nor an archive, or both."""

    code = "nothing-named"

    def __str__(self) -> str:
        return "Name either a job or an archive. For example: recbatch jobs status --archive s3://archives/photos."


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="jobs", help=HELP, rich_markup_mode=None, no_args_is_help=False)
    group.callback()(before)
    group.command("ls", help=LS_HELP)(ls)
    group.command("status", help=STATUS_HELP)(status)
    group.command("logs", help=LOGS_HELP)(logs)
    group.command("stop", help=STOP_HELP)(stop)
    group.command("resume", help=RESUME_HELP)(resume)
    group.command("wait", help=WAIT_HELP)(wait)
    app.add_typer(group)


def before(debug: options.Debug = False) -> None:
    """Options before the command."""


def ls(address: Address = None, as_json: options.Json = False, debug: options.Debug = False) -> None:
    from recbatch.api import cluster

    found = cluster.jobs(address=address)
    if as_json:
        for state in found:
            print_json(job_facts(state))
        return
    rows = [["id", "status", "started", "took", "archive"]]
    rows += [[state.id, outcome(state), started(state), took(state), state.archive] for state in found]
    typer.echo(columns(rows) if found else "no jobs")


def status(
    job: Annotated[str | None, typer.Argument(metavar="[ID]", help="A job's id or name.")] = None,
    address: Address = None,
    archive: Annotated[
        str | None,
        typer.Option("--archive", metavar="URL", help="Read this archive's ledger; needs no cluster."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="Only so many runs, the newest ones.")
    ] = 10,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.api import cluster

    if (job is None) == (archive is None):
        raise NothingNamed
    if archive is not None:
        tell_runs(cluster.runs(archive, limit=limit), as_json=as_json)
        return
    assert job is not None  # for the type checker
    state = cluster.job(job, address=address)
    runs: list[RunStatus] = []
    trouble = ""
    if state.archive:
        try:
            runs = cluster.runs_of(state)[:1]
        except RecbatchError as error:  # it may be one that only the nodes see
            trouble = str(error)
    if as_json:
        print_json({**job_facts(state), "runs": [run_facts(run) for run in runs], "ledger_error": trouble})
        return
    for line in job_lines(state):
        typer.echo(line)
    tell_runs(runs, as_json=False, none="")
    if trouble:
        typer.echo(f"its archive's ledger can't be read from here: {trouble}", err=True)


def logs(
    job: Job,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.api import cluster

    for piece in cluster.logs(job, address=address, follow=follow):
        typer.echo(piece, nl=False)


def stop(
    job: Job, address: Address = None, as_json: options.Json = False, debug: options.Debug = False
) -> None:
    from recbatch.api import cluster

    state = cluster.stop(job, address=address)
    tell_job(state, as_json=as_json)
    if not state.over:
        when = "once it starts" if state.status == "PENDING" else "and has not yet"
        typer.echo(f"it is asked to end, {when}", err=True)
        raise typer.Exit(3)


def resume(
    job: Job,
    address: Address = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the job to its end, and exit as it does.")
    ] = False,
    allow_version_skew: Annotated[
        bool, typer.Option("--allow-version-skew", help="Go on with another Ray than the cluster's.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.api import cluster

    submitted = cluster.resume(job, address=address, allow_version_skew=allow_version_skew, tell=say)
    tell_submitted(submitted, as_json=as_json, quiet=quiet)
    if wait:
        raise typer.Exit(wait_for(submitted.job.id, address=address, as_json=as_json, quiet=quiet))


def wait(
    job: Job,
    address: Address = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    raise typer.Exit(wait_for(job, address=address, as_json=as_json, quiet=quiet))


def outcome(state: JobState) -> str:
    return f"done, exit status {state.exit_status}" if state.outcome == "done" else state.outcome


def started(state: JobState) -> str:
    return (
        f"{datetime.fromtimestamp(state.started, UTC):%Y-%m-%d %H:%M:%S}Z"
        if state.started is not None
        else "-"
    )


def took(state: JobState) -> str:
    if state.started is None:
        return "-"
    return duration_text((state.ended or datetime.now(UTC).timestamp()) - state.started)


def job_lines(state: JobState) -> list[str]:
    lines = [f"{state.id}: {state.outcome}", f"started {started(state)}, {took(state)}", state.command]
    if state.exit_status is not None:
        lines[0] += f", exit status {state.exit_status}{done_but(state)}"
    if state.message and state.outcome in ("pending", "failed"):
        lines.append(state.problem)
    return lines


def run_facts(run: RunStatus) -> dict[str, object]:
    facts = {key: value for key, value in run.to_dict().items() if key not in ("history", "schema")}
    return {**facts, "state": run.state_at(), "error": run.trouble_at(), "age_s": round(run.age_s(), 1)}


def tell_runs(runs: list[RunStatus], *, as_json: bool, none: str = "no runs yet") -> None:
    if as_json:
        for run in runs:
            print_json(plain(run_facts(run)))
        return
    for run in runs:
        typer.echo("\n".join(run_lines(run)))
    if not runs and none:
        typer.echo(none)


def run_lines(run: RunStatus) -> list[str]:
    state = run.state_at()
    of = f" of {run.planned:,}" if run.planned else ""
    underway = run.underway if state == "running" else 0
    images = "image" if (run.planned or run.done) == 1 else "images"
    parts = [f"{run.done + underway:,}{of} {images}"]
    if run.quarantined:
        parts.append(f"{run.quarantined:,} {'kept' if run.job == 'recompress' else 'quarantined'}")
    if run.bytes_in:
        parts.append(f"{bytes_text(run.bytes_in)} in, {bytes_text(run.bytes_out)} out")
    if state == "running" and run.eta_s is not None:
        parts.append(f"{duration_text(run.eta_s)} left")
    if run.deaths or run.retries:
        parts.append(f"{count(run.deaths, 'worker')} lost, {count(run.retries, 'shard')} done again")
    lines = [f"run {run.run} ({run.job or 'compress'}): {state}, {', '.join(parts)}"]
    if state in ("planning", "running", "stopping", "lost"):
        lines.append(f"  last sign of life {duration_text(run.age_s())} ago, from {run.host or 'unknown'}")
    if trouble := run.trouble_at():
        lines.append(f"  {trouble}")
    return lines
