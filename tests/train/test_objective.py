"""The two objectives: what they charge, what they need, and that a run keeps to one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from recbatch.cli.train import Objective as Offered
from recbatch.errors import UsageError
from recbatch.models import weights
from recbatch.models.lossy import PRESETS, LossyConfig
from recbatch.train.evaluate import held_out_cost
from recbatch.train.loop import Schedule, Trainer
from recbatch.train.lossy import Recipe, train_lossy
from recbatch.train.ms_ssim import ms_ssim
from recbatch.train.objective import SIZES, Objective, check_crop, decibels, distortion

TINY = LossyConfig(latent=16, hyper=8, widths=(8, 8, 8))
ONE_STEP = Schedule(minutes=1, steps=1, batch=1, crop=192)


def test_squared_errors_are_charged_in_grey_levels():
    x = torch.full((2, 3, 64, 64), 0.5)
    off = distortion(Objective.mse, x + torch.tensor([1.0, 2.0])[:, None, None, None] / 255, x)
    assert off.cost_B.tolist() == pytest.approx([1, 4], rel=1e-3)
    assert off.psnr[0] == pytest.approx(48.13, abs=0.01)
    assert off.ms_ssim_B is None


def test_ms_ssim_is_charged_for_what_it_lacks_beside_a_tenth_of_the_squared_error(photographs):
    crops = photographs.crops(2, 192, np.random.default_rng(3))
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    x_hat = torch.nn.functional.avg_pool2d(x, 9, 1, 4)
    off = distortion(Objective.ms_ssim, x_hat, x)
    expected = 1430 * (1 - ms_ssim(x_hat, x)) + 0.1 * distortion(Objective.mse, x_hat, x).cost_B
    assert torch.allclose(off.cost_B, expected)
    assert decibels(torch.tensor([0.99, 1.0])).tolist() == pytest.approx([20, 60], abs=1e-3)


def test_a_step_for_ms_ssim_measures_it_in_decibels(photographs, cheap):
    trainer = Trainer(TINY, ONE_STEP, photographs, objective=Objective.ms_ssim)
    measured = trainer.step()
    assert list(measured) == ["loss", "bpp", "hyper_bpp", "psnr", "ms_ssim_db", "norm"]
    assert 0 < measured["ms_ssim_db"] < 40
    assert measured["norm"] > 0


@pytest.mark.long
def test_the_held_out_cost_is_that_of_the_objective(photographs, cheap, monkeypatch):
    monkeypatch.setattr("recbatch.train.evaluate.CROPS", 2)
    net = Trainer(TINY, ONE_STEP, photographs).net
    plain, similar = (held_out_cost(net, photographs, o) for o in Objective)
    assert plain["psnr_11"] == similar["psnr_11"]
    assert similar.keys() - plain.keys() == {f"ms_ssim_db_{q}" for q in (4, 11, 18, 25)}
    assert plain["held_out_loss"] != similar["held_out_loss"]


@pytest.mark.parametrize(
    ("objective", "crop", "problem"),
    [(Objective.mse, 100, "multiple of 64"), (Objective.ms_ssim, 128, "at least 192")],
)
def test_crops_that_do_not_do_are_refused_before_any_work(tmp_path, objective, crop, problem):
    with pytest.raises(UsageError, match=problem):
        train_lossy(Recipe(data=tmp_path, out=tmp_path / "run", objective=objective, crop=crop))
    assert not (tmp_path / "run").exists()


def test_the_default_crops_do():
    for objective, sizes in SIZES.items():
        check_crop(objective, sizes.crop)
    assert Recipe(data=None, out=None, objective=Objective.ms_ssim).crops == (4, 192)
    assert Recipe(data=None, out=None).crops == (8, 128)


def test_the_command_offers_what_there_is():
    assert [o.value for o in Offered] == [o.value for o in Objective]


@pytest.mark.long
def test_a_run_for_ms_ssim_says_so_in_its_weights(photographs_folder, tmp_path, cheap):
    recipe = Recipe(
        data=photographs_folder,
        out=tmp_path,
        name="mini",
        steps=1,
        config=TINY,
        objective=Objective.ms_ssim,
        batch=1,
    )
    path = train_lossy(recipe)
    assert path is not None
    _, metadata = weights.parse(path.read_bytes())
    training = json.loads(metadata["training"])
    assert (training["objective"], training["crop"], training["batch"]) == ("ms-ssim", 192, 1)
    assert "ms_ssim_db" in json.loads((tmp_path / "history.json").read_text())[0]


def test_a_folder_keeps_to_the_run_that_was_begun_in_it(photographs, tmp_path, cheap):
    begun = Trainer(TINY, ONE_STEP, photographs)
    begun.save(tmp_path)
    assert begun.load(tmp_path)
    for other in (
        Trainer(TINY, ONE_STEP, photographs, objective=Objective.ms_ssim),
        Trainer(replace(TINY, latent=32), ONE_STEP, photographs),
    ):
        with pytest.raises(UsageError, match="another folder"):
            other.load(tmp_path)


def test_the_sizes_that_have_names_differ_in_size_alone():
    small, medium = PRESETS["photo-s"], PRESETS["photo-m"]
    assert (small.latent, small.groups) == (medium.latent, medium.groups) == (320, (32, 112))
    assert all(a < b for a, b in zip(small.widths, medium.widths, strict=True))
    assert LossyConfig.from_json(json.dumps(medium.to_json())) == medium
