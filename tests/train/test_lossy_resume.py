"""A run that is stopped, by a word, by a signal or by force, ends as one that never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from recbatch.engine.signals import stop_on_signals
from recbatch.models import weights
from recbatch.models.lossy import LossyConfig
from recbatch.train.loop import Progress, Schedule, Trainer
from recbatch.train.lossy import Recipe, train_lossy
from recbatch.train.start import net_from_weights

TINY = LossyConfig(latent=16, hyper=8, widths=(8, 8, 8))
TINY_WEIGHTS = Path(__file__).parent.parent / "golden" / "model" / "tiny.safetensors"


pytestmark = pytest.mark.usefixtures("cheap")


def recipe(data: Path, out: Path, **changes) -> Recipe:
    return Recipe(
        **{"data": data, "out": out, "name": "mini", "steps": 10, "config": TINY, "batch": 2, "crop": 64}
        | changes
    )


def after(steps: int, what):
    """Says False so many times, then calls ``what`` and says what that says."""
    asked = []

    def stop() -> bool:
        asked.append(None)
        return bool(what()) if len(asked) >= steps else False

    return stop


def state(out: Path) -> dict:
    return torch.load(out / "checkpoint.pt", weights_only=False)


def assert_equal(one: Path, other: Path) -> None:
    """Weight files, moving average and optimiser, bit for bit; all else but the time."""
    first, second = state(one), state(other)
    assert first["progress"]["step"] == second["progress"]["step"]
    for part in ("net", "average"):
        assert first[part].keys() == second[part].keys()
        assert all(torch.equal(v, second[part][k]) for k, v in first[part].items()), part
    moments = [s["optimiser"]["state"] for s in (first, second)]
    assert all(torch.equal(m[k], moments[1][i][k]) for i, m in moments[0].items() for k in m)
    assert (one / "mini.safetensors").read_bytes() == (other / "mini.safetensors").read_bytes()


def test_a_run_stopped_by_a_signal_ends_like_one_that_was_not(photographs_folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train_lossy(recipe(photographs_folder, whole)) == whole / "mini.safetensors"
    lines: list[str] = []
    with stop_on_signals(lambda name: None) as flag:

        def hit() -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            return flag.is_set()

        assert train_lossy(recipe(photographs_folder, parts), lines.append, stop=after(4, hit)) is None
    assert "stopped at step 4; the same command goes on" in lines
    assert not (parts / "mini.safetensors").exists()
    assert train_lossy(recipe(photographs_folder, parts), lines.append) == parts / "mini.safetensors"
    assert any(line.startswith("resumed at step 4") for line in lines)
    assert_equal(whole, parts)
    rows = json.loads((parts / "history.json").read_text())
    assert [row["step"] for row in rows] == [4, 10]
    assert [row["quantised"] for row in rows] == [0, 1]


@pytest.mark.long
def test_a_run_killed_at_any_moment_ends_like_one_that_was_not(photographs_folder, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from recbatch.models.lossy import LossyConfig\n"
        "from recbatch.train import klt, loop, lossy, prior_fit\n"
        "torch.set_num_threads(1)\n"
        "klt.CROPS, prior_fit.CROPS = 100, 2\n"
        "schedule = lossy.Recipe.schedule.fget\n"
        "import dataclasses\n"
        "lossy.Recipe.schedule = property(lambda r: dataclasses.replace(schedule(r), checkpoint_s=0.0))\n"
        "config = LossyConfig(latent=16, hyper=8, widths=(8, 8, 8))\n"
        "lossy.train_lossy(lossy.Recipe(data=Path(sys.argv[1]), out=Path(sys.argv[2]), name='mini', steps=40,\n"
        "                               config=config, batch=2, crop=64))\n"
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run([sys.executable, script, photographs_folder, whole], check=True)
    killed = subprocess.Popen([sys.executable, script, photographs_folder, parts])
    while not (parts / "checkpoint.pt").exists() or state(parts)["progress"]["step"] < 7:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert state(parts)["progress"]["step"] < 40
    subprocess.run([sys.executable, script, photographs_folder, parts], check=True)
    assert_equal(whole, parts)


def test_steps_stand_above_minutes():
    schedule = Schedule(minutes=1, steps=200)
    halfway = Progress(step=100, elapsed_s=1e6)
    assert schedule.fraction(halfway) == 0.5
    assert schedule.left(halfway) == "100 steps left"
    assert Schedule(minutes=60).fraction(Progress(step=5, elapsed_s=1800)) == 0.5


def test_a_trained_model_is_where_a_run_begins(photographs_folder, photographs, tmp_path):
    known = net_from_weights(TINY_WEIGHTS.read_bytes())
    fine = recipe(photographs_folder, tmp_path, start=str(TINY_WEIGHTS), steps=2)
    trainer = Trainer(TINY, fine.schedule, photographs, start=net_from_weights(TINY_WEIGHTS.read_bytes()))
    for name, value in known.state_dict().items():
        assert torch.equal(trainer.average.state_dict()[name], value), name
    trainer.step()
    assert trainer.net.quantised  # from the first step on
    assert fine.schedule.rate < recipe(photographs_folder, tmp_path).schedule.rate
    path = train_lossy(fine)
    assert path is not None
    _, metadata = weights.parse(path.read_bytes())
    assert LossyConfig.from_json(metadata["config"]) == known.config != TINY
    assert json.loads(metadata["training"])["start"] == weights.digest(TINY_WEIGHTS.read_bytes()).hex()


def test_an_unknown_model_to_begin_with_is_an_error_before_any_work(photographs_folder, tmp_path):
    with pytest.raises(weights.UnknownModel):
        train_lossy(recipe(photographs_folder, tmp_path / "run", start="no-such-model"))
    assert not (tmp_path / "run").exists()
