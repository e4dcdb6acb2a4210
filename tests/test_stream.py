"""The .rec container: round trips, sizes, golden bytes, and refusal of everything else."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.errors import CorruptData, CorruptStream
from recbatch.stream import (
    CRC_BYTES,
    FIRST_ANCILLARY_SECTION,
    HEADER_BYTES,
    LAST_SECTION,
    MAGIC,
    MAX_PIXELS_PER_BYTE,
    MODES,
    SECTION_ALPHA,
    SECTION_LATENTS,
    SECTION_METADATA,
    SECTION_RESIDUAL,
    InvalidStream,
    Stream,
    StreamTooLarge,
    UnsupportedFormat,
    header,
    pack,
    parse,
    short_digest,
)

GOLDEN = Path(__file__).parent / "golden" / "stream"
REFUSALS = (CorruptStream, UnsupportedFormat, StreamTooLarge)


def example(**changes: object) -> Stream:
    fields: dict[str, object] = {
        "codec": 1,
        "mode": "RGB",
        "width": 768,
        "height": 512,
        "model": bytes(range(8)),
        "level": 16,
        "coder": 1,
        "coder_parameters": b"\x0c",
        "parameters_digest": b"\x01\x02\x03\x04",
        "latents_digest": b"\xfa\xfb\xfc\xfd",
        "sections": {SECTION_LATENTS: bytes(range(40)) * 600},
    }
    return Stream(**(fields | changes))  # type: ignore[arg-type]


GOLDEN_STREAMS = {
    "rgb.rec": example(width=3, height=2, sections={SECTION_LATENTS: b"latents"}),
    "la.rec": example(
        mode="LA",
        width=300,
        height=1,
        level=30.875,  # byte 255
        coder=2,
        coder_parameters=b"12345678",
        sections={SECTION_LATENTS: b"", SECTION_ALPHA: b"alpha", SECTION_METADATA: b"m" * 130},
    ),
    "ancillary.rec": example(
        width=1, height=1, sections={SECTION_LATENTS: b"x", FIRST_ANCILLARY_SECTION: b"new"}
    ),
}


def resealed(body: bytes) -> bytes:
    """A checksum that holds, so that what stands behind it is tested too."""
    return body + struct.pack("<I", zlib.crc32(body))


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    mode = draw(st.sampled_from(MODES))
    some = st.binary(min_size=1, max_size=200)
    sections = {SECTION_LATENTS: draw(st.binary(max_size=400))}
    if mode.endswith("A"):
        sections[SECTION_ALPHA] = draw(some)
    if draw(st.booleans()):
        sections[SECTION_METADATA] = draw(some)
    for kind in draw(st.sets(st.integers(FIRST_ANCILLARY_SECTION, LAST_SECTION), max_size=3)):
        sections[kind] = draw(some)
    return Stream(
        codec=1,
        mode=mode,
        width=draw(st.integers(1, 4000)),
        height=draw(st.integers(1, 2000)),
        model=draw(st.binary(min_size=8, max_size=8)),
        level=draw(st.integers(0, 8 * 31)) / 8,
        coder=draw(st.integers(1, 2**16 - 1)),
        coder_parameters=draw(st.binary(max_size=8)),
        parameters_digest=draw(st.binary(min_size=4, max_size=4)),
        latents_digest=draw(st.binary(min_size=4, max_size=4)),
        sections=sections,
    )


@given(streams())
@settings(deadline=None)
def test_a_packed_stream_parses_to_the_same_fields(stream: Stream) -> None:
    data = pack(stream)
    again = parse(data)
    assert again == stream
    assert list(again.sections) == sorted(stream.sections)
    assert pack(again) == data


@given(streams())
@settings(deadline=None)
def test_the_header_is_read_from_its_first_bytes_alone(stream: Stream) -> None:
    data = pack(stream)
    head = header(data[:HEADER_BYTES])
    assert (head.mode, head.width, head.height, head.level) == (
        stream.mode,
        stream.width,
        stream.height,
        stream.level,
    )
    assert head.sections == tuple(sorted(stream.sections))
    assert head.size + sum(map(len, stream.sections.values())) + CRC_BYTES == len(data)
    assert header(data[: head.size]) == head


@pytest.mark.parametrize("parameters_bytes", [1, 3])
def test_a_photograph_costs_at_most_40_bytes_beside_its_latents(parameters_bytes: int) -> None:
    stream = example(coder_parameters=bytes(parameters_bytes))
    side = len(pack(stream)) - len(stream.sections[SECTION_LATENTS])
    assert side == 37 + parameters_bytes
    assert side <= 40


@pytest.mark.parametrize("name", GOLDEN_STREAMS)
def test_golden_streams_are_written_and_read_for_ever(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    assert pack(GOLDEN_STREAMS[name]) == data
    assert parse(data) == GOLDEN_STREAMS[name]


@pytest.mark.parametrize("name", GOLDEN_STREAMS)
def test_every_truncation_is_refused(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    for length in range(len(data)):
        with pytest.raises(CorruptStream):
            parse(data[:length])
        with pytest.raises(CorruptStream):
            parse(data + bytes(length + 1))


@pytest.mark.parametrize("name", GOLDEN_STREAMS)
def test_every_flip_of_a_byte_is_refused(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    for offset in range(len(data)):
        for flip in range(1, 256):
            damaged = bytearray(data)
            damaged[offset] ^= flip
            with pytest.raises((CorruptStream, UnsupportedFormat)) as caught:
                parse(bytes(damaged))
            if caught.type is UnsupportedFormat:
                assert offset == len(MAGIC)  # the version byte: it stands before the checksum's word


def test_mutated_streams_with_a_right_checksum_parse_or_are_refused() -> None:
    """No mutation, however well sealed, raises anything else; what parses is canonical."""
    rng = random.Random(6)
    seeds = [pack(stream)[:-CRC_BYTES] for stream in GOLDEN_STREAMS.values()]
    parsed = 0
    for _ in range(20_000):
        body = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(MAGIC), min(len(body), 64))
            action = rng.randrange(4)
            if action == 0:
                body[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            elif action == 1:
                del body[place : place + rng.randint(1, 5)]
            elif action == 2:
                body[place:place] = rng.randbytes(rng.randint(1, 9))
            else:
                body[place : place + 9] = b"\xff" * rng.randint(1, 9)
            if len(body) <= len(MAGIC):
                break
        data = resealed(bytes(body))
        try:
            stream = parse(data)
        except REFUSALS:
            continue
        parsed += 1
        assert stream.width * stream.height <= MAX_PIXELS_PER_BYTE * len(data)
        if data[len(MAGIC)] == 0x10:
            assert pack(stream) == data
    assert parsed > 1000  # the mutations reach beyond the first checks


@given(st.binary(max_size=200), st.booleans())
@settings(deadline=None, max_examples=1000)
def test_random_bytes_are_refused(data: bytes, with_magic: bool) -> None:
    with pytest.raises(REFUSALS):
        parse(resealed(MAGIC + b"\x10\x05" + data) if with_magic and len(data) < 24 else data)


def test_a_newer_major_version_is_refused_and_a_newer_minor_is_not() -> None:
    body = pack(example())[:-CRC_BYTES]
    newer = bytearray(body)
    newer[len(MAGIC)] = 0x20
    with pytest.raises(UnsupportedFormat, match="version is 2"):
        parse(resealed(bytes(newer)))
    newer[len(MAGIC)] = 0x17
    assert parse(resealed(bytes(newer))) == example()
    assert header(bytes(newer)).minor == 7


@pytest.mark.parametrize("kind", [0b00_0000, 0b00_1101, 0b10_0101, 0b1000_0101])
def test_an_unknown_codec_or_a_reserved_bit_is_unsupported(kind: int) -> None:
    body = bytearray(pack(example())[:-CRC_BYTES])
    body[len(MAGIC) + 1] = kind
    with pytest.raises(UnsupportedFormat):
        parse(resealed(bytes(body)))


def test_an_unknown_section_is_refused_where_it_matters() -> None:
    data = pack(
        example(sections={SECTION_LATENTS: b"12345", FIRST_ANCILLARY_SECTION: b"6"}, width=9, height=9)
    )
    head = header(data)
    body = bytearray(data[:-CRC_BYTES])
    place = head.size - 3  # two bytes of kinds, one length
    body[place : place + 2] = b"\x41"  # kinds 1 and 7
    with pytest.raises(UnsupportedFormat, match="kind 7"):
        parse(resealed(bytes(body)))


def test_a_tiny_stream_can_not_claim_a_huge_image() -> None:
    data = pack(example(width=9, height=9, sections={SECTION_LATENTS: b""}))
    huge = data[:10] + b"\xff\xff\x03" * 2 + data[12:-CRC_BYTES]
    with pytest.raises(StreamTooLarge):
        parse(resealed(huge))
    with pytest.raises(CorruptStream, match="can't hold"):
        parse(resealed(huge), max_pixels=10**12)
    with pytest.raises(InvalidStream, match="too few"):
        pack(example(width=60_000, height=60_000, sections={SECTION_LATENTS: b""}))


def test_the_limit_on_pixels_is_the_callers() -> None:
    data = pack(example())
    assert parse(data, max_pixels=768 * 512) == example()
    with pytest.raises(StreamTooLarge, match="768 x 512"):
        parse(data, max_pixels=768 * 512 - 1)


def test_what_a_text_transfer_changes_is_named() -> None:
    with pytest.raises(CorruptStream, match="text transfer"):
        parse(pack(example()).replace(b"\r\n", b"\n"))


@pytest.mark.parametrize(
    "changes",
    [
        {"codec": 0},
        {"codec": 2},
        {"mode": "P"},
        {"mode": "RGBA"},  # without its section
        {"width": 0},
        {"height": 2**31},
        {"model": b"short"},
        {"level": 31.125},
        {"level": 0.1},
        {"level": -1},
        {"coder": 0},
        {"coder": 2**16},
        {"coder_parameters": bytes(9)},
        {"parameters_digest": b"123"},
        {"latents_digest": b"12345"},
        {"sections": {}},
        {"sections": {SECTION_LATENTS: b"1", SECTION_ALPHA: b"1"}},
        {"sections": {SECTION_LATENTS: b"1", SECTION_METADATA: b""}},
        {"sections": {SECTION_LATENTS: b"1", SECTION_RESIDUAL: b"1"}},
        {"sections": {SECTION_LATENTS: b"1", 7: b"1"}},
        {"sections": {SECTION_LATENTS: b"1", LAST_SECTION + 1: b"1"}},
    ],
)
def test_fields_that_are_not_a_streams_are_not_packed(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidStream):
        pack(example(**changes))


def test_the_short_digest_is_that_of_the_format_text() -> None:
    assert short_digest(b"") == bytes.fromhex("c294d338")  # XXH3-64 of nothing is 2d06800538d394c2
    assert short_digest(b"recbatch") == bytes.fromhex("c591104d")


def test_refusals_are_corrupt_data() -> None:
    assert all(issubclass(refusal, CorruptData) for refusal in REFUSALS)
