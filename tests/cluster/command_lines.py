"""A command line of ours is read by the parser that would read it, and not run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer
from typer.exceptions import TyperException

from recbatch.cli.app import app

LAUNCHERS = (["recbatch"], ["python", "-m", "recbatch"])


@cache
def whole_command() -> Any:
    return typer.main.get_command(app)


def words_of(line: str | Sequence[str]) -> list[str]:
    """The words after the program's name. Raises ValueError for a line that does not call recbatch."""
    words = shlex.split(line, comments=True) if isinstance(line, str) else list(line)
    for launcher in LAUNCHERS:
        if words[: len(launcher)] == launcher:
            return words[len(launcher) :]
    raise ValueError(f"does not call recbatch: {line}")


def parse(line: str | Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command's name and its parameters. Raises ValueError where the parser would refuse the line."""
    words = words_of(line)
    command: Any = whole_command()
    names: list[str] = []
    try:
        context = command.make_context("recbatch", words.copy())
        while hasattr(command, "commands"):
            rest = [*context._protected_args, *context.args]
            if not rest:
                break
            name, command, rest = command.resolve_command(context, rest)
            names.append(str(name))
            context = command.make_context(str(name), list(rest), parent=context)
    except TyperException as error:
        raise ValueError(f"{error.format_message()}: {line}") from error
    return " ".join(names), dict(context.params)


def parse_submitted(line: str | Sequence[str]) -> tuple[str, dict[str, Any]]:
    """As ``parse``; for ``recbatch submit … COMMAND …`` also that command, which the cluster will run."""
    name, parameters = parse(line)
    if name != "submit":
        return name, parameters
    words = words_of(line)
    known = whole_command().commands
    start = next(place for place, word in enumerate(words) if place > 0 and word in known)
    return parse(["recbatch", *words[start:]])
