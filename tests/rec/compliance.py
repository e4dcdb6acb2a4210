"""What every coder must do. Subclass ``Compliance`` in a test file, set its fields, and inherit the tests.

    class TestTrellis(Compliance):
        golden = "trellis"
        excess_limit, eq_limit = 0.06, 0.06

        def coder(self) -> Coder:
            return Trellis(bits=10)

Golden files hold payloads and the samples they mean; ``make_golden.py`` wrote them once, and a test that misses its
file fails.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbatch.errors import CorruptStream, InvalidPosterior
from recbatch.rec import coder as coder_of
from recbatch.rec.base import SCALES, UNIT, Coder, Samples, Scales, Targets
from recbatch.rec.tables import sigma
from recbatch.rec.yardstick import measure

GOLDEN = Path(__file__).parents[1] / "golden" / "rec"
SIGMA = np.array([sigma(k) for k in range(SCALES)])
Section = tuple[Targets, Scales]

quick = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)


def channel(scales_N: Scales, generator: np.random.Generator) -> Targets:
    """Targets as the model promises them: e ~ N(0, 1 + sigma^2)."""
    return (np.sqrt(1 + SIGMA[scales_N] ** 2) * generator.standard_normal(scales_N.size)).astype(np.float32)


@st.composite
def sections(draw: st.DrawFn) -> Section:
    """Awkward sizes, few and many scales, zeros, and now and then targets that no prior expects."""
    size = draw(st.sampled_from([0, 1, 2, 7, 8, 9, 31, 63, 100, 257]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    low = draw(st.integers(0, SCALES - 1))
    high = draw(st.integers(low, SCALES - 1))
    scales_N = generator.integers(low, high + 1, size).astype(np.uint8)
    scales_N[generator.random(size) < draw(st.sampled_from([0.0, 0.5, 1.0]))] = 0
    target_N = channel(scales_N, generator)
    wild = generator.random(size) < draw(st.sampled_from([0.0, 0.0, 0.2]))
    target_N[wild] *= np.float32(10.0) ** draw(st.integers(1, 7))
    return target_N, scales_N


def encode(coder: Coder, parts: list[Section], seed: int = 0) -> tuple[bytes, list[Samples]]:
    writer = coder.writer(seed=seed)
    samples = [coder.encode([writer], [target_N], [scales_N])[0] for target_N, scales_N in parts]
    return writer.finish(), samples


def decode(coder: Coder, payload: bytes, scales: list[Scales], seed: int = 0) -> list[Samples]:
    reader = coder.reader(payload, seed=seed)
    out = [reader.decode(scales_N) for scales_N in scales]
    reader.finish()
    return out


def same(one: list[Samples], other: list[Samples]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)


class Compliance:
    golden: ClassVar[str]  # name of the golden file
    excess_limit: ClassVar[float]  # on the mix of rates below, 3000 dimensions
    eq_limit: ClassVar[float]
    variance: ClassVar[tuple[float, float]] = (0.85, 1.2)  # of (z - posterior mean) / posterior deviation
    side_limit: ClassVar[int] = 64  # bits of a payload that are neither index nor symbols
    small: ClassVar[int] = 300  # dimensions in the tests of damage: slow coders take fewer
    law_scales: ClassVar[tuple[int, ...]] = (34, 44, 60)
    law_size: ClassVar[int] = 3000

    def coder(self) -> Coder:
        raise NotImplementedError

    def mixed(self, size: int, seed: int = 1) -> Section:
        """Rates from nothing to 4 bits, as in a picture."""
        generator = np.random.default_rng(seed)
        scales_N = np.minimum(generator.exponential(25, size), 65).astype(np.uint8)
        return channel(scales_N, generator), scales_N

    # -- the contract

    def test_number_and_parameters_name_the_coder(self):
        coder = self.coder()
        again = coder_of(coder.number, coder.parameters)
        assert type(again) is type(coder)
        assert again.parameters == coder.parameters
        assert coder_of(coder.name, coder.parameters).number == coder.number
        assert len(coder.parameters) <= 8

    @quick
    @given(parts=st.lists(sections(), max_size=3), seed=st.integers(0, 2**64 - 1))
    def test_a_reader_gives_what_the_encoder_promised(self, parts, seed):
        payload, samples = encode(self.coder(), parts, seed)
        assert same(decode(self.coder(), payload, [scales_N for _, scales_N in parts], seed), samples)
        for sample_N, (_, scales_N) in zip(samples, parts, strict=True):
            assert sample_N.dtype == np.int32
            assert not sample_N[scales_N == 0].any()

    def test_bits_account_for_the_whole_payload(self):
        coder = self.coder()
        writer = coder.writer()
        coder.encode([writer], [self.mixed(500)[0]], [self.mixed(500)[1]])
        payload = writer.finish()
        bits = writer.bits
        assert bits.index + bits.symbols + bits.side == 8 * len(payload)
        assert 0 <= bits.side <= self.side_limit

    def test_nothing_coded_is_nothing_sent(self):
        payload, _ = encode(self.coder(), [(np.ones(50, np.float32), np.zeros(50, np.uint8))])
        assert len(payload) <= 1

    def test_batch_and_threads_leave_no_trace(self):
        coder = self.coder()
        parts = [self.mixed(size, seed=size) for size in (self.small, 1, 5 * self.small)]
        alone = [encode(coder, [part], seed=3) for part in parts]
        for count in (1, 2):
            writers = [coder.writer(seed=3) for _ in parts]
            with threads(count):
                together = coder.encode(writers, [part[0] for part in parts], [part[1] for part in parts])
            assert same(together, [samples[0] for _, samples in alone])
            assert [writer.finish() for writer in writers] == [payload for payload, _ in alone]

    def test_seed_and_section_change_the_samples(self):
        part = self.mixed(self.small)
        _, samples = encode(self.coder(), [part, part])
        assert not same(samples[:1], samples[1:])
        assert not same(encode(self.coder(), [part], seed=1)[1], samples[:1])

    # -- the law

    def test_samples_have_the_posteriors_and_the_priors_moments(self):
        for scale in self.law_scales:
            generator = np.random.default_rng(scale)
            scales_N = np.full(self.law_size, scale, np.uint8)
            target_N = channel(scales_N, generator)
            _, (sample_N,) = encode(self.coder(), [(target_N, scales_N)])
            z, v = sample_N / UNIT, SIGMA[scale] ** 2
            error = (z - v / (1 + v) * target_N) / np.sqrt(v / (1 + v))
            noise = 5 / np.sqrt(self.law_size)
            assert abs(error.mean()) < noise
            assert self.variance[0] < error.var() < self.variance[1]
            assert abs(z.mean()) / SIGMA[scale] < noise
            assert z.var() / v == pytest.approx(1, abs=0.12 + 2 * noise)
            assert ((z / SIGMA[scale]) ** 4).mean() / (z.var() / v) ** 2 == pytest.approx(3, abs=0.7)

    def test_overhead_is_within_its_limit(self):
        target_N, scales_N = self.mixed(3000)
        payload, (sample_N,) = encode(self.coder(), [(target_N, scales_N)])
        found = measure(target_N, scales_N, sample_N, 8 * len(payload))
        assert found.excess < self.excess_limit
        assert found.eq < self.eq_limit

    def test_a_wild_target_is_still_reached(self):
        for scale in (3, 24, 34, 60, 150):
            target_N, scales_N = np.zeros(20, np.float32), np.full(20, scale, np.uint8)
            target_N[7] = 30 * (1 + SIGMA[scale])
            payload, samples = encode(self.coder(), [(target_N, scales_N)])
            assert same(decode(self.coder(), payload, [scales_N]), samples)
            assert abs(samples[0][7] / UNIT - target_N[7]) < 0.8 * target_N[7]

    # -- refusals

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_is_refused(self, bad):
        target_N, scales_N = self.mixed(20)
        scales_N[3], target_N[3] = 40, bad
        with pytest.raises(InvalidPosterior):
            encode(self.coder(), [(target_N, scales_N)])

    def test_wrong_shapes_types_and_scales_are_refused(self):
        target_N, scales_N = self.mixed(20)
        for bad in (
            (target_N[:-1], scales_N),
            (target_N.astype(np.float64), scales_N),
            (target_N, scales_N.astype(np.int64)),
            (target_N[None], scales_N[None]),
            (target_N, np.full(20, SCALES, np.uint8)),
        ):
            with pytest.raises(InvalidPosterior):
                encode(self.coder(), [bad])

    def test_a_refused_section_leaves_the_writer_usable(self):
        target_N, scales_N = self.mixed(50)
        coder = self.coder()
        writer = coder.writer()
        with pytest.raises(InvalidPosterior):
            coder.encode([writer], [target_N[:-1]], [scales_N])
        samples = coder.encode([writer], [target_N], [scales_N])
        assert same(decode(coder, writer.finish(), [scales_N]), samples)

    # -- damage

    def noticed(self, payload: bytes, scales_N: Scales, samples: list[Samples]) -> bool:
        try:
            return not same(decode(self.coder(), payload, [scales_N]), samples)
        except CorruptStream:
            return True

    def test_every_truncation_is_noticed(self):
        target_N, scales_N = self.mixed(self.small)
        payload, samples = encode(self.coder(), [(target_N, scales_N)])
        for length in sorted({*range(min(12, len(payload))), *range(0, len(payload), 7), len(payload) - 1}):
            assert self.noticed(payload[:length], scales_N, samples)
        assert self.noticed(payload + b"\0", scales_N, samples)
        assert self.noticed(payload + b"\1", scales_N, samples)

    def test_every_flipped_bit_is_noticed(self):
        target_N, scales_N = self.mixed(self.small)
        payload, samples = encode(self.coder(), [(target_N, scales_N)])
        for bit in range(0, 8 * len(payload), 1 + len(payload) // 25):
            damaged = bytearray(payload)
            damaged[bit // 8] ^= 1 << bit % 8
            assert self.noticed(bytes(damaged), scales_N, samples)

    @quick
    @given(payload=st.binary(max_size=300), part=sections())
    def test_any_bytes_give_samples_or_corrupt_stream(self, payload, part):
        scales_N = part[1]
        try:
            (sample_N,) = decode(self.coder(), payload, [scales_N])
        except CorruptStream:
            return
        assert sample_N.shape == scales_N.shape
        assert not sample_N[scales_N == 0].any()

    def test_a_section_left_over_or_missing_is_noticed(self):
        parts = [self.mixed(self.small, seed=n) for n in (1, 2)]
        payload, samples = encode(self.coder(), parts)
        reader = self.coder().reader(payload)
        assert np.array_equal(reader.decode(parts[0][1]), samples[0])
        with pytest.raises(CorruptStream):
            reader.finish()
        with pytest.raises(CorruptStream):
            decode(self.coder(), payload, [scales_N for _, scales_N in (*parts, parts[0])])

    # -- old streams

    def test_golden_payloads_decode_for_ever(self):
        cases = json.loads((GOLDEN / f"{self.golden}.json").read_text())
        assert cases
        for case in cases:
            coder = coder_of(case["number"], bytes.fromhex(case["parameters"]))
            scales = [np.array(scales_N, np.uint8) for scales_N in case["scales"]]
            found = decode(coder, bytes.fromhex(case["payload"]), scales, case["seed"])
            assert [sample_N.tolist() for sample_N in found] == case["samples"]

    def test_a_large_golden_payload_decodes_for_ever(self):
        case = json.loads((GOLDEN / f"large-{self.golden}.json").read_text())
        coder = coder_of(case["number"], bytes.fromhex(case["parameters"]))
        scales_N = np.frombuffer(bytes.fromhex(case["scales"]), np.uint8)
        (sample_N,) = decode(coder, bytes.fromhex(case["payload"]), [scales_N], case["seed"])
        assert hashlib.sha256(sample_N.astype("<i4").tobytes()).hexdigest() == case["samples_sha256"]


def golden_case(coder: Coder, seed: int, parts: list[Section]) -> dict[str, object]:
    """One entry of a golden file."""
    payload, samples = encode(coder, parts, seed)
    return {
        "number": coder.number,
        "parameters": coder.parameters.hex(),
        "seed": seed,
        "scales": [scales_N.tolist() for _, scales_N in parts],
        "payload": payload.hex(),
        "samples": [sample_N.tolist() for sample_N in samples],
    }


def large_case(coder: Coder, seed: int, target_N: Targets, scales_N: Scales) -> dict[str, object]:
    """A golden file of one large part: scales and payload in hexadecimal, a digest of the samples (int32)."""
    payload, (sample_N,) = encode(coder, [(target_N, scales_N)], seed)
    return {
        "number": coder.number,
        "parameters": coder.parameters.hex(),
        "seed": seed,
        "scales": scales_N.tobytes().hex(),
        "payload": payload.hex(),
        "samples_sha256": hashlib.sha256(sample_N.astype("<i4").tobytes()).hexdigest(),
    }
