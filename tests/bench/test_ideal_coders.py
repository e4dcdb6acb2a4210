"""The coders that only tell ideal lengths: those lengths can be codes, and the samples have the law they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.bench.ecsq import STEP, EcsqCoder
from recbatch.bench.ideal import SIGMA_S, IdealCoder, NoStream, PosteriorCoder
from recbatch.errors import UsageError
from recbatch.rec.base import UNIT
from recbatch.rec.yardstick import Yardstick, measure

ECSQ = EcsqCoder()


def channel(index: int, count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Observations of a Gaussian of this scale index, with noise 1."""
    rng = np.random.default_rng(seed)
    e = SIGMA_S[index] * rng.standard_normal(count) + rng.standard_normal(count)
    return e.astype(np.float32), np.full(count, index, np.uint8)


def yardstick(coder: IdealCoder, e: np.ndarray, index: np.ndarray) -> tuple[Yardstick, np.ndarray]:
    writer = coder.writer()
    (samples,) = coder.encode([writer], [e], [index])
    assert len(writer.finish()) == -(-int(np.ceil(writer.ideal_bits)) // 8)
    return measure(e, index, samples, writer.ideal_bits), samples


@pytest.mark.parametrize("index", [12, 30, 45, 70])
def test_exact_samples_cost_their_kl_and_have_the_posterior_s_moments(index: int) -> None:
    mark, _ = yardstick(PosteriorCoder(), *channel(index, 40_000))
    assert mark.spent_bits == pytest.approx(mark.kl_bits, rel=1e-9)
    assert mark.eq == pytest.approx(0, abs=0.06)
    assert mark.error_mean == pytest.approx(0, abs=0.02)
    assert mark.error_variance == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("index", [1, 12, 20, 30, 45, 70, 100, 150])
def test_lengths_are_those_of_a_code(index: int) -> None:
    quantiser = ECSQ.quantiser(index)
    signs = np.where(np.arange(quantiser.bits_A.size) > 0, 2, 1)
    kraft = float((signs * 2.0**-quantiser.bits_A).sum())
    assert kraft <= 1 + 1e-4  # all but what the escape's least probability takes
    assert kraft > 0.9
    assert (np.diff(quantiser.point_A) > 0).all()


@pytest.mark.parametrize("index", [20, 30, 45, 70])
def test_lengths_are_above_the_entropy_of_what_is_sent(index: int) -> None:
    e, indices = channel(index, 40_000)
    writer = ECSQ.writer()
    (samples,) = ECSQ.encode([writer], [e], [indices])
    _, counts = np.unique(samples, return_counts=True)
    entropy = -(counts * np.log2(counts / counts.sum())).sum()
    assert writer.ideal_bits >= entropy
    if SIGMA_S[index] > 0.72:  # not the sparse list, which expects other latents than Gaussian ones
        assert writer.ideal_bits <= 1.02 * entropy + 50


@pytest.mark.parametrize(("index", "low", "high"), [(36, 0.15, 0.35), (44, 0.06, 0.2), (60, 0.03, 0.1)])
def test_quantisation_of_gaussians_costs_what_theory_says(index: int, low: float, high: float) -> None:
    # R = 1, 2, 4 bits: an entropy-coded scalar quantiser needs about a quarter, a seventh, a sixteenth more
    mark, _ = yardstick(ECSQ, *channel(index, 60_000))
    assert low < mark.eq < high


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 110), st.floats(-400, 400, width=32))
def test_no_candidate_is_better_than_the_chosen(index: int, e: float) -> None:
    quantiser = ECSQ.quantiser(index)
    value, bits = quantiser.choose(np.array([e]))
    nearest = round(abs(e) / STEP)
    chosen = 0.5 * (abs(e) - abs(value[0])) ** 2 + np.log(2) * bits[0]
    for magnitude in (nearest, max(nearest - 1, 0), 0):
        m = np.array([magnitude])
        cost = 0.5 * (abs(e) - quantiser.point_of(m)[0]) ** 2 + np.log(2) * quantiser.bits_of(m)[0]
        assert chosen <= cost + 1e-9
    assert value[0] == 0 or np.sign(value[0]) == np.sign(e)


def test_what_is_not_coded_is_zero_and_free() -> None:
    for coder in (ECSQ, PosteriorCoder()):
        writer = coder.writer()
        (samples,) = coder.encode([writer], [np.full(5, 40, np.float32)], [np.zeros(5, np.uint8)])
        assert not samples.any()
        assert writer.ideal_bits == 0
        assert writer.finish() == b""


def test_samples_are_in_units_of_the_format() -> None:
    e, index = channel(100, 1000)  # at high rate the sample is the observation, to half a step
    (samples,) = ECSQ.encode([ECSQ.writer()], [e], [index])
    assert np.abs(samples / UNIT - e).max() < STEP


def test_there_is_nothing_to_decode() -> None:
    with pytest.raises(NoStream, match="ecsq"):
        ECSQ.reader(b"")
    with pytest.raises(UsageError):
        ECSQ.encode([object()], [np.zeros(1, np.float32)], [np.ones(1, np.uint8)])  # type: ignore[list-item]
