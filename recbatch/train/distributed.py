"""Training on several workers: what each does, and how the caller sees and stops them.

Workers and caller share the folder of the run: the first worker writes its lines into one file, all end their step
and stop where another file appears. Who starts the workers is not known here; see ``recbatch.engine.parallel``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from recbatch.train.lossless import TrainingFailed
from recbatch.train.lossy import Recipe, Report, train
from recbatch.train.team import ProcessGroup

LINES, STOP = "workers.txt", "stop"


class RunParallel(Protocol):
    """Calls ``work(device)`` in processes of one process group; returns what went wrong, if anything did."""

    def __call__(
        self,
        work: Callable[[str], None],
        *,
        workers: int,
        device: str,
        folder: Path,
        watch: Callable[[], None],
    ) -> str | None: ...


def launch(run_parallel: RunParallel, recipe: Recipe, report: Report, stop: Callable[[], bool]) -> None:
    """Train on ``recipe.workers`` workers. Raises TrainingFailed where they could not be kept alive."""
    out = recipe.out.resolve()
    recipe = dataclasses.replace(
        recipe, data=recipe.data.resolve(), out=out
    )  # workers have folders of their own
    (out / STOP).unlink(missing_ok=True)
    (out / LINES).write_text("")
    lines = _Tail(out / LINES, report)

    def watch() -> None:
        lines.pass_on()
        if stop():
            (out / STOP).touch()

    failure = run_parallel(
        partial(work, recipe), workers=recipe.workers, device=recipe.device, folder=out, watch=watch
    )
    lines.pass_on()
    (out / STOP).unlink(missing_ok=True)
    (out / LINES).unlink(missing_ok=True)
    if failure is not None:
        report(failure)
        raise TrainingFailed(str(out))


def work(recipe: Recipe, device: str) -> None:
    """One worker's part: the same steps as alone, on crops of its own, with gradients averaged over all."""
    team = ProcessGroup(torch.device(device))
    threads = recipe.threads or max(1, (os.cpu_count() or 1) // team.size)
    recipe = dataclasses.replace(recipe, device=device, threads=threads)

    def report(line: str) -> None:
        if team.rank == 0:
            with (recipe.out / LINES).open("a") as lines:
                lines.write(line + "\n")

    train(recipe, report, (recipe.out / STOP).exists, team)


class _Tail:
    """Lines that a file gains, handed on."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path, self._report, self._seen = path, report, 0

    def pass_on(self) -> None:
        with self._path.open() as file:
            file.seek(self._seen)
            text = file.read()
        whole, newline, _ = text.rpartition("\n")
        if newline:
            self._seen += len((whole + newline).encode())
            for line in whole.split("\n"):
                self._report(line)
