"""The law of a mixture by integers, and the range coder that it drives.

Legend: B images, L lanes, 9 parameters, h x w symbols, V values, K symbols of a row.
"""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import constriction
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recbatch.errors import CorruptStream
from recbatch.rec import mixtures
from recbatch.rec.mixtures import UNIT, Decoder, Encoder, Law

LAW = Law.make()
RANGES = [(0, 255), (-255, 255)]  # of luma and of colour differences
LIMITS = (-2048, 2047)  # of a raw parameter
WORD = 1 << 32

parameters = st.lists(
    st.one_of(st.sampled_from([*LIMITS, 0, -1, 1, 511]), st.integers(*LIMITS)), min_size=9, max_size=9
).map(lambda r: np.array(r, np.float32))
bases = st.one_of(st.integers(-4080, 4080), st.sampled_from([-(2**31), 2**31 - 1, 0, 7, 8]))


def law_of(raw_9, base: int, low: int, high: int):
    raw_9 = np.ascontiguousarray(raw_9)
    return mixtures.distribution(raw_9, base, low, high, LAW.sigmoid, LAW.inverse, LAW.weight)


def reference(raw_9, base: int, low: int, high: int):
    """The law again, after the words of the format: whole arrays, int64, nothing shared with the kernel."""
    r = raw_9.astype(np.int64)
    shares = LAW.weight.astype(np.int64)[np.minimum(r[:3].max() - r[:3], 12 * 128)]
    weights = shares * 65536 // shares.sum()
    weights[np.argmax(r[:3])] += 65536 - weights.sum()
    inverse = LAW.inverse.astype(np.int64)[np.clip(np.floor_divide(r[6:] + 2, 4) + 128, 0, 255)]
    edges_V = 16 * np.arange(low + 1, high + 1, dtype=np.int64) - 8
    total_V = np.zeros(edges_V.size, np.int64)
    for k in range(3):
        t = (edges_V - base - r[3 + k]) * inverse[k]  # in 2**-24 scales
        t = np.clip(t, -12 * 2**24, 12 * 2**24 - 1) + 12 * 2**24
        node, rest = t // 2**18, t % 2**18 // 2**8
        a, b = LAW.sigmoid.astype(np.int64)[node], LAW.sigmoid.astype(np.int64)[node + 1]
        total_V += weights[k] * (a + np.floor_divide((b - a) * rest + 512, 1024))
    total_V //= 65536
    count = high - low + 1
    inner = np.arange(1, count) + total_V * (UNIT - count) // UNIT
    return np.concatenate([[0], inner, [UNIT]])


# -- the law


@settings(max_examples=150, deadline=None)
@given(raw_9=parameters, base=bases, values=st.sampled_from(RANGES))
@example(raw_9=np.full(9, LIMITS[0], np.float32), base=0, values=RANGES[0])
@example(raw_9=np.full(9, LIMITS[1], np.float32), base=4080, values=RANGES[1])
@example(raw_9=np.array([0, 0, 0, 8, 8, 8, -2048, -2048, -2048], np.float32), base=0, values=RANGES[1])
def test_every_value_has_a_share_and_all_shares_make_one(raw_9, base, values):
    edges_V = law_of(raw_9, base, *values)
    assert edges_V[0] == 0
    assert edges_V[-1] == UNIT
    assert (np.diff(edges_V) >= 1).all()
    assert np.array_equal(edges_V, reference(raw_9, base, *values))


def test_the_tables_are_monotone_and_as_long_as_the_kernel_reads():
    assert LAW.sigmoid.shape == (24 * 64 + 1,)
    assert LAW.inverse.shape == (256,)
    assert LAW.weight.shape == (12 * 128 + 1,)
    assert (np.diff(LAW.sigmoid) > 0).all()
    assert (np.diff(LAW.inverse) < 0).all()
    assert (np.diff(LAW.weight) <= 0).all()
    assert LAW.weight[0] == 65536
    assert LAW.sigmoid[0] > 0
    assert LAW.sigmoid[-1] < UNIT


def true_mixture(raw_9, base: int, low: int, high: int):
    """Probabilities [V] of the mixture that the integers stand for, in float64."""
    r = raw_9.astype(np.float64)
    weights = np.exp((r[:3] - r[:3].max()) / 128)
    weights /= weights.sum()
    index = np.clip(np.floor((r[6:] + 2) / 4) + 128, 0, 255)
    scales = 0.05 * np.exp(index / 32)
    edges_V = np.arange(low + 1, high + 1) - 0.5
    t = (edges_V - (base + r[3:6, None]) / 16) / scales[:, None]
    inner = weights @ (0.5 * (1 + np.tanh(t / 2)))
    return np.diff(np.concatenate([[0.0], inner, [1.0]]))


def test_integers_cost_next_to_nothing_over_the_true_mixture():
    rng = np.random.default_rng(0)
    costs = []
    for _ in range(400):
        low, high = RANGES[int(rng.integers(2))]
        raw_9 = np.concatenate(
            [rng.integers(-600, 600, 3), rng.integers(-300, 300, 3), rng.integers(*LIMITS, 3)]
        )
        raw_9[6:] = raw_9[6:].clip(-512, 511)
        base = int(rng.integers(16 * low, 16 * high + 1))
        p_V = true_mixture(raw_9, base, low, high)
        q_V = np.diff(law_of(raw_9.astype(np.float32), base, low, high)) / UNIT
        some = p_V > 0
        costs.append(float((p_V[some] * np.log2(p_V[some] / q_V[some])).sum()))
    assert max(costs) < 0.001
    assert np.mean(costs) < 0.0003


# -- the coder


def blocks(rng, images: int, shapes, *, kind: str = "likely"):
    """(raw, base, values, low, high) of blocks; what is drawn is ``likely``, at the ``ends``, or the ``rarest``."""
    out = []
    for h, w in shapes:
        low, high = RANGES[int(rng.integers(2))]
        raw = rng.integers(-500, 500, (images, 9, h, w)).astype(np.float32)
        if rng.random() < 0.2:
            raw = rng.integers(LIMITS[0], LIMITS[1] + 1, raw.shape).astype(np.float32)
        base = rng.integers(16 * low, 16 * high + 1, (images, h, w)).astype(np.int32)
        if kind == "likely":
            values = np.clip((base + 8 >> 4) + rng.integers(-3, 4, base.shape), low, high)
        elif kind == "ends":
            values = rng.choice([low, high], base.shape)
        else:  # one unit of 2**24 each: narrow, and at the other end
            raw[:, 6:] = -600
            raw[:, 3:6] = 0
            values = np.where(base > 8 * (low + high), low + 1, high - 1)
        out.append((raw, base, values.astype(np.int32), low, high))
    return out


def encoded(images: int, lanes: int, work, *, threads: int = 1):
    encoder = Encoder(LAW, images, lanes, threads=threads)
    for block in work:
        encoder.put(*block)
    bits_B = encoder.bits_B.copy()
    return encoder.finish(), bits_B


def decoded(codes, work, *, threads: int = 1):
    decoder = Decoder(LAW, codes, threads=threads)
    values = [decoder.take(raw, base, low, high) for raw, base, _, low, high in work]
    decoder.finish()
    return values


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 3),
    lanes=st.integers(1, 5),
    shapes=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=0, max_size=4),
    kind=st.sampled_from(["likely", "ends", "rarest"]),
    threads=st.sampled_from([1, 3]),
)
@example(seed=0, images=1, lanes=1, shapes=[], kind="likely", threads=1)
@example(seed=0, images=2, lanes=4, shapes=[(0, 3), (1, 5), (3, 1)], kind="rarest", threads=3)
def test_values_come_back_from_any_blocks_lanes_and_threads(seed, images, lanes, shapes, kind, threads):
    work = blocks(np.random.default_rng(seed), images, shapes, kind=kind)
    codes, _ = encoded(images, lanes, work, threads=threads)
    assert codes == encoded(images, lanes, work)[0]  # threads leave no trace
    assert [len(image) for image in codes] == [lanes] * images
    for (_, _, values, _, _), found in zip(work, decoded(codes, work, threads=threads), strict=True):
        assert np.array_equal(found, values)


@pytest.mark.parametrize("kind", ["likely", "ends", "rarest"])
def test_a_code_is_as_long_as_its_improbability(kind):
    work = blocks(np.random.default_rng(1), 2, [(40, 50)] * 4, kind=kind)
    codes, bits_B = encoded(2, 1, work)
    for image, bits in zip(codes, bits_B, strict=True):
        assert 8 * len(image[0]) <= bits + 64 + 0.001 * bits
        assert 8 * len(image[0]) >= bits - 8
    expected_B = np.zeros(2)
    for raw, base, values, low, high in work[:1]:
        for b in range(2):
            for i, j in np.ndindex(3, 4):
                edges_V = law_of(raw[b, :, i, j], int(base[b, i, j]), low, high)
                v = values[b, i, j] - low
                expected_B[b] -= np.log2((edges_V[v + 1] - edges_V[v]) / UNIT)
    encoder = Encoder(LAW, 2, 1)
    raw, base, values, low, high = work[0]
    encoder.put(*(np.ascontiguousarray(a[..., :3, :4]) for a in (raw, base, values)), low, high)
    assert encoder.bits_B == pytest.approx(expected_B, abs=1e-6)
    if kind == "rarest":
        assert bits_B == pytest.approx([24.0 * 40 * 50 * 4] * 2)


def test_certain_symbols_cost_less_than_a_thousandth_of_a_bit_each():
    raw = np.zeros((1, 9, 200, 200), np.float32)
    raw[:, 6:] = -600
    base, values = np.full((1, 200, 200), 128 << 4, np.int32), np.full((1, 200, 200), 128, np.int32)
    codes, bits_B = encoded(1, 1, [(raw, base, values, 0, 255)])
    assert bits_B[0] < 40
    assert 8 * len(codes[0][0]) < 0.001 * values.size + 64


def test_blocks_in_other_lanes_are_other_rows():
    """Lane l of L takes rows h l / L .. h (l + 1) / L: said in the format, so pinned here."""
    work = blocks(np.random.default_rng(3), 1, [(7, 5)])
    (raw, base, values, low, high) = work[0]
    (lanes,), _ = encoded(1, 3, work)
    for lane, code in enumerate(lanes):
        rows = slice(7 * lane // 3, 7 * (lane + 1) // 3)
        part = [np.ascontiguousarray(a[..., rows, :]) for a in (raw, base, values)]
        assert encoded(1, 1, [(*part, low, high)])[0] == [[code]]


# -- the words: against exact arithmetic, and against constriction


def fresh_encoder() -> Encoder:
    return Encoder(LAW, 1, 1)


def driven(steps) -> tuple[bytes, Encoder]:
    """The code of intervals (start, count) in 2**-24, put by hand."""
    encoder = fresh_encoder()
    encoder._words[0] = np.empty(len(steps) + 8, np.uint32)
    for start, count in steps:
        mixtures._put(encoder._state[0], encoder._words[0], np.int64(start), np.int64(count))
    return encoder.finish()[0][0], encoder


def read_by_fractions(code: bytes, steps) -> None:
    """Follow the intervals in exact numbers: the code, read as a fraction, lies in each of them."""
    point = Fraction(int.from_bytes(code, "big"), 1 << (8 * len(code))) if code else Fraction(0)
    low, span, unit = Fraction(0), WORD * WORD - 1, Fraction(1, WORD * WORD)
    for start, count in steps:
        part = span >> 24
        low, span = low + part * start * unit, part * count
        while span < WORD:
            span, unit = span * WORD, unit / WORD
        assert low <= point < low + span * unit


def full_word_run(length: int, last) -> list[tuple[int, int]]:
    """Intervals that lie about a number whose words are ones for a while, and then a step that settles it.

    The middle of the interval is steered to 1/2 from below, so that the words 7FFFFFFF FFFFFFFF ... are held back.
    """
    low, span, unit = Fraction(0), WORD * WORD - 1, Fraction(1, WORD * WORD)
    steps = []
    while unit > Fraction(1, WORD ** (length + 2)):
        part = span >> 24
        start = int((Fraction(1, 2) - low) / (part * unit))
        start = min(max(start, 0), UNIT - 1)
        steps.append((start, 1))
        low, span = low + part * start * unit, part
        while span < WORD:
            span, unit = span * WORD, unit / WORD
    return [*steps, last]


@pytest.mark.parametrize("length", [1, 2, 3, 9])
@pytest.mark.parametrize("last", [(0, 1), (UNIT - 1, 1), (0, UNIT), (UNIT // 2, 5)])
def test_runs_of_full_words_are_held_until_a_carry_or_none(length, last):
    steps = full_word_run(length, last)
    code, _ = driven(steps)
    read_by_fractions(code, steps)


def test_a_carry_runs_through_full_words():
    seen = {"carried": 0, "kept": 0}
    for last in ((0, 1), (UNIT - 1, 1)):
        steps = full_word_run(4, last)
        encoder = fresh_encoder()
        encoder._words[0] = np.empty(99, np.uint32)
        state, words = encoder._state[0], encoder._words[0]
        most = 0
        for start, count in steps:
            before = int(state[mixtures._FULL_COUNT])
            mixtures._put(state, words, np.int64(start), np.int64(count))
            most = max(most, before)
            if before >= 3 and state[mixtures._FULL_COUNT] == 0:
                seen["carried" if int(state[mixtures._HELD]) == 0 else "kept"] += 1
        assert most >= 3, "the steps make no run of full words"
        (code,) = encoder.finish()[0]
        read_by_fractions(code, steps)
        if code[:1] == b"\x80":
            seen["carried"] += 1
        elif code[:8] == b"\x7f" + b"\xff" * 7:
            seen["kept"] += 1
    assert seen["carried"] >= 1
    assert seen["kept"] >= 1


@settings(max_examples=80, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just(UNIT - 1), st.just(1)),
            st.tuples(st.just(0), st.integers(1, UNIT)),
            st.integers(0, UNIT - 1).flatmap(lambda s: st.tuples(st.just(s), st.integers(1, UNIT - s))),
        ),
        max_size=40,
    )
)
def test_any_intervals_lead_to_a_number_inside_all_of_them(steps):
    code, _ = driven(steps)
    assert not code.endswith(b"\0")
    read_by_fractions(code, steps)


@settings(max_examples=100, deadline=None)
@given(low=st.integers(0, 2**64 - 1), span=st.integers(2**32, 2**64 - 1))
@example(low=2**64 - 1, span=2**32)
@example(low=0, span=2**32)
@example(low=1, span=2**64 - 1)
def test_an_ending_is_the_roundest_number_of_its_interval(low, span):
    found = mixtures._ending(low, span)
    assert low <= found < low + span
    zeros = next(z for z in range(64, -1, -8) if found % (1 << z) == 0)
    step = 1 << (zeros + 8)
    assert zeros == 64 or -(-low // step) * step >= low + span


MODEL = constriction.stream.model.Categorical(perfect=False)


def rows_of(work):
    """Float32 rows for constriction, as in rec/ans.py, one a symbol, and the symbols."""
    for raw, base, values, low, high in work:
        for i, j in np.ndindex(values.shape[1:]):
            edges_V = law_of(raw[0, :, i, j], int(base[0, i, j]), low, high)
            yield int(values[0, i, j]) - low, (np.diff(edges_V) - 1).astype(np.float32)


@pytest.mark.parametrize("kind", ["likely", "ends", "rarest"])
def test_constriction_reads_our_words_and_writes_them(kind):
    work = blocks(np.random.default_rng(5), 1, [(6, 7), (3, 5)], kind=kind)
    code = encoded(1, 1, work)[0][0][0]
    words = np.frombuffer(code + bytes(-len(code) % 4 + 8), ">u4").astype(np.uint32)
    decoder = constriction.stream.queue.RangeDecoder(words)
    encoder = constriction.stream.queue.RangeEncoder()
    for symbol, row_K in rows_of(work):
        one = row_K[None]
        assert decoder.decode(MODEL, one)[0] == symbol
        encoder.encode(np.array([symbol], np.int32), MODEL, one)
    theirs = np.asarray(encoder.get_compressed(), np.uint32)
    same = min(theirs.size, words.size) - 3  # the two end differently, each in its last words
    assert same > 0
    assert np.array_equal(theirs[:same], words[:same])
    theirs_as_ours = theirs.astype(">u4").tobytes().rstrip(b"\0")
    decoder = Decoder(LAW, [[theirs_as_ours]])
    for raw, base, values, low, high in work:
        assert np.array_equal(decoder.take(raw, base, low, high), values)


# -- damage


@pytest.fixture(scope="module")
def whole() -> SimpleNamespace:
    work = blocks(np.random.default_rng(7), 1, [(12, 9), (5, 11)])
    return SimpleNamespace(work=work, code=encoded(1, 1, work)[0][0][0])


def outcome(code: bytes, work):
    """Values, or the one error that damage may raise."""
    try:
        found = decoded([[code]], work)
    except CorruptStream:
        return None
    for (_, _, _, low, high), values in zip(work, found, strict=True):
        assert ((values >= low) & (values <= high)).all()
    return found


def damage_all(whole, count: int) -> None:
    rng = np.random.default_rng(11)
    refused = 0
    for _ in range(count):
        code = bytearray(whole.code)
        for _ in range(int(rng.integers(1, 4))):
            code[int(rng.integers(len(code)))] ^= int(rng.integers(1, 256))
        if rng.random() < 0.3:
            code = code[: int(rng.integers(len(code)))]
        if rng.random() < 0.2:
            code += rng.bytes(int(rng.integers(1, 9)))
        found = outcome(bytes(code), whole.work)
        refused += found is None
    assert refused > 0


def test_damaged_words_give_values_in_range_or_one_named_error(whole):
    damage_all(whole, 300)


@pytest.mark.long
def test_damaged_words_a_hundred_thousand_times(whole):
    damage_all(whole, 100_000)


def test_words_cut_short_never_give_the_true_values(whole):
    for end in range(len(whole.code)):
        found = outcome(whole.code[:end], whole.work)
        assert found is None or not all(
            np.array_equal(a, block[2]) for a, block in zip(found, whole.work, strict=True)
        )


@pytest.mark.parametrize("more", [b"\x01", b"\0\0\0\0\0\0\0\x01", bytes(range(1, 30))])
def test_words_after_the_end_are_refused(whole, more):
    # the last word may be filled up by zero bytes that were left out; beyond it nothing may stand
    padded = whole.code + bytes(-len(whole.code) % 4 + 8) + more
    with pytest.raises(CorruptStream, match="goes on after its last symbol"):
        decoded([[padded]], whole.work)


def test_a_code_that_ends_in_a_zero_byte_is_refused(whole):
    with pytest.raises(CorruptStream, match="zero byte"):
        Decoder(LAW, [[whole.code + b"\0"]])


def test_a_number_that_no_encoder_writes_is_refused(whole):
    with pytest.raises(CorruptStream, match="what no encoder writes"):
        decoded([[b"\xff" * 40]], whole.work)
