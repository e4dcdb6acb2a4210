"""Training of the lossless networks: the loss is the coder's law, its gradient is right, and a run can be resumed.

Legend: B images, K logistics, h x w positions, T taps.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from recbatch.models.exact import quantise
from recbatch.models.lossless import geometry
from recbatch.models.lossless.geometry import STAGES
from recbatch.models.lossless.network import LEVELS, LosslessConfig, LosslessNet
from recbatch.rec.mixtures import UNIT, Law, distribution
from recbatch.train.data import NoTrainingData
from recbatch.train.lossless import Recipe, Trainer, assemble, held_out_bits
from recbatch.train.lossless_batch import batch, bits, fit_predictors
from recbatch.train.lossless_data import MOST_NOISE, ExactPixels, prepare_exact
from recbatch.train.mixture_loss import mixture_bits

SMALL = LosslessConfig(width=8, blocks=1)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pixels() -> ExactPixels:
    """Two smooth pictures with a little noise."""
    rng = np.random.default_rng(0)
    parts, shapes, offset = [], [], 0
    for height, width in ((150, 130), (128, 140)):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 14, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        smooth = np.clip(smooth + rng.integers(-2, 3, smooth.shape), 0, 255)
        parts.append(smooth.astype(np.uint8).ravel())
        shapes.append((offset, height, width))
        offset += parts[-1].size
    return ExactPixels(np.concatenate(parts), np.array(shapes, np.int64))


def recipe(out, **changes) -> Recipe:
    choices = {"batches": (2, 2, 2, 2), "sides": (32, 64, 96, 112), "warm_up": 5, "config": SMALL, **changes}
    return Recipe(data=out, out=out, **choices)


# -- the loss and its gradient


def symbols(seed: int, *, low: int, spread: float = 1.0):
    """Raw parameters float64 [2, 9, 3, 4], bases and values, at the ends of the range too."""
    rng = np.random.default_rng(seed)
    raw = torch.from_numpy(rng.normal(0, spread, (2, 9, 3, 4)))
    base = torch.from_numpy(rng.integers(16 * low, 16 * 255, (2, 3, 4)).astype(np.int32))
    value = np.clip((base.numpy() >> 4) + rng.integers(-9, 10, base.shape), low, 255).astype(np.int32)
    value[0, 0, :2] = low, 255
    base.numpy()[0, 0, :2] = 16 * low + 5, 16 * 255 - 9
    return raw, base, torch.from_numpy(value)


def plain_bits(raw, base, value, low: int, high: int):
    """The same by torch alone, in float64, differentiated by torch."""
    logits, means, scales = raw.chunk(3, dim=1)
    weights = torch.softmax(logits, dim=1)
    centre = base.double()[:, None] / 16 + 8 * means
    scale = torch.exp(scales.clamp(-4, 255 / 32 - 4) + math.log(0.05) + 4)
    v = value.double()[:, None]
    upper = torch.sigmoid((v + 0.5 - centre) / scale)
    lower = torch.sigmoid((v - 0.5 - centre) / scale)
    upper = torch.where(v >= high, torch.ones_like(upper), upper)
    lower = torch.where(v <= low, torch.zeros_like(lower), lower)
    p = (weights * (upper - lower)).sum(1) + 2.0**-24
    return -torch.log2(p).sum()


@pytest.mark.parametrize("low", [0, -255])
def test_bits_and_gradients_are_those_of_a_plain_mixture(low):
    for seed in range(4):
        raw, base, value = symbols(seed, low=low)
        want_raw = raw.clone().requires_grad_()
        want = plain_bits(want_raw, base, value, low, 255)
        want.backward()
        got_raw = raw.float().requires_grad_()
        got = mixture_bits(got_raw, base, value, low=low, high=255, grid=False)
        (3 * got).backward()
        assert got.item() == pytest.approx(want.item(), rel=1e-5)
        assert torch.allclose(got_raw.grad.double() / 3, want_raw.grad, rtol=2e-3, atol=2e-4)


def test_gradients_are_the_slopes_of_the_bits():
    raw, base, value = symbols(9, low=0, spread=0.5)
    raw = raw.float().requires_grad_()
    mixture_bits(raw, base, value, low=0, high=255, grid=False).backward()
    rng = np.random.default_rng(1)
    for _ in range(12):
        at = tuple(int(rng.integers(n)) for n in raw.shape)
        ends = []
        for step in (-1e-2, 1e-2):
            moved = raw.detach().double()
            moved[at] += step
            ends.append(plain_bits(moved, base, value, 0, 255).item())
        slope = (ends[1] - ends[0]) / 2e-2
        assert raw.grad[at].item() == pytest.approx(slope, rel=2e-2, abs=2e-3)


def test_the_loss_on_the_grid_is_what_the_coder_will_take():
    """Raw outputs on the integer grid: float bits beside those of the integer law, symbol by symbol."""
    law = Law.make()
    for low in (0, -255):
        raw, base, value = symbols(5, low=low)
        integers = torch.from_numpy(np.rint(raw.numpy() * 128).clip(-2048, 2047))
        found = mixture_bits((integers / 128).float(), base, value, low=low, high=255, grid=True).item()
        total = 0.0
        for b, i, j in np.ndindex(*value.shape):
            edges = distribution(
                np.ascontiguousarray(integers[b, :, i, j].numpy().astype(np.float32)),
                int(base[b, i, j]),
                low,
                255,
                law.sigmoid,
                law.inverse,
                law.weight,
            )
            v = int(value[b, i, j]) - low
            total -= math.log2((edges[v + 1] - edges[v]) / UNIT)
        assert found == pytest.approx(total, rel=0.02)


def test_rounding_scales_to_the_grid_lets_gradients_through():
    raw, base, value = symbols(2, low=0)
    raw = raw.float().requires_grad_()
    on_grid = raw.detach().clone()
    on_grid[:, 6:] = torch.floor(on_grid[:, 6:] * 32 + 0.5) / 32
    rounded = mixture_bits(raw, base, value, low=0, high=255, grid=True)
    rounded.backward()
    plain = on_grid.requires_grad_()
    other = mixture_bits(plain, base, value, low=0, high=255, grid=False)
    other.backward()
    assert rounded.item() == pytest.approx(other.item(), rel=1e-6)
    assert torch.allclose(raw.grad, plain.grad, rtol=1e-4, atol=1e-5)


# -- predictors


def linear_levels(seed: int, count: int = 2):
    """Levels [2, 3, 40, 44] that are planes in space, colour by colour."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        slope = rng.integers(-1, 2, (2, 3, 2))
        y, x = np.mgrid[:40, :44]
        level = slope[..., 0, None, None] * y + slope[..., 1, None, None] * x
        out.append((level + 100).astype(np.int16))
    return out


def test_predictors_continue_a_linear_image():
    net = LosslessNet(SMALL)
    fit_predictors(net, [[(x, None) for x in linear_levels(level, 6)] for level in range(LEVELS)])
    (x,) = linear_levels(77, 1)
    for level in range(LEVELS):
        for stage, s in enumerate(STAGES):
            b = batch(net, x, None, level, stage)
            error = np.abs(b.base / 16 - b.values)[:, :, 3:-3, 3:-3]
            assert error.max() < 0.5, (level, s.name)
            sums = net.weights[level, stage, :, : len(s.taps)].sum(-1)
            assert (sums - 4096).abs().max() < 40
            assert not net.weights[level, stage, :, len(s.taps) :].any()


def test_a_preview_that_is_the_image_earns_its_whole_gain():
    rng = np.random.default_rng(0)
    x = geometry.to_ycocg(rng.integers(0, 256, (2, 40, 40, 3), np.uint8))
    net = LosslessNet(LosslessConfig(width=8, preview=True))
    fit_predictors(net, [[(x, x)]] * LEVELS)
    assert (net.gains - 4096).abs().max() < 40


# -- data


def test_crops_are_parts_of_the_images_but_for_noise_grey_and_turns(pixels):
    flat = ExactPixels(np.full_like(pixels.flat, 77), pixels.shapes, np.full_like(pixels.flat, 9))
    crops, seen = flat.crops(300, 16, np.random.default_rng(0))
    deviation = np.abs(crops.astype(int) - 77).reshape(300, -1)
    assert deviation.max() <= 6 * MOST_NOISE
    noisy = (deviation.max(axis=1) > 0).mean()
    assert 0.1 < noisy < 0.4
    assert (seen == 9).all()  # previews are made of the image, not of its noise

    colours = np.array(pixels.flat).reshape(-1, 3)
    colours[:] = [10, 120, 240]
    crops, _ = ExactPixels(colours.ravel(), pixels.shapes).crops(300, 16, np.random.default_rng(1))
    grey = (crops == crops[..., :1]).all(axis=(1, 2, 3))
    assert 0 < grey.sum() < 40
    assert (np.abs(crops[grey].astype(int) - 120) <= 6 * MOST_NOISE).all()


def test_crops_depend_on_their_generator_alone(pixels):
    first = pixels.crops(6, 32, np.random.default_rng(4))[0]
    assert np.array_equal(first, pixels.crops(6, 32, np.random.default_rng(4))[0])
    assert not np.array_equal(first, pixels.crops(6, 32, np.random.default_rng(5))[0])


def test_photographs_are_reduced_and_exact_files_are_not(tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (120, 200, 3), np.uint8))
    (tmp_path / "in").mkdir()
    image.save(tmp_path / "in" / "a.png")
    image.resize((400, 240)).save(tmp_path / "in" / "b.jpg")
    image.resize((90, 95)).save(tmp_path / "in" / "small.png")
    found = prepare_exact(tmp_path / "in", tmp_path / "cache.u8")
    assert sorted(found.shapes[:, 1:].tolist()) == [[120, 200], [120, 200]]
    png = next(
        int(o) for o, *_ in found.shapes if np.array_equal(found.flat[o : o + 3], np.asarray(image)[0, 0])
    )
    assert np.array_equal(found.flat[png : png + 120 * 200 * 3].reshape(120, 200, 3), np.asarray(image))
    again = prepare_exact(tmp_path / "in", tmp_path / "cache.u8")
    assert np.array_equal(again.flat, found.flat)
    (tmp_path / "none").mkdir()
    with pytest.raises(NoTrainingData):
        prepare_exact(tmp_path / "none", tmp_path / "other.u8")


# -- runs


def loss_of(trainer: Trainer, *, grid: bool = False) -> float:
    """Bits a symbol of the same crops every time, at level 0."""
    quantise(trainer.net, grid)
    rng = np.random.default_rng(123)
    with torch.no_grad():
        b = batch(trainer.net, *trainer._crops(0, rng), 0, trainer.stage)
        return float(bits(trainer.net, b, grid=grid).sum()) / b.values.size


@pytest.mark.parametrize("stage", range(3))
def test_thirty_steps_lower_the_loss(pixels, tmp_path, stage):
    trainer = Trainer(recipe(tmp_path, shares=(1.0, 0.0, 0.0, 0.0)), pixels, stage)
    before = loss_of(trainer)
    for _ in range(30):
        trainer.step(0.1)
    assert loss_of(trainer) < before - 0.1
    assert loss_of(trainer, grid=True) < before  # and so on the integer grid


def test_a_run_goes_on_where_it_stopped(pixels, tmp_path):
    straight = Trainer(recipe(tmp_path / "a"), pixels, 1)
    for k in range(8):
        straight.step(k / 8)
    stopped = Trainer(recipe(tmp_path / "b"), pixels, 1)
    assert not stopped.load()
    for k in range(4):
        stopped.step(k / 8)
    stopped.save()
    resumed = Trainer(recipe(tmp_path / "b", seed=5), pixels, 1)  # whatever it begins with is replaced
    assert resumed.load()
    assert resumed.steps == 4
    for k in range(4, 8):
        resumed.step(k / 8)
    for mine, theirs in ((straight.trained, resumed.trained), (straight.average, resumed.average)):
        for (name, a), b in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b), name
    assert torch.equal(straight.net.weights, resumed.net.weights)


def test_the_stages_of_a_run_become_one_net(pixels, tmp_path):
    r = recipe(tmp_path)
    for stage in range(3):
        trainer = Trainer(r, pixels, stage)
        trainer.step(0.0)
        trainer.save()
    net = assemble(r)
    for stage, s in enumerate(STAGES):
        state = torch.load(tmp_path / s.name / "checkpoint.pt", weights_only=False)
        for name, value in net.stages[stage].state_dict().items():
            assert torch.equal(value, state["average"][name])
    assert torch.equal(net.weights, trainer.net.weights)
    found = held_out_bits(net, pixels, recipe(tmp_path, batches=(1, 1, 1, 1)))
    assert set(found) == {"all", *(f"level {k}" for k in range(LEVELS))}
    assert found["all"] == pytest.approx(sum(found[f"level {k}"] / 4**k for k in range(LEVELS)))
    assert 0 < found["all"] < 12
