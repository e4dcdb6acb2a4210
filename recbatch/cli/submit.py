"""``recbatch submit``."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recbatch.cli import options
from recbatch.cli.text import bytes_text, plain, print_json

if TYPE_CHECKING:
    from recbatch.engine.orders import JobState, Submitted

HELP = """Run a command on a Ray cluster: compress, verify, restore, recompress, or run JOB.toml.

The command is read here by its own parser first; what it refuses is never sent. Options of submit
stand before it. The job brings this very recbatch along, or uses that of an image. The same
command submitted again attaches to the job that runs; once that has ended, it starts the next
attempt, which does only what is missing. Ctrl-C while waiting leaves the job alone.

\b
The cluster: --address, else RAY_API_SERVER_ADDRESS, else a RAY_ADDRESS that begins with http.
Its token: RAY_AUTH_TOKEN, else the file that RAY_AUTH_TOKEN_PATH names, else ~/.ray/auth_token.

\b
Examples:
  recbatch submit --address http://head:8265 compress s3://photos s3://archives/photos
  recbatch submit --wait --env AWS_REGION=eu-central-1 run nightly.toml

\b
Exit status: with --wait, the job's own; 3 where the cluster can't be reached or refuses.
"""

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="The cluster's job server, http://HEAD:8265; by default RAY_API_SERVER_ADDRESS, or RAY_ADDRESS.",
    ),
]


class Code(StrEnum):
    package = "package"
    image = "image"


def register(app: typer.Typer) -> None:
    passed_on = {"ignore_unknown_options": True, "allow_interspersed_args": False}
    app.command("submit", help=HELP, context_settings=passed_on)(submit)


def submit(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="COMMAND ARGS...", help="The command, as it would run here.")
    ],
    address: Address = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the job to its end, and exit as it does.")
    ] = False,
    code: Annotated[
        Code | None,
        typer.Option(
            "--code", help="Bring this recbatch along (the default), or use the one that the nodes have."
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image", metavar="IMAGE", help="Container image with recbatch for driver and workers."
        ),
    ] = None,
    pip: Annotated[
        list[str] | None,
        typer.Option(
            "--pip", metavar="PACKAGE", help="Package that the nodes install first; may be repeated."
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", metavar="NAME[=VALUE]", help="Variable of the job, never a secret; may be repeated."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--id", metavar="NAME", help="Name of the job, instead of one made from the command."),
    ] = None,
    shared_paths: Annotated[
        bool, typer.Option("--shared-paths", help="Every node sees the paths of this machine.")
    ] = False,
    driver_cpus: Annotated[
        float,
        typer.Option("--driver-cpus", min=0, metavar="N", help="CPUs that the job's driver itself occupies."),
    ] = 0,
    pending_timeout: Annotated[
        float | None,
        typer.Option(
            "--pending-timeout", min=0, metavar="S", help="With --wait: wait so long for its start."
        ),
    ] = None,
    allow_version_skew: Annotated[
        bool, typer.Option("--allow-version-skew", help="Go on with another Ray than the cluster's.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.api import cluster
    from recbatch.cli.command_line import parsed

    cluster.refuse_secrets(words, {})  # before anything repeats them
    line = parsed(context, words)
    submitted = cluster.submit(
        line.words,
        archive=line.archive,
        source=line.source,
        paths=line.paths,
        same=line.same,
        address=address,
        name=name,
        code=code.value if code else None,
        image=image,
        pip=pip or (),
        env=dict(variable(text) for text in env or ()),
        shared_paths=shared_paths,
        driver_cpus=driver_cpus,
        allow_version_skew=allow_version_skew,
        tell=say,
    )
    tell_submitted(submitted, as_json=as_json, quiet=quiet)
    if wait:
        raise typer.Exit(
            wait_for(
                submitted.job.id,
                address=address,
                pending_s=pending_timeout,
                allow_version_skew=allow_version_skew,
                as_json=as_json,
                quiet=quiet,
            )
        )


def variable(text: str) -> tuple[str, str]:
    """``NAME=VALUE``, or ``NAME`` with the value that it has here."""
    name, given, value = text.partition("=")
    if not name.isidentifier():
        raise typer.BadParameter(f"{text!r} does not begin with a variable's name; write --env NAME=VALUE")
    if not given:
        value = os.environ.get(name, "")
        if not value:
            raise typer.BadParameter(f"{name} is not set here; write --env {name}=VALUE")
    return name, value


def say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def tell_submitted(submitted: Submitted, *, as_json: bool, quiet: bool) -> None:
    job = submitted.job
    if as_json:
        body = {
            "id": job.id,
            "attached": submitted.attached,
            "differs": submitted.differs,
            "package_bytes": submitted.package_bytes,
        }
        print_json({"event": "submitted", "schema": 1, **body})
        return
    typer.echo(job.id)
    if quiet:
        return
    if submitted.attached:
        typer.echo(f"the same job is there already ({job.status.lower()}); nothing was sent", err=True)
        if submitted.differs:
            typer.echo(
                f"it goes by another {', '.join(submitted.differs)} than yours; for yours, end it first "
                f"with 'recbatch jobs stop {job.id}'",
                err=True,
            )
    elif submitted.package_bytes:
        typer.echo(f"submitted; its code is a package of {bytes_text(submitted.package_bytes)}", err=True)
    typer.echo(f"follow it with: recbatch jobs logs --follow {job.id}", err=True)


def wait_for(
    job: str,
    *,
    address: str | None,
    pending_s: float | None = None,
    allow_version_skew: bool = True,
    as_json: bool,
    quiet: bool,
) -> int:
    """Follow a job to its end; returns its exit status. Ctrl-C leaves it alone."""
    from recbatch.api import cluster

    def on_log(piece: str) -> None:
        typer.echo(piece, nl=False, err=as_json)

    try:
        state = cluster.wait(
            job,
            address=address,
            on_log=None if quiet else on_log,
            tell=say,
            pending_s=pending_s,
            allow_version_skew=allow_version_skew,
        )
    except KeyboardInterrupt:
        typer.echo(
            f"\njob {job} goes on without you. Come back with 'recbatch jobs wait {job}', "
            f"end it with 'recbatch jobs stop {job}'.",
            err=True,
        )
        return 130
    tell_job(state, as_json=as_json, quiet=quiet)
    return state.exit_status or 0


def tell_job(state: JobState, *, as_json: bool, quiet: bool = False) -> None:
    if as_json:
        print_json({"event": "job", "schema": 1, **job_facts(state)})
    elif not quiet:
        ended = f", exit status {state.exit_status}" if state.exit_status is not None else ""
        typer.echo(f"{state.id}: {state.outcome}{ended}{done_but(state)}", err=True)
        if state.status == "FAILED" and state.driver_exit is None:  # its own log does not say why
            typer.echo(state.problem, err=True)


def job_facts(state: JobState) -> dict[str, Any]:
    facts: dict[str, Any] = plain(state)
    del facts["order"], facts["driver_exit"]
    return {
        **facts,
        "archive": state.archive,
        "over": state.over,
        "outcome": state.outcome,
        "exit_status": state.exit_status,
    }


def done_but(state: JobState) -> str:
    return "; some images are quarantined, or some checks failed" if state.outcome == "done" else ""
