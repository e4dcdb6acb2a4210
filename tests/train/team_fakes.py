"""Workers without Ray: plain processes that form a process group through a file."""

from __future__ import annotations

import hashlib
import multiprocessing
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from recbatch.models.lossy import LossyConfig
from recbatch.train.data import Photographs, prepared
from recbatch.train.loop import Schedule, Trainer
from recbatch.train.lossy import Recipe
from recbatch.train.team import ProcessGroup

TINY = LossyConfig(latent=16, hyper=8, widths=(8, 8, 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class CautiousRecipe(Recipe):
    """Writes a checkpoint after every step."""

    @property
    def schedule(self) -> Schedule:
        return replace(Recipe.schedule.fget(self), checkpoint_s=0.0)


def _member(rank: int, size: int, store: str, work: Callable[[str], None]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    try:
        work("cpu")
    finally:
        torch.distributed.destroy_process_group()


def run_in_processes(
    work: Callable[[str], None], *, workers: int, device: str, folder: Path, watch: Callable[[], None]
) -> str | None:
    """As ``recbatch.engine.parallel.run_parallel``, without restarts."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as store:
        members = [
            context.Process(target=_member, args=(rank, workers, f"{store}/group", work))
            for rank in range(workers)
        ]
        for member in members:
            member.start()
        for member in members:
            while member.is_alive():
                member.join(0.1)
                watch()
        codes = [member.exitcode for member in members]
    return None if not any(codes) else f"exit codes {codes}"


def check_team(folder: Path, device: str) -> None:
    """What every member of a team of two must find; called in each."""
    team = ProcessGroup(torch.device(device))
    assert team.size == 2
    mine = torch.full((2, 3, 4, 4), float(team.rank)).contiguous(memory_format=torch.channels_last)
    team.share([mine])
    assert (mine == 0).all()
    gradients = [torch.arange(6.0).reshape(2, 3) * (team.rank + 1), torch.tensor([2.0 * team.rank])]
    team.average(gradients)
    assert torch.equal(gradients[0], torch.arange(6.0).reshape(2, 3) * 1.5)
    assert torch.equal(gradients[1], torch.tensor([1.0]))
    assert team.agree(10.0 + team.rank, False) == (10.0, False)
    assert team.agree(20.0 + team.rank, team.rank == 1) == (20.0, True)
    (folder / f"checked-{team.rank}").touch()


def train_a_little(cache: Path, device: str) -> None:
    """Three steps; each member leaves a digest of its weights and of its crops."""
    photographs = prepared(cache)
    assert isinstance(photographs, Photographs)
    team = ProcessGroup(torch.device(device))
    # seeds differ: the weights to begin with must come from the first worker all the same
    schedule = Schedule(minutes=1, steps=3, batch=1, crop=64, warm_up=2)
    trainer = Trainer(TINY, schedule, photographs, seed=team.rank, team=team)
    trainer.run(cache.parent / f"run-{team.rank}", lambda line: None)
    weights = torch.cat([p.detach().flatten() for p in trainer.net.parameters()]).numpy()
    crops, _ = trainer.batches.of_step(0)
    for name, value in (("weights", weights), ("crops", crops)):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        (cache.parent / f"{name}-{team.rank}").write_text(digest)
