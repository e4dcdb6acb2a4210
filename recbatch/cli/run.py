"""``recbatch run``: a command written down in a file, for a scheduler or a cluster."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from recbatch.cli import options
from recbatch.errors import UsageError

HELP = """Run the job that a TOML file describes.

The file names a command and its arguments and options, as 'recbatch COMMAND --help' lists them;
jobs/ in the repository has examples.

\b
Examples:
  recbatch run nightly.toml
  recbatch run nightly.toml --json
"""

PLACES = {
    "compress": ("source", "archive"),
    "restore": ("archive", "destination"),
    "verify": ("archive",),
    "recompress": ("archive",),
}


class BadJobFile(UsageError):
    """A job file can't be read, or names what does not exist."""

    code = "bad-job-file"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}. Correct the file; jobs/ in the repository has examples."


def register(app: typer.Typer) -> None:
    app.command("run", help=HELP)(run)


def run(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB.toml", help="The job file.")],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    root: Any = context.find_root()
    name, *words = words_of_job(root, context.params)
    command = root.command.commands[name]
    default_map = (root.default_map or {}).get(name)
    with told_of_file(job):
        inner = command.make_context(name, words, parent=root, default_map=default_map)
    with inner:
        command.invoke(inner)


@contextmanager
def told_of_file(path: str) -> Iterator[None]:
    """A value that the command's parser refuses is told by its key in the file: nobody has typed an option."""
    try:
        yield
    except TyperException as error:
        names = getattr(getattr(error, "param", None), "opts", None)
        if not names:
            raise
        key = names[0].lstrip("-")
        values = {name.replace("_", "-"): value for name, value in read_job(path).items()}
        problem = " ".join(error.message.removeprefix("Value error, ").split()).rstrip(".")
        problem = problem.partition(", unable to parse")[0].replace("Input should", "it should", 1)
        raise BadJobFile(path, f"'{key}' can't be {values.get(key)!r}: {problem}") from error


def words_of_job(root: Any, parameters: Mapping[str, Any]) -> list[str]:
    """The command line of ``run``'s parameters: the file's, and how results are shown. Raises BadJobFile."""
    path = str(parameters["job"])
    shown = {"--json": "as_json", "--quiet": "quiet", "--debug": "debug"}
    extra = [word for word, key in shown.items() if parameters.get(key)]
    name, *words = file_words(path, read_job(path), root.command.commands)
    return [name, *extra, *words]


def read_job(path: str) -> dict[str, Any]:
    """The file's values. Raises BadJobFile."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BadJobFile(path, f"it is no job file: {problem}") from error


def file_words(path: str, job: Mapping[str, Any], commands: Mapping[str, Any]) -> list[str]:
    """A job file as a command line. Raises BadJobFile."""
    name = str(job.get("command", ""))
    if name not in PLACES or name not in commands:
        raise BadJobFile(
            path, f"it needs command = one of {', '.join(key for key in PLACES if key in commands)}"
        )
    by_key = {
        parameter.opts[0].lstrip("-").replace("-", "_"): parameter
        for parameter in commands[name].params
        if parameter.param_type_name == "option"
    }
    words: list[str] = []
    for key, value in job.items():
        if key == "command" or key in PLACES[name]:
            continue
        if (parameter := by_key.get(key.replace("-", "_"))) is None:
            close = get_close_matches(key, [*by_key, *PLACES[name]], n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            raise BadJobFile(path, f"'{name}' has no option '{key}'{hint}")
        words += option_words(path, key, value, parameter)
    if missing := [place for place in PLACES[name] if not isinstance(job.get(place), str)]:
        raise BadJobFile(path, f"it lacks {' and '.join(missing)}")
    return [name, *words, "--", *(str(job[place]) for place in PLACES[name])]


def option_words(path: str, key: str, value: Any, parameter: Any) -> list[str]:
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise BadJobFile(path, f"'{key}' is true or false")
        return list((parameter.opts if value else parameter.secondary_opts)[:1])
    if isinstance(value, bool | dict) or (isinstance(value, list) and not parameter.multiple):
        raise BadJobFile(path, f"'{key}' takes one value")
    words: list[str] = []
    for one in value if isinstance(value, list) else [value]:
        words += [parameter.opts[0], str(one)]
    return words
