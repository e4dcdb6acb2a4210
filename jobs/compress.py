"""Run the compress job of a TOML file: ``python jobs/compress.py JOB.toml``.

For the entry point of a cluster's job. The file's keys are the arguments of ``recbatch.compress``; the report goes to
standard output as JSON, the exit status is that of ``recbatch compress``.
"""

from __future__ import annotations

import inspect
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import recbatch


def load_job(path: str) -> dict[str, Any]:
    """The arguments in the file. Raises UsageError for a file or a key that can't be used."""
    try:
        job = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise recbatch.UsageError(f"{path} is no job file: {error}. See jobs/photos.toml for one.") from error
    allowed = set(inspect.signature(recbatch.compress).parameters) - {"progress"}
    if unknown := sorted(job.keys() - allowed):
        raise recbatch.UsageError(
            f"{path} has unknown keys: {', '.join(unknown)}. Use {', '.join(sorted(allowed))}."
        )
    if missing := sorted({"source", "archive"} - job.keys()):
        raise recbatch.UsageError(f"{path} lacks {' and '.join(missing)}. Name both source and archive.")
    return job


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("Usage: python jobs/compress.py JOB.toml\n")
        return 2
    try:
        report = recbatch.compress(**load_job(arguments[0]), progress=tell)
    except recbatch.RecbatchError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_status
    sys.stdout.write(json.dumps(report.to_dict()) + "\n")
    return report.exit_status


def tell(event: Any) -> None:
    """One line for a commit or a loss: a cluster's log is no place for more."""
    if type(event).__name__ in ("Planned", "Committed", "ActorDied", "Stopping"):
        sys.stderr.write(f"{event}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
