"""Companding: integers only on the decoder's side, the same values with a slope in training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.models.exact.compand import THRESHOLDS, compand, compand_train, make_thresholds


def test_literals_are_what_their_script_makes():
    assert list(THRESHOLDS) == make_thresholds()
    assert len(THRESHOLDS) == 127


@settings(deadline=None)
@given(st.integers(-(2**31), 2**31 - 1) | st.integers(-2000, 2000))
def test_value_is_the_rounded_logarithm(n):
    c = abs(int(compand(torch.tensor([n], dtype=torch.int32))[0]))
    # c - 1/2 <= 12 log2(1 + |n|/64) < c + 1/2, in integers: no rounding anywhere
    reached = (abs(n) + 64) ** 24
    assert c == 0 or reached >= 64**24 << (2 * c - 1)
    assert c == 127 or reached < 64**24 << (2 * c + 1)
    assert int(compand(torch.tensor([-n]))[0]) * n <= 0


def test_odd_monotone_and_eight_bits_in_any_integer_type():
    n = torch.arange(-200_000, 200_001)
    c = compand(n)
    assert c.dtype == torch.int8
    assert torch.equal(c, -compand(-n))
    assert (c[1:] >= c[:-1]).all()
    assert (c.min(), c.max()) == (-127, 127)
    small = torch.arange(-120, 121)
    for kind in (torch.int8, torch.int16, torch.int32):
        assert torch.equal(compand(small.to(kind)), compand(small))
    with pytest.raises(TypeError):
        compand(torch.zeros(3))


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_the_table_counts_thresholds_to_the_ends_of_the_type(kind):
    near = [n + d for n in (0, *THRESHOLDS) for d in (-1, 0, 1)]
    ends = torch.iinfo(kind)
    far = [THRESHOLDS[-1] * 10, ends.max - 1, ends.max]
    n = torch.tensor([*near, *far, *(-m for m in (*near, *far)), ends.min], dtype=kind)
    size_N = [abs(m) for m in n.tolist()]
    counted_N = [sum(edge <= m for edge in THRESHOLDS) for m in size_N]
    signed_N = [-c if m < 0 else c for m, c in zip(n.tolist(), counted_N, strict=True)]
    assert compand(n).tolist() == signed_N
    assert compand(n[None, :, None]).shape == (1, len(n), 1)


def test_training_twin_gives_the_decoder_s_values():
    n = torch.arange(-130_000, 130_001)
    assert torch.equal(compand_train(n / 64, True) * 16, compand(n).float())
    between = n[::7] / 64 + 0.004  # less than half a step: rounds to n
    assert torch.equal(compand_train(between, True) * 16, compand(n[::7]).float())
    assert (compand_train(n / 64, False) * 16 - compand(n)).abs().max() <= 0.5001


@pytest.mark.parametrize("quantise", [False, True])
def test_slope_is_finite_positive_and_stops_at_the_clamp(quantise):
    y = torch.tensor([0.0, -0.0, 1e-20, 0.5, -0.5, 30.0, -1500.0, 1600.0, -1e9], requires_grad=True)
    compand_train(y, quantise).sum().backward()
    assert torch.isfinite(y.grad).all()
    assert (y.grad[:7] > 0).all()
    assert (y.grad[7:] == 0).all()
    assert y.grad[3] == y.grad[4]
    if not quantise:
        at = torch.tensor(3.0, dtype=torch.float32)
        numeric = (compand_train(at + 0.01, False) - compand_train(at - 0.01, False)) / 0.02
        x = at.clone().requires_grad_()
        compand_train(x, False).backward()
        assert abs(x.grad - numeric) < 1e-3
