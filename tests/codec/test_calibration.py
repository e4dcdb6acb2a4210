"""Shifts of scale indices by channel: what is sent, what it saves, and that nothing else changes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pictures import photograph, source_of

from recbatch import rec, stream
from recbatch.codec import ImageCodec, Settings, calibration, lossy
from recbatch.codec.calibration import REACH, STEP, Calibration, choose
from recbatch.errors import CorruptStream
from recbatch.images import read_picture
from recbatch.models.photo import PhotoModel
from recbatch.rec import Tables, ans
from recbatch.rec.tables import sigma

SIGMA = np.array([sigma(k) for k in range(151)])
shifts = st.integers(1, 40).flatmap(
    lambda m: arrays(np.int8, (2, m), elements=st.integers(-REACH, REACH) | st.just(0))
)


@settings(deadline=None)
@given(shifts)
def test_shifts_come_back_from_their_bytes(shift_PM):
    packed = Calibration(shift_PM).pack()
    assert bool(packed) == bool(shift_PM.any())
    assert np.array_equal(Calibration.parse(packed, shift_PM.shape[1]).shift_PM, shift_PM)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60), st.integers(1, 40))
def test_any_bytes_are_shifts_or_corrupt(data, channels):
    try:
        found = Calibration.parse(data, channels).shift_PM
    except CorruptStream:
        return
    assert found.shape == (2, channels)
    assert np.abs(found).max() <= REACH
    assert found.any()


def test_a_section_that_shifts_nothing_is_corrupt():
    """The stack of twelve zero shifts a pass, which no writer sends."""
    zeros = np.full(12, REACH, np.int32)
    stack = ans.Encoder()
    stack.push(zeros, zeros, calibration._rows(3))
    stack.push(zeros, np.zeros_like(zeros), calibration._zero_row(3)[None])
    with pytest.raises(CorruptStream, match="shifts nothing"):
        Calibration.parse(bytes([3 | 3 << 4]) + stack.finish(), 12)


@settings(deadline=None)
@given(shifts, st.integers(0, 2**32))
def test_indices_stay_in_range_and_uncoded_dimensions_stay_uncoded(shift_PM, seed):
    rng = np.random.default_rng(seed)
    index_N = rng.integers(0, 151, 200).astype(np.uint8)
    channel_N = rng.integers(0, shift_PM.shape[1], 200).astype(np.int16)
    for which in (0, 1):
        moved = Calibration(shift_PM).apply(index_N, channel_N, which)
        assert moved.dtype == np.uint8
        assert ((moved == 0) == (index_N == 0)).all()
        want = np.clip(index_N + STEP * shift_PM[which][channel_N].astype(int), 1, 150)
        assert (moved[index_N > 0] == want[index_N > 0]).all()


@pytest.mark.parametrize("truth", [-4, -2, 0, 1, 3])
@pytest.mark.parametrize("index", [20, 45, 70])
def test_the_true_scale_is_found(truth, index):
    """Gaussian observations of a prior that is wider or narrower than the index says."""
    rng = np.random.default_rng(index + truth)
    channel_N = np.repeat(np.arange(3, dtype=np.int16), 4000)
    width = SIGMA[np.clip(index + STEP * truth, 1, 150)]
    e_N = (np.sqrt(1 + width**2) * rng.standard_normal(channel_N.size)).astype(np.float32)
    index_N = np.full(channel_N.size, index, np.uint8)
    found = choose(e_N, index_N, channel_N, Tables.default(), 3)
    if index >= 45:  # below, the scalar dimensions' own prior is no Gaussian
        assert found.tolist() == [truth] * 3
    again = choose(e_N, index_N, channel_N, Tables.default(), 3, before_M=found)
    assert np.abs(again - found).max() <= 1


def test_one_outlier_shifts_nothing():
    e_N = np.random.default_rng(3).normal(0, np.sqrt(1 + SIGMA[60] ** 2), 1000).astype(np.float32)
    for outlier in (0.0, 1e3, 1e20):
        e_N[7] = outlier
        index_N, channel_N = np.full(1000, 60, np.uint8), np.zeros(1000, np.int16)
        assert not choose(e_N, index_N, channel_N, Tables.default(), 1).any()


@pytest.mark.parametrize("wild", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_left_for_the_coder_to_refuse(wild):
    e_N = np.full(100, 50, np.float32)
    e_N[3] = wild
    assert not choose(e_N, np.full(100, 40, np.uint8), np.zeros(100, np.int16), Tables.default(), 1).any()


def test_few_observations_are_not_worth_a_shift():
    e_N = np.array([3.0, -5.0], np.float32)
    found = choose(e_N, np.full(2, 40, np.uint8), np.arange(2, dtype=np.int16), Tables.default(), 2)
    assert not found.any()


@pytest.fixture(scope="module")
def model(weights: bytes) -> PhotoModel:
    return PhotoModel.from_bytes(weights)


def test_a_calibrated_stream_is_smaller_and_decodes(weights, model, decoder):
    """The tiny model's priors are wrong for everything, so there is much to shift."""
    picture = read_picture(source_of(photograph(256, 192, seed=5)).data)
    coder = rec.coder("trellis", tables=lossy.tables_of(model))
    plain, shifted = (
        lossy.encode_latents([picture], model, coder, 18, calibrate=calibrate)[0]
        for calibrate in (False, True)
    )
    assert not plain.calibration.shift_PM.any()
    section = shifted.calibration.pack()
    assert section
    assert len(shifted.writer.finish()) + len(section) < len(plain.writer.finish())
    data = lossy.encode([picture], model, coder, 18)[0].data
    parsed = stream.parse(data)
    assert parsed.sections[stream.SECTION_CALIBRATION] == section
    assert (lossy.decode_latents(parsed, model, coder) == shifted.samples).all()
    assert decoder.decode(data).pixels.shape == picture.pixels.shape
    for other in (Calibration.none(model.config.latent).pack(), section[:-1], section + b"\1"):
        sections = {**parsed.sections, stream.SECTION_CALIBRATION: other}
        if not other:
            del sections[stream.SECTION_CALIBRATION]
        fields = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(parsed)}
        with pytest.raises(CorruptStream):
            decoder.decode(stream.pack(stream.Stream(**{**fields, "sections": sections})))


def test_refined_latents_lower_the_loss_and_leave_the_format_alone(weights, model, decoder):
    picture = read_picture(source_of(photograph(128, 96, seed=7)).data)
    coder = rec.coder("trellis", tables=lossy.tables_of(model))
    losses = []
    for steps in (0, 8):
        (coded,) = lossy.encode([picture], model, coder, 18, steps=steps)
        restored = decoder.decode(coded.data).pixels.astype(float)
        squared = ((restored - picture.pixels) ** 2).mean(2).sum()
        weight = 0.0011 * 1.085 ** (2 * 18)  # models.lossy: lambda of the level
        losses.append(8 * len(coded.data) + weight * squared)
    assert losses[1] < losses[0]


def test_refinement_is_the_same_on_every_number_of_threads(weights):
    import torch

    source = source_of(photograph(448, 320, seed=8))
    streams = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        codec = ImageCodec(Settings(level=12, effort=8, keep_originals="never"), weights=[weights])
        streams.append(codec.encode([source])[0].stream)
    torch.set_num_threads(1)
    assert streams[0] == streams[1]
