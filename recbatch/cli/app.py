"""The Typer application, and ``main``, which turns every outcome into an exit status."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.exceptions import Exit

import recbatch
from recbatch.cli import (
    bench,
    bench_driver,
    bench_scale,
    compress,
    config,
    demo,
    doctor,
    errors,
    inspect,
    jobs,
    logs,
    maintenance,
    models,
    options,
    plan,
    recompress,
    report_page,
    restore,
    run,
    schedule,
    single,
    submit,
    train,
    verify,
)

HELP = """Archive large image corpora compactly, verified and queryable.

\b
Examples:
  recbatch compress photos/ photos.rba --quality 50
  recbatch verify photos.rba --level pixels

\b
Exit status: 0 all well; 1 done, but some images are quarantined or some checks
failed; 2 wrong usage; 3 a source, archive or store can't be reached or refuses;
4 corrupt archive or stream; 130 interrupted (run again to go on).
"""

app = typer.Typer(
    name="recbatch",
    rich_markup_mode=None,  # plain help: quick, and the same in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    compress,
    plan,
    restore,
    inspect,
    verify,
    single,
    models,
    train,
    bench,
    bench_driver,
    bench_scale,
    demo,
    submit,
    jobs,
    schedule,
    run,
    recompress,
    maintenance,
    report_page,
    doctor,
):
    group.register(app)


@app.callback(invoke_without_command=True, help=HELP)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: options.Debug = False,
) -> None:
    if version:
        typer.echo(f"recbatch {recbatch.__version__}")
        raise Exit(0)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise Exit(2)


def defaults(command: Any) -> dict[str, Any]:
    """Defaults from the config file and the environment. Raises BadConfig."""
    known = {
        name: {
            option.lstrip("-"): parameter.multiple for parameter in sub.params for option in parameter.opts
        }
        for name, sub in command.commands.items()
        if not hasattr(sub, "commands")
    }
    return config.read_defaults(Path.cwd(), os.environ, known)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status and never raises what a user could meet."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with sigterm_interrupts():
            status = call(words)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, e.g. head, has all it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, with 130, where nothing else is made of it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    free = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not free or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def call(words: list[str]) -> int:
    logs.use(logs.asked(words, os.environ))
    try:
        command = typer.main.get_command(app)
        if "_RECBATCH_COMPLETE" in os.environ:
            command.main(args=words, prog_name="recbatch")  # the shell asks for completions; this exits
        context = command.make_context("recbatch", words.copy(), default_map=defaults(command))
        with context:
            command.invoke(context)
    except Exit as leave:
        return leave.exit_code
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        return errors.report(error, debug="--debug" in words, as_json="--json" in words)
    return 0
