"""The coder that only tells ideal lengths: its samples have the law they should, and cost what theory says."""

from __future__ import annotations

import numpy as np
import pytest

from recbatch.bench.ideal import SIGMA_S, IdealCoder, NoStream, PosteriorCoder
from recbatch.errors import UsageError
from recbatch.rec.base import UNIT
from recbatch.rec.yardstick import Yardstick, measure

POSTERIOR = PosteriorCoder()


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


def test_what_is_not_coded_is_zero_and_free() -> None:
    writer = POSTERIOR.writer()
    (samples,) = POSTERIOR.encode([writer], [np.full(5, 40, np.float32)], [np.zeros(5, np.uint8)])
    assert not samples.any()
    assert writer.ideal_bits == 0
    assert writer.finish() == b""


def test_samples_are_in_units_of_the_format() -> None:
    e, index = channel(
        100, 1000
    )  # at high rate the sample is the observation, and the noise it is drawn with
    (samples,) = POSTERIOR.encode([POSTERIOR.writer()], [e], [index])
    assert np.abs(samples / UNIT - e).max() < 5


def test_there_is_nothing_to_decode() -> None:
    with pytest.raises(NoStream, match="posterior"):
        POSTERIOR.reader(b"")
    with pytest.raises(UsageError):
        POSTERIOR.encode([object()], [np.zeros(1, np.float32)], [np.ones(1, np.uint8)])  # type: ignore[list-item]
