"""The training loop of the lossy model: a schedule by the clock or by steps, resumable to the step."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbatch.errors import UsageError
from recbatch.models.lossy import LossyConfig, LossyNet, level_lambda
from recbatch.train import machine
from recbatch.train.batches import Batches, seed_of
from recbatch.train.data import Photographs
from recbatch.train.klt import klt_start
from recbatch.train.objective import Objective, decibels, distortion
from recbatch.train.team import Alone, Team

LN2 = math.log(2.0)
REFERENCE_LAMBDA = 0.01  # each sample's loss is divided by sqrt(lambda / this), so that no rate dominates
MEASURES = {  # in this order, of which ``gradients`` gives all but the norm
    Objective.mse: ("loss", "bpp", "hyper_bpp", "psnr", "norm"),
    Objective.ms_ssim: ("loss", "bpp", "hyper_bpp", "psnr", "ms_ssim_db", "norm"),
}
ROW_STEPS, LINE_STEPS = 20, 100  # a row of the history, a line of the report
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How a run spends its time; fractions are of ``steps`` where they are given, else of ``minutes``."""

    minutes: float
    steps: int | None = None
    batch: int = 8  # of each worker
    crop: int = 128
    rate: float = 7e-4
    warm_up: int = 200  # steps
    decay_from: float = 0.3  # constant before, cosine after
    quantise_from: float = 0.6  # the exact networks train on their integer grid from here on
    average: float = 0.999  # of the exponential moving average that is saved
    clip: float = 1.0
    checkpoint_s: float = 120.0

    def learning_rate(self, step: int, fraction: float) -> float:
        late = max(0.0, (fraction - self.decay_from) / (1 - self.decay_from))
        return (
            self.rate * min(1.0, (step + 1) / self.warm_up) * max(0.5 + 0.5 * math.cos(math.pi * late), 4e-3)
        )

    def fraction(self, progress: Progress) -> float:
        """How much of the run is behind; 1 and more where it is over."""
        done, whole = (
            (progress.step, self.steps) if self.steps is not None else (progress.elapsed_s, 60 * self.minutes)
        )
        return done / whole if whole else 1.0

    def left(self, progress: Progress) -> str:
        """What is ahead, for people."""
        if self.steps is not None:
            return f"{max(0, self.steps - progress.step)} steps left"
        return f"{max(0.0, self.minutes - progress.elapsed_s / 60):.0f} min left"


@dataclass(slots=True)
class Progress:
    """What a run has behind it; saved with every checkpoint."""

    step: int = 0
    elapsed_s: float = 0.0
    pixels: int = 0


class Trainer:
    """Trains one model; ``save`` and ``load`` carry everything that the next step depends on.

    Crops and noise are functions of seed, worker and step, so a checkpoint holds no state of a random generator.

    Args:
        start: a network to begin with in place of the Karhunen-Loeve transform; its sizes stand above ``config``.
        objective: what is made small beside the rate.
        precision: bfloat16 for the networks of analysis and synthesis, see ``machine.mix_precision``.
        team: the workers whose gradients are averaged.
    """

    def __init__(
        self,
        config: LossyConfig,
        schedule: Schedule,
        photographs: Photographs,
        *,
        seed: int = 0,
        start: LossyNet | None = None,
        objective: Objective = Objective.mse,
        device: torch.device | str = "cpu",
        precision: torch.dtype = torch.float32,
        team: Team | None = None,
    ) -> None:
        self.schedule, self.photographs, self.seed = schedule, photographs, seed
        self.objective, self.measures = objective, MEASURES[objective]
        self.device, self.precision = torch.device(device), precision
        self.team = team or Alone()
        with machine.computing(self.device, seed):
            self.net = start or LossyNet(config)
            if start is None:
                klt_start(self.net, photographs, np.random.default_rng(seed))
        self.config = self.net.config
        self.net = self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net.train()
        self.team.share(list(self.net.parameters()))
        self.average = copy.deepcopy(self.net)
        if precision is torch.bfloat16:
            machine.mix_precision(self.net, self.device)
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=schedule.rate, betas=(0.9, 0.98))
        self.batches = self._batches()
        self.progress = Progress()
        self.floor: machine.Floor | None = None  # where it is known, lines say what was reached of it
        self.history: list[dict[str, float]] = []

    def _batches(self) -> Batches:
        return Batches(
            self.photographs,
            batch=self.schedule.batch,
            crop=self.schedule.crop,
            seed=self.seed,
            rank=self.team.rank,
            ahead=self.device.type != "cpu",
        )

    def step(self) -> dict[str, float]:
        """One update; returns its mean loss, rate, rate of the hyper latents, quality and norm of the gradient."""
        return dict(zip(self.measures, self._update().tolist(), strict=True))

    def _update(self) -> Tensor:
        s, step = self.schedule, self.progress.step
        fraction = s.fraction(self.progress)
        self.net.set_quantised(fraction >= s.quantise_from)
        for group in self.optimiser.param_groups:
            group["lr"] = s.learning_rate(step, fraction)
        self.optimiser.zero_grad()
        with machine.computing(self.device, seed_of(self.seed, self.team.rank, step)):
            measured = self.gradients()
        parameters: list[Tensor] = list(self.net.parameters())
        self.team.average([p.grad for p in parameters if p.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(parameters, s.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        decay = min(s.average, (1 + step) / (10 + step))
        with torch.no_grad():
            averages: list[Tensor] = list(self.average.parameters())
            torch._foreach_lerp_(averages, parameters, 1 - decay)
        self.progress.step += 1
        self.progress.pixels += s.batch * s.crop**2 * self.team.size
        return torch.cat([measured, norm[None]])

    def gradients(self) -> Tensor:
        """Forward and backward of the step at hand; what it measured: all of ``measures`` but the norm."""
        x, level = self._batch()
        x_hat, kl_y, kl_z = self.net(x, level)
        weight = level_lambda(level)
        pixels = self.schedule.crop**2
        bpp = (kl_y + kl_z) / (LN2 * pixels)
        off = distortion(self.objective, x_hat, x)
        cost = bpp + weight * off.cost_B
        loss = (cost / torch.sqrt(weight / REFERENCE_LAMBDA)).mean()
        loss.backward()
        measured = [loss, bpp.mean(), kl_z.mean() / (LN2 * pixels), off.psnr.mean()]
        if off.ms_ssim_B is not None:
            measured.append(decibels(off.ms_ssim_B).mean())
        return torch.stack(measured).detach()

    def _batch(self) -> tuple[Tensor, Tensor]:
        crops, level = (torch.from_numpy(part) for part in self.batches.of_step(self.progress.step))
        x = crops.to(self.device).permute(0, 3, 1, 2).float().div_(255)
        return x.contiguous(memory_format=torch.channels_last), level.to(self.device)

    def run(self, folder: Path, report: Callable[[str], None], *, stop: Callable[[], bool] = bool) -> bool:
        """Train until the schedule is used up, or ``stop`` says so; saves to ``folder`` as it goes.

        Returns whether the schedule is used up.
        """
        recent: list[Tensor] = []
        told = copy.copy(self.progress)
        last = saved = time.monotonic()
        asked = False
        while not asked and self.schedule.fraction(self.progress) < 1:
            recent.append(self._update())
            now = time.monotonic()
            elapsed_s = self.progress.elapsed_s + now - last
            last = now
            self.progress.elapsed_s, asked = self.team.agree(elapsed_s, stop())
            if self.progress.step % ROW_STEPS == 0:
                self._add_row(recent)
                recent.clear()
            if self.progress.step % LINE_STEPS == 0:
                report(self._line(told))
                told = copy.copy(self.progress)
            if now - saved > self.schedule.checkpoint_s:
                self.save(folder)
                last = saved = time.monotonic()
        if recent:
            self._add_row(recent)
        self.save(folder)
        return self.schedule.fraction(self.progress) >= 1

    def _add_row(self, recent: list[Tensor]) -> None:
        means = dict(zip(self.measures, torch.stack(recent).mean(0).tolist(), strict=True))
        self.history.append(
            {
                **asdict(self.progress),
                **means,
                "rate": self.optimiser.param_groups[0]["lr"],
                "quantised": float(self.net.quantised),
            }
        )

    def _line(self, before: Progress) -> str:
        p, row = self.progress, self.history[-1]
        seconds, steps = p.elapsed_s - before.elapsed_s, p.step - before.step
        similarity = f"MS-SSIM {row['ms_ssim_db']:.2f} dB  " if "ms_ssim_db" in row else ""
        line = (
            f"step {p.step}  loss {row['loss']:.4f}  bpp {row['bpp']:.3f}  PSNR {row['psnr']:.2f}  {similarity}"
            f"{(p.pixels - before.pixels) / seconds / 1e6:.2f} MP/s"
        )
        if self.floor is not None:
            line += f" ({self.floor.share(seconds, steps):.0%} of the peak)"
        return f"{line}  {self.schedule.left(p)}"

    def save(self, folder: Path) -> None:
        """Write ``checkpoint.pt`` and ``history.json``, each whole or not at all; the first worker does."""
        if self.team.rank:
            return
        folder.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {
            "config": self.config.to_json(),
            "objective": self.objective.value,
            "seed": self.seed,
            "schedule": asdict(self.schedule),
            "progress": asdict(self.progress),
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
        }
        partial = folder / "checkpoint.partial"
        torch.save(state, partial)
        os.replace(partial, folder / CHECKPOINT)
        partial.write_text(json.dumps(self.history))
        os.replace(partial, folder / "history.json")

    def load(self, folder: Path) -> bool:
        """Continue from ``folder``; False where there is nothing to continue.

        Raises:
            UsageError: a network of other sizes, or another objective, was trained there.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=False)
        objective = Objective(state.get("objective", Objective.mse))  # early runs do not say it
        if _config(state) != self.config or objective is not self.objective:
            raise UsageError(
                f"{folder} holds a run of other sizes, or for another objective ({objective.value}). "
                "Give the options that it was begun with, or another folder."
            )
        self.seed = state.get("seed", self.seed)
        self.batches = self._batches()
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])
        self.history = state["history"]
        return True


def _config(state: dict[str, Any]) -> LossyConfig:
    return LossyConfig.from_json(json.dumps(state["config"]))


def saved_average(folder: Path) -> tuple[LossyNet, Progress]:
    """The moving average that a run has saved, ready to be used, and how far it was then."""
    state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=False)
    net = LossyNet(_config(state))
    net.load_state_dict(state["average"])
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.eval()
    net.set_quantised(True)
    return net, Progress(**state["progress"])
