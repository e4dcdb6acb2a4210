"""The mixed trellis, against the contract of every coder and against its own promises."""

from __future__ import annotations

import numpy as np
import pytest
from compliance import SIGMA, Compliance, channel, decode, encode, same

from recbatch.errors import CorruptStream
from recbatch.rec import coder as coder_of
from recbatch.rec.base import UNIT, Coder
from recbatch.rec.coders.registry import UnknownCoder
from recbatch.rec.coders.trellis import BLOCK, BadEffort, ForeignWriter, Trellis, _blocks
from recbatch.rec.tables import FORMAT, Tables
from recbatch.rec.yardstick import measure


class TestTrellis(Compliance):
    golden = "trellis"
    excess_limit, eq_limit = 0.055, 0.055

    def coder(self) -> Coder:
        return Trellis(bits=10)


def test_more_states_find_better_samples():
    scales_N = np.full(3000, 44, np.uint8)
    target_N = channel(scales_N, np.random.default_rng(0))
    excess = []
    for bits in (9, 13):
        payload, (sample_N,) = encode(Trellis(bits=bits), [(target_N, scales_N)])
        excess.append(measure(target_N, scales_N, sample_N, 8 * len(payload)).excess)
    assert excess[1] < excess[0] - 0.004


def test_every_effort_decodes():
    part = (np.ones(60, np.float32), np.full(60, 50, np.uint8))
    for effort in range(1, 10):
        coder = coder_of("trellis", effort=effort)
        payload, samples = encode(coder, [part])
        assert same(decode(coder_of(1, coder.parameters), payload, [part[1]]), samples)
    with pytest.raises(BadEffort):
        coder_of("trellis", effort=0)


def test_sections_longer_than_a_block():
    scales_N = np.full(2 * BLOCK + 100, 50, np.uint8)
    target_N = channel(scales_N, np.random.default_rng(3))
    payload, samples = encode(Trellis(bits=9), [(target_N, scales_N)])
    assert same(decode(Trellis(bits=9), payload, [scales_N]), samples)
    cuts = _blocks(scales_N.size)
    assert len(cuts) == 2
    assert cuts[0][0] == 0
    assert cuts[0][1] == cuts[1][0]
    assert cuts[1][1] == scales_N.size


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 10, 11, 20, 33])
def test_short_blocks_close_their_path(steps):
    scales_N = np.full(steps, 60, np.uint8)
    for seed in range(5):
        target_N = channel(scales_N, np.random.default_rng(seed))
        payload, samples = encode(Trellis(bits=10), [(target_N, scales_N)], seed)
        assert same(decode(Trellis(bits=10), payload, [scales_N], seed), samples)


def test_targets_at_the_edge_of_float32_saturate():
    scales_N = np.array([5, 30, 60, 100, 150] * 2, np.uint8)
    top = np.finfo(np.float32).max
    target_N = np.array([top] * 5 + [-top] * 5, np.float32)
    payload, samples = encode(Trellis(), [(target_N, scales_N)])
    assert same(decode(Trellis(), payload, [scales_N]), samples)
    assert (np.abs(samples[0]) > (1 << 23) * UNIT).all()
    assert (np.sign(samples[0]) == np.sign(target_N)).all()


def test_a_payload_spends_few_bytes_beside_its_information():
    scales_N = np.full(40, 60, np.uint8)
    target_N = channel(scales_N, np.random.default_rng(5))
    payload, _ = encode(Trellis(), [(target_N, scales_N)])
    information = 0.5 * np.log2(1 + SIGMA[60] ** 2) * 40
    assert 8 * len(payload) < information + 8 * 8


def test_another_prior_is_only_data():
    shipped = Tables.default()
    sparse = np.where(np.arange(FORMAT["density"][1][1]) < 16, 4, 1) * (
        shipped.arrays["density"].astype(np.int64) // 4
    )
    tables = Tables.with_prior(density=sparse)
    assert tables.digest != shipped.digest
    coder = Trellis(bits=9, tables=tables)
    scales_N = np.full(400, 50, np.uint8)
    target_N = (0.1 * channel(scales_N, np.random.default_rng(0))).astype(np.float32)
    payload, samples = encode(coder, [(target_N, scales_N)])
    assert same(decode(Trellis(bits=9, tables=tables), payload, [scales_N]), samples)
    assert len(payload) < len(encode(Trellis(bits=9), [(target_N, scales_N)])[0])


def test_writers_are_not_interchangeable():
    part = ([np.ones(3, np.float32)], [np.full(3, 50, np.uint8)])
    coder = Trellis(bits=9)
    writer = coder.writer()
    writer.finish()
    with pytest.raises(ForeignWriter):
        coder.encode([writer], *part)
    for other in (Trellis(bits=10), Trellis(bits=9, tables=Tables.with_prior())):
        with pytest.raises(ForeignWriter):
            coder.encode([other.writer()], *part)


@pytest.mark.parametrize("parameters", [b"", b"\x08", b"\x11", b"\x0c\x0c"])
def test_parameters_no_encoder_writes_are_refused(parameters):
    with pytest.raises(CorruptStream):
        coder_of(1, parameters)


def test_unknown_coders_are_refused():
    for name in ("trelis", 0, 3):
        with pytest.raises(UnknownCoder):
            coder_of(name)
