"""The compiled kernels against their references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.rec.coders.score import nats, scores
from recbatch.rec.kernels.rows import cpu as rows
from recbatch.rec.kernels.rows.reference import losses_reference, row_reference
from recbatch.rec.kernels.viterbi import cpu as viterbi
from recbatch.rec.kernels.viterbi.reference import best_score_reference, codes_reference
from recbatch.rec.tables import GROUP, Tables, columns

quick = settings(deadline=None, max_examples=20)


@quick
@given(scale=st.integers(28, 150), column=st.integers(0, 4), spread=st.floats(-60, 60))
def test_rows_find_the_best_integer_of_every_codeword(scale, column, spread):
    tables = Tables.default()
    search, _ = scores(tables)
    column = column if tables.kind_S[scale] == GROUP else 0
    e = np.float64(np.float32(spread * (1 + search.step_S[scale] * 0.2)))
    first, wide = tables.first_row_S[scale], bool(tables.wide_S[scale])
    order = columns()[column]
    nats_256K = nats((tables.wide_rows if wide else tables.narrow_rows)[first : first + 256])[order]
    offsets_256 = tables.offsets_SQ[scale][order] / 64
    slot = search.slot_S[scale] + column
    offsets = (search.wide_offsets_XC if wide else search.narrow_offsets_XC)[slot]
    costs = (search.wide_nats_XKC if wide else search.narrow_nats_XKC)[slot]
    total, tries = np.zeros(256, np.float32), np.empty(rows.CANDIDATES, np.int64)
    step, shift = search.step_S[scale], int(tables.shift_S[scale])
    rows.add_losses(e, search.shrink_S[scale], step, shift, 0, offsets[None], costs[None], tries, total)
    e_noise, step_noise = e / rows.UNITS_PER_NOISE, step / rows.UNITS_PER_NOISE
    want = losses_reference(e_noise, step_noise, offsets_256, nats_256K, shift, 6)
    found = total[[rows.place_of(c) for c in range(256)]]
    assert (found >= want - 1e-4 * (1 + np.abs(want))).all()
    # candidates are few: far out another integer may be best, for codewords that no search would choose
    near = want < want.min() + 3
    assert found[near] == pytest.approx(want[near], abs=2e-3 * (1 + want[near].max()))
    code = int(want.argmin())
    place = rows.place_of(code)
    chosen = rows.choose(e, search.shrink_S[scale], step, shift, float(offsets[place]), costs, place, tries)
    z = offsets_256[code] + step_noise * chosen
    assert abs(z - e_noise) <= abs(e_noise) + 1.5 * step_noise


@quick
@given(st.integers(0, 2**32), st.integers(100, 1200))
def test_finished_rows_are_the_references(seed, clip):
    losses = np.random.default_rng(seed).gamma(2, 4, 256).astype(np.float32)
    row, units = np.empty(512, np.int16), np.empty(256, np.int32)
    places = [rows.place_of(c) for c in range(256)]
    total = np.empty(256, np.float32)
    total[places] = losses
    rows.finish_row(total, np.int32(clip), units, row)
    want = row_reference(losses[None].astype(np.float64), clip)
    even_odd = np.stack([row[:256], row[256:]])
    assert np.array_equal(even_odd[:, :128], even_odd[:, 128:])
    found = even_odd[:, :128].T.reshape(-1)
    assert np.abs(found.astype(int) - want).max() <= 1  # both roundings are of float sums
    assert found.max() == 0


@quick
@given(
    seed=st.integers(0, 2**32),
    bits=st.integers(9, 11),
    steps=st.integers(1, 40),
    clip=st.sampled_from([50, 1000]),
)
def test_search_is_exact(seed, bits, steps, clip):
    generator = np.random.default_rng(seed)
    map_G = (generator.integers(0, 128, 1 << (bits - 9)) * 2).astype(np.uint8)
    rotation_T = (generator.integers(0, 128, steps) * 2).astype(np.uint8)
    rows_T256 = np.maximum(-generator.gamma(1, 200, (steps, 256)), -clip).astype(np.int16)
    start = int(generator.integers(0, 1 << bits))
    metric = np.full(1 << bits, viterbi.BARRED, np.int16)
    metric[start] = 0
    other, best = np.empty_like(metric), np.empty(1 << (bits - 1), np.int16)
    decisions = np.zeros(((steps + 15) >> 4, best.size), np.uint16)
    for t in range(steps):
        even, odd = rows_T256[t, 0::2], rows_T256[t, 1::2]
        row = np.concatenate([even, even, odd, odd])
        viterbi.advance(metric, best, other, decisions[t >> 4], t & 15, row, map_G, int(rotation_T[t]))
        metric, other = other, metric
        if t % viterbi.BARRIER_STEPS == viterbi.BARRIER_STEPS - 1:
            viterbi.renormalise(metric)
    states = np.empty(steps, np.int32)
    end = int(metric.argmax())
    assert viterbi.trace(decisions, steps, end, bits, states) == start
    path = states.astype(np.int64)
    assert np.array_equal(path[1:] >> 1, path[:-1] & ((1 << (bits - 1)) - 1))
    codes = codes_reference(path, map_G.astype(np.int64), rotation_T.astype(np.int64), bits)
    assert [
        viterbi.code_of(int(s), map_G, int(r), bits) for s, r in zip(path, rotation_T, strict=True)
    ] == list(codes)
    earned = int(rows_T256[np.arange(steps), codes].astype(np.int64).sum())
    args = rows_T256.astype(np.int64), map_G.astype(np.int64), rotation_T.astype(np.int64), bits
    assert earned == best_score_reference(*args, start=start)
    assert earned == best_score_reference(*args, start=start, end=end)


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_metrics_stay_in_range_whatever_the_rows(bits):
    """The bound the kernel's docstring argues: worst rows, worst start, most steps between renormalisations."""
    clip = viterbi.SPREAD // bits
    lowest = min(int(viterbi.BARRED), -clip * viterbi.BARRIER_STEPS) - viterbi.SPREAD
    assert lowest > np.iinfo(np.int16).min
    generator = np.random.default_rng(bits)
    map_G = (generator.integers(0, 128, 1 << (bits - 9)) * 2).astype(np.uint8)
    metric = np.full(1 << bits, viterbi.BARRED, np.int16)
    metric[0] = 0
    other, best = np.empty_like(metric), np.empty(1 << (bits - 1), np.int16)
    decision = np.zeros(best.size, np.uint16)
    for t in range(64):
        row = np.where(generator.random(512) < 0.01, 0, -clip).astype(np.int16)
        before = metric.astype(np.int64)
        viterbi.advance(metric, best, other, decision, t & 15, row, map_G, 2 * t & 254)
        assert other.max() <= before.max()  # a wrapped metric would jump up
        assert other.min() >= before.min() - clip
        metric, other = other, metric
        if t % viterbi.BARRIER_STEPS == viterbi.BARRIER_STEPS - 1:
            viterbi.renormalise(metric)
            assert metric.max() == 0


def test_a_decoder_reads_codewords_off_circular_windows():
    generator = np.random.default_rng(1)
    bits, steps = 11, 50
    map_G = (generator.integers(0, 128, 4) * 2).astype(np.uint8)
    rotation_T = (generator.integers(0, 128, steps) * 2).astype(np.uint8)
    bit_T = generator.integers(0, 2, steps).astype(np.uint8)
    codes = np.zeros(steps, np.uint8)
    viterbi.codes_of_bits(bit_T, 0, steps, map_G, rotation_T, bits, codes)
    around = np.concatenate([bit_T[-bits:], bit_T]).astype(np.int64)
    states = np.array([int("".join(map(str, around[t + 1 : t + 1 + bits])), 2) for t in range(steps)])
    assert np.array_equal(
        codes, codes_reference(states, map_G.astype(np.int64), rotation_T.astype(np.int64), bits)
    )
