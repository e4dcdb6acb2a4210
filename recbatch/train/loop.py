"""The training loop of the lossy model: one process, wall-clock schedule, resumable to the step."""

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

from recbatch.models.lossy import LEVELS, LossyConfig, LossyNet, level_lambda
from recbatch.train.data import Photographs
from recbatch.train.klt import klt_start

LN2 = math.log(2.0)
REFERENCE_LAMBDA = 0.01  # each sample's loss is divided by sqrt(lambda / this), so that no rate dominates


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How a run spends its time; fractions are of ``minutes``."""

    minutes: float
    batch: int = 8
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


@dataclass(slots=True)
class Progress:
    """What a run has behind it; saved with every checkpoint."""

    step: int = 0
    elapsed_s: float = 0.0
    pixels: int = 0


class Trainer:
    """Trains one model; ``save`` and ``load`` carry everything that the next step depends on."""

    def __init__(
        self, config: LossyConfig, schedule: Schedule, photographs: Photographs, *, seed: int = 0
    ) -> None:
        self.config, self.schedule, self.photographs = config, schedule, photographs
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.net = LossyNet(config)
        self.left_out = klt_start(self.net, photographs, self.rng)
        self.net = self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.net)
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=schedule.rate, betas=(0.9, 0.98))
        self.progress = Progress()
        self.history: list[dict[str, float]] = []

    def step(self) -> dict[str, float]:
        """One update; returns its mean loss, rate, rate of the hyper latents and PSNR."""
        s = self.schedule
        fraction = self.progress.elapsed_s / (60 * s.minutes)
        self.net.set_quantised(fraction >= s.quantise_from)
        for group in self.optimiser.param_groups:
            group["lr"] = s.learning_rate(self.progress.step, fraction)
        x, level = self._batch()
        x_hat, kl_y, kl_z = self.net(x, level)
        weight = level_lambda(level)
        pixels = s.crop**2
        bpp = (kl_y + kl_z) / (LN2 * pixels)
        mse = ((x_hat - x) ** 2).mean((1, 2, 3))
        cost = bpp + weight * 65025 * mse
        loss = (cost / torch.sqrt(weight / REFERENCE_LAMBDA)).mean()
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), s.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        decay = min(s.average, (1 + self.progress.step) / (10 + self.progress.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.net.parameters()), 1 - decay)
        self.progress.step += 1
        self.progress.pixels += s.batch * pixels
        return {
            "loss": float(loss.detach()),
            "bpp": float(bpp.mean().detach()),
            "hyper_bpp": float(kl_z.mean().detach()) / (LN2 * pixels),
            "psnr": float((-10 * torch.log10(mse)).mean().detach()),
            "norm": float(norm),
        }

    def _batch(self) -> tuple[Tensor, Tensor]:
        crops = self.photographs.crops(self.schedule.batch, self.schedule.crop, self.rng)
        x = torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(255)
        level = torch.from_numpy(self.rng.uniform(0, LEVELS - 1, self.schedule.batch).round()).float()
        return x.contiguous(memory_format=torch.channels_last), level

    def run(self, folder: Path, report: Callable[[str], None], *, every: int = 100) -> None:
        """Train until the schedule's minutes are used up, saving to ``folder`` as it goes."""
        recent: list[dict[str, float]] = []
        last = saved = time.monotonic()
        while self.progress.elapsed_s < 60 * self.schedule.minutes:
            recent.append(self.step())
            now = time.monotonic()
            self.progress.elapsed_s += now - last
            last = now
            if self.progress.step % every == 0:
                means = {k: float(np.mean([r[k] for r in recent])) for k in recent[0]}
                self.history.append(
                    {"step": self.progress.step, "elapsed_s": self.progress.elapsed_s, **means}
                )
                recent.clear()
                report(self._line(means))
            if now - saved > self.schedule.checkpoint_s:
                self.save(folder)
                last = saved = time.monotonic()
        self.save(folder)

    def _line(self, means: dict[str, float]) -> str:
        p = self.progress
        left = max(0.0, self.schedule.minutes - p.elapsed_s / 60)
        return (
            f"step {p.step}  loss {means['loss']:.4f}  bpp {means['bpp']:.3f}  PSNR {means['psnr']:.2f}  "
            f"{p.pixels / p.elapsed_s / 1e6:.2f} MP/s  {left:.0f} min left"
        )

    def save(self, folder: Path) -> None:
        """Write ``checkpoint.pt`` and ``history.json``, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {
            "config": self.config.to_json(),
            "schedule": asdict(self.schedule),
            "progress": asdict(self.progress),
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.bit_generator.state,
            "torch_rng": torch.get_rng_state(),
            "history": self.history,
        }
        partial = folder / "checkpoint.partial"
        torch.save(state, partial)
        os.replace(partial, folder / "checkpoint.pt")
        (folder / "history.json").write_text(json.dumps(self.history))

    def load(self, folder: Path) -> bool:
        """Continue from ``folder``; False where there is nothing to continue."""
        path = folder / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=False)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])
        self.progress = Progress(**state["progress"])
        self.history = state["history"]
        return True
