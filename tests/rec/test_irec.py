"""iREC, against the contract of every coder, its reference kernel and the published setting."""

from __future__ import annotations

import numpy as np
import pytest
from compliance import SIGMA, Compliance, channel, decode, encode, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbatch.errors import CorruptStream
from recbatch.rec import ans
from recbatch.rec import coder as coder_of
from recbatch.rec import make_irec_tables as made
from recbatch.rec.base import UNIT, Coder
from recbatch.rec.coders import irec
from recbatch.rec.coders.irec import BLOCK, BadIrecSettings, IrecCoder, irec_tables
from recbatch.rec.coders.trellis import BadEffort, ForeignWriter, Trellis
from recbatch.rec.kernels.irec_search import reference
from recbatch.rec.kernels.irec_search.cpu import (
    best_children,
    integer_sqrt,
    replay_block,
    score_step,
    search_block,
)
from recbatch.rec.kernels.irec_search.law import BEAM_BITS, MAX_STEPS, RATIO_BITS, VARIANCE_BITS
from recbatch.rec.yardstick import measure

few = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])


class TestIrec(Compliance):
    golden = "irec"
    excess_limit, eq_limit = 0.27, 0.27
    law_size = 1500

    def coder(self) -> Coder:
        return IrecCoder.preset("lossless")

    def test_a_wild_target_is_still_reached(self):
        # a sample of the posterior goes where the posterior is; the other coder's scalars go to the target itself
        for scale in (3, 24, 34, 60):
            target_N, scales_N = np.zeros(20, np.float32), np.full(20, scale, np.uint8)
            target_N[7] = 30 * (1 + SIGMA[scale])
            payload, samples = encode(self.coder(), [(target_N, scales_N)])
            assert same(decode(self.coder(), payload, [scales_N]), samples)
            a = SIGMA[scale] ** 2 / (1 + SIGMA[scale] ** 2)
            distance = abs(samples[0][7] / UNIT - a * target_N[7]) / np.sqrt(a)
            assert distance < 4 + 0.2 * np.sqrt(a) * target_N[7]


# -- the kernel is what the reference says


@st.composite
def blocks(draw):
    """Posterior means and variances of odd sizes, tiny and wide, and keys."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from([1, 2, 7, 63, 64, 65, 130]))
    variance_D = np.exp(generator.uniform(-draw(st.sampled_from([0.1, 2.0, 12.0])), 0, size))
    mean_D = (
        generator.standard_normal(size) * np.sqrt(1 - variance_D) * draw(st.sampled_from([1.0, 1.0, 8.0]))
    )
    keys = [np.uint64(k) for k in generator.integers(0, 2**64, 2, np.uint64)]
    return mean_D, variance_D, keys[0], keys[1]


def search(block, steps, candidates, beams):
    mean_D, variance_D, draw_key, path = block
    tables = irec_tables()
    indices_T, noise_D = np.full(steps, -1, np.int32), np.full(mean_D.size, -1, np.int64)
    search_block(
        mean_D, variance_D, draw_key, path, candidates, beams, tables.normal, tables.ratio, indices_T, noise_D
    )
    return indices_T, noise_D


@few
@given(block=blocks(), candidates=st.sampled_from([2, 5, 20, 36]), share=st.floats(0.001, 1))
def test_scores_are_the_references_up_to_a_constant(block, candidates, share):
    mean_D, variance_D, step_key, path = block
    tables = irec_tables()
    paths = [int(path), int(path) ^ 1]
    total = max(1, int(share * (1 << VARIANCE_BITS)))
    width = int(integer_sqrt(np.int64(total // 2)))
    unit = 2.0**-BEAM_BITS
    beams_BD = np.random.default_rng(0).standard_normal((2, mean_D.size)) * np.sqrt(share / 2)
    beams_BD = np.rint(beams_BD / unit).astype(np.int64)
    want = np.stack(
        [
            reference.scores(
                noise_D
                + reference.moves(mean_D.size, int(step_key), p, range(candidates), width, tables.normal),
                mean_D,
                variance_D,
                total * 2.0**-VARIANCE_BITS,
            )
            for p, noise_D in zip(paths, beams_BD, strict=True)
        ]
    )
    draws_JD = np.empty(((candidates + 3) // 4 * 4, mean_D.size), np.int16)
    found = score_step(
        beams_BD.astype(np.float64), np.array(paths, np.uint64), mean_D, variance_D, total * 2.0**-VARIANCE_BITS,
        width * unit, step_key, candidates, tables.normal, draws_JD,
    )  # fmt: skip
    assert found.shape == want.shape
    # the dense product is float32; a wide posterior far off has terms of millions of nats
    assert np.abs((found - found[0, 0]) - (want - want[0, 0])).max() <= 1e-3 + 1e-5 * np.abs(want).max()


@few
@given(block=blocks(), steps=st.integers(1, 9), candidates=st.sampled_from([2, 7, 20]))
def test_indices_name_the_noise_the_search_found(block, steps, candidates):
    indices_T, noise_D = search(block, steps, candidates, 6)
    assert ((indices_T >= 0) & (indices_T < candidates)).all()
    tables = irec_tables()
    replayed_D = np.empty_like(noise_D)
    replay_block(block[2], block[3], tables.normal, tables.ratio, indices_T, replayed_D)
    assert np.array_equal(replayed_D, noise_D)
    named_D = reference.replay_reference(
        indices_T.tolist(), noise_D.size, int(block[2]), int(block[3]), tables.normal, tables.ratio
    )
    assert np.array_equal(named_D, noise_D)


@pytest.mark.parametrize("size", [3, 64, 100])
def test_the_search_takes_the_references_path(size):
    generator = np.random.default_rng(size)
    variance_D = np.full(size, 0.6)
    block = (generator.standard_normal(size) * 0.6, variance_D, np.uint64(5), np.uint64(6))
    indices_T, noise_D = search(block, 4, 9, 5)
    tables = irec_tables()
    want, want_D = reference.search_reference(*block[:2], 4, 5, 6, 9, 5, tables.normal, tables.ratio)
    assert indices_T.tolist() == want
    assert np.array_equal(noise_D, want_D)


@few
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 50))
def test_the_best_children_are_those_of_a_stable_sort(values, keep):
    scores = np.array(values, np.float64)[None]
    assert best_children(scores, keep).tolist() == np.argsort(-scores[0], kind="stable")[:keep].tolist()


@given(st.integers(0, 2**50))
def test_the_integer_root_is_exact(v):
    root = int(integer_sqrt(np.int64(v)))
    assert root**2 <= v < (root + 1) ** 2


# -- the law


@pytest.mark.parametrize("steps", [1, 2, 50, MAX_STEPS])
def test_widths_share_out_the_whole_prior(steps):
    ratio = irec_tables().ratio
    widths, sums = reference.schedule(steps, ratio)
    assert sums[-1] == 1 << VARIANCE_BITS
    assert min(widths) > 0
    assert sum(w * w for w in widths) == pytest.approx(1 << VARIANCE_BITS, rel=1e-4)
    assert sum(widths) * 2**15 < 2**53  # beams are exact in float64
    if steps > 1:
        assert sums[0] == int(ratio[steps - 1]) << (VARIANCE_BITS - RATIO_BITS)


def test_a_wrong_index_is_a_draw_from_the_prior():
    tables = irec_tables()
    noise_D = np.empty(4000, np.int64)
    indices_T = np.random.default_rng(1).integers(0, 36, 12).astype(np.int32)
    replay_block(np.uint64(1), np.uint64(2), tables.normal, tables.ratio, indices_T, noise_D)
    z = noise_D * 2.0**-BEAM_BITS
    assert abs(z.mean()) < 0.08
    assert z.var() == pytest.approx(1, abs=0.12)
    assert (z**4).mean() == pytest.approx(3, abs=0.7)


def test_the_shipped_tables_are_what_their_script_makes():
    tables = irec_tables()
    for shipped, computed in (
        (tables.normal, made.normal_table()),
        (tables.ratio, made.ratio_table()),
        (tables.sigma, made.sigma_table()),
        (tables.rate, made.rate_table()),
    ):
        # another machine's libm may round the other way
        assert np.abs(shipped.astype(np.int64) - computed.astype(np.int64)).max() <= 1
    assert np.array_equal(tables.normal, -tables.normal[::-1])
    assert np.allclose(tables.sigma / 2.0**made.SIGMA_BITS, SIGMA, atol=2.0**-made.SIGMA_BITS)


def test_pinned_draws_and_bytes():
    """Known answers: a change here is another format."""
    scales_N = np.full(40, 44, np.uint8)
    target_N = (np.arange(40) - 20).astype(np.float32) / 8
    payload, (sample_N,) = encode(IrecCoder.preset("lossy"), [(target_N, scales_N)])
    assert payload.hex() == "8fb2fa9725745ade64"
    assert sample_N[:4].tolist() == [-32, -188, -283, -176]


# -- the payload


def test_the_lossless_preset_buys_quality_with_bits():
    scales_N = np.full(2000, 44, np.uint8)
    target_N = channel(scales_N, np.random.default_rng(0))
    found = {}
    for preset in irec.PRESETS:
        payload, (sample_N,) = encode(IrecCoder.preset(preset), [(target_N, scales_N)])
        found[preset] = measure(target_N, scales_N, sample_N, 8 * len(payload))
    assert found["lossy"].spent_bits < 1.04 * found["lossy"].kl_bits  # as published: +2 to 7 %
    assert found["lossless"].realised_bits > 1.15 * found["lossy"].realised_bits
    assert found["lossless"].eq < found["lossy"].eq


def test_dimensions_not_coded_cost_nothing_and_change_nothing():
    scales_N = np.full(90, 50, np.uint8)
    target_N = channel(scales_N, np.random.default_rng(1))
    wide_N, wide_target_N = np.zeros(4 * BLOCK, np.uint8), np.full(4 * BLOCK, 9.0, np.float32)
    places = np.sort(np.random.default_rng(2).choice(4 * BLOCK, 90, replace=False))
    wide_N[places], wide_target_N[places] = scales_N, target_N
    payload, (sample_N,) = encode(IrecCoder(), [(target_N, scales_N)])
    wide_payload, (wide_sample_N,) = encode(IrecCoder(), [(wide_target_N, wide_N)])
    assert wide_payload == payload
    assert np.array_equal(wide_sample_N[places], sample_N)


def test_step_counts_far_from_the_expected_ones_escape():
    scales_N = np.full(2 * BLOCK + 1, 20, np.uint8)
    target_N = channel(scales_N, np.random.default_rng(4))
    target_N[:200] *= 12  # the first block needs hundreds of steps more than planned
    payload, samples = encode(IrecCoder(beams=1), [(target_N, scales_N)])
    assert same(decode(IrecCoder(), payload, [scales_N]), samples)


def test_targets_at_the_edge_of_float32_are_coded():
    scales_N = np.array([1, 5, 30, 60], np.uint8)
    top = np.finfo(np.float32).max
    target_N = np.array([top, -top, 0, 1], np.float32)
    coder = IrecCoder(
        omega=255, candidates=2, beams=1
    )  # few steps: this test is about numbers, not about search
    payload, samples = encode(coder, [(target_N, scales_N)])
    assert same(decode(coder, payload, [scales_N]), samples)


def test_a_claim_of_more_steps_than_the_payload_holds_is_refused():
    scales_N = np.full(50 * BLOCK, 150, np.uint8)  # expects the most steps in each of 50 blocks
    with pytest.raises(CorruptStream, match="room"):
        decode(IrecCoder(), b"\x01", [scales_N])


def test_step_counts_out_of_range_are_refused():
    stack = ans.Encoder()
    none = np.zeros(1, np.int32)
    stack.push(np.array([1], np.int32), none, irec._quotient_row())  # one step fewer than the one expected
    stack.push(none, none, irec._uniform_row(8))
    with pytest.raises(CorruptStream, match="step count"):
        decode(IrecCoder(), stack.finish(), [np.array([1], np.uint8)])


# -- settings


def test_parameters_say_what_a_decoder_needs_and_no_more():
    assert IrecCoder.preset("lossy").parameters == bytes([48, 19])
    assert IrecCoder.preset("lossless").parameters == bytes([48, 35])
    assert IrecCoder(beams=3).parameters == IrecCoder(beams=30).parameters
    assert coder_of("irec", effort=5).parameters == IrecCoder.preset("lossy").parameters
    assert coder_of("irec", effort=6).parameters == IrecCoder.preset("lossless").parameters


@pytest.mark.parametrize("parameters", [b"", b"\x30", b"\x30\x13\x00", b"\x00\x13", b"\x30\x00"])
def test_parameters_no_encoder_writes_are_refused(parameters):
    with pytest.raises(CorruptStream):
        coder_of(2, parameters)


@pytest.mark.parametrize(
    "settings_",
    [{"omega": 0}, {"omega": 256}, {"candidates": 1}, {"candidates": 257}, {"beams": 0}, {"beams": 2000}],
)
def test_settings_outside_the_format_are_refused(settings_):
    with pytest.raises(BadIrecSettings):
        IrecCoder(**settings_)


def test_unknown_presets_and_efforts_are_refused():
    with pytest.raises(BadIrecSettings, match="preset"):
        IrecCoder.preset("best")
    for effort in (0, 10):
        with pytest.raises(BadEffort):
            coder_of("irec", effort=effort)


def test_writers_are_not_interchangeable():
    part = ([np.ones(3, np.float32)], [np.full(3, 50, np.uint8)])
    finished = IrecCoder().writer()
    finished.finish()
    for writer in (finished, IrecCoder.preset("lossless").writer(), Trellis(bits=9).writer()):
        with pytest.raises(ForeignWriter):
            IrecCoder().encode([writer], *part)
