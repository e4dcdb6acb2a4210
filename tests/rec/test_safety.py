"""What is scored is what is decoded; no size, no input and no order of calls makes a coder crash or lie.

Legend: N dimensions of a section, C scalar ones, D lattice ones, T trellis steps, L bits of a trellis state, K symbols
of a row, Q codewords.

The prior is never narrower than the posterior: base.py's channel gives a posterior variance of v / (1 + v) < v, so a
target and a scale index can't express one, and there is nothing to test.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from compliance import channel, decode, encode, same
from safety_helpers import NAMES, fast, scales_of

from recbatch.errors import InvalidPosterior
from recbatch.rec import bits, noise
from recbatch.rec.base import SCALES
from recbatch.rec.coders import symbols, trellis
from recbatch.rec.coders.irec import BLOCK as IREC_BLOCK
from recbatch.rec.coders.irec import irec_tables
from recbatch.rec.coders.score import nats, scores
from recbatch.rec.coders.trellis import BLOCK, ForeignWriter, Trellis
from recbatch.rec.kernels.irec_search import cpu as irec_cpu
from recbatch.rec.kernels.irec_search.reference import replay_reference
from recbatch.rec.kernels.rows.cpu import UNITS_PER_NOISE, escape_nats, place_of
from recbatch.rec.kernels.viterbi.cpu import codes_of_bits
from recbatch.rec.kernels.viterbi.reference import codes_reference
from recbatch.rec.plan import WINDOW, make_plan
from recbatch.rec.tables import COLUMNS, FORMAT, GROUP, NARROW, OWN, SCALAR, WIDE, Tables, columns

every_coder = pytest.mark.parametrize("name", NAMES)
long_form = pytest.param(1_000_000, marks=pytest.mark.long)
NONE_C = np.zeros(0, np.int32)
PLACES = np.array([place_of(code) for code in range(256)])


def tables_named(which):
    """The shipped tables, or another prior: sparse, as a model may bring one."""
    if which == "shipped":
        return Tables.default()
    density = Tables.default().arrays["density"].astype(np.int64)
    return Tables.with_prior(density=np.where(np.arange(FORMAT["density"][1][1]) < 16, density, density // 9))


# -- the trellis: the sample that is scored is the sample that is decoded


@pytest.mark.parametrize("which", ["shipped", "sparse"])
def test_every_codeword_is_scored_at_the_value_and_price_the_decoder_gives_it(which):
    """Exhaustive over scale index, place in the step and codeword."""
    tables = tables_named(which)
    search, _ = scores(tables)
    for k in np.flatnonzero(tables.kind_S >= GROUP):
        members = COLUMNS if tables.kind_S[k] == GROUP else 1
        size = 256 * members
        scale_N, lattice_D = np.full(size, k, np.uint8), np.arange(size, dtype=np.int32)
        starts_T1 = np.arange(0, size + 1, members, dtype=np.int32)
        narrow, wide, widths, offset_D = symbols.row_numbers(
            scale_N, NONE_C, lattice_D, starts_T1, np.arange(256, dtype=np.uint8), columns(), tables.first_row_S,
            tables.wide_S, tables.shift_S,
        )  # fmt: skip
        is_wide = bool(tables.wide_S[k])
        assert (widths == tables.shift_S[k]).all()
        assert (narrow.size, wide.size) == ((0, size) if is_wide else (size, 0))
        slots = search.slot_S[k] + np.arange(members)
        offsets_XC, nats_XKC = (
            (search.wide_offsets_XC, search.wide_nats_XKC)
            if is_wide
            else (search.narrow_offsets_XC, search.narrow_nats_XKC)
        )
        scored = offsets_XC[slots][:, PLACES].T.reshape(-1)
        prices = nats_XKC[slots][:, :, PLACES]
        rows_DK = tables.wide_rows[wide] if is_wide else tables.narrow_rows[narrow]
        # [members, K, codes] -> a row for each dimension, as the decoder reads them
        assert np.array_equal(prices.transpose(2, 0, 1).reshape(size, -1), nats(rows_DK).astype(np.float32))
        sign_D = (np.arange(size) % 3 == 0).astype(np.uint8)
        for integer in (0, 1, -1, 7, -8, 40, -4000, 1 << 20):
            integer_D = np.full(size, integer, np.int64)
            out, fits = symbols.samples(
                NONE_C.astype(np.int64), integer_D, scale_N, NONE_C, lattice_D, offset_D, sign_D, tables.centroid_SA,
                tables.delta_S, tables.offsets_SQ,
            )  # fmt: skip
            assert fits
            value = np.rint((scored.astype(np.float64) + search.step_S[k] * integer) * (64 / UNITS_PER_NOISE))
            assert np.array_equal(out, np.where(sign_D > 0, -value, value))


@pytest.mark.parametrize("which", ["shipped", "sparse"])
def test_every_scalar_symbol_is_scored_at_the_value_and_price_the_decoder_gives_it(which):
    tables = tables_named(which)
    _, scalar = scores(tables)
    last = NARROW // 2 - 1
    for k in np.flatnonzero(tables.kind_S == SCALAR):
        integer_C = np.arange(-30, 31)
        one_N, all_C = np.full(61, k, np.uint8), np.arange(61, dtype=np.int32)
        out, fits = symbols.samples(
            integer_C, np.zeros(0, np.int64), one_N, all_C, NONE_C, NONE_C, np.zeros(0, np.uint8), tables.centroid_SA,
            tables.delta_S, tables.offsets_SQ,
        )  # fmt: skip
        assert fits
        size_C = np.abs(integer_C)
        value = np.where(
            size_C <= last, scalar.value_SA[k, np.minimum(size_C, last)], size_C * scalar.step_S[k]
        )
        assert np.array_equal(out, np.sign(integer_C) * value * 64)
        row_K = nats(tables.narrow_rows[tables.first_row_S[k]][None])[0]
        assert np.array_equal(row_K[last : 2 * last + 1], scalar.nats_SA[k, : last + 1])
        assert np.array_equal(row_K[last::-1], scalar.nats_SA[k, : last + 1])  # both signs cost the same
        assert row_K[-1] == scalar.nats_SA[k, last + 1]


def test_an_escape_costs_what_its_code_is_long():
    tables = Tables.default()
    for k, row in ((44, NARROW), (100, WIDE)):
        assert bool(tables.wide_S[k]) == (row == WIDE)
        half, shift = row // 2 - 1, int(tables.shift_S[k])
        cells = [half + 1, -half - 1, half + 2, 100, -101, 5000, -70_000]
        for cell in cells:
            narrow, wide, _, escapes = symbols.split_integers(
                NONE_C, np.array([cell << shift], np.int32), np.array([k], np.uint8), np.zeros(1, np.int32),
                tables.wide_S, tables.shift_S, int(row == NARROW),
            )  # fmt: skip
            assert [*narrow, *wide] == [row - 1]
            assert escape_nats(cell, half) == pytest.approx(np.log(2) * bits.gammas(escapes).size)


def states_of(bit_T, width):
    """The states of a block, from the page: a window of ``width`` bits, around the end or from zeros."""
    before = bit_T[-width:] if bit_T.size >= width else np.zeros(width, np.uint8)
    around = np.concatenate([before, bit_T]).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(around[1:], width)
    return windows @ (1 << np.arange(width - 1, -1, -1))


@pytest.mark.parametrize("triples", [10_000, long_form])
def test_seed_section_and_path_name_the_same_codewords_to_decoder_and_reference(triples):
    generator = np.random.default_rng(triples)
    blocks = 100
    for n in range(triples // blocks):
        width = 9 + n % 8
        size = int(generator.integers(1, 40)) * blocks
        plan = make_plan(np.full(size, 60, np.uint8), Tables.default())  # a step for each dimension
        draws = trellis._Draws(int(generator.integers(2**63)), n % 7, plan, width)
        bit_T = generator.integers(0, 2, size).astype(np.uint8)
        cuts = np.unique(np.r_[0, generator.integers(0, size, blocks - 1), size])
        found, want = np.zeros(size, np.uint8), np.zeros(size, np.int64)
        for first, last in itertools.pairwise(cuts):
            codes_of_bits(bit_T, first, last, draws.map_G, draws.rotation_T, width, found)
            want[first:last] = states_of(bit_T[first:last], width)
        want = codes_reference(want, draws.map_G.astype(np.int64), draws.rotation_T.astype(np.int64), width)
        assert np.array_equal(found, want)


def random_section(generator, coder, seed, number, size):
    """A section of random bits and integers, in the writer's own parts, and the samples that they mean."""
    tables = coder.tables
    scale_N = generator.integers(0, SCALES, size).astype(np.uint8)
    scale_N[generator.random(size) < 0.5] %= 50  # or there would be few groups and scalars
    plan = make_plan(scale_N, tables)
    draws = trellis._Draws(seed, number, plan, coder.bits)
    bit_T = generator.integers(0, 2, plan.steps).astype(np.uint8)
    state_T = np.zeros(plan.steps, np.int64)
    for first, last in trellis._blocks(plan.steps):
        state_T[first:last] = states_of(bit_T[first:last], coder.bits)
    code_T = codes_reference(
        state_T, draws.map_G.astype(np.int64), draws.rotation_T.astype(np.int64), coder.bits
    )
    reach = generator.choice([1, 8, 300, 100_000], size)
    most_N = (1 << 31) // np.maximum(tables.delta_S[scale_N], 1) - 2
    integer_N = np.clip(generator.integers(-reach, reach + 1), -most_N, most_N)
    edge = generator.random(size) < 0.02
    integer_N[edge] = most_N[edge] * generator.choice([-1, 1], size)[edge]
    integer_C, integer_D = (integer_N[part].astype(np.int32) for part in (plan.scalar_C, plan.lattice_D))

    narrow_rows, wide_rows, widths, _ = symbols.row_numbers(
        scale_N, plan.scalar_C, plan.lattice_D, plan.starts_T1, code_T.astype(np.uint8), columns(), tables.first_row_S,
        tables.wide_S, tables.shift_S,
    )  # fmt: skip
    narrow, wide, low, escapes = symbols.split_integers(
        integer_C, integer_D, scale_N, plan.lattice_D, tables.wide_S, tables.shift_S, narrow_rows.size
    )
    section = trellis._Section(
        steps=bit_T,
        extra=np.concatenate([bits.fixed(low, widths), bits.gammas(escapes)]),
        narrow=narrow,
        narrow_rows=narrow_rows,
        wide=wide,
        wide_rows=wide_rows,
    )
    want_N = np.zeros(size, np.int64)
    k_C, k_D = scale_N[plan.scalar_C], scale_N[plan.lattice_D]
    size_C = np.abs(integer_C).astype(np.int64)
    value_C = np.where(
        size_C < 8, tables.centroid_SA[k_C, np.minimum(size_C, 7)], size_C * tables.delta_S[k_C]
    )
    want_N[plan.scalar_C] = np.sign(integer_C) * value_C
    step_D = np.repeat(np.arange(plan.steps), np.diff(plan.starts_T1))
    offset_D = columns()[np.arange(k_D.size) - plan.starts_T1[step_D], code_T[step_D]]
    value_D = tables.offsets_SQ[k_D, offset_D] + tables.delta_S[k_D] * integer_D
    want_N[plan.lattice_D] = np.where(draws.sign_D > 0, -value_D, value_D)
    return scale_N, section, want_N


@pytest.mark.parametrize("sections", [300, pytest.param(20_000, marks=pytest.mark.long)])
def test_random_paths_and_integers_decode_to_the_samples_they_name(sections):
    generator = np.random.default_rng(sections)
    for n in range(sections // 5):
        coder = Trellis(bits=9 + n % 8)
        seed = int(generator.integers(2**63))
        writer = coder.writer(seed=seed)
        assert isinstance(writer, trellis.TrellisWriter)
        sizes = generator.choice([1, 2, 8, 30, 200], 5)
        parts = [random_section(generator, coder, seed, number, size) for number, size in enumerate(sizes)]
        for _, section, _ in parts:
            writer.add(section)
        found = decode(coder, writer.finish(), [scale_N for scale_N, _, _ in parts], seed)
        assert same(found, [want_N for _, _, want_N in parts])


def test_a_step_has_at_most_five_dimensions_and_a_wide_one_is_alone():
    """What the kernels' look-ups in ``columns`` and in the score tables rest on."""
    tables = Tables.default()
    generator = np.random.default_rng(0)
    for size in (0, 1, 9, 500, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW + 7):
        for low, high in ((0, 151), (28, 43), (28, 45), (1, 30)):
            scale_N = generator.integers(low, high, size).astype(np.uint8)
            plan = make_plan(scale_N, tables)
            order = np.concatenate([plan.scalar_C, plan.lattice_D])
            assert np.array_equal(np.sort(order), np.flatnonzero(scale_N))
            members_T = np.diff(plan.starts_T1)
            assert ((members_T >= 1) & (members_T <= COLUMNS)).all()
            alone_D = np.repeat(members_T == 1, members_T)
            assert alone_D[tables.kind_S[scale_N[plan.lattice_D]] == OWN].all()


@pytest.mark.parametrize("fill", [0, 1, (1 << 32) - 1])
def test_any_prior_that_a_model_may_bring_codes_every_scale(fill):
    """Empty, flat and full to the brim; the values of scalar symbols without any order."""
    centroid = np.random.default_rng(fill).integers(0, 1 << 15, FORMAT["centroid"][1])
    centroid[:, 0] = 0
    given = {name: np.full(FORMAT[name][1], fill, np.int64) for name in ("density", "mass")}
    coder = Trellis(bits=9, tables=Tables.with_prior(**given, centroid=centroid))
    scale_N = np.tile(np.arange(SCALES, dtype=np.uint8), 4)
    target_N = channel(scale_N, np.random.default_rng(1))
    target_N[::9] *= 1e6
    payload, samples = encode(coder, [(target_N, scale_N)])
    assert same(decode(coder, payload, [scale_N]), samples)


# -- iREC: the same


@pytest.mark.parametrize("triples", [10_000, long_form])
def test_key_block_and_path_name_the_same_noise_to_search_decoder_and_reference(triples):
    generator = np.random.default_rng(triples)
    tables = irec_tables()
    keys = generator.integers(0, 2**64, (triples, 2), np.uint64)
    for n in range(triples):
        size, steps = (int(i) for i in generator.integers(1, 4, 2))
        candidates, beams = int(generator.integers(2, 9)), int(generator.integers(1, 4))
        if n % 500 == 0:  # now and then more than a word of signs, and a walk of many steps
            size, steps, candidates = 130, 40, 256
        variance_D = np.exp(-3 * generator.random(size))
        mean_D = 2 * generator.standard_normal(size)
        indices_T, noise_D = np.full(steps, -1, np.int32), np.full(size, -1, np.int64)
        irec_cpu.search_block(
            mean_D, variance_D, keys[n, 0], keys[n, 1], candidates, beams, tables.normal, tables.ratio, indices_T,
            noise_D,
        )  # fmt: skip
        assert 0 <= indices_T.min() <= indices_T.max() < candidates
        replayed_D = np.full(size, -1, np.int64)
        irec_cpu.replay_block(keys[n, 0], keys[n, 1], tables.normal, tables.ratio, indices_T, replayed_D)
        assert np.array_equal(noise_D, replayed_D)
        if n % 8 == 0:  # the reference takes its time
            draw_key, path = (int(key) for key in keys[n])
            named_D = replay_reference(indices_T.tolist(), size, draw_key, path, tables.normal, tables.ratio)
            assert np.array_equal(noise_D, named_D)


@every_coder
def test_hundreds_of_sections_and_any_seed_come_back(name):
    coder = fast(name)
    for seed in (0, 1, 2**32, 2**63, 2**64 - 1):
        generator = np.random.default_rng(seed)
        scales = [
            scales_of(int(size), seed % 1000 + n) for n, size in enumerate(generator.integers(0, 7, 120))
        ]
        payload, samples = encode(coder, [(channel(s, generator), s) for s in scales], seed)
        assert same(decode(coder, payload, scales, seed), samples)


# -- sizes

HALF = BLOCK // 2
AROUND = (BLOCK - 1, BLOCK, BLOCK + 1, 3 * HALF - 1, 3 * HALF, 4 * HALF, 5 * HALF, 5 * HALF + 1)


@pytest.mark.parametrize("steps", [0, 1, 8, *AROUND, 2**31 - 1, 2**31, 2**32 + 1, 10**13])
def test_blocks_cover_the_steps_once_and_are_even(steps):
    """Python's integers: no number of steps overflows. A block is searched with int32 memory of its own length only."""
    if steps > 10**7:  # too many blocks to list: the first, some in the middle, the last
        count = (2 * steps + BLOCK) // (2 * BLOCK)
        cuts = [(steps * n // count, steps * (n + 1) // count) for n in (0, 1, count // 2, count - 1)]
        assert cuts[0][1] == cuts[1][0]
        assert cuts[-1][1] == steps
    else:
        cuts = trellis._blocks(steps)
        assert [cut[0] for cut in cuts] == [0, *(cut[1] for cut in cuts)][: len(cuts)]
        assert sum(last - first for first, last in cuts) == steps
    lengths = {last - first for first, last in cuts}
    assert not lengths or max(lengths) - min(lengths) <= 1
    if steps >= BLOCK:
        assert 2 * BLOCK // 3 <= min(lengths) <= max(lengths) < 3 * BLOCK // 2


# a step for each dimension, at the sizes where the trellis cuts; for all coders dimensions of small rate
LENGTHS = [(name, 2, (IREC_BLOCK - 1, IREC_BLOCK, IREC_BLOCK + 1, WINDOW, WINDOW + 1)) for name in NAMES]


@pytest.mark.parametrize(("name", "scale", "sizes"), [("trellis", 50, AROUND), *LENGTHS])
def test_sections_as_long_as_a_block_or_a_window_come_back(name, scale, sizes):
    coder = fast(name)
    scales = [np.full(size, scale, np.uint8) for size in sizes]
    generator = np.random.default_rng(scale)
    payload, samples = encode(coder, [(channel(scale_N, generator), scale_N) for scale_N in scales])
    assert same(decode(coder, payload, scales), samples)


@every_coder
@pytest.mark.parametrize("size", [(1 << 16) + 4321, pytest.param(20_000_003, marks=pytest.mark.long)])
def test_sections_of_many_dimensions_come_back(name, size):
    coder, generator = fast(name), np.random.default_rng(size)
    scale_N = (generator.integers(0, 30, size, np.uint8) == 0).astype(np.uint8) * np.uint8(12)
    scale_N[-400:] = 50  # the last dimensions are among those that are coded
    target_N = generator.standard_normal(size, np.float32)
    target_N[-400:] = channel(scale_N[-400:], generator)
    payload, samples = encode(coder, [(target_N, scale_N)])
    assert same(decode(coder, payload, [scale_N]), samples)
    assert np.count_nonzero(samples[0][-400:]) > 300


@pytest.mark.long
def test_twenty_million_trellis_steps_come_back():
    generator = np.random.default_rng(7)
    scale_N = np.full(20_000_003, 50, np.uint8)
    target_N = 4 * generator.standard_normal(scale_N.size, np.float32)
    payload, samples = encode(Trellis(bits=9), [(target_N, scale_N)])
    assert same(decode(Trellis(bits=9), payload, [scale_N]), samples)


@pytest.mark.long
def test_bit_offsets_beyond_two_to_the_31_are_read_where_they_are():
    """Zero pages cost no memory; what is written there is not tested at this size, the counters are the same int64."""
    far = (1 << 31) + 5
    bit_string = np.zeros(far + 80, np.uint8)
    bit_string[far : far + 20] = 1
    widths = np.array([far, 21], np.int64)
    assert bits.parse_fixed(bit_string[: far + 21], widths).tolist() == [0, (1 << 21) - 2]
    reader = bits.BitReader(b"")
    reader._bits = bit_string
    assert not reader.take(far).any()
    assert reader.take_gammas(20).tolist() == [1] * 20
    assert (reader.position, reader.left) == (far + 20, 60)


@pytest.mark.parametrize("index", [0, 2**31 - 1, 2**31, 2**32 + 3, 2**62])
def test_words_far_out_are_the_same_in_kernels(index):
    draw_key = noise.key(2**64 - 1, 2**32, noise.SIGN)
    far = noise.words(2**64 - 1, 2**32, np.array([index]), purpose=noise.SIGN)
    assert int(far[0]) == int(noise.word(draw_key, index))


# -- order of calls


@every_coder
def test_order_company_and_repetition_leave_no_trace(name):
    coder = fast(name)
    scales = [scales_of(size, size) for size in (200, 0, 3, 70)]
    parts = [(channel(s, np.random.default_rng(n)), s) for n, s in enumerate(scales)]
    alone = [encode(coder, [part], seed=n)[0] for n, part in enumerate(parts)]
    assert [encode(fast(name), [part], seed=n)[0] for n, part in enumerate(parts)] == alone
    for order in ((3, 2, 1, 0), (1, 3, 0, 2)):
        writers = [coder.writer(seed=n) for n in order]
        coder.encode(writers, [parts[n][0] for n in order], [parts[n][1] for n in order])
        assert [writer.finish() for writer in writers] == [alone[n] for n in order]
        assert [writer.finish() for writer in writers] == [alone[n] for n in order]  # asked again


@every_coder
def test_a_writer_that_comes_twice_in_a_batch_gets_two_sections(name):
    coder = fast(name)
    scales = [scales_of(60, 1), scales_of(60, 2)]
    targets = [channel(scale_N, np.random.default_rng(3)) for scale_N in scales]
    writer = coder.writer()
    samples = coder.encode([writer, writer], targets, scales)
    payload = writer.finish()
    assert payload == encode(coder, list(zip(targets, scales, strict=True)))[0]
    assert same(decode(coder, payload, scales), samples)


@every_coder
def test_one_bad_section_leaves_all_writers_of_the_batch_as_they_were(name):
    coder = fast(name)
    scale_N = scales_of(50, 4)
    target_N = channel(scale_N, np.random.default_rng(4))
    want = encode(coder, [(target_N, scale_N)])[0]
    writers = [coder.writer(), coder.writer()]
    for bad in (target_N[1:], np.full(50, np.nan, np.float32)):
        with pytest.raises(InvalidPosterior):
            coder.encode(writers, [target_N, bad], [scale_N, scale_N])
    with pytest.raises(InvalidPosterior):
        coder.encode(writers, [target_N], [scale_N])
    coder.encode(writers, [target_N] * 2, [scale_N] * 2)
    assert [writer.finish() for writer in writers] == [want] * 2
    assert coder.encode([], [], []) == []


@every_coder
def test_writers_of_others_and_finished_ones_are_refused(name):
    coder = fast(name)
    part = [np.ones(3, np.float32)], [np.full(3, 50, np.uint8)]
    finished = coder.writer()
    finished.finish()
    for writer in (
        finished,
        None,
        object(),
        coder.reader(b""),
        *(fast(n).writer() for n in NAMES if n != name),
    ):
        with pytest.raises(ForeignWriter):
            coder.encode([writer], *part)
