from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from recbatch.models.lossy import LossyConfig
from recbatch.train import card, evaluate
from recbatch.train.data import prepare
from recbatch.train.loop import Progress, Schedule, Trainer

TINY = LossyConfig(latent=16, hyper=8, widths=(8, 8, 8))
pytest.importorskip("matplotlib")


@pytest.fixture
def run(photographs, photographs_folder, tmp_path, monkeypatch, cheap):
    """A run of three rows, held-out photographs beside it."""
    monkeypatch.setattr(card, "held_out_curve", lambda net, held: evaluate.held_out_curve(net, held, (4, 25)))
    monkeypatch.setattr(evaluate, "CROPS", 3)
    monkeypatch.setattr("recbatch.train.loop.ROW_STEPS", 2)
    prepare(photographs_folder, tmp_path / "held-out.u8")
    schedule = Schedule(minutes=1, steps=6, batch=1, crop=64)
    assert Trainer(TINY, schedule, photographs).run(tmp_path, lambda line: None)
    return tmp_path


@pytest.mark.long
def test_a_card_is_drawn_of_a_run_and_measured_once(run, monkeypatch):
    asked = []

    def saving(ours, jpeg):
        asked.append((ours, jpeg))
        return -12.3, 30.1, 35.5

    path = card.write_card(run, saving)
    picture = Image.open(path)
    assert picture.format == "PNG"
    assert np.asarray(picture.convert("L")).std() > 10  # not an empty page
    assert json.loads((run / "curve.json").read_text())["step"] == 6
    ours, jpeg = asked[0]
    assert [len(ours), len(jpeg)] == [2, len(evaluate.JPEG_QUALITIES)]
    monkeypatch.setattr(card, "held_out_curve", None)  # called again, it would fail
    assert card.write_card(run, lambda ours, jpeg: None) == path


def test_a_run_without_anything_held_out_has_a_card_as_well(run):
    (run / "held-out.u8").unlink()
    assert card.write_card(run, lambda ours, jpeg: None).exists()
    assert json.loads((run / "curve.json").read_text())["ours"] == []


@pytest.mark.long
def test_more_bits_give_better_pictures_on_both_curves(run, photographs):
    net, _ = card.saved_average(run)
    for curve in (evaluate.jpeg_curve(photographs), evaluate.held_out_curve(net, photographs, (4, 25))):
        for values in np.array(curve).T:  # rates, PSNR, MS-SSIM
            assert (np.diff(values) > 0).all()


def test_ms_ssim_is_drawn_where_it_was_trained_for(tmp_path):
    history = [{"step": s, "elapsed_s": s, "loss": 1.0, "psnr": 30.0, "ms_ssim_db": 14.0} for s in (1, 2, 3)]
    curve = [(0.2, 28.0, 11.0), (0.8, 33.0, 17.0)]
    shown = card.Card(progress=Progress(step=3), history=history, facts={}, ours=curve, jpeg=curve)
    assert shown.similarity
    asked = []
    card.draw(shown, tmp_path / "card.png", lambda ours, jpeg: asked.append(ours))
    assert asked == [[(0.2, 28.0), (0.8, 33.0)]]  # the BD-rate stays that of PSNR
    assert (tmp_path / "card.png").exists()


def test_crops_side_by_side_keep_their_places(photographs):
    crops = evaluate.held_out_crops(photographs)
    whole = evaluate._side_by_side(crops)
    side = crops.shape[1]
    across = evaluate.CROPS // evaluate.ROWS
    for k, crop in enumerate(crops):
        row, column = divmod(k, across)
        found = whole[row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert np.array_equal(found, crop)


def test_smoothing_keeps_what_is_constant_and_halves_what_alternates():
    assert card.smooth(np.full(100, 3.0)) == pytest.approx(3.0)
    wild = np.where(np.arange(100) % 2, 1.0, -1.0)
    assert np.abs(card.smooth(wild)).max() < 0.5
    assert card.smooth(np.array([2.0])) == pytest.approx([2.0])
