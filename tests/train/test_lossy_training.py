from __future__ import annotations

import numpy as np
import pytest
import torch

from recbatch.models.lossy import LossyConfig
from recbatch.models.photo import PhotoModel
from recbatch.rec import Tables
from recbatch.train import data, prior_fit
from recbatch.train.data import NoTrainingData, prepare, prepared
from recbatch.train.evaluate import held_out_cost
from recbatch.train.loop import Schedule, Trainer
from recbatch.train.lossy import Recipe, train_lossy

SMALL = LossyConfig(latent=12, hyper=4, widths=(8, 8, 8))


@pytest.fixture
def trainer(photographs, cheap) -> Trainer:
    return Trainer(SMALL, Schedule(minutes=1e6, batch=2, crop=64, warm_up=5), photographs)


def test_a_few_steps_lower_the_loss(trainer):
    before = held_out_cost(trainer.net, trainer.photographs)["held_out_loss"]
    for _ in range(60):
        trainer.step()
    assert held_out_cost(trainer.net, trainer.photographs)["held_out_loss"] < 0.98 * before


def test_a_run_goes_on_where_it_stopped(trainer, photographs_folder, tmp_path):
    for _ in range(3):
        trainer.step()
    trainer.save(tmp_path)
    straight = [trainer.step()["loss"] for _ in range(3)]
    other = Trainer(SMALL, trainer.schedule, trainer.photographs, seed=9)
    assert other.load(tmp_path)
    assert other.progress.step == 3
    assert [other.step()["loss"] for _ in range(3)] == straight


def test_a_folder_without_images_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoTrainingData, match="No image"):
        prepare(tmp_path / "empty", tmp_path / "cache.u8")


def test_decoded_photographs_are_kept_for_the_next_run(photographs_folder, tmp_path):
    first = prepare(photographs_folder, tmp_path / "cache.u8")
    stamp = (tmp_path / "cache.u8").stat().st_mtime_ns
    second = prepare(photographs_folder, tmp_path / "cache.u8")
    assert (tmp_path / "cache.u8").stat().st_mtime_ns == stamp
    assert np.array_equal(first.flat, second.flat)
    assert prepare(photographs_folder, tmp_path / "cache.u8", exclude=["0.png"]).shapes.shape[0] == 2


def test_a_cache_whose_making_was_stopped_is_made_again(photographs_folder, tmp_path, monkeypatch):
    whole = prepare(photographs_folder, tmp_path / "cache.u8")
    calls = []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return reduce(*arguments)

    reduce = data.reduce
    monkeypatch.setattr(data, "reduce", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare(photographs_folder, tmp_path / "cache.u8", exclude=["0.png"])
    again = prepared(tmp_path / "cache.u8")
    assert again is not None
    assert np.array_equal(again.flat, whole.flat)
    monkeypatch.undo()
    assert prepare(photographs_folder, tmp_path / "cache.u8", exclude=["0.png"]).shapes.shape[0] == 2


def test_crops_that_no_photograph_has_room_for_are_refused_before_training(photographs_folder, tmp_path):
    with pytest.raises(NoTrainingData, match="at least 512 pixels"):
        train_lossy(Recipe(data=photographs_folder, out=tmp_path, crop=512, config=SMALL))


def test_what_is_held_out_is_measured_the_same_way_each_time(trainer):
    state = torch.get_rng_state()
    first = held_out_cost(trainer.net, trainer.photographs)
    assert held_out_cost(trainer.net, trainer.photographs) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert not trainer.net.quantised


def test_from_photographs_to_weights_in_one_call(photographs_folder, tmp_path, cheap):
    lines: list[str] = []
    recipe = Recipe(
        data=photographs_folder,
        out=tmp_path / "run",
        name="mini",
        minutes=0.01,
        config=SMALL,
        batch=2,
        crop=64,
    )
    path = train_lossy(recipe, lines.append)
    model = PhotoModel.from_bytes(path.read_bytes())
    assert model.name == "mini"
    assert set(model.coder_prior) == {"density"}
    Tables.with_prior(**model.coder_prior)  # well formed
    assert train_lossy(recipe, lines.append) == path  # nothing left to do but the weights
    assert any(line.startswith("resumed") for line in lines)
    assert sum("GFLOP a step" in line for line in lines) == 1


def test_what_the_fit_sees_comes_from_its_generator_alone(trainer):
    def collected() -> tuple:
        torch.rand(1)  # others may draw as well
        return prior_fit.collect(trainer.net, trainer.photographs, np.random.default_rng(3))

    for first, again in zip(collected(), collected(), strict=True):
        assert np.array_equal(first, again)


def test_the_fit_finds_the_mixture_it_was_given():
    rng = np.random.default_rng(0)
    variance = np.full(60_000, 40.0)
    which = rng.choice([2, 7], variance.size, p=[0.8, 0.2])
    e = rng.normal(size=variance.size) * np.sqrt(1 + variance * prior_fit.FACTORS_J[which])
    start = np.full(prior_fit.FACTORS_J.size, 0.1)
    weights = prior_fit.fit_mixture(e, variance, start)
    assert weights[1:4].sum() == pytest.approx(0.8, abs=0.05)
    assert weights[6:9].sum() == pytest.approx(0.2, abs=0.05)
    density = prior_fit.mixture_density(weights)
    assert density[0] == density.max() == 2**32 - 1
    assert (np.diff(density) <= 0).all()
