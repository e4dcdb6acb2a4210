"""What decoder and encoder agree on beforehand, and the measure of how well it serves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.errors import InvalidPosterior
from recbatch.rec import tables as tables_module
from recbatch.rec.ans import TOTAL
from recbatch.rec.base import SCALES, UNIT
from recbatch.rec.plan import WINDOW, make_plan
from recbatch.rec.tables import (
    GROUP,
    GROUP_RATE,
    NARROW,
    OWN,
    SCALAR,
    WIDE,
    DamagedTables,
    InvalidTables,
    Tables,
    sigma,
)
from recbatch.rec.yardstick import NothingToMeasure, measure, measure_variances

TABLES = Tables.default()
quick = settings(deadline=None, max_examples=30)


# -- tables


def test_planned_rates_are_the_channels():
    want = [128 * np.log2(1 + sigma(k) ** 2) for k in range(SCALES)]
    assert np.abs(TABLES.rate_S - want).max() <= 0.5 + 1e-9
    kinds = TABLES.kind_S
    assert kinds[0] == 0
    assert (np.diff(kinds) >= 0).all()
    assert set(kinds[1:]) == {SCALAR, GROUP, OWN}
    assert np.array_equal(kinds == OWN, TABLES.rate_S >= GROUP_RATE)
    assert tables_module.COLUMNS * TABLES.rate_S[kinds == GROUP].min() >= GROUP_RATE


def test_rows_are_weights_of_the_entropy_coder():
    for rows, symbols in ((TABLES.narrow_rows, NARROW), (TABLES.wide_rows, WIDE)):
        assert rows.shape[1] == symbols
        exact = rows.astype(np.int64)
        assert np.array_equal(exact, rows)
        assert (exact.sum(1) == TOTAL - symbols).all()
        assert exact.min() >= 0


def test_offsets_and_rows_draw_from_the_prior():
    """Uniform offset, then integer by its row: mean square and entropy must be the prior's and the plan's."""
    for k in (30, 36, 42, 44, 50, 56):
        first = TABLES.first_row_S[k]
        p_QK = (TABLES.narrow_rows[first : first + 256].astype(np.float64) + 1) / TOTAL
        i = np.arange(NARROW - 1) - (NARROW // 2 - 1)
        z = (TABLES.offsets_SQ[k][:, None] + TABLES.delta_S[k] * i) / UNIT
        assert (p_QK[:, :-1] * z**2).sum() / 256 == pytest.approx(sigma(k) ** 2, rel=0.01)
        entropy = -(p_QK * np.log2(p_QK)).sum() / 256
        members = -(-GROUP_RATE // int(TABLES.rate_S[k]))
        assert entropy == pytest.approx(TABLES.rate_S[k] / 256 - 1 / members, abs=0.02)


def test_columns_pair_codewords_half_a_step_apart():
    for column in tables_module.columns().astype(int):
        assert sorted(column) == list(range(256))
        assert ((column[0::2] - column[1::2]) % 256 == 128).all()


def test_a_prior_given_is_checked():
    density = TABLES.arrays["density"]
    same = Tables.with_prior(density=density.astype(np.int64))
    assert same.digest == TABLES.digest == tables_module.SHA256
    assert np.array_equal(same.narrow_rows, TABLES.narrow_rows)
    for bad in (
        density[:-1],
        density.astype(np.float64),
        density.astype(np.int64) - 1,
        density.astype(np.int64) << 9,
    ):
        with pytest.raises(InvalidTables):
            Tables.with_prior(density=bad)


@quick
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 2**16, 2**32 - 1]))
def test_any_prior_gives_rows_that_sum_up(seed, top):
    generator = np.random.default_rng(seed)
    weights = generator.integers(0, top + 1, (4, NARROW))
    rows = tables_module.normalise(weights)
    assert (rows.sum(1) == TOTAL - NARROW).all()
    assert rows.min() >= 0
    density = generator.integers(0, top + 1, tables_module.KNOTS)
    k = int(generator.integers(30, SCALES))
    lattice = tables_module._lattice_weights(
        density,
        int(TABLES.arrays["inverse"][k]),
        TABLES.delta_S[k],
        TABLES.offsets_SQ[k],
        TABLES.shift_S[k],
        WIDE,
    )
    assert lattice.min() >= 0
    exact = tables_module.normalise(lattice)
    assert exact.min() >= 0
    assert (exact.sum(1) == TOTAL - WIDE).all()


def test_damaged_tables_are_refused(monkeypatch):
    monkeypatch.setattr(tables_module, "SHA256", "00")
    with pytest.raises(DamagedTables):
        tables_module._default.__wrapped__()


# -- plan


@quick
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 5, 300, 20000]), st.integers(0, 150))
def test_every_coded_dimension_is_planned_once(seed, size, top):
    scales_N = np.random.default_rng(seed).integers(0, top + 1, size).astype(np.uint8)
    plan = make_plan(scales_N, TABLES)
    kind_N = TABLES.kind_S[scales_N]
    assert sorted(plan.scalar_C) == np.flatnonzero(kind_N == SCALAR).tolist()
    assert sorted(plan.lattice_D) == np.flatnonzero(kind_N > SCALAR).tolist()
    widths = np.diff(plan.starts_T1)
    assert plan.starts_T1[0] == 0
    assert plan.starts_T1[-1] == plan.lattice_D.size
    assert ((widths >= 1) & (widths <= tables_module.COLUMNS)).all()
    if plan.steps:
        rates = np.add.reduceat(TABLES.rate_S[scales_N[plan.lattice_D]], plan.starts_T1[:-1])
        windows = 1 + np.count_nonzero(scales_N) // WINDOW
        assert (rates < GROUP_RATE).sum() <= windows
        assert (widths[kind_N[plan.lattice_D[plan.starts_T1[:-1]]] == OWN] == 1).all()


def test_windows_are_sorted_and_stable():
    scales_N = np.array([50, 60, 0, 50, 5, 30, 5, 60], np.uint8)
    plan = make_plan(scales_N, TABLES)
    assert plan.lattice_D.tolist() == [1, 7, 0, 3, 5]
    assert plan.scalar_C.tolist() == [4, 6]
    long = np.full(WINDOW + 3, 50, np.uint8)
    long[-1] = 60
    assert make_plan(long, TABLES).lattice_D[[0, WINDOW]].tolist() == [0, WINDOW + 2]


def test_plans_refuse_what_is_no_scale():
    for bad in (np.zeros(3), np.zeros((2, 2), np.uint8), np.array([SCALES], np.uint8), [1, 2]):
        with pytest.raises(InvalidPosterior):
            make_plan(bad, TABLES)


# -- yardstick


def test_exact_samples_at_their_kl_have_no_overhead():
    generator = np.random.default_rng(0)
    v = np.exp(generator.uniform(-4, 6, 200_000))
    e = np.sqrt(1 + v) * generator.standard_normal(v.size)
    a = v / (1 + v)
    z = a * e + np.sqrt(a) * generator.standard_normal(v.size)
    kl = measure_variances(e, v, z, 1.0).kl_bits
    found = measure_variances(e, v, z, kl)
    assert found.beta == pytest.approx(1, abs=0.02)
    assert found.eq == pytest.approx(0, abs=0.005)
    assert found.excess == pytest.approx(0, abs=0.01)
    assert found.error_mean == pytest.approx(0, abs=0.02)
    assert found.error_variance == pytest.approx(1, abs=0.02)
    assert measure_variances(e, v, z, 1.1 * kl).eq == pytest.approx(0.1, abs=0.006)


def test_closer_samples_must_be_paid_for():
    generator = np.random.default_rng(1)
    v = np.full(50_000, 4.0)
    e = np.sqrt(5) * generator.standard_normal(v.size)
    z = 0.8 * e + np.sqrt(0.4) * generator.standard_normal(v.size)
    found = measure_variances(e, v, z, 1.0)
    assert found.beta > 1.2
    assert found.equal_quality_bits > found.kl_bits
    assert found.realised_bits > found.kl_bits


def test_units_are_the_contracts():
    scales_N = np.array([0, 50, 60], np.uint8)
    targets_N = np.array([9.0, 2.0, -3.0], np.float32)
    found = measure(targets_N, scales_N, np.array([0, 100, -200], np.int32), 7)
    v = np.array([sigma(50), sigma(60)]) ** 2
    assert found == measure_variances(np.array([2.0, -3.0]), v, np.array([100, -200]) / 64, 7)
    with pytest.raises(NothingToMeasure):
        measure(targets_N, np.zeros(3, np.uint8), np.zeros(3, np.int32), 0)
