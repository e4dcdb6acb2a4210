"""Bit strings, the entropy coder and the shared words: exact values, so that no upgrade changes a stream unseen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.errors import CorruptStream
from recbatch.rec import ans, bits, noise

quick = settings(deadline=None, max_examples=40)


# -- words


def test_words_are_splitmix64():
    # the published generator's first outputs from state 1234567
    x = np.uint64(1234567)
    with np.errstate(over="ignore"):
        found = [int(noise.word(x, i)) for i in range(3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_words_are_pinned_and_the_same_in_kernels():
    drawn = noise.words(3, 1, np.arange(4), purpose=noise.STEP)
    assert [f"{int(w):016x}" for w in drawn] == [
        "e0573caf29f69988", "94cc5e4320b8d61a", "b223d13771efc2a5", "0ed8daef8fb0b1dd",
    ]  # fmt: skip
    name = noise.key(3, 1, noise.STEP)
    assert [noise.word(name, i) for i in range(4)] == list(drawn)
    assert noise.octets(3, 1, 3, purpose=noise.STEP).tolist() == [0x88, 0x99, 0xF6]


def test_seed_section_and_purpose_name_different_words():
    names = {
        int(noise.key(seed, section, purpose))
        for seed in range(4)
        for section in range(4)
        for purpose in range(4)
    }
    assert len(names) == 64


# -- bits


@quick
@given(st.lists(st.integers(0, 1), max_size=50))
def test_packing_keeps_bits(values):
    array = np.array(values, np.uint8)
    assert bits.unpack(bits.pack(array))[: array.size].tolist() == values


@quick
@given(st.integers(0, 2**62))
def test_varints_have_one_form(value):
    data = bits.varint(value)
    assert bits.parse_varint(b"x" + data, 1) == (value, 1 + len(data))
    with pytest.raises(CorruptStream):
        bits.parse_varint(data[:-1] + bytes([data[-1] | 128, 0]))
    with pytest.raises(CorruptStream):
        bits.parse_varint(data[:-1])
    with pytest.raises(CorruptStream):
        bits.parse_varint(b"\xff" * 11)


@quick
@given(
    st.lists(st.integers(1, 2**33), max_size=20),
    st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 21))),
)
def test_gamma_and_fixed_codes_come_back(values, pairs):
    widths = np.array([width for _, width in pairs], np.int64)
    lows = np.array([value & ((1 << width) - 1) for value, width in pairs], np.int64)
    coded = np.concatenate([bits.fixed(lows, widths), bits.gammas(np.array(values, np.int64))])
    reader = bits.BitReader(bits.pack(coded))
    assert bits.parse_fixed(reader.take(int(widths.sum())), widths).tolist() == lows.tolist()
    assert reader.take_gammas(len(values)).tolist() == values
    reader.finish()


def test_bit_readers_refuse_what_is_not_there():
    assert bits.pack(bits.gammas(np.array([1, 2, 5], np.int64))) == bytes([0b10100010, 0b10000000])
    for data, count in ((b"", 1), (b"\0\0\0\0\0\0\0\0\0", 1), (b"\x01", 1), (b"\xff", 9)):
        with pytest.raises(CorruptStream):
            bits.BitReader(data).take_gammas(count)
    with pytest.raises(CorruptStream):
        bits.BitReader(b"\0").take(9)
    for data in (b"\0", b"\x01"):
        reader = bits.BitReader(data)
        reader.take(0 if data == b"\0" else 1)
        with pytest.raises(CorruptStream):
            reader.finish()


# -- symbols


def integer_coder(symbols, weights):
    """An ANS coder on Python's integers: 64-bit state, 32-bit words, 24-bit weights."""
    state, words = 0, []
    for symbol, weight in zip(symbols[::-1], weights[::-1], strict=True):
        size, low = int(weight[symbol]), int(weight[:symbol].sum())
        if state >> 40 >= size:
            words.append(state & 0xFFFFFFFF)
            state >>= 32
        state = (state // size << 24) | (low + state % size)
    while state:
        words.append(state & 0xFFFFFFFF)
        state >>= 32
    return np.array(words, "<u4").tobytes().rstrip(b"\0")


def random_rows(generator, classes, symbols):
    rows = np.floor(generator.dirichlet(np.full(symbols, 0.2), classes) * (ans.TOTAL - symbols))
    rows[:, 0] += ans.TOTAL - symbols - rows.sum(1)
    return rows.astype(np.float32)


@quick
@given(st.integers(0, 2**32), st.sampled_from([2, 3, 16, 64]), st.integers(0, 300))
def test_words_are_those_of_an_integer_coder(seed, symbols, count):
    generator = np.random.default_rng(seed)
    rows = random_rows(generator, 5, symbols)
    numbers = generator.integers(0, 5, count).astype(np.int32)
    drawn = generator.integers(0, symbols, count).astype(np.int32)
    encoder = ans.Encoder()
    encoder.push(drawn, numbers, rows)
    data = encoder.finish()
    assert data == integer_coder(drawn, rows[numbers].astype(np.int64) + 1)
    decoder = ans.Decoder(data)
    assert decoder.pop(numbers, rows).tolist() == drawn.tolist()
    decoder.finish()


def test_chunks_leave_no_trace(monkeypatch):
    generator = np.random.default_rng(0)
    rows = random_rows(generator, 3, 16)
    numbers, drawn = (generator.integers(0, n, 1000).astype(np.int32) for n in (3, 16))
    streams = []
    for chunk in (1 << 15, 7):
        monkeypatch.setattr(ans, "CHUNK", chunk)
        encoder = ans.Encoder()
        encoder.push(drawn, numbers, rows)
        streams.append(encoder.finish())
        assert ans.Decoder(streams[-1]).pop(numbers, rows).tolist() == drawn.tolist()
    assert streams[0] == streams[1]


def test_symbols_that_are_left_over_are_noticed():
    rows = random_rows(np.random.default_rng(0), 1, 4)
    encoder = ans.Encoder()
    encoder.push(np.array([3, 3, 3], np.int32), np.zeros(3, np.int32), rows)
    decoder = ans.Decoder(encoder.finish())
    decoder.pop(np.zeros(2, np.int32), rows)
    with pytest.raises(CorruptStream):
        decoder.finish()
    with pytest.raises(CorruptStream):
        ans.Decoder(b"\1\0")
