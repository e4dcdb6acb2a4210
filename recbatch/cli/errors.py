"""Errors as the user meets them: a sentence that names the thing, one with the remedy, an exit status."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from dataclasses import dataclass

import typer
from typer.exceptions import TyperException

from recbatch.cli import logs
from recbatch.errors import RecbatchError

INTERRUPTED = 130
BUG = 70  # EX_SOFTWARE: none of the documented outcomes, so none of their numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    code: str
    message: str
    exit_status: int


def describe(error: BaseException) -> Failure:
    """What to say of an error, and which status to exit with."""
    if isinstance(error, RecbatchError):
        return Failure(code=error.code, message=str(error), exit_status=error.exit_status)
    if isinstance(error, TyperException):
        return Failure(code="usage", message=usage_line(error), exit_status=2)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        message = "Interrupted. What was committed stays; run the same command again to go on."
        return Failure(code="interrupted", message=message, exit_status=INTERRUPTED)
    if isinstance(error, OSError):
        return Failure(code="system", message=system_line(error), exit_status=3)
    if isinstance(error, MemoryError):
        message = "Memory ran out. Use fewer --workers, or a smaller --max-pixels."
        return Failure(code="memory", message=message, exit_status=3)
    message = (
        f"Internal error: {type(error).__name__}: {first_line(error)}. "
        "This is a bug in recbatch; run again with --debug and report the traceback."
    )
    return Failure(code="internal", message=message, exit_status=BUG)


def usage_line(error: TyperException) -> str:
    """One line: what is wrong with the call, and which help to read."""
    sentence = " ".join(error.format_message().split())
    if sentence[-1:] not in ".?!":
        sentence += "."
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if option and context is not None and takes_behind(context.command, option):
        return f"{option} belongs behind the command, as in '{context.command_path} COMMAND ... {option}'."
    command = context.command_path if context is not None else "recbatch"
    return f"{sentence} See '{command} --help'."


def takes_behind(command: object, option: str) -> bool:
    """Whether a group of commands has one, at any depth, that takes this option."""
    return any(
        takes_behind(inner, option) or any(option in parameter.opts for parameter in inner.params)
        for inner in getattr(command, "commands", {}).values()
    )


def system_line(error: OSError) -> str:
    name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    problem = error.strerror or first_line(error) or type(error).__name__
    remedy = {
        errno.ENOENT: "Check the path.",
        errno.EACCES: "Check its permissions.",
        errno.EPERM: "Check its permissions.",
        errno.EROFS: "Choose a place that can be written.",
        errno.ENOSPC: "Free some space and run the same command again.",
        errno.EDQUOT: "Free some space and run the same command again.",
        errno.EISDIR: "Name a file.",
        errno.ENOTDIR: "Name a folder.",
        errno.EEXIST: "Choose another name, or use --overwrite.",
    }.get(error.errno or 0, "Check that it can be reached, and run the same command again.")
    return f"{name}{problem}. {remedy}"


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".")


def report(error: BaseException, *, debug: bool, as_json: bool) -> int:
    """Print the error where it belongs; returns the exit status."""
    failure = describe(error)
    if logs.chosen() is logs.LogFormat.json:
        trace = {"traceback": "".join(traceback.format_exception(error))} if debug else {}
        logs.say("", event="error", level="error", code=failure.code, message=failure.message, **trace)
    else:
        if debug:
            traceback.print_exception(error, file=sys.stderr)
        logs.say(f"Error: {failure.message}")
    if as_json:
        body = {"code": failure.code, "message": failure.message, "exit_status": failure.exit_status}
        sys.stdout.write(json.dumps({"event": "error", **body}) + "\n")
        sys.stdout.flush()
    return failure.exit_status
