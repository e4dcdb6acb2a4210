from __future__ import annotations

import pytest
import torch
from torch import nn

from recbatch.models.lossy import LossyConfig, LossyNet
from recbatch.train import machine
from recbatch.train.klt import klt_start
from recbatch.train.loop import Schedule, Trainer

CPU = torch.device("cpu")
TINY = LossyConfig(latent=16, hyper=8, widths=(8, 8, 8))


def test_random_numbers_inside_depend_on_the_seed_and_leave_those_outside_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with machine.computing(CPU, 5):
        first = torch.randn(3)
    with machine.computing(CPU, 5):
        again = torch.randn(3)
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


def test_settings_of_the_gpu_are_put_back():  # without one they are only flags, and as good to test
    before = torch.backends.cudnn.allow_tf32
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize(
    ("name", "device", "hardware", "chosen"),
    [
        ("float32", "cuda", True, torch.float32),
        ("bf16", "cpu", False, torch.bfloat16),
        ("auto", "cpu", False, torch.float32),
        ("auto", "cpu", True, torch.bfloat16),
        ("auto", "cuda", False, torch.bfloat16),
    ],
)
def test_the_precision_is_bf16_where_the_hardware_multiplies_it(monkeypatch, name, device, hardware, chosen):
    monkeypatch.setattr(machine, "_processor_has_bf16", lambda: hardware)
    assert machine.choose_precision(name, torch.device(device)) is chosen


def test_a_torch_without_the_private_names_means_float32(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert machine.choose_precision("auto", CPU) is torch.float32


def test_mixed_precision_leaves_the_linear_paths_exact(photographs, cheap):
    def net() -> LossyNet:  # at the start of training only the linear paths are not zero
        with machine.computing(CPU, 0):
            made = LossyNet(TINY)
            klt_start(made, photographs, torch_free_rng())
        return made

    plain, mixed = net(), net()
    machine.mix_precision(mixed, CPU)
    x, level = 0.9 + 0.1 * torch.rand(1, 3, 64, 64), torch.tensor([31.0])
    y = plain.latents(x, level)
    assert y.abs().max() > 256  # beyond what bfloat16 resolves to one unit of noise
    assert torch.equal(mixed.latents(x, level), y)
    assert torch.equal(mixed.pixels(y, level), plain.pixels(y, level))


def torch_free_rng():
    import numpy as np

    return np.random.default_rng(0)


def test_a_step_in_mixed_precision_is_near_one_in_float32(photographs, cheap):
    schedule = Schedule(minutes=1, steps=20, batch=2, crop=64, warm_up=2)
    plain, mixed = (
        Trainer(TINY, schedule, photographs, precision=p) for p in (torch.float32, torch.bfloat16)
    )
    for _ in range(6):
        one, other = plain.step(), mixed.step()
    assert other != one  # it does compute otherwise
    assert other["psnr"] == pytest.approx(one["psnr"], abs=0.1)
    assert other["bpp"] == pytest.approx(one["bpp"], rel=0.02)
    assert all(p.dtype is torch.float32 for p in mixed.net.parameters())


def test_the_peak_is_measured(monkeypatch):
    monkeypatch.setattr(machine, "TRIALS", 1)
    assert 1e8 < machine.matmul_peak(CPU, torch.float32) < 1e14


def test_the_floor_counts_each_multiplication_twice_and_leaves_no_gradients(cheap):
    conv = nn.Conv2d(4, 8, 3, padding=1, bias=False)
    x = torch.rand(1, 4, 10, 10, requires_grad=True)
    floor = machine.measure_floor(conv, lambda: conv(x).sum().backward(), CPU, torch.float32)
    forward = 2 * 8 * 4 * 9 * 100
    assert floor.step_flop == 3 * forward  # backward computes the gradients of inputs and of weights
    assert conv.weight.grad is None
    assert floor.share(2 * floor.least_s, 1) == pytest.approx(0.5)
    assert "GFLOP a step" in floor.sentence()
