"""``recbatch train lossy`` and ``train card`` as commands."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from recbatch.cli import main
from recbatch.models.lossy import PRESETS
from recbatch.train import lossy


def stand(monkeypatch: pytest.MonkeyPatch, result) -> list:
    """Put a function in the place of training; the list gets the recipes."""
    recipes: list = []

    def train_lossy(recipe, report, *, stop, launch):
        recipes.append(recipe)
        return result(recipe, report, stop)

    monkeypatch.setattr(lossy, "train_lossy", train_lossy)
    return recipes


def test_options_reach_the_recipe(monkeypatch, tmp_path, capsys):
    recipes = stand(monkeypatch, lambda recipe, report, stop: tmp_path / "mine.safetensors")
    words = ["train", "lossy", "data", str(tmp_path), "--steps", "7", "--start", "photo-s"]
    assert main([*words, "--device", "cpu", "--precision", "bf16"]) == 0
    (recipe,) = recipes
    assert (recipe.steps, recipe.start, recipe.device, recipe.precision) == (7, "photo-s", "cpu", "bf16")
    assert (recipe.workers, recipe.minutes, recipe.objective) == (1, 60, "mse")
    captured = capsys.readouterr()
    assert captured.out.strip() == str(tmp_path / "mine.safetensors")
    assert "no card was drawn" in captured.err  # there is no run to draw, which must not cost the weights


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_then_the_run_with_130(monkeypatch, tmp_path, capsys, number):
    def result(recipe, report, stop):
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        report("stopped at step 3; the same command goes on")

    before = signal.getsignal(number)
    stand(monkeypatch, result)
    assert main(["train", "lossy", "data", str(tmp_path), "--json"]) == 130
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"event": "report", "weights": None, "card": None}
    assert captured.err.splitlines()[-1] == "stopped at step 3; the same command goes on"
    assert signal.getsignal(number) == before


def test_minutes_and_steps_together_are_refused(tmp_path, capsys):
    assert main(["train", "lossy", "data", str(tmp_path), "--minutes", "3", "--steps", "7"]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_a_size_brings_its_networks_and_its_name(monkeypatch, tmp_path, capsys):
    recipes = stand(monkeypatch, lambda recipe, report, stop: tmp_path / "photo-m.safetensors")
    words = ["train", "lossy", "data", str(tmp_path)]
    assert main([*words, "--size", "photo-m", "--objective", "ms-ssim"]) == 0
    assert main([*words, "--name", "mine"]) == 0
    medium, small = recipes
    assert (medium.name, medium.config, medium.crops) == ("photo-m", PRESETS["photo-m"], (4, 192))
    assert (small.name, small.config, small.crops) == ("mine", PRESETS["photo-s"], (8, 128))


def test_a_model_to_begin_with_brings_its_own_size(tmp_path, capsys):
    assert main(["train", "lossy", "data", str(tmp_path), "--start", "photo-s", "--size", "photo-m"]) == 2
    assert "leave --size out" in capsys.readouterr().err


def test_crops_too_small_for_ms_ssim_are_refused(tmp_path, capsys):
    assert main(["train", "lossy", "data", str(tmp_path), "--objective", "ms-ssim", "--crop", "128"]) == 2
    assert "at least 192" in capsys.readouterr().err


def test_a_folder_without_a_run_has_no_card(tmp_path: Path, capsys):
    assert main(["train", "card", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_workers_without_ray_train_say_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["train", "lossy", "data", str(tmp_path), "--workers", "2"]) == 2
    assert "recbatch[train]" in capsys.readouterr().err
