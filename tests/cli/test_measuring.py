"""``train`` and ``bench`` hand what was typed to their floors, in the words that those know."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Run


@dataclass
class Stand:
    """Stands in for a long function: checks the call against its signature, and remembers it."""

    real: Any
    result: Any
    arguments: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        self.arguments = dict(inspect.signature(self.real).bind(*positional, **named).arguments)
        return self.result


class Result:
    def to_dict(self) -> dict[str, int]:
        return {"figure": 7}


def test_train_lossy_builds_the_recipe(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbatch.train import lossy

    stand = Stand(lossy.train_lossy, tmp_path / "mine.safetensors")
    monkeypatch.setattr(lossy, "train_lossy", stand)
    outcome = run(
        *("train", "lossy", "data", tmp_path, "--name", "mine", "--minutes", "3", "--held-out", "kodak"),
        *("--held-out", "tests", "--threads", "2"),
    )
    assert outcome.status == 0
    assert outcome.out.strip() == str(tmp_path / "mine.safetensors")
    recipe = stand.arguments["recipe"]
    assert (recipe.data, recipe.out, recipe.name, recipe.minutes) == (Path("data"), tmp_path, "mine", 3)
    assert (recipe.held_out, recipe.sources, recipe.threads) == (("kodak", "tests"), (), 2)


@pytest.mark.parametrize(
    ("name", "arguments", "handed"),
    [
        ("lossy", ["--level", "4", "--level", "9", "--no-archive"], {"levels": [4, 9], "archive": False}),
        ("rec", ["--effort", "3", "--images", "2"], {"efforts": [3], "images": 2, "with_synthetic": True}),
        (
            "rec",
            ["--coder", "irec", "--coder", "tcq8", "--slow-images", "1", "--no-synthetic"],
            {"coders": ["irec", "tcq8"], "slow_images": 1, "with_synthetic": False},
        ),
        ("speed", ["--repeats", "1", "--level", "3"], {"repeats": 1, "level": 3}),
    ],
)
def test_bench_hands_its_options_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str], handed: dict[str, Any]
) -> None:
    import importlib

    module = importlib.import_module(f"recbatch.bench.{name}")
    stand = Stand(getattr(module, f"{name}_benchmark"), Result())
    monkeypatch.setattr(module, f"{name}_benchmark", stand)
    outcome = run("bench", name, "folder", *arguments, "--json")
    assert outcome.status == 0
    assert outcome.lines() == [{"event": "report", "schema": 1, "figure": 7}]
    assert stand.arguments.get("folder", stand.arguments.get("folders")) in ("folder", ["folder"])
    assert handed.items() <= stand.arguments.items()


def test_bench_rec_needs_latents_of_some_kind(run: Run) -> None:
    outcome = run("bench", "rec", "--no-synthetic")
    assert outcome.status == 2
    assert "no latents" in outcome.err


def test_bench_rec_without_a_folder_measures_synthetic_latents(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbatch.bench import rec

    stand = Stand(rec.rec_benchmark, Result())
    monkeypatch.setattr(rec, "rec_benchmark", stand)
    assert run("bench", "rec", "--json").status == 0
    assert stand.arguments["folder"] is None
    assert stand.arguments["with_synthetic"] is True


def test_bench_rec_knows_its_coders(run: Run) -> None:
    outcome = run("bench", "rec", "--coder", "zip")
    assert outcome.status == 2
    assert "posterior" in outcome.err


@pytest.mark.parametrize("name", ["lossy", "rec", "speed"])
def test_a_folder_without_images_is_wrong_usage(run: Run, tmp_path: Path, name: str) -> None:
    outcome = run("bench", name, tmp_path)
    assert outcome.status == 2
    assert str(tmp_path) in outcome.err
