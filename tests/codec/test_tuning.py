"""The numbers that tune a network's laws to one image: their bytes, their arithmetic, and whether they pay.

Legend: N symbols, B images, h x w symbols of a block, 9 parameters, 18 numbers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lossless_models import random_model

from recbatch import stream
from recbatch.codec import lossless, tuning
from recbatch.codec.tuning import LEAST_SYMBOLS, LEVELS, NUMBERS, PLANES, Tuning
from recbatch.errors import CorruptStream
from recbatch.images import Picture
from recbatch.models.exact import exact_mode
from recbatch.models.lossless import geometry
from recbatch.rec import mixture_tuning, mixtures
from recbatch.rec.mixtures import UNIT, Decoder, Encoder, Law

LAW = Law.make()
SHAPE = Tuning.none().numbers.shape
RANGES = [(0, 255), (-255, 255)]  # of luma and of colour differences
ENDS = [-2048, 2047, 0, -1]  # of a raw parameter
UNITS = np.array([8, 8, 8, 1, 1, 1, 4, 4, 4])

tunings = st.tuples(st.integers(0, 2**PLANES - 1), st.integers(0, 2**32 - 1))


def some_tuning(mask: int, seed: int) -> Tuning:
    """Any numbers for the planes of a mask."""
    numbers = np.random.default_rng(seed).integers(-128, 128, (PLANES, NUMBERS)).astype(np.int8)
    numbers[:, 0] |= 1  # not all zero
    numbers[[not mask >> plane & 1 for plane in range(PLANES)]] = 0
    return Tuning(numbers.reshape(SHAPE))


def tuned(raw_B9hw, numbers_B18):
    """Tuned parameters, after the words of the format and apart from the kernels."""
    gain, bias = np.split(numbers_B18.astype(np.int64)[:, :, None, None], 2, axis=1)
    raw = raw_B9hw.astype(np.int64)
    return np.floor_divide(raw * (64 + gain) + 32, 64) + bias * UNITS[:, None, None]


# -- the bytes


@given(drawn=tunings)
def test_what_is_packed_is_parsed(drawn):
    mask, seed = drawn
    packed = some_tuning(mask, seed).pack()
    assert len(packed) == len(stream.varint(mask)) + 18 * mask.bit_count()
    cursor = stream.Cursor(packed + b"lanes")
    found = Tuning.parse(cursor)
    assert np.array_equal(found.numbers, some_tuning(mask, seed).numbers)
    assert cursor.take(5, "the lanes") == b"lanes"


def test_no_tuning_is_one_byte_and_planes_stand_where_their_bits_say():
    assert Tuning.none().pack() == b"\0"
    one = Tuning.none()
    one.numbers[2, 1, 2] = range(-9, 9)
    packed = one.pack()
    assert packed == stream.varint(1 << (2 * 9 + 1 * 3 + 2)) + np.arange(-9, 9, dtype=np.int8).tobytes()
    assert one.of(2, 1, 2).tolist() == list(range(-9, 9))
    assert not one.of(LEVELS, 1, 2).any()


@given(drawn=tunings)
@settings(max_examples=20)
def test_a_tuning_cut_short_is_corrupt(drawn):
    packed = some_tuning(*drawn).pack()
    for end in range(0, len(packed), 7):
        with pytest.raises(CorruptStream):
            Tuning.parse(stream.Cursor(packed[:end]))


@pytest.mark.parametrize(
    "damaged", [stream.varint(1 << PLANES), b"\x80\0", b"\xff" * 10, stream.varint(2**PLANES - 1)]
)
def test_a_mask_that_no_writer_makes_is_corrupt(damaged):
    with pytest.raises(CorruptStream):
        Tuning.parse(stream.Cursor(damaged))


def test_zeros_that_are_sent_are_no_tuning():
    found = Tuning.parse(stream.Cursor(stream.varint(5) + bytes(36)))
    assert np.array_equal(found.numbers, Tuning.none().numbers)


# -- the arithmetic


def block(rng, shape, values_range, *, wild: bool):
    """Raw parameters [B, 9, h, w], bases and values [B, h, w]."""
    images, h, w = shape
    low, high = values_range
    raw = rng.integers(-500, 500, (images, 9, h, w)).astype(np.float32)
    if wild:
        raw = rng.choice([*ENDS, 500, -500], raw.shape).astype(np.float32)
    base = rng.integers(16 * low, 16 * high + 1, (images, h, w)).astype(np.int32)
    return raw, base, rng.integers(low, high + 1, base.shape).astype(np.int32)


def encoded(lanes, raw, base, values, bounds, numbers_B18=None):
    encoder = Encoder(LAW, len(base), lanes)
    if numbers_B18 is None:
        encoder.put(raw, base, values, *bounds)
    else:
        encoder.put(raw, base, values, *bounds, mixtures.tuning_of(numbers_B18))
    return encoder.finish()


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 5)),
    numbers=st.sampled_from([(-127, 127), (-128, -128), (127, 127), (-128, 127, 0), tuple(range(-128, 128))]),
    bounds=st.sampled_from(RANGES),
    wild=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_numbers_leave_a_law_that_both_sides_know(seed, shape, numbers, bounds, wild):
    rng = np.random.default_rng(seed)
    raw, base, values = block(rng, shape, bounds, wild=wild)
    numbers_B18 = rng.choice(numbers, (shape[0], 18)).astype(np.int8)
    code = encoded(2, raw, base, values, bounds, numbers_B18)
    decoder = Decoder(LAW, code)
    found = decoder.take(raw, base, *bounds, mixtures.tuning_of(numbers_B18))
    decoder.finish()
    assert np.array_equal(found, values)
    expected = tuned(raw, numbers_B18)
    assert code == encoded(2, expected.astype(np.float32), base, values, bounds)
    for b, i, j in np.ndindex(*shape):
        at = np.ascontiguousarray(expected[b, :, i, j], np.float32)
        edges = mixtures.distribution(at, int(base[b, i, j]), *bounds, LAW.sigmoid, LAW.inverse, LAW.weight)
        assert (edges[0], edges[-1]) == (0, UNIT)
        assert np.diff(edges).min() >= 1


@pytest.mark.parametrize("wild", [False, True])
def test_zeros_give_the_very_bytes_of_none(wild):
    raw, base, values = block(np.random.default_rng(1), (3, 9, 7), RANGES[1], wild=wild)
    zeros = np.zeros((3, 18), np.int8)
    assert np.array_equal(tuned(raw, zeros), raw)
    assert encoded(2, raw, base, values, RANGES[1], zeros) == encoded(2, raw, base, values, RANGES[1])


def test_each_image_of_a_batch_has_its_own_numbers():
    rng = np.random.default_rng(2)
    raw, base, values = block(rng, (3, 6, 5), RANGES[0], wild=False)
    numbers_B18 = rng.integers(-128, 128, (3, 18)).astype(np.int8)
    together = encoded(1, raw, base, values, RANGES[0], numbers_B18)
    for b in range(3):
        one = slice(b, b + 1)
        alone = encoded(1, raw[one], base[one], values[one], RANGES[0], numbers_B18[one])
        assert alone == together[one]


# -- whole images


def picture(height: int, width: int, colours: int, seed: int) -> Picture:
    """Smooth with faint noise: nothing that random networks foresee."""
    rng = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(height), np.arange(width))[..., None] / (height + width) * 200
    pixels = slope + rng.integers(0, 4, (height, width, colours)) + 20
    return Picture(pixels=pixels.astype(np.uint8))


def test_tuning_saves_more_than_it_costs_where_an_image_is_unlike_others(monkeypatch):
    made, model = picture(96, 80, 1, 3), random_model()
    (with_it,) = lossless.encode([made], [b""], model)
    monkeypatch.setattr(lossless, "tune", lambda *_: Tuning.none())
    (without,) = lossless.encode([made], [b""], model)
    assert with_it.ideal_bits < 0.95 * without.ideal_bits
    assert len(with_it.data) < len(without.data)
    for coded in (with_it, without):
        assert np.array_equal(lossless.decode(stream.parse(coded.data), model, None).pixels, made.pixels)


def test_planes_of_few_symbols_and_greys_colours_are_left_alone():
    model = random_model()
    variant = model.variants["plain"]
    side = 2 * int(LEAST_SYMBOLS**0.5)
    with exact_mode():
        for height, width, colours in ((side - 2, side, 3), (side, side, 1)):
            planes = geometry.to_ycocg(picture(height, width, colours, 4).pixels)
            found = tuning.tune(model, variant, planes, None, colours).numbers
            assert not found[1:].any()
            assert not found[:, :, colours:].any()
            assert found[0].any() == (height == side)


@given(drawn=tunings, colours=st.sampled_from([1, 3]))
@settings(max_examples=4, deadline=None)
def test_a_stream_with_any_tuning_gives_its_pixels(drawn, colours):
    made, model = picture(18, 13, colours, drawn[1]), random_model()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lossless, "tune", lambda *_: some_tuning(*drawn))
        (coded,) = lossless.encode([made], [b""], model)
    parsed = stream.parse(coded.data)
    assert np.array_equal(lossless.decode(parsed, model, None).pixels, made.pixels)


@pytest.mark.parametrize("damage", [b"", b"\x80", stream.varint(1 << PLANES), b"\1" + bytes(17)])
def test_a_stream_with_a_broken_tuning_is_corrupt(damage):
    made, model = picture(5, 4, 1, 0), random_model()
    (coded,) = lossless.encode([made], [b""], model)
    parsed = stream.parse(coded.data)
    residual = parsed.sections[stream.SECTION_RESIDUAL][:1] + damage
    broken = replace(parsed, sections={**parsed.sections, stream.SECTION_RESIDUAL: residual})
    with pytest.raises(CorruptStream):
        lossless.decode(broken, model, None)


# -- the fit


def drawn_symbols(rng, count: int, numbers_18):
    """Raw parameters [N, 9], bases and values [N], these from the law that the numbers make of the parameters."""
    raw = np.rint(rng.normal(0, 80, (count, 9))).astype(np.float32)
    base = rng.integers(16 * 60, 16 * 190, count).astype(np.int32)
    r = tuned(raw[None, :, :, None].transpose(0, 2, 1, 3), numbers_18[None])[0, :, :, 0]
    weights = np.exp(r[:3] / 128)
    chosen = (rng.random(count) > (weights / weights.sum(axis=0)).cumsum(axis=0)).sum(axis=0).clip(0, 2)
    at = np.arange(count)
    p = rng.uniform(0.001, 0.999, count)
    scale = 0.05 * np.exp((128 + r[6 + chosen, at] / 4) / 32)
    values = np.rint((base + r[3 + chosen, at]) / 16 + scale * np.log(p / (1 - p)))
    return raw, base, values.clip(0, 255).astype(np.int32)


def bits_of(raw, base, values, numbers_18) -> float:
    """A symbol's mean bits under the integer law."""
    encoder = Encoder(LAW, 1, 1)
    raw_B9hw = np.ascontiguousarray(raw.T[None, :, :, None])
    there = (base[None, :, None], values[None, :, None], 0, 255)
    encoder.put(raw_B9hw, *there, mixtures.tuning_of(numbers_18[None]))
    return float(encoder.bits_B[0]) / len(values)


def test_a_fit_finds_a_shifted_law():
    rng = np.random.default_rng(5)
    shift = np.array([10, -20, 0, 9, -9, 20, 5, 5, 5, 4, -4, 0, 60, 40, 50, -40, -30, -35], np.int8)
    raw, base, values = drawn_symbols(rng, 4000, shift)
    numbers, saved = mixture_tuning.fit(raw, base, values, 0, 255)
    assert numbers.dtype == np.int8
    before, after, truth = (bits_of(raw, base, values, n) for n in (np.zeros(18, np.int8), numbers, shift))
    assert before - after == pytest.approx(saved, abs=0.02)
    assert truth < before - 0.2
    assert after < truth + 0.02
    fresh = drawn_symbols(rng, 4000, shift)
    assert bits_of(*fresh, numbers) < bits_of(*fresh, shift) + 0.03


def test_a_fit_to_the_right_law_promises_next_to_nothing():
    raw, base, values = drawn_symbols(np.random.default_rng(6), 4000, np.zeros(18, np.int8))
    _, saved = mixture_tuning.fit(raw, base, values, 0, 255)
    assert abs(saved) < 0.01


@pytest.mark.parametrize("values_at", [0, 128, 255])
def test_a_fit_to_symbols_that_are_all_alike_stays_in_range(values_at):
    raw, base, values = drawn_symbols(np.random.default_rng(7), 1024, np.zeros(18, np.int8))
    values[:] = values_at
    numbers, saved = mixture_tuning.fit(raw, base, values, 0, 255)
    assert np.abs(numbers.astype(int)).max() <= 127
    assert np.isfinite(saved)
    assert saved > 0


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(8)
    raw = rng.normal(0, 0.6, (300, 9))
    base = rng.uniform(0, 16 * 255, 300)
    value = np.clip(np.rint(base / 16 + rng.normal(0, 4, 300)), 0, 255)
    value[:20], value[20:40] = 0, 255  # the ends have a law of their own
    base[:20], base[20:40] = 40, 16 * 253
    numbers = rng.normal(0, 0.1, 18)
    slope, nothing = np.empty((300, 18)), np.empty((0, 18))

    def nats(at) -> float:
        return mixture_tuning._nats(raw, base, value, 0, 255, at, nothing)

    assert mixture_tuning._nats(raw, base, value, 0, 255, numbers, slope) == pytest.approx(nats(numbers))
    for k in range(18):
        step = np.zeros(18)
        step[k] = 1e-5
        difference = (nats(numbers + step) - nats(numbers - step)) / 2e-5
        assert slope[:, k].mean() == pytest.approx(difference, rel=1e-5, abs=1e-7)
