"""Defaults below the options of a call: ``RECBATCH_*`` variables, then a file of the working directory.

The variable of ``recbatch compress --gpus-per-worker`` is ``RECBATCH_COMPRESS_GPUS_PER_WORKER``. The file is
``recbatch.toml``, or ``[tool.recbatch]`` of ``pyproject.toml``: a table per command, a key per option, for example
``[compress]`` with ``quality = 60``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

from recbatch.errors import UsageError

Options: TypeAlias = Mapping[
    str, Mapping[str, bool]
]  # command to option (without dashes) to "may be repeated"
Defaults: TypeAlias = dict[str, dict[str, Any]]  # command to parameter to value, as Typer takes them


class BadConfig(UsageError):
    """A config file can't be read, or names a command or an option that does not exist."""

    code = "bad-config"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}. Correct the file, or run the command from another folder."


def read_defaults(folder: Path, environment: Mapping[str, str], options: Options) -> Defaults:
    """Defaults by command. Raises BadConfig."""
    found = from_file(folder, options)
    for command, known in options.items():
        for option, repeated in known.items():
            value = environment.get(f"RECBATCH_{command}_{option}".upper().replace("-", "_"))
            if value:
                found.setdefault(command, {})[parameter(option)] = value.split() if repeated else value
    return found


def from_file(folder: Path, options: Options) -> Defaults:
    for name, keys in (("recbatch.toml", ()), ("pyproject.toml", ("tool", "recbatch"))):
        path = folder / name
        if not path.is_file():
            continue
        try:
            table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            if keys:  # a broken pyproject.toml is for another tool to report
                continue
            raise BadConfig(name, str(error)) from error
        for key in keys:
            table = table.get(key, {})
        if table:
            return {command: checked(name, command, table[command], options) for command in table}
    return {}


def checked(name: str, command: str, table: Any, options: Options) -> dict[str, Any]:
    if command not in options or not isinstance(table, dict):
        raise BadConfig(name, f"there is no command '{command}' with options{hint(command, options)}")
    for key in table:
        if key.replace("_", "-") not in options[command]:
            raise BadConfig(name, f"'{command}' has no option '{key}'{hint(key, options[command])}")
    return {parameter(key): value for key, value in table.items()}


def parameter(option: str) -> str:
    """The name of the option's parameter, as in the command's signature."""
    return {"json": "as_json"}.get(option, option.replace("-", "_"))


def hint(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
