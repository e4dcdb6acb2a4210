"""Hostile input to both ends: arguments no model should give, payloads no writer wrote, streams changed on the way.

An encoder takes what it is given or raises InvalidPosterior; a reader gives samples or raises CorruptStream. Warnings
are errors here, so "handled" means without one. A damaged payload may well give samples: the digest in the stream's
header tells that they are wrong, and the last tests see that it does.

Legend: N dimensions of a section.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from compliance import channel, decode, encode, same
from safety_helpers import NAMES, REFUSED, fast, fuzz, outcome, scales_of, small_stream

from recbatch import stream
from recbatch.codec import Decoder
from recbatch.errors import CorruptData, CorruptStream, InvalidPosterior
from recbatch.rec import bits
from recbatch.rec.base import SCALES
from recbatch.rec.coders.registry import UnknownCoder
from recbatch.rec.coders.registry import coder as coder_of

every_coder = pytest.mark.parametrize("name", NAMES)
ALL_SCALES = np.arange(SCALES, dtype=np.uint8)
TOP = float(np.finfo(np.float32).max)
TARGETS = (0.0, -0.0, 1e-45, -1e-45, 1e-38, 700.0, -1e30, 1e30, TOP, -TOP)


# -- arguments


@every_coder
@pytest.mark.parametrize("target", TARGETS)
def test_any_finite_target_is_coded_at_every_scale(name, target):
    coder = fast(name)
    target_N = np.full(SCALES, target, np.float32)
    payload, samples = encode(coder, [(target_N, ALL_SCALES)])
    assert same(decode(coder, payload, [ALL_SCALES]), samples)
    if abs(target) > 1e29:  # wherever a coder stops following, it stops on the right side
        assert (np.sign(samples[0][60:]) == np.sign(target)).all()


@every_coder
def test_one_dimension_of_every_scale_and_none_at_all(name):
    coder = fast(name)
    scales = [*ALL_SCALES[:, None], ALL_SCALES[:0]]
    for factor in (0, 1, 40):
        targets = [factor * channel(s, np.random.default_rng(int(s.sum()))) for s in scales]
        writers = [coder.writer() for _ in scales]
        samples = coder.encode(writers, targets, scales)
        for writer, scale_N, sample_N in zip(writers, scales, samples, strict=True):
            assert same(decode(coder, writer.finish(), [scale_N]), [sample_N])


@every_coder
def test_thousands_of_nats_among_dimensions_of_none(name):
    coder = fast(name)
    scale_N = np.full(300, 34, np.uint8)
    target_N = np.zeros(300, np.float32)
    target_N[150] = 120  # some 3000 nats
    payload, samples = encode(coder, [(target_N, scale_N)])
    assert same(decode(coder, payload, [scale_N]), samples)
    assert samples[0][150] == samples[0].max()


@every_coder
def test_a_whole_block_beyond_reach_ends_in_bounded_work(name):
    coder = fast(name)
    scale_N = np.full(150, 90, np.uint8)
    target_N = np.random.default_rng(0).choice([TOP, -TOP], 150).astype(np.float32)
    payload, samples = encode(coder, [(target_N, scale_N)])
    assert same(decode(coder, payload, [scale_N]), samples)
    assert len(payload) < 150 * 64


@every_coder
def test_sections_without_any_divergence_cost_nothing(name):
    coder = fast(name)
    parts = [(np.full(size, np.nan, np.float32), np.zeros(size, np.uint8)) for size in (0, 1, 70_000)]
    payload, samples = encode(coder, parts)
    assert len(payload) <= 1
    assert same(decode(coder, payload, [scale_N for _, scale_N in parts]), samples)
    assert not any(sample_N.any() for sample_N in samples)


@every_coder
def test_what_is_not_coded_may_be_anything_and_changes_nothing(name):
    coder = fast(name)
    scale_N = scales_of(90, 5)
    target_N = channel(scale_N, np.random.default_rng(5))
    want = encode(coder, [(target_N, scale_N)])[0]
    free = scale_N == 0
    assert 3 < free.sum() < 87
    target_N[free] = np.resize(np.array([np.nan, np.inf, -np.inf, TOP, 1e-45], np.float32), free.sum())
    assert encode(coder, [(target_N, scale_N)])[0] == want


def layouts(array_N):
    """The same numbers, laid out in every way NumPy knows."""
    yield "strided", np.repeat(array_N, 3)[::3]
    yield "backwards", array_N[::-1].copy()[::-1]
    yield "a column", np.repeat(array_N[:, None], 4, 1)[:, 2]
    frozen = array_N.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    odd = np.frombuffer(b"?" + array_N.tobytes(), array_N.dtype, array_N.size, 1)
    assert odd.flags.aligned == (array_N.itemsize == 1)
    yield "unaligned", odd
    yield "a subclass", array_N.view(np.recarray)


@every_coder
def test_the_layout_of_arrays_in_memory_leaves_no_trace(name):
    coder = fast(name)
    scale_N = scales_of(80, 6)
    target_N = channel(scale_N, np.random.default_rng(6))
    payload, samples = encode(coder, [(target_N, scale_N)])
    kept = target_N.copy(), scale_N.copy()
    for (how, target), (_, scale) in zip(layouts(target_N), layouts(scale_N), strict=True):
        assert encode(coder, [(target, scale)])[0] == payload, how
        assert same(decode(coder, payload, [scale]), samples), how
    ones_N, fifties_N = np.broadcast_to(np.float32(1), 20), np.broadcast_to(np.uint8(50), 20)
    assert encode(coder, [(ones_N, fifties_N)])[0] == encode(coder, [(ones_N.copy(), fifties_N.copy())])[0]
    assert np.array_equal(target_N, kept[0])  # what is lent comes back as it was
    assert np.array_equal(scale_N, kept[1])


GOOD_TARGETS, GOOD_SCALES = np.ones(6, np.float32), np.full(6, 50, np.uint8)


@every_coder
@pytest.mark.parametrize(
    "target_N",
    [
        None,
        [1.0] * 6,
        np.float32(1),
        np.array(1, np.float32),
        np.ones(0),
        np.ones(6),
        np.ones(6, np.float16),
        np.ones(6, ">f4"),
        np.ones(6, np.int32),
        np.ones(6, object),
        np.ones(6, np.complex64),
        np.ones(7, np.float32),
        np.ones((2, 3), np.float32),
        np.array([1, 1, 1, 1, 1, np.nan], np.float32),
        np.array([1, 1, 1, 1, 1, -np.inf], np.float32),
    ],
    ids=lambda target_N: f"{getattr(target_N, 'dtype', type(target_N).__name__)}{np.shape(target_N)}",
)
def test_targets_that_are_none_are_refused(name, target_N):
    with pytest.raises(InvalidPosterior):
        encode(fast(name), [(target_N, GOOD_SCALES)])


@every_coder
@pytest.mark.parametrize(
    "scale_N",
    [
        None,
        [50] * 6,
        np.uint8(50),
        np.array(50, np.uint8),
        np.ones(6, bool),
        np.full(6, 50, np.int8),
        np.full(6, 50, np.int64),
        np.full(6, 50.0),
        np.full((2, 3), 50, np.uint8),
        np.array([50, 50, 50, 50, 50, SCALES], np.uint8),
        np.full(6, 255, np.uint8),
    ],
    ids=lambda scale_N: f"{getattr(scale_N, 'dtype', type(scale_N).__name__)}{np.shape(scale_N)}",
)
def test_scales_that_are_none_are_refused_by_encoder_and_reader(name, scale_N):
    coder = fast(name)
    payload, _ = encode(coder, [(GOOD_TARGETS, GOOD_SCALES)])
    with pytest.raises(InvalidPosterior):
        encode(coder, [(GOOD_TARGETS, scale_N)])
    with pytest.raises(InvalidPosterior):
        coder.reader(payload).decode(scale_N)


# -- payloads


@every_coder
def test_every_truncation_and_every_flipped_bit_of_a_payload(name):
    """The compliance tests sample these; here none is left out."""
    coder = fast(name)
    payload, scales, samples = small_stream(coder, sizes=(120, 1, 300), seed=11)
    assert len(payload) > 20
    cut = (payload[:length] for length in range(len(payload)))
    changed = (
        bytes([*payload[: bit // 8], payload[bit // 8] ^ 1 << bit % 8, *payload[bit // 8 + 1 :]])
        for bit in range(8 * len(payload))
    )
    for data in itertools.chain(cut, changed):
        found = outcome(coder, data, scales)
        assert found is None or not same(found, samples)


@every_coder
def test_invented_payloads_give_samples_or_corrupt_stream(name):
    found = fuzz(fast(name), 0, 1200)
    assert found[REFUSED] > 600  # most damage shows at once; what does not is the digest's


@every_coder
@pytest.mark.parametrize("length", [2**14, 2**31, 2**32 + 1, 2**62])
def test_a_length_that_is_claimed_is_not_allocated(name, length):
    coder = fast(name)
    for data in (bits.varint(length), bits.varint(length) + b"\x01" * 9):
        outcome(coder, data, [scales_of(50, 1)])
        outcome(coder, data, [np.zeros(3, np.uint8)])


@every_coder
def test_parameters_of_a_header_are_a_coder_or_corrupt(name):
    """And whatever coder comes of them reads or refuses a payload that was not made for it."""
    coder = fast(name)
    payload, scales, _ = small_stream(coder, sizes=(30, 30), seed=3)
    repeated = (bytes([value] * len(coder.parameters)) for value in range(256))
    for parameters in (*map(bytes, range(9)), *repeated):
        try:
            other = coder_of(coder.number, parameters)
        except CorruptStream:
            continue
        assert other.parameters == parameters
        outcome(other, payload, scales)


SCRIPT = Path(__file__).with_name("safety_helpers.py")


@pytest.mark.long
@every_coder
@pytest.mark.parametrize("bounds", ["0", "1"])
def test_a_hundred_thousand_damaged_payloads_in_a_process_of_their_own(name, bounds, tmp_path):
    """Once as shipped, once with kernels compiled to check every index: there an access out of bounds raises."""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_BOUNDSCHECK": "1"} if bounds == "1" else {}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", str(SCRIPT), name, bounds, "100000"],
        env={**os.environ, **cache}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["refused"] + report["samples"] == 100_000
    assert report["grown_bytes"] < 100 << 20
    assert report["slowest_batch_s"] < 60


@pytest.mark.long
def test_all_tests_of_the_coders_pass_with_kernels_that_check_every_index(tmp_path):
    """Encoders, too: what a table is indexed with comes from targets there."""
    checked = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_BOUNDSCHECK": "1"}
    command = [sys.executable, "-m", "pytest", "-m", "not long", "-p", "no:cacheprovider", str(SCRIPT.parent)]
    done = subprocess.run(
        command, env={**os.environ, **checked}, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]


# -- whole streams: the digest tells

STREAMS = Path(__file__).parents[1] / "golden"
SHAPE_OF_PICTURE = {"mode", "width", "height"}  # what the checksum guards alone


@pytest.fixture(scope="module")
def decoder():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    weights = (STREAMS / "model" / "tiny.safetensors").read_bytes()
    yield Decoder(lambda head: weights)
    torch.set_num_threads(before)


def stored(name):
    return (STREAMS / "codec" / f"{name}.rec").read_bytes()


def refused_or_the_same_latents(decoder, whole, data):
    """True where the stream is refused; else all that a digest covers must be as it was.

    A reader that passes took the very payload, model, level and coder that were written. Mode, width and height are
    not in the digests: a forged checksum can crop a picture or make it grey, and cannot change a latent.
    """
    try:
        decoder.decode(data)
    except (CorruptData, UnknownCoder):
        return True
    before, after = stream.parse(whole), stream.parse(data)
    changed = {field for field in before.__slots__ if getattr(before, field) != getattr(after, field)}
    assert changed <= SHAPE_OF_PICTURE
    return False


def test_no_flipped_bit_and_no_truncation_of_a_stream_passes_its_checksum(decoder):
    data = stored("irec")
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptData):
            decoder.decode(bytes(damaged))
    for length in range(len(data)):
        with pytest.raises(CorruptData):
            decoder.decode(data[:length])


@pytest.mark.parametrize(
    ("name", "every", "flips"),
    [
        ("irec", 1, 1),
        ("trellis-grey-effort1", 4, 1),
        pytest.param("irec", 1, 8, marks=pytest.mark.long),
        pytest.param("trellis-grey-effort1", 1, 8, marks=pytest.mark.long),
        pytest.param("trellis", 1, 2, marks=pytest.mark.long),
    ],
)
def test_behind_a_mended_checksum_the_digests_tell(name, every, flips, decoder):
    """Every byte in turn is changed and the CRC put right: reader, coder or digest must say no."""
    whole = stored(name)
    decoder.decode(whole)
    passed = 0
    for at in range(0, len(whole) - stream.CRC_BYTES, every):
        for n in range(flips):
            body = bytearray(whole[: -stream.CRC_BYTES])
            body[at] ^= 1 << (n if flips == 8 else (at + 3 * n) % 8)
            data = bytes(body) + zlib.crc32(body).to_bytes(4, "little")
            passed += not refused_or_the_same_latents(decoder, whole, data)
    assert passed <= 16 * flips


def test_samples_made_of_damage_are_told_by_the_digest(decoder):
    """Payloads that a coder reads to the end without complaint: only the latents' digest is left, and it is enough."""
    whole = stored("trellis-grey-effort1")
    parsed = stream.parse(whole)
    fields = {field: getattr(parsed, field) for field in parsed.__slots__}
    payload = bytearray(parsed.sections[stream.SECTION_LATENTS])
    length, start = bits.parse_varint(bytes(payload))
    told = 0
    for at in range(start, start + length - 8, 2):  # index bits: other codewords, and mostly the same escapes
        changed = bytearray(payload)
        changed[at] ^= 16
        data = stream.pack(stream.Stream(**{**fields, "sections": {stream.SECTION_LATENTS: bytes(changed)}}))
        with pytest.raises(CorruptData):
            decoder.decode(data)
        told += 1
    assert told > 5
