"""One of our commands as words that another machine can run, and as what makes it the same work as another.

The words are written anew from what the command's own parser read, so that defaults of this folder's config file and
of this environment travel along, and paths are whole.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.exceptions import TyperException

from recbatch.cli.verify import parse_share

COMMANDS = ("compress", "verify", "restore", "recompress", "run")  # that may run elsewhere, or later
PLACES = ("source", "archive", "destination")
FILES = ("listing",)  # options that name a file or a folder
SHOWN = {"as_json", "quiet", "debug", "log_format"}  # neither how a result is shown makes other work,
POWER = {"workers", "gpus_per_worker", "wait_for_workers", "executor"}  # nor how fast it is done


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    command: str
    words: tuple[str, ...]  # the command first
    archive: str
    source: str  # "" of a command that has none
    paths: tuple[str, ...]
    same: Mapping[str, Any]  # of equal work


def parsed(outer: Any, words: Sequence[str], verb: str = "run on a cluster") -> CommandLine:
    """Read a command line with the command's own parser. Raises the parser's errors and UsageError.

    Args:
        outer: the context of the command that takes the line, such as ``submit``.
        verb: what is to be done with it, for messages.
    """
    root = outer.find_root()
    name, rest = words[0], list(words[1:])
    command = root.command.commands.get(name) if name in COMMANDS else None
    if command is None:
        raise typer.BadParameter(f"'{name}' can't {verb}; {', '.join(COMMANDS)} can", ctx=outer)
    try:
        if name == "run":
            from recbatch.cli.run import told_of_file, words_of_job

            parameters = command.make_context(name, rest, parent=root).params
            with told_of_file(parameters["job"]):
                return parsed(outer, words_of_job(root, parameters), verb)
        default_map = (root.default_map or {}).get(name)
        context = command.make_context(name, rest, parent=root, default_map=default_map)
    except TyperException as error:
        raise misplaced(outer, name, error) from error
    values = {key: whole(key, value) for key, value in context.params.items()}
    check_settings(values)
    places = [values[place] for place in PLACES if values.get(place)]
    paths = [*places, *(values[key] for key in FILES if values.get(key))]
    if looks_like_file(values.get("model")):
        paths.append(values["model"])
    return CommandLine(
        command=name,
        words=(name, *words_from(command.params, values)),
        archive=str(values.get("archive") or ""),
        source=str(values.get("source") or ""),
        paths=tuple(paths),
        same={
            "command": name,
            **{key: plain(value) for key, value in values.items() if key not in SHOWN | POWER},
        },
    )


def misplaced(outer: Any, name: str, error: TyperException) -> TyperException:
    """What to say of an option that the command does not have: the outer one may."""
    option = getattr(error, "option_name", None)
    if outer is outer.find_root() or not any(option in parameter.opts for parameter in outer.command.params):
        return error
    line = f"{outer.command_path} {option} ... {name} ..."
    return typer.BadParameter(f"{option} belongs before {name}, as in '{line}'", ctx=outer)


def words_from(parameters: Iterable[Any], values: Mapping[str, Any]) -> list[str]:
    """Options first; the places after ``--``, so that none can be taken for an option."""
    options: list[str] = []
    places: list[str] = []
    for parameter in parameters:
        value = values.get(parameter.name)
        if parameter.param_type_name == "argument":
            places += [] if value is None else [text(value)]
        elif value is None or value == () or plain(value) == plain(parameter.default):
            continue
        elif parameter.is_flag:
            switch = parameter.opts if value else parameter.secondary_opts
            options += switch[:1]
        else:
            for one in value if isinstance(value, list | tuple) else [value]:
                options += [parameter.opts[0], text(one)]
    return [*options, "--", *places]


def whole(key: str, value: Any) -> Any:
    """Local paths from the root: the job runs in another folder."""
    local = isinstance(value, str) and "://" not in value
    if local and (key in PLACES or key in FILES or (key == "model" and looks_like_file(value))):
        return os.path.abspath(value)
    return value


def looks_like_file(model: Any) -> bool:
    return isinstance(model, str) and Path(model).suffix == ".safetensors"


def plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple | list) else value


def text(value: Any) -> str:
    value = plain(value)
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def check_settings(values: Mapping[str, Any]) -> None:
    """What a command would refuse after its parser is refused here: modes that exclude each other, unknown models."""
    from recbatch import api

    names = [name for name in inspect.signature(api.make_settings).parameters if name in values]
    if isinstance(sample := values.get("sample"), str):
        parse_share(sample)
    if "quality" in names:
        api.make_settings(**{name: plain(values[name]) for name in names})
