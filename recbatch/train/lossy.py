"""``recbatch train lossy``: from a folder of photographs to a weight file, in one resumable call."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from recbatch.models.lossy import LossyConfig, LossyNet
from recbatch.models.photo import export
from recbatch.train.data import Photographs, prepare
from recbatch.train.evaluate import held_out_cost
from recbatch.train.loop import Schedule, Trainer
from recbatch.train.prior_fit import fit_coder_prior


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that a run depends on beside the machine."""

    data: Path  # images, or Parquet shards with columns data and source
    out: Path  # checkpoint, history and weights go here
    name: str = "photo-s"
    minutes: float = 60.0
    sources: Sequence[str] = ()  # only images whose source contains one of these
    held_out: Sequence[str] = ()  # sources kept out of training, to measure on
    config: LossyConfig = field(default_factory=lambda: LossyConfig(latent=320))
    batch: int = 8
    crop: int = 128
    seed: int = 0
    threads: int | None = None


def train_lossy(recipe: Recipe, report: Callable[[str], None] = lambda line: None) -> Path:
    """Train, or go on where ``recipe.out`` stands, until its minutes are used up; then write the weights.

    Returns the path of the safetensors file. Raises NoTrainingData.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    photographs = prepare(
        recipe.data, recipe.out / "train.u8", sources=recipe.sources, exclude=recipe.held_out
    )
    held = (
        prepare(recipe.data, recipe.out / "held-out.u8", sources=recipe.held_out) if recipe.held_out else None
    )
    schedule = Schedule(minutes=recipe.minutes, batch=recipe.batch, crop=recipe.crop)
    trainer = Trainer(recipe.config, schedule, photographs, seed=recipe.seed)
    if trainer.load(recipe.out):
        report(f"resumed at step {trainer.progress.step}, {trainer.progress.elapsed_s / 60:.1f} minutes in")
    trainer.run(recipe.out, report)
    net = trainer.average
    if held is not None:
        cost = held_out_cost(net, held)
        (recipe.out / "held-out.json").write_text(json.dumps(cost))
        report("held out: " + "  ".join(f"{k} {v:.3f}" for k, v in cost.items()))
    return write_weights(net, photographs, recipe, trainer.progress.step)


def write_weights(net: LossyNet, photographs: Photographs, recipe: Recipe, step: int) -> Path:
    """Fold, fit the coder's prior to the folded model, and write ``<name>.safetensors``."""
    net.eval()
    net.set_quantised(True)
    prior = fit_coder_prior(net, photographs)
    summary = {"minutes": recipe.minutes, "steps": step, "seed": recipe.seed, "batch": recipe.batch}
    data = export(net, name=recipe.name, coder_prior=prior, training=json.dumps(summary))
    path = recipe.out / f"{recipe.name}.safetensors"
    path.write_bytes(data)
    return path
