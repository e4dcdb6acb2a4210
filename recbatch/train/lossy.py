"""``recbatch train lossy``: from a folder of photographs to a weight file, in one resumable call."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from recbatch.models import weights
from recbatch.models.lossy import PRESETS, LossyConfig, LossyNet
from recbatch.models.photo import export
from recbatch.train import machine, prior_fit
from recbatch.train.data import NoTrainingData, Photographs, prepare
from recbatch.train.evaluate import held_out_cost
from recbatch.train.loop import Schedule, Trainer, saved_average
from recbatch.train.objective import SIZES, Objective, check_crop
from recbatch.train.prior_fit import fit_coder_prior
from recbatch.train.start import net_from_weights
from recbatch.train.team import Team

PIXELS, HELD_OUT, FACTS = "train.u8", "held-out.u8", "run.json"
START_RATE = 4e-4  # with a trained model to begin with: most of the way is behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that a run depends on beside the machine."""

    data: Path  # images, or Parquet shards with columns data and source
    out: Path  # checkpoint, history and weights go here
    name: str = "photo-s"
    minutes: float = 60.0
    steps: int | None = None  # in place of minutes
    start: str | None = None  # a model of the zoo or a weight file to begin with; brings its own config
    sources: Sequence[str] = ()  # only images whose source contains one of these
    held_out: Sequence[str] = ()  # sources kept out of training, to measure on
    config: LossyConfig = PRESETS["photo-s"]
    objective: Objective = Objective.mse
    batch: int | None = None  # of each worker; as many as the objective takes by default
    crop: int | None = None  # likewise
    seed: int = 0
    threads: int | None = None  # of each worker
    device: str = "auto"  # or a device of torch
    precision: str = "auto"  # or float32, bf16
    workers: int = 1

    @property
    def crops(self) -> tuple[int, int]:
        """How many crops a worker has in each step, and their side."""
        usual = SIZES[self.objective]
        return (
            usual.batch if self.batch is None else self.batch,
            usual.crop if self.crop is None else self.crop,
        )

    @property
    def schedule(self) -> Schedule:
        batch, crop = self.crops
        size: dict[str, Any] = {
            "minutes": self.minutes,
            "steps": self.steps,
            "batch": batch,
            "crop": crop,
        }
        if self.start is None:
            return Schedule(**size)
        return Schedule(**size, rate=START_RATE, quantise_from=0.0)


Report = Callable[[str], None]
Launch = Callable[[Recipe, Report, Callable[[], bool]], None]


def _silent(line: str) -> None:
    """Report nothing."""


def train_lossy(
    recipe: Recipe,
    report: Report = _silent,
    *,
    stop: Callable[[], bool] = bool,
    launch: Launch | None = None,
) -> Path | None:
    """Train, or go on where ``recipe.out`` stands, until the schedule is used up; then write the weights.

    Args:
        stop: asked after every step; the run ends where it says so, and the same call goes on from there.
        launch: trains on ``recipe.workers`` workers, by calling ``train`` in each; without it this process trains.

    Returns:
        The path of the safetensors file; None where the run was stopped before its end.

    Raises:
        NoTrainingData, UnknownModel, BadWeights.
        UsageError: crops that can't be trained on; the folder holds another kind of run.
    """
    _, crop = recipe.crops
    check_crop(recipe.objective, crop)
    if recipe.start is not None:
        weights.read(recipe.start)  # a wrong name must not cost the time that decoding takes
    photographs = prepare(recipe.data, recipe.out / PIXELS, sources=recipe.sources, exclude=recipe.held_out)
    needed = max(crop, prior_fit.SIDE)  # the end of a run is too late to find out
    if photographs.largest_crop() < needed:
        raise NoTrainingData(str(recipe.data), needed)
    held = prepare(recipe.data, recipe.out / HELD_OUT, sources=recipe.held_out) if recipe.held_out else None
    (launch or _here)(recipe, report, stop)
    net, progress = saved_average(recipe.out)
    if recipe.schedule.fraction(progress) < 1:
        report(f"stopped at step {progress.step}; the same command goes on")
        return None
    if held is not None:
        cost = held_out_cost(net, held, recipe.objective)
        (recipe.out / "held-out.json").write_text(json.dumps(cost))
        report("held out: " + "  ".join(f"{k} {v:.3f}" for k, v in cost.items()))
    report("trained; folding the networks and fitting the coder's tables, which takes a minute or more")
    return write_weights(net, photographs, recipe, progress.step)


def _here(recipe: Recipe, report: Report, stop: Callable[[], bool]) -> None:
    train(recipe, report, stop)


def train(recipe: Recipe, report: Report, stop: Callable[[], bool], team: Team | None = None) -> None:
    """The steps of a run, or a worker's part of them, on pixels that ``prepare`` has left in ``recipe.out``."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    photographs = prepare(recipe.data, recipe.out / PIXELS, sources=recipe.sources, exclude=recipe.held_out)
    device = machine.choose_device(recipe.device)
    precision = machine.choose_precision(recipe.precision, device)
    trainer = Trainer(
        recipe.config,
        recipe.schedule,
        photographs,
        seed=recipe.seed,
        start=None if recipe.start is None else net_from_weights(weights.read(recipe.start)),
        objective=recipe.objective,
        device=device,
        precision=precision,
        team=team,
    )
    if trainer.load(recipe.out):
        report(f"resumed at step {trainer.progress.step}, {trainer.progress.elapsed_s / 60:.1f} minutes in")
    if recipe.schedule.fraction(trainer.progress) < 1:
        floor = machine.measure_floor(trainer.net, trainer.gradients, device, precision)
        report(floor.sentence())
        trainer.floor = floor
        if trainer.team.rank == 0:
            facts = {"name": recipe.name, "workers": trainer.team.size, **asdict(floor)}
            _write_whole(recipe.out / FACTS, json.dumps(facts).encode())
    trainer.run(recipe.out, report, stop=stop)


def write_weights(net: LossyNet, photographs: Photographs, recipe: Recipe, step: int) -> Path:
    """Fold, fit the coder's prior to the folded model, and write ``<name>.safetensors``."""
    net.eval()
    net.set_quantised(True)
    prior = fit_coder_prior(net, photographs)
    summary: dict[str, Any] = {
        "minutes": recipe.minutes,
        "steps": step,
        "seed": recipe.seed,
        "batch": recipe.crops[0] * recipe.workers,
        "crop": recipe.crops[1],
        "objective": recipe.objective.value,
    }
    if recipe.start is not None:
        summary["start"] = weights.digest(weights.read(recipe.start)).hex()
    data = export(net, name=recipe.name, coder_prior=prior, training=json.dumps(summary))
    path = recipe.out / f"{recipe.name}.safetensors"
    _write_whole(path, data)
    return path


def _write_whole(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
