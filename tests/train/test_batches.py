from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.train.batches import Batches, seed_of
from recbatch.train.data import Photographs

NOISE = Photographs(
    np.random.default_rng(0).integers(0, 256, 3 * 40 * 50, np.uint8), np.array([[0, 40, 50]], np.int64)
)
SIZES = {"batch": 2, "crop": 16}
small = st.integers(0, 2**31)


@given(seed=small, rank=st.integers(0, 100), step=small)
@settings(max_examples=25, deadline=None)
def test_a_batch_depends_on_seed_worker_and_step_alone(seed, rank, step):
    one, other = (Batches(NOISE, **SIZES, seed=seed, rank=rank) for _ in range(2))
    other.of_step(3)
    for a, b in zip(one.of_step(step), other.of_step(step), strict=True):
        assert np.array_equal(a, b)


@given(a=st.tuples(small, small, small), b=st.tuples(small, small, small))
@settings(max_examples=50, deadline=None)
def test_no_two_steps_or_workers_share_a_seed(a, b):
    assert (seed_of(*a) == seed_of(*b)) == (a == b)


def test_workers_see_crops_of_their_own():
    first, second = (Batches(NOISE, **SIZES, rank=rank).of_step(0)[0] for rank in (0, 1))
    assert not np.array_equal(first, second)


def test_batches_made_ahead_are_the_same_also_after_a_leap():
    plain, ahead = Batches(NOISE, **SIZES), Batches(NOISE, **SIZES, ahead=True)
    for step in (0, 1, 2, 7, 8, 3):
        for a, b in zip(plain.of_step(step), ahead.of_step(step), strict=True):
            assert np.array_equal(a, b)
