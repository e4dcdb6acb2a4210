"""Several workers: as plain processes, which is quick, and on Ray Train, where one is killed as well."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from team_fakes import TINY, CautiousRecipe, check_team, run_in_processes, train_a_little

from recbatch.engine import parallel
from recbatch.engine.cluster_errors import RayDidNotStart
from recbatch.train.data import prepare
from recbatch.train.distributed import LINES, STOP, launch
from recbatch.train.lossless import TrainingFailed
from recbatch.train.lossy import Recipe, train_lossy


def recipe(data: Path, out: Path, **changes) -> Recipe:
    return Recipe(
        **{"data": data, "out": out, "name": "mini", "steps": 4, "config": TINY, "batch": 1, "crop": 64}
        | {"workers": 2, "device": "cpu"}
        | changes
    )


def nothing() -> None:
    """Watch nothing."""


def test_a_team_shares_weights_averages_gradients_and_agrees_on_time_and_end(tmp_path):
    work = partial(check_team, tmp_path)
    assert run_in_processes(work, workers=2, device="cpu", folder=tmp_path, watch=nothing) is None
    assert {path.name for path in tmp_path.iterdir()} == {"checked-0", "checked-1"}


@pytest.mark.long
def test_workers_keep_the_same_weights_on_crops_of_their_own(photographs_folder, tmp_path):
    cache = tmp_path / "train.u8"
    prepare(photographs_folder, cache)
    work = partial(train_a_little, cache)
    assert run_in_processes(work, workers=2, device="cpu", folder=tmp_path, watch=nothing) is None
    weights, crops = (
        {(tmp_path / f"{name}-{rank}").read_text() for rank in (0, 1)} for name in ("weights", "crops")
    )
    assert (len(weights), len(crops)) == (1, 2)
    assert (tmp_path / "run-0" / "checkpoint.pt").exists()
    assert not (tmp_path / "run-1").exists()  # the first worker alone writes


def test_the_caller_hears_the_workers_and_can_stop_them(photographs_folder, tmp_path):
    """Without processes: the stand-in plays two workers that train until they are stopped."""
    lines: list[str] = []

    def run(work, *, workers, device, folder, watch):
        with (folder / LINES).open("a") as said:
            said.write("first\nsec")
            said.flush()
            watch()
            assert lines == ["first"]
            assert (folder / STOP).exists()
            said.write("ond\n")
        return "they died"

    prepare(photographs_folder, tmp_path / "train.u8")
    with pytest.raises(TrainingFailed):
        launch(run, recipe(photographs_folder, tmp_path), lines.append, lambda: True)
    assert lines == ["first", "second", "they died"]
    assert not (tmp_path / STOP).exists()


def test_a_ray_that_does_not_start_is_told_in_a_sentence(monkeypatch, tmp_path):
    def connect(workers, *, gpus):
        raise RayDidNotStart(3, "The node timed out during startup")

    monkeypatch.setattr(parallel.ray_local, "connect", connect)
    failure = parallel.run_parallel(print, workers=2, device="cpu", folder=tmp_path, watch=nothing)
    assert failure is not None
    assert "timed out" in failure


def ray_train():
    pytest.importorskip("pandas", reason="Ray Train needs recbatch[train]")
    from recbatch.engine.parallel import run_parallel

    return run_parallel  # Ray is not imported here: its settings must be made before that


@pytest.mark.long
def test_two_workers_on_ray_train_and_go_on(photographs_folder, tmp_path, cheap):
    run_parallel = ray_train()
    lines: list[str] = []
    path = train_lossy(
        recipe(photographs_folder, tmp_path), lines.append, launch=partial(launch, run_parallel)
    )
    assert path == tmp_path / "mini.safetensors"
    progress = torch.load(tmp_path / "checkpoint.pt", weights_only=False)["progress"]
    assert progress["step"] == 4
    assert progress["pixels"] == 2 * 4 * 64**2
    assert any("GFLOP a step" in line for line in lines)
    assert not (tmp_path / "ray").exists()


@pytest.mark.long
def test_a_killed_worker_costs_the_steps_since_the_last_checkpoint(
    photographs_folder, tmp_path, cheap, monkeypatch
):
    psutil = pytest.importorskip("psutil")
    run_parallel = ray_train()
    lines: list[str] = []
    killed: list[int] = []

    def title(process) -> str:
        try:
            return " ".join(process.cmdline())
        except psutil.Error:
            return ""

    def kill_one_at_step_5() -> bool:
        """Asked while the workers train; never stops them in any other way."""
        path = tmp_path / "checkpoint.pt"
        if not killed and path.exists() and torch.load(path, weights_only=False)["progress"]["step"] >= 5:
            workers = [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in title(p)]
            workers[-1].kill()
            killed.append(workers[-1].pid)
        return False

    cautious = CautiousRecipe(
        data=photographs_folder,
        out=tmp_path,
        name="mini",
        steps=150,
        config=TINY,
        batch=1,
        crop=64,
        workers=2,
        device="cpu",
    )

    def report(line: str) -> None:
        lines.append(line)
        print(line)

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find the recipe's class
    path = train_lossy(cautious, report, stop=kill_one_at_step_5, launch=partial(launch, run_parallel))
    assert killed
    assert path == tmp_path / "mini.safetensors"
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=False)["progress"]["step"] == 150
    begun = [int(line.split()[3].rstrip(",")) for line in lines if line.startswith("resumed at step")]
    assert begun
    assert 5 <= begun[0] < 150
