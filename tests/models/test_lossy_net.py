from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.models import photo, weights
from recbatch.models.lossy import (
    LEVELS,
    LossyConfig,
    LossyNet,
    channel,
    later_name,
    level_features,
    level_lambda,
    of_channels,
    pass_mask,
    prior_parameters,
)
from recbatch.models.photo import PhotoModel, export
from recbatch.models.prior import MEAN_MULTIPLIERS, mean_and_index, mean_multiplier, whole_level
from recbatch.train.start import net_from_weights

SMALL = LossyConfig(latent=12, hyper=6, widths=(8, 8, 8))
GROUPED = LossyConfig(latent=12, hyper=6, widths=(8, 8, 8), groups=(3, 7))


@pytest.fixture(scope="module", params=[SMALL, GROUPED], ids=["photo/1", "photo/2"])
def net(request) -> LossyNet:
    torch.manual_seed(0)
    net = LossyNet(request.param)
    for p in net.parameters():  # away from the zero start, so that every part matters
        p.data += 0.05 * torch.randn_like(p)
    net.eval()
    net.set_quantised(True)
    return net


@pytest.fixture(scope="module")
def model(net: LossyNet) -> PhotoModel:
    return PhotoModel.from_bytes(export(net, name="small"))


@settings(max_examples=30, deadline=None)
@given(st.floats(-6, 12), st.floats(-3, 3))
def test_kl_is_the_integral_it_stands_for(log_variance, offset):
    e = offset * math.exp(0.5 * log_variance) if log_variance > 0 else offset
    kl, mean, deviation = channel(
        torch.tensor([e], dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
        torch.tensor([log_variance], dtype=torch.float64),
    )
    m, s = float(mean), float(deviation)
    z = np.linspace(m - 12 * s, m + 12 * s, 40001)
    log_q = -0.5 * ((z - m) / s) ** 2 - math.log(s)
    log_p = -0.5 * z**2 / math.exp(log_variance) - 0.5 * log_variance
    q = np.exp(log_q) / math.sqrt(2 * math.pi)
    assert float(kl) == pytest.approx(np.trapezoid(q * (log_q - log_p), z), rel=1e-6, abs=1e-9)


def test_expected_kl_is_the_plan():
    """On data that follow the model, the mean KL is log2(1 + v) / 2, which the decoder knows."""
    generator = torch.Generator().manual_seed(0)
    for log_variance in (-3.0, 0.0, 4.0):
        t = torch.full((200_000,), log_variance, dtype=torch.float64)
        y = torch.randn(t.shape, generator=generator, dtype=torch.float64) * math.sqrt(
            1 + math.exp(log_variance)
        )
        kl, _, _ = channel(y, torch.zeros_like(t), t)
        planned = 0.5 * math.log1p(math.exp(log_variance))
        assert float(kl.mean()) == pytest.approx(planned, rel=0.02)


def test_nothing_is_sent_and_no_gradient_explodes_at_zero_rate():
    t = torch.tensor([-40.0], requires_grad=True)
    kl, mean, deviation = channel(torch.ones(1), torch.zeros(1), t)
    (kl + mean + deviation).backward()
    assert float(kl.detach()) == pytest.approx(0, abs=1e-12)
    assert math.isfinite(float(t.grad))


def test_the_parities_are_checkerboards():
    mask = pass_mask(4, 6, 5)
    assert mask.float().mean() == 0.5
    assert torch.equal(mask[0], ~mask[1])
    assert torch.equal(mask[:, 1:, :], ~mask[:, :-1, :])
    assert torch.equal(pass_mask(7, 6, 5, first=3), pass_mask(10, 6, 5)[3:])
    assert mask[0, 0, 0]


def test_a_level_is_one_step_of_the_scale_table():
    raw = torch.randint(-900, 900, (1, 8, 3, 3))
    _, low = mean_and_index(raw, 3)
    _, high = mean_and_index(raw, 4)
    inside = (low > 0) & (high < 150)
    assert torch.equal(high[inside].int(), low[inside].int() + 1)


def test_the_multipliers_are_those_of_the_formula():
    assert list(MEAN_MULTIPLIERS) == [round(2**15 * 1.085 ** (q - 31)) for q in range(LEVELS)]


@pytest.mark.parametrize("level", [0, 7, 31])
def test_integers_follow_the_training_twin(net, model, level):
    """Folded networks and integer law against the quantised float forward, end to end."""
    q = torch.tensor([float(level)])
    generator = torch.Generator().manual_seed(level)
    z = torch.randint(-3000, 3000, (1, SMALL.hyper, 2, 3), generator=generator, dtype=torch.int32)
    y = torch.randint(-9000, 9000, (1, SMALL.latent, 8, 12), generator=generator, dtype=torch.int32)
    context, sent = model.begin(z, level), torch.zeros_like(y)
    with torch.no_grad():
        h, raw = net.prior.hyper(z.float() / 64, level_features(q), True)
    assert torch.equal(h * 32, context.features)
    for which in range(model.passes):
        channels, group = model.pass_channels(which), which % len(net.config.group_channels)
        prior = model.pass_prior(context, which, sent)
        with torch.no_grad():
            if model.parity(which) and not group:
                h, raw = net.prior.refine(sent.float() / 64, h, raw, True)
            real = of_channels(raw, channels.start, channels.stop)
            if group:
                later = net.prior.later[later_name(model.parity(which), group)]
                real = later(sent[:, : channels.start].float() / 64, h, real, True)
        mean, _, coded = prior_parameters(real, q, True)
        assert torch.equal(coded, prior.index > 0)
        # the twin multiplies in float: a tie may round the other way
        assert float((mean * 16 - prior.mean).abs().max()) <= 1
        sent[:, channels] += torch.where(model.pass_mask(which, *y.shape[2:]), y[:, channels], 0)
    assert torch.equal(sent, y)  # each latent is of one pass


def test_training_goes_through_the_passes_that_coding_does(net):
    torch.manual_seed(3)
    y, q = 9 * torch.randn(1, 12, 8, 12), torch.tensor([9.0])
    seen = []
    with torch.no_grad():
        h, raw = net.prior.hyper(torch.randn(1, 6, 2, 3), level_features(q), True)
        net.sample_latents(y, h, raw, q, lambda *of_pass: seen.append(of_pass))
    assert len(seen) == 2 * len(net.config.group_channels)
    assert sum(int(coded.sum()) for *_, coded in seen) <= y.numel()


def test_training_goes_on_from_a_weight_file(net):
    again = net_from_weights(export(net, name="small"))
    again.set_quantised(True)
    first, second = (weights.parse(export(n, name="small")) for n in (net, again))
    assert first[1] == second[1]
    assert first[1]["name"] == "small"
    for name, tensor in first[0].items():
        difference = (tensor.double() - second[0][name].double()).abs().max()
        assert float(difference) <= (name == "exact.features.bias"), (
            name
        )  # made anew from the level's features


def test_levels_between_two_integers_multiply_means_by_what_lies_between():
    whole = [mean_multiplier(float(q)) for q in range(LEVELS)]
    assert tuple(whole) == MEAN_MULTIPLIERS
    every = [mean_multiplier(eighth / 8) for eighth in range(8 * (LEVELS - 1) + 1)]
    assert every == sorted(every)
    assert all(abs(m / (2**15 * 1.085 ** (e / 8 - 31)) - 1) < 4e-4 for e, m in enumerate(every))
    assert [whole_level(x) for x in (0.375, 0.5, 1.375, 1.5)] == [0, 1, 1, 2]


def test_a_level_multiplies_lambda_by_the_square_of_the_scale_ratio():
    levels = torch.arange(32.0)
    ratio = level_lambda(levels)[1:] / level_lambda(levels)[:-1]
    assert torch.allclose(ratio, torch.full((31,), 1.085**2))


def test_a_model_is_named_by_the_sha256_of_its_file(net):
    data = export(net, name="small")
    assert PhotoModel.from_bytes(data).digest == hashlib.sha256(data).digest()


def test_damaged_weights_are_refused(net):
    data = export(net, name="small")
    for bad in (b"", b"text", data[: len(data) // 2], data.replace(b"photo/", b"photon")):
        with pytest.raises(weights.BadWeights):
            PhotoModel.from_bytes(bad)


def test_weights_that_break_the_exactness_bound_are_refused(net):
    tensors, metadata = weights.parse(export(net, name="small"))
    tensors["exact.first.bias"] = torch.full_like(tensors["exact.first.bias"], 2**30)
    with pytest.raises(Exception, match=r"24|bound|exceed"):
        PhotoModel.from_bytes(weights.pack(tensors, metadata))


def test_gradients_reach_every_parameter():
    torch.manual_seed(1)
    net = LossyNet(GROUPED)
    for p in net.parameters():
        p.data += 0.05 * torch.randn_like(p)
    net.set_quantised(True)
    x_hat, kl_y, kl_z = net(torch.rand(2, 3, 64, 64), torch.tensor([3.0, 25.0]))
    ((x_hat**2).mean() + kl_y.mean() + kl_z.mean()).backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


def test_strips_change_nothing_but_rounding(model, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 640, 128, 3), np.uint8)
    y, z = model.analyse(pixels, 12)
    whole = model.synthesise((y * 64).int(), 12)
    monkeypatch.setattr(photo, "STRIP_PIXELS", 128 * 128)
    cut = list(photo.strips(640, 128))
    assert len(cut) == 5
    assert sum(s.rows for s in cut) == 640
    y_cut, z_cut = model.analyse(pixels, 12)
    assert torch.allclose(y, y_cut, atol=1e-3)
    assert torch.allclose(z, z_cut, atol=1e-3)
    difference = np.abs(whole.astype(int) - model.synthesise((y * 64).int(), 12))
    assert difference.max() <= 1


def test_gradients_by_strips_are_those_of_the_whole(model, monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 256, (1, 640, 128, 3), np.uint8)
    y, _ = model.analyse(pixels, 12)
    y = y.clone()
    whole = model.error_gradient(y, pixels, (630, 120), 12)
    monkeypatch.setattr(photo, "GRADIENT_PIXELS", 128 * 128)
    cut = model.error_gradient(y, pixels, (630, 120), 12)
    assert torch.allclose(whole, cut, rtol=1e-3, atol=1e-4 * float(whole.abs().max()))
    # a step against it lowers the error of what synthesis makes of the latents
    step = y - 0.01 * whole / float(whole.abs().max())

    def error(latents):
        made = model.synthesise((64 * latents).round().int(), 12)[0, :630, :120].astype(float)
        return ((made - pixels[0, :630, :120]) ** 2).sum()

    assert whole.abs().max() > 0
    assert error(y - 20 * (y - step)) < error(y)
