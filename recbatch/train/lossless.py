"""``recbatch train lossless``: from exact pixels to a variant of the lossless model, in one resumable call."""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recbatch.errors import RecbatchError, UsageError
from recbatch.models import weights
from recbatch.models.exact import quantise
from recbatch.models.lossless import geometry
from recbatch.models.lossless.folded import LAW, VARIANTS, export
from recbatch.models.lossless.geometry import STAGES, Integers
from recbatch.models.lossless.network import LEVELS, LosslessConfig, LosslessNet
from recbatch.models.lossless.preview import PreviewSynthesis
from recbatch.models.photo import PhotoModel
from recbatch.rec.mixtures import Law
from recbatch.train.lossless_batch import batch, bits, fit_predictors
from recbatch.train.lossless_data import ExactPixels, prepare_exact, prepare_small

FIT_BATCHES = 12
CLIP = 0.5
CHECKPOINT_S = 120.0
REPORT_STEPS = 100
HELD_OUT_BATCHES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that a run depends on beside the machine."""

    data: Path  # images, or Parquet shards with columns data and source
    out: Path  # checkpoint, history and net go here
    minutes: float = 60.0
    sources: Sequence[str] = ()
    held_out: Sequence[str] = ()
    config: LosslessConfig = field(default_factory=LosslessConfig)
    start: Path | None = None  # the folder of a run whose net to begin with
    preview_model: str = "photo-s"  # whose latents the preview variant knows
    preview_level: int = 4  # at this rate level
    tiles: int | None = None  # cut image files into tiles of this side: small images to train on
    batches: tuple[int, ...] = (12, 12, 12, 12)  # crops in a step, by level
    sides: tuple[int, ...] = (80, 128, 192, 192)  # of a crop, by level
    shares: tuple[float, ...] = (0.6, 0.2, 0.1, 0.1)  # of the steps, by level
    rate: float = 3e-3
    warm_up: int = 100
    decay_from: float = 0.3
    quantise_from: float = 0.7
    average: float = 0.998
    seed: int = 0


class NoRun(UsageError):
    """A folder holds no training run."""

    code = "no-run"

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"{self.folder} holds no run of the lossless model. Give a folder that 'train lossless' has written."


class TrainingFailed(RecbatchError):
    """A process that trained a stage died."""

    code = "training-failed"

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return (
            f"A process that trained in {self.folder} ended early. "
            "Run the same command again: it goes on from the last checkpoint."
        )


def small_recipe(**options: Any) -> Recipe:
    """Of the variant for images of 32 x 32: more of them in a step, no crops."""
    return Recipe(batches=(72, 144, 288, 288), sides=(32, 32, 32, 32), **options)


class Pixels(Protocol):
    """What a run draws its crops from: ``ExactPixels`` or ``SmallPixels``."""

    def crops(
        self, count: int, side: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]: ...


Report = Callable[[str], None]


def _silent(line: str) -> None:
    """Report nothing."""


class Trainer:
    """One stage in training; ``save`` and ``load`` carry everything that the next step depends on.

    The stages share nothing, so each trains by itself, on its own core where there are several.
    """

    def __init__(self, recipe: Recipe, pixels: Pixels, stage: int) -> None:
        self.recipe, self.pixels, self.stage = recipe, pixels, stage
        self.out = recipe.out / STAGES[stage].name
        self.rng = np.random.default_rng(recipe.seed)
        torch.manual_seed(recipe.seed)
        self.net = LosslessNet(recipe.config)
        fit_predictors(
            self.net,
            [[self._crops(level, self.rng) for _ in range(FIT_BATCHES)] for level in range(LEVELS)],
        )
        self.trained = self.net.stages[stage]
        if recipe.start is not None:
            path = recipe.start / STAGES[stage].name / "checkpoint.pt"
            _start_from(self.trained, torch.load(path, weights_only=False)["average"])
        self.net = self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.trained)
        self.optimiser = torch.optim.Adam(self.trained.parameters(), lr=recipe.rate, betas=(0.9, 0.98))
        self.steps, self.elapsed_s = 0, 0.0
        self.history: list[dict[str, float]] = []

    def run(self, report: Callable[[str], None]) -> None:
        """Train until the recipe's minutes are used up."""
        r = self.recipe
        started, last_saved = time.monotonic() - self.elapsed_s, time.monotonic()
        sums, count = np.zeros(3), 0
        while self.elapsed_s < 60 * r.minutes:
            found = self.step(self.elapsed_s / (60 * r.minutes))
            if found is not None:
                sums, count = sums + found, count + 1
            self.elapsed_s = time.monotonic() - started
            if self.steps % REPORT_STEPS == 0 and count:
                y, co, cg = sums / count
                self.history.append({"step": self.steps, "s": self.elapsed_s, "y": y, "co": co, "cg": cg})
                left = r.minutes - self.elapsed_s / 60
                report(
                    f"step {self.steps}  level 0: {(y + co + cg) / 3:.4f} bits a symbol "
                    f"({y:.3f} {co:.3f} {cg:.3f})  {left:.0f} min left"
                )
                sums, count = np.zeros(3), 0
            if time.monotonic() - last_saved > CHECKPOINT_S:
                self.save()
                last_saved = time.monotonic()
        self.save()

    def step(self, fraction: float) -> NDArray[np.float64] | None:
        """One update; bits a symbol of Y, Co, Cg where it was at level 0."""
        r = self.recipe
        grid = fraction >= r.quantise_from
        quantise(self.net, grid)
        late = max(0.0, (fraction - r.decay_from) / (1 - r.decay_from))
        rate = (
            r.rate * min(1.0, (self.steps + 1) / r.warm_up) * max(0.5 + 0.5 * math.cos(math.pi * late), 2e-3)
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        level = int(self.rng.choice(LEVELS, p=r.shares))
        b = batch(self.net, *self._crops(level, self.rng), level, self.stage)
        found = bits(self.net, b, grid=grid) / b.values[:, 0].size
        self.optimiser.zero_grad()
        (found.sum() / 3).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.trained.parameters(), CLIP)
        if torch.isfinite(norm):
            self.optimiser.step()
        decay = min(r.average, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.trained.parameters()), 1 - decay)
        self.steps += 1
        return found.detach().numpy() if level == 0 else None

    def _crops(self, level: int, rng: np.random.Generator) -> tuple[Integers, Integers | None]:
        return level_crops(self.pixels, self.recipe, level, rng)

    def save(self) -> None:
        """Write ``checkpoint.pt`` and ``history.json``, each whole or not at all."""
        out = self.out
        out.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {
            "config": asdict(self.recipe.config),
            "small": self.recipe.tiles is not None,
            "predictors": (self.net.weights, self.net.gains),
            "net": self.trained.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.bit_generator.state,
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
            "history": self.history,
        }
        torch.save(state, out / "checkpoint.partial")
        os.replace(out / "checkpoint.partial", out / "checkpoint.pt")
        (out / "history.json").write_text(json.dumps(self.history))

    def load(self) -> bool:
        """Continue where the recipe's folder stands; False where there is nothing to continue."""
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=False)
        self.net.weights.copy_(state["predictors"][0])
        self.net.gains.copy_(state["predictors"][1])
        self.trained.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.bit_generator.state = state["rng"]
        self.steps, self.elapsed_s, self.history = state["steps"], state["elapsed_s"], state["history"]
        return True


def level_crops(
    pixels: Pixels, recipe: Recipe, level: int, rng: np.random.Generator
) -> tuple[Integers, Integers | None]:
    """Crops as planes of a level, and of their previews where the recipe's model knows them."""
    x, seen = pixels.crops(recipe.batches[level], recipe.sides[level], rng)
    step = 1 << level

    def planes(crops: NDArray[np.uint8]) -> Integers:
        return np.ascontiguousarray(geometry.to_ycocg(crops)[:, :, ::step, ::step])

    return planes(x), planes(seen) if recipe.config.preview and seen is not None else None


@torch.no_grad()
def held_out_bits(net: LosslessNet, pixels: Pixels, recipe: Recipe) -> dict[str, float]:
    """Bits a symbol of held-out crops by level, and of whole images estimated from them."""
    rng = np.random.default_rng(1)
    quantise(net, True)
    by_level = []
    for level in range(LEVELS):
        total, symbols = 0.0, 0
        for _ in range(HELD_OUT_BATCHES):
            x, preview = level_crops(pixels, recipe, level, rng)
            for stage in range(len(STAGES)):
                total += float(bits(net, batch(net, x, preview, level, stage), grid=True).sum())
            symbols += x.size
        by_level.append(total / symbols)
    whole = sum(b / 4**level for level, b in enumerate(by_level))
    return {"all": whole} | {f"level {level}": b for level, b in enumerate(by_level)}


def _start_from(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Take over a trained net; weights of inputs that it did not have stay small."""
    own = net.state_dict()
    with torch.no_grad():
        for key, value in state.items():
            if own[key].shape == value.shape:
                own[key].copy_(value)
            else:
                own[key].mul_(0.3)
                own[key][:, : value.shape[1]] = value


def training_pixels(recipe: Recipe) -> Pixels:
    """What a recipe trains on, prepared on the first call. Raises NoTrainingData."""
    cache = recipe.out / "train.u8"
    if recipe.tiles is not None:
        return prepare_small(
            recipe.data, cache, tiles=recipe.tiles, sources=recipe.sources, exclude=recipe.held_out
        )
    pixels = prepare_exact(recipe.data, cache, sources=recipe.sources, exclude=recipe.held_out)
    return with_previews(pixels, recipe) if recipe.config.preview else pixels


def with_previews(
    pixels: ExactPixels, recipe: Recipe, synthesis: PreviewSynthesis | None = None
) -> ExactPixels:
    """The same pixels with previews, whose synthesis is fitted to them where none is given."""
    from recbatch.train.preview_fit import fit_previews

    name = "train-previews.u8" if synthesis is None else "held-out-previews.u8"
    photo = PhotoModel.from_bytes(weights.read(recipe.preview_model))
    return fit_previews(pixels, recipe.out / name, photo, recipe.preview_level, synthesis)[1]


def train_stage(recipe: Recipe, stage: int, report: Report = _silent) -> None:
    """Train one stage, or go on where it stands, until the recipe's minutes are used up. Raises NoTrainingData."""
    torch.set_num_threads(1)
    trainer = Trainer(recipe, training_pixels(recipe), stage)
    name = STAGES[stage].name
    if trainer.load():
        report(f"{name}: resumed at step {trainer.steps}, {trainer.elapsed_s / 60:.1f} minutes in")
    trainer.run(lambda line: report(f"{name}: {line}"))


def assemble(recipe: Recipe) -> LosslessNet:
    """The net of a run whose stages have been trained, as far as they have come."""
    net = LosslessNet(recipe.config)
    for stage, s in enumerate(STAGES):
        state = torch.load(recipe.out / s.name / "checkpoint.pt", weights_only=False)
        net.stages[stage].load_state_dict(state["average"])
        net.weights.copy_(state["predictors"][0])
        net.gains.copy_(state["predictors"][1])
    return net


def train_variant(recipe: Recipe, report: Report = _silent) -> dict[str, float] | None:
    """Train the three stages side by side, a process each; bits of held-out images where the recipe has some.

    Raises NoTrainingData.
    """
    pixels = training_pixels(recipe)  # once, before three processes need it
    recipe.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    lines: multiprocessing.Queue[str | None] = context.Queue()
    workers = [
        context.Process(target=_work, args=(recipe, stage, lines), daemon=True)
        for stage in range(len(STAGES))
    ]
    for worker in workers:
        worker.start()
    running = len(workers)
    while running:
        line = lines.get()
        if line is None:
            running -= 1
        else:
            report(line)
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise TrainingFailed(str(recipe.out))
    if not recipe.held_out or not isinstance(pixels, ExactPixels):
        return None
    held = prepare_exact(recipe.data, recipe.out / "held-out.u8", sources=recipe.held_out)
    if recipe.config.preview:
        held = with_previews(held, recipe, preview_synthesis(recipe))
    found = held_out_bits(assemble(recipe), held, recipe)
    (recipe.out / "held-out.json").write_text(json.dumps(found))
    report("held out: " + "  ".join(f"{k} {v:.4f}" for k, v in found.items()))
    return found


def _work(recipe: Recipe, stage: int, lines: multiprocessing.Queue[str | None]) -> None:
    try:
        train_stage(recipe, stage, lines.put)
    finally:
        lines.put(None)


def preview_synthesis(recipe: Recipe) -> PreviewSynthesis:
    """The synthesis that a preview run was fitted with."""
    from recbatch.train.preview_fit import load_synthesis

    return load_synthesis(recipe.out / "train-previews.u8")


def write_model(runs: Sequence[Path], path: Path) -> None:
    """Put the nets of finished runs together into one weight file, its name's stem the model's name.

    Each run is one variant: which, its own checkpoint says. Raises NoRun.
    """
    variants: dict[str, LosslessNet] = {}
    synthesis, trained = None, {}
    for run in runs:
        checkpoint = run / STAGES[0].name / "checkpoint.pt"
        if not checkpoint.exists():
            raise NoRun(str(run))
        state = torch.load(checkpoint, weights_only=False)
        config = LosslessConfig(**state["config"])
        recipe = Recipe(data=run, out=run, config=config)
        name = "preview" if config.preview else "small" if state["small"] else "plain"
        variants[name] = assemble(recipe)
        trained[name] = {"steps": state["steps"], "minutes": round(state["elapsed_s"] / 60, 1)}
        if config.preview:
            synthesis = preview_synthesis(recipe)
    law = Law.make()
    data = export(
        {name: variants[name] for name in VARIANTS if name in variants},
        {name: getattr(law, name) for name in LAW},
        name=path.stem,
        preview=synthesis,
        training=json.dumps(trained),
    )
    path.write_bytes(data)
