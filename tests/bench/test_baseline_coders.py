"""The alternatives to the trellis are real coders: what they write is read, and they are as good as they should be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "rec"))

from compliance import SIGMA, channel, decode, encode, same, sections, threads

from recbatch.bench.coders import design, ecsq, levels, pfr, tcq
from recbatch.bench.coders.candidates import quantiles
from recbatch.bench.coders.fixed_trellis import FixedTrellis
from recbatch.bench.coders.machines import CHECKS, DEPENDENT, machine
from recbatch.bench.coders.registry import BASELINES, baseline
from recbatch.bench.coders.stack import Book, Stack
from recbatch.errors import CorruptStream, InvalidPosterior, UsageError
from recbatch.rec import Coder, Tables, ans, bits
from recbatch.rec.base import SCALES, UNIT, Samples, Scales
from recbatch.rec.coders.trellis import ForeignWriter
from recbatch.rec.yardstick import Yardstick, measure

QUANTISERS = ("ecsq", "dithered", "tcq8", "tcq64", "tcq256")
quick = settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
every = pytest.mark.parametrize("name", list(BASELINES))


@pytest.fixture(scope="module", autouse=True)
def _short_designs() -> Iterator[None]:
    """Tables of trellis-coded quantisation from few draws: worse by a point or two, and made in a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tcq, "DRAWS", (1024, 1024, 2048))
        tcq.trained.cache_clear()
        yield
    tcq.trained.cache_clear()


def coder_of(name: str) -> Coder:
    return baseline(name, None)


def mixed(size: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Rates from nothing to 4 bits, as in a picture."""
    generator = np.random.default_rng(seed)
    scales_N = np.minimum(generator.exponential(25, size), 65).astype(np.uint8)
    return channel(scales_N, generator), scales_N


# -- the contract


def test_names_and_numbers_are_unique_and_private() -> None:
    coders = [coder_of(name) for name in BASELINES]
    assert [coder.name for coder in coders] == list(BASELINES)
    assert len({coder.number for coder in coders}) == len(coders)
    assert all(coder.number > 65000 and len(coder.parameters) <= 8 for coder in coders)
    with pytest.raises(UsageError, match="tcq8"):
        baseline("tcq7", None)


@every
@quick
@given(parts=st.lists(sections(), max_size=2), seed=st.integers(0, 2**64 - 1))
def test_a_reader_gives_what_the_encoder_promised(name, parts, seed) -> None:
    payload, samples = encode(coder_of(name), parts, seed)
    assert same(decode(coder_of(name), payload, [scales_N for _, scales_N in parts], seed), samples)
    for sample_N, (_, scales_N) in zip(samples, parts, strict=True):
        assert sample_N.dtype == np.int32
        assert not sample_N[scales_N == 0].any()


@every
def test_bits_account_for_the_whole_payload(name) -> None:
    coder = coder_of(name)
    writer = coder.writer()
    target_N, scales_N = mixed(300)
    coder.encode([writer], [target_N], [scales_N])
    payload = writer.finish()
    spent = writer.bits
    assert spent.index + spent.symbols + spent.side == 8 * len(payload)
    assert 0 <= spent.side <= 64
    assert (spent.index > 0) == (name in ("importance", "fixed-trellis"))


@every
def test_nothing_coded_is_nothing_sent(name) -> None:
    for size in (0, 1, 50):
        section = (np.full(size, np.nan, np.float32), np.zeros(size, np.uint8))
        payload, samples = encode(coder_of(name), [section])
        assert payload == b""
        assert same(decode(coder_of(name), payload, [section[1]]), samples)


@every
def test_batch_and_threads_leave_no_trace(name) -> None:
    coder = coder_of(name)
    parts = [mixed(size, seed=size) for size in (60, 1, 300)]
    alone = [encode(coder, [part], seed=3) for part in parts]
    for count in (1, 2):
        writers = [coder.writer(seed=3) for _ in parts]
        with threads(count):
            together = coder.encode(writers, [part[0] for part in parts], [part[1] for part in parts])
        assert same(together, [samples[0] for _, samples in alone])
        assert [writer.finish() for writer in writers] == [payload for payload, _ in alone]


@every
def test_what_cannot_be_coded_is_refused_and_leaves_the_writer_usable(name) -> None:
    coder = coder_of(name)
    target_N, scales_N = mixed(30)
    scales_N[3] = 40
    wrong = target_N.copy()
    wrong[3] = np.nan
    writer = coder.writer()
    for bad in (
        (wrong, scales_N),
        (target_N[:-1], scales_N),
        (target_N.astype(np.float64), scales_N),
        (target_N, scales_N.astype(np.int64)),
        (target_N, np.full(30, SCALES, np.uint8)),
    ):
        with pytest.raises(InvalidPosterior):
            coder.encode([writer], [bad[0]], [bad[1]])
    samples = coder.encode([writer], [target_N], [scales_N])
    assert same(decode(coder, writer.finish(), [scales_N]), samples)
    with pytest.raises(ForeignWriter):
        coder.encode([writer], [target_N], [scales_N])


@pytest.mark.parametrize("width", [9, 10, 14])
def test_the_fixed_rate_trellis_reads_itself_at_any_width(width) -> None:
    coder = FixedTrellis(bits=width)
    target_N, scales_N = mixed(400)
    scales_N[:20] = 120  # steps of more bits than fit
    payload, samples = encode(coder, [(target_N, scales_N)])
    assert same(decode(coder, payload, [scales_N]), samples)


# -- damage


def noticed(name: str, payload: bytes, scales_N: Scales, samples: list[Samples]) -> bool:
    try:
        return not same(decode(coder_of(name), payload, [scales_N]), samples)
    except CorruptStream:
        return True


@every
def test_every_truncation_is_noticed(name) -> None:
    target_N, scales_N = mixed(200)
    payload, samples = encode(coder_of(name), [(target_N, scales_N)])
    for length in sorted({0, 1, 2, 5, *range(0, len(payload), 11), len(payload) - 1}):
        assert noticed(name, payload[:length], scales_N, samples)
    assert noticed(name, payload + b"\1", scales_N, samples)


@every
@quick
@given(payload=st.binary(max_size=200), part=sections())
def test_any_bytes_give_samples_or_corrupt_stream(name, payload, part) -> None:
    try:
        (sample_N,) = decode(coder_of(name), payload, [part[1]])
    except CorruptStream:
        return
    assert sample_N.shape == part[1].shape
    assert not sample_N[part[1] == 0].any()


# -- quality


def gaussian(name: str, scale: int, size: int) -> tuple[Yardstick, np.ndarray]:
    """One scale index of the shipped tables, whose priors are Gaussian."""
    scales_N = np.full(size, scale, np.uint8)
    target_N = channel(scales_N, np.random.default_rng(scale))
    payload, (sample_N,) = encode(coder_of(name), [(target_N, scales_N)])
    v = SIGMA[scale] ** 2
    error_N = (sample_N / UNIT - v / (1 + v) * target_N) / np.sqrt(v / (1 + v))
    return measure(target_N, scales_N, sample_N, 8 * len(payload)), error_N


def test_quantisers_of_gaussians_cost_what_theory_says() -> None:
    excess = {name: gaussian(name, 38, 20_000)[0].excess for name in QUANTISERS}  # one bit a dimension
    assert excess["ecsq"] == pytest.approx(0.26, abs=0.03)
    assert 0.2 < excess["dithered"] < 0.4
    assert excess["tcq8"] < 0.16
    assert excess["tcq64"] < excess["tcq8"]
    assert excess["tcq256"] < excess["tcq8"]


@pytest.mark.parametrize(("name", "limit"), [("importance", 0.35), ("pfr", 0.75), ("fixed-trellis", 0.2)])
def test_index_coders_cost_what_they_should(name, limit) -> None:
    mark, _ = gaussian(name, 38, 2000)
    assert 0.0 < mark.excess < limit


def test_samples_of_the_poisson_representation_are_those_of_the_posterior() -> None:
    for scale in (30, 38):
        _, error_N = gaussian("pfr", scale, 2000)
        assert abs(error_N.mean()) < 0.1
        assert error_N.var() == pytest.approx(1, abs=0.15)
        assert (error_N**4).mean() == pytest.approx(3, abs=0.9)


def test_the_best_of_many_draws_is_near_the_posterior() -> None:
    _, error_N = gaussian("importance", 38, 2000)
    assert abs(error_N.mean()) < 0.1
    assert 0.6 < error_N.var() < 1.3


@pytest.mark.parametrize("name", QUANTISERS)
def test_a_wild_target_is_reached(name) -> None:
    for scale in (3, 24, 34, 60, 100, 150):
        target_N, scales_N = np.zeros(9, np.float32), np.full(9, scale, np.uint8)
        target_N[4] = -1e4 * (1 + SIGMA[scale]) if scale < 100 else 30 * SIGMA[scale]
        _, (sample_N,) = encode(coder_of(name), [(target_N, scales_N)])
        assert abs(sample_N[4] / UNIT - target_N[4]) < 5


@quick
@given(st.integers(1, 110), st.floats(-300, 300))
def test_no_level_is_better_than_the_chosen(scale, e) -> None:
    made = ecsq.quantiser(Tables.default())
    scale_M = np.array([scale], np.int32)
    (level,) = ecsq.choose(
        np.array([e]), scale_M, made.spacing_S, made.shift_S, made.point_SA, made.book.bits
    )

    def loss(n: int) -> float:
        value = ecsq.values(np.array([n]), scale_M, made)[0] / UNIT
        cost = levels.level_bits(made.book.bits[scale], n, int(made.shift_S[scale]))
        return 0.5 * (value - e) ** 2 + np.log(2) * cost

    least = loss(int(level))
    assert all(least <= loss(int(level) + off) + 1e-9 for off in (-1, 1))
    assert least <= loss(0) + 1e-9


def test_a_density_is_used_wherever_the_tables_have_one() -> None:
    default = Tables.default()
    density = default.arrays["density"].astype(np.int64).copy()
    narrow = design.observation(default, 20)
    density[20] = density[40]  # Gaussian, where the stand-in has heavy tails
    made = design.observation(Tables.with_prior(density=density), 20)
    assert (made.e_G**2 * made.p_G).sum() == pytest.approx(1 + SIGMA[20] ** 2, rel=0.01)
    assert (made.e_G**4 * made.p_G).sum() < (narrow.e_G**4 * narrow.p_G).sum()
    table_SQ = quantiles(default)
    assert (table_SQ == -table_SQ[:, ::-1]).all()
    assert (table_SQ[60] / UNIT).std() == pytest.approx(SIGMA[60], rel=0.01)


# -- the machines and the stack


def test_four_states_are_those_of_the_standard() -> None:
    packed = 32040  # as ITU-T H.266 writes it: two bits for each state and parity
    assert DEPENDENT[4] == tuple(tuple((packed >> (4 * s + 2 * p)) & 3 for p in (0, 1)) for s in range(4))
    assert machine(4).quantiser_S.tolist() == [0, 0, 1, 1]


def test_eight_states_are_those_of_its_extension() -> None:
    to = machine(8).next_SP
    assert to.tolist() == [[0, 2], [5, 7], [1, 3], [6, 4], [2, 0], [4, 6], [3, 1], [7, 5]]
    assert machine(8).quantiser_S.tolist() == [0, 1] * 4


@pytest.mark.parametrize("states", [4, 8, *CHECKS])
def test_every_state_has_two_ways_in_and_two_ways_out(states) -> None:
    made = machine(states)
    assert np.bincount(made.next_SP.ravel(), minlength=states).tolist() == [2] * states
    for state in range(states):
        for way in range(2):
            assert made.next_SP[made.before_SP[state, way], made.parity_SP[state, way]] == state
    assert made.quantiser_S.sum() == states // 2


@pytest.mark.parametrize("states", list(CHECKS))
def test_systematic_machines_keep_their_parity_checks(states) -> None:
    made, memory = machine(states), states.bit_length() - 1
    parities = np.random.default_rng(0).integers(0, 2, 60)
    state, halves = 0, []
    for parity in parities:
        halves.append(int(made.quantiser_S[state]))
        state = made.next_SP[state, parity]
    for n in range(memory, 60):
        total = 0
        for i in range(memory + 1):
            total += (CHECKS[states][0] >> i & 1) * halves[n - i]
            total += (CHECKS[states][1] >> i & 1) * int(parities[n - i])
        assert total % 2 == 0


def test_a_machine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="12 states"):
        machine(12)


@quick
@given(st.integers(0, 2**32), st.integers(0, 200))
def test_the_stack_reads_the_words_of_the_format_s_encoder(seed, count) -> None:
    generator = np.random.default_rng(seed)
    book = Book(levels.integer_rows(generator.dirichlet(np.full(20, 0.2), 3)))
    assert (book.rows.sum(1) == ans.TOTAL - 20).all()
    numbers = generator.integers(0, 3, count).astype(np.int32)
    symbols = generator.integers(0, 20, count).astype(np.int32)
    encoder = ans.Encoder()
    encoder.push(symbols, numbers, book.rows)
    data = encoder.finish()
    stack = Stack(data)
    assert stack.pop(numbers, book).tolist() == symbols.tolist()
    stack.finish()
    if data:
        with pytest.raises(CorruptStream):
            Stack(data).finish()


@quick
@given(st.lists(st.tuples(st.integers(-(2**24), 2**24), st.integers(0, 12)), max_size=40))
def test_levels_come_back(pairs) -> None:
    level_N, shift_N = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    symbol_N, extra = levels.write_levels(level_N, shift_N)
    source = bits.BitReader(bits.pack(extra))
    low_N = levels.read_low(source, shift_N)
    assert levels.join_levels(symbol_N, low_N, shift_N, source).tolist() == level_N.tolist()
    source.finish()


@quick
@given(st.integers(1, 1 << 16))
def test_candidates_numbers_come_back(number) -> None:
    symbol_B, width_B = pfr.symbols_of(np.array([number]))
    first, width = pfr.ranges()
    assert width[symbol_B[0]] == width_B[0]
    assert first[symbol_B[0]] <= number < first[symbol_B[0]] + (1 << width_B[0])
    assert (first[symbol_B[0]] & ((1 << width_B[0]) - 1)) == 0
