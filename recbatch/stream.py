"""The .rec container: one coded image as bytes. docs/format.md is the normative text, section by section.

    lossy:     magic 8 | version 1 | kind | width height | level | model 8 | coder, parameters | digests 4 + 4
    lossless:  magic 8 | version 1 | kind | width height | level | model 4 | digest 4
    both:      | which sections, their lengths | the sections | CRC-32

Knows bytes only: no pixels, no networks, no coder. ``pack`` refuses what ``parse`` would not give back.
``parse`` believes no length and no size before it is checked against the bytes at hand, and reads nothing
before the checksum holds, so that damage is told from novelty.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from recbatch.errors import CorruptData, CorruptStream, UsageError

MAGIC = b"\x93REC\r\n\x1a\n"  # a byte above 127, CR LF, ^Z, LF: text transfers show at once
MAJOR, MINOR = 1, 0  # a new major is refused by old readers, a new minor is not

CODEC_LOSSY = 1
CODEC_LOSSLESS = 2

SECTION_LATENTS = 1  # of a lossless stream: its preview, a whole lossy stream
SECTION_ALPHA = 2
SECTION_METADATA = 3
SECTION_RESIDUAL = 4
SECTION_CALIBRATION = 5
SECTION_PIXELS = 6  # of a lossless stream, in the residual's place: its pixels as lossless WebP, of no model
SECTION_FILE = 8  # of a lossless stream: what rebuilds the source file from the pixels
FIRST_ANCILLARY_SECTION = 8  # from here on a reader may leave out what it does not know
LAST_SECTION = 28

MODES = ("L", "RGB", "LA", "RGBA")  # bit 0: colour, bit 1: alpha
MAX_SIDE = 2**31 - 1
MAX_PIXELS_PER_BYTE = 2**18  # of the whole stream: what a reader allocates is bounded by what it was given
MAX_CODER = 2**16 - 1
MAX_PARAMETERS_BYTES = 8
MODEL_BYTES = 8
SHORT_MODEL_BYTES = 4  # of a lossless stream: small images can't carry more
NO_MODEL = bytes(SHORT_MODEL_BYTES)  # of a lossless stream whose pixels are WebP
DIGEST_BYTES = 4
CRC_BYTES = 4
LAST_LEVEL = 31
LEVEL_PARTS = 8  # rate levels come in steps of 1/8
HEADER_BYTES = 256  # no header is longer: this many bytes of a stream are enough for ``header``

_CRITICAL_SECTIONS = frozenset(range(SECTION_LATENTS, SECTION_PIXELS + 1))
_VARINT_BYTES = 9  # 63 bits


class UnsupportedFormat(CorruptData):
    """A stream is whole, but of a version or kind that this recbatch can't read."""

    code = "unsupported-format"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"The stream can't be read by this recbatch: {self.problem}. Install a newer recbatch."


class StreamTooLarge(CorruptData):
    """A stream says that its image has more pixels than the reader's limit."""

    code = "stream-too-large"

    def __init__(self, width: int, height: int, max_pixels: int) -> None:
        super().__init__(width, height, max_pixels)
        self.width, self.height, self.max_pixels = width, height, max_pixels

    def __str__(self) -> str:
        return (
            f"The stream holds {self.width} x {self.height} pixels, the limit is {self.max_pixels}. "
            f"Raise --max-pixels if you trust the stream."
        )


class InvalidStream(UsageError):
    """The fields handed to ``pack`` are not those of a stream."""

    code = "invalid-stream"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"No stream can be made of these fields: {self.problem}. This is a mistake in the calling code."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What stands before the sections. ``pack`` and ``parse`` keep it canonical."""

    codec: int
    mode: str  # one of MODES
    width: int
    height: int
    model: bytes  # [8] head of the SHA-256 that names the decoder's weights
    level: float  # rate level 0..31 in steps of 1/8, or variant of a lossless model, an integer 0..255
    coder: int  # coder number
    coder_parameters: bytes  # at most 8 bytes
    parameters_digest: bytes  # [4] of the exact networks' outputs: tells "other arithmetic" from "corrupt"
    latents_digest: bytes  # [4] of the integer sample
    pixels_digest: bytes  # [4] of the pixels of a lossless stream, which has none of the four fields before
    sections: tuple[int, ...]  # kinds present, ascending
    lengths: tuple[int, ...]  # bytes of each but the last, which runs to the checksum
    minor: int = MINOR  # version that wrote the stream
    size: int = field(default=0, compare=False)  # bytes before the first section


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One image: the header's fields and the sections' bytes. The fields are described at ``Header``."""

    codec: int
    mode: str
    width: int
    height: int
    model: bytes
    level: float
    coder: int = 0
    coder_parameters: bytes = b""
    parameters_digest: bytes = b""
    latents_digest: bytes = b""
    pixels_digest: bytes = b""
    sections: Mapping[int, bytes]  # by kind


def short_digest(data: bytes) -> bytes:
    """The 4-byte digest of the header's two digest fields: low half of XXH3-64 with seed 0, little-endian."""
    import xxhash

    return struct.pack("<I", xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF)


def level_byte(level: float) -> int:
    """The header's byte of a rate level: the nearest integer, halves up, and in the upper bits the eighths to it."""
    whole = math.floor(level + 0.5)
    return whole | int(LEVEL_PARTS * (level - whole)) % LEVEL_PARTS << 5


def level_of_byte(byte: int) -> float:
    """The rate level of a header's byte; not every one is within 0..31."""
    eighths = byte >> 5
    return (byte & 31) + (eighths - LEVEL_PARTS * (eighths >> 2)) / LEVEL_PARTS


def pack(stream: Stream) -> bytes:
    """The bytes of a stream.

    Raises:
        InvalidStream: a field is out of its range, or the sections don't fit codec and mode.
    """
    problem = _problem_of(stream)
    if problem:
        raise InvalidStream(problem)
    kinds = sorted(stream.sections)
    parts = [
        MAGIC,
        bytes([MAJOR << 4 | MINOR, MODES.index(stream.mode) | stream.codec << 2]),
        varint(stream.width),
        varint(stream.height),
        bytes([level_byte(stream.level) if stream.codec == CODEC_LOSSY else int(stream.level)]),
        stream.model,
        *(
            (stream.pixels_digest,)
            if stream.codec == CODEC_LOSSLESS
            else (
                varint(stream.coder << 4 | len(stream.coder_parameters)),
                stream.coder_parameters,
                stream.parameters_digest,
                stream.latents_digest,
            )
        ),
        varint(sum(1 << (kind - 1) for kind in kinds)),
        *(varint(len(stream.sections[kind])) for kind in kinds[:-1]),
        *(stream.sections[kind] for kind in kinds),
    ]
    body = b"".join(parts)
    if stream.width * stream.height > MAX_PIXELS_PER_BYTE * (len(body) + CRC_BYTES):
        raise InvalidStream(f"{len(body)} bytes for {stream.width} x {stream.height} pixels are too few")
    return body + struct.pack("<I", zlib.crc32(body))


def header(data: bytes) -> Header:
    """Read the header alone, without the checksum: a cheap look that damage can deceive.

    ``data`` may be the first ``HEADER_BYTES`` of a stream or all of it.

    Raises:
        CorruptStream: not a stream, or its header ends early or contradicts the format.
        UnsupportedFormat: a newer major version, or a kind that is not known here.
    """
    return _read_header(Cursor(data))


def parse(data: bytes, *, max_pixels: int = 10**9) -> Stream:
    """Read a whole stream.

    Raises:
        CorruptStream: the bytes contradict the format; carries the offset.
        UnsupportedFormat: a newer major version, or a codec or section that is not known here.
        StreamTooLarge: more than ``max_pixels``.
    """
    if len(data) < CRC_BYTES:
        raise CorruptStream(f"{len(data)} bytes are too few", len(data))
    _check_magic_and_version(data)
    end = len(data) - CRC_BYTES
    (stored,) = struct.unpack_from("<I", data, end)
    if stored != zlib.crc32(memoryview(data)[:end]):
        raise CorruptStream("its checksum does not match", end)
    cursor = Cursor(data, end)
    head = _read_header(cursor)
    if head.width * head.height > max_pixels:
        raise StreamTooLarge(head.width, head.height, max_pixels)
    if head.width * head.height > MAX_PIXELS_PER_BYTE * len(data):
        raise CorruptStream(f"{len(data)} bytes can't hold {head.width} x {head.height} pixels", head.size)
    sections = {}
    for kind, length in zip(head.sections[:-1], head.lengths, strict=True):
        sections[kind] = cursor.take(length, f"section {kind}")
    sections[head.sections[-1]] = cursor.take(end - cursor.offset, "the last section")
    stream = Stream(
        codec=head.codec,
        pixels_digest=head.pixels_digest,
        mode=head.mode,
        width=head.width,
        height=head.height,
        model=head.model,
        level=head.level,
        coder=head.coder,
        coder_parameters=head.coder_parameters,
        parameters_digest=head.parameters_digest,
        latents_digest=head.latents_digest,
        sections=MappingProxyType(sections),
    )
    problem = _section_problem(stream)
    if problem:
        raise CorruptStream(problem, head.size)
    return stream


def preview_size(data: bytes) -> int:
    """How many leading bytes of a stream are enough for ``preview``; 0 where it has none.

    Raises:
        CorruptStream, UnsupportedFormat: as ``header``.
    """
    head = header(data)
    if head.codec != CODEC_LOSSLESS or head.sections[0] != SECTION_LATENTS:
        return 0
    return head.size + (head.lengths[0] if head.lengths else 0)


def preview(data: bytes) -> bytes:
    """The preview of a lossless stream, itself a whole lossy stream; b"" where there is none.

    ``data`` may be the first ``preview_size`` bytes of the stream, or all of it.

    Raises:
        CorruptStream, UnsupportedFormat: as ``header``; the preview's own checksum is for its reader to check.
    """
    end = preview_size(data)
    if end > len(data):
        raise CorruptStream(f"its preview ends at {end}, after the stream's last byte", len(data))
    return bytes(data[header(data).size : end]) if end else b""


class Cursor:
    """A position in bytes that can't run past ``end``."""

    def __init__(self, data: bytes, end: int | None = None) -> None:
        self.data, self.offset = data, 0
        self.end = len(data) if end is None else end

    def take(self, count: int, what: str) -> bytes:
        if count > self.end - self.offset:
            raise CorruptStream(f"{what} needs {count} bytes, {self.end - self.offset} are left", self.offset)
        self.offset += count
        return bytes(self.data[self.offset - count : self.offset])

    def varint(self, what: str, largest: int) -> int:
        """Base-128, low groups first, no needless last group."""
        start, value = self.offset, 0
        for group in range(_VARINT_BYTES):
            byte = self.take(1, what)[0]
            value |= (byte & 0x7F) << (7 * group)
            if byte < 0x80:
                if byte == 0 and group > 0:
                    raise CorruptStream(f"{what} is written longer than needed", start)
                if value > largest:
                    raise CorruptStream(f"{what} is {value}, more than {largest}", start)
                return value
        raise CorruptStream(f"{what} has more than 63 bits", start)


def _check_magic_and_version(data: bytes) -> None:
    if bytes(data[: len(MAGIC)]) != MAGIC:
        if bytes(data[1:4]) == MAGIC[1:4]:
            raise CorruptStream("its first bytes were changed as a text transfer does", 0)
        raise CorruptStream("it does not begin as a .rec stream does", 0)
    if len(data) <= len(MAGIC):
        raise CorruptStream("it ends after its first bytes", len(data))
    major = data[len(MAGIC)] >> 4
    if major == 0:
        raise CorruptStream("version 0 was never written", len(MAGIC))
    if major > MAJOR:
        raise UnsupportedFormat(f"its format version is {major}, the newest known here is {MAJOR}")


def _read_header(cursor: Cursor) -> Header:
    _check_magic_and_version(cursor.data)
    minor = cursor.take(len(MAGIC) + 1, "the header")[-1] & 15
    kind = cursor.take(1, "the kind")[0]
    if kind >> 5:
        raise UnsupportedFormat(f"its kind is {kind:#04x}")
    codec = kind >> 2
    if codec not in (CODEC_LOSSY, CODEC_LOSSLESS):
        raise UnsupportedFormat(f"its codec is {codec}")
    width = _positive(cursor, "the width")
    height = _positive(cursor, "the height")
    level: float = cursor.take(1, "the level")[0]
    coder, parameters, parameters_digest, latents_digest, pixels_digest = 0, b"", b"", b"", b""
    if codec == CODEC_LOSSLESS:
        model = cursor.take(SHORT_MODEL_BYTES, "the model's digest")
        pixels_digest = cursor.take(DIGEST_BYTES, "the pixels' digest")
    else:
        level = level_of_byte(int(level))
        if not 0 <= level <= LAST_LEVEL:
            raise CorruptStream(f"rate level {level:g} does not exist", cursor.offset - 1)
        model = cursor.take(MODEL_BYTES, "the model's digest")
        start = cursor.offset
        coder = cursor.varint("the coder", MAX_CODER << 4 | 15)
        if coder >> 4 == 0 or coder & 15 > MAX_PARAMETERS_BYTES:
            raise CorruptStream(f"coder {coder >> 4} with {coder & 15} bytes of parameters is not one", start)
        parameters = cursor.take(coder & 15, "the coder's parameters")
        parameters_digest = cursor.take(DIGEST_BYTES, "the parameters' digest")
        latents_digest = cursor.take(DIGEST_BYTES, "the latents' digest")
    start = cursor.offset
    present = cursor.varint("the list of sections", 2**LAST_SECTION - 1)
    kinds = tuple(number for number in range(1, LAST_SECTION + 1) if present >> (number - 1) & 1)
    if not kinds:
        raise CorruptStream("it has no sections", start)
    unknown = [
        number for number in kinds if number not in _CRITICAL_SECTIONS and number < FIRST_ANCILLARY_SECTION
    ]
    if unknown:
        raise UnsupportedFormat(f"it has a section of kind {unknown[0]}")
    lengths = tuple(cursor.varint("a section's length", 2**63 - 1) for _ in kinds[:-1])
    return Header(
        codec=codec,
        mode=MODES[kind & 3],
        width=width,
        height=height,
        model=model,
        level=level,
        coder=coder >> 4,
        coder_parameters=parameters,
        parameters_digest=parameters_digest,
        latents_digest=latents_digest,
        pixels_digest=pixels_digest,
        sections=kinds,
        lengths=lengths,
        minor=minor,
        size=cursor.offset,
    )


def _positive(cursor: Cursor, what: str) -> int:
    start = cursor.offset
    value = cursor.varint(what, MAX_SIDE)
    if value == 0:
        raise CorruptStream(f"{what} is 0", start)
    return value


def _section_problem(stream: Stream) -> str:
    """What is wrong with the sections, or an empty string."""
    lossless = stream.codec == CODEC_LOSSLESS
    if not lossless and SECTION_LATENTS not in stream.sections:
        return "it has no latents"
    if (SECTION_ALPHA in stream.sections) != stream.mode.endswith("A"):
        return f"mode {stream.mode} and the alpha section contradict each other"
    codes = [kind for kind in (SECTION_RESIDUAL, SECTION_PIXELS) if kind in stream.sections]
    if len(codes) != lossless:
        return f"a {'lossless' if lossless else 'lossy'} stream has {len(codes)} codes of its pixels"
    has_models = SECTION_LATENTS in stream.sections or stream.model != NO_MODEL or stream.level != 0
    if SECTION_PIXELS in codes and has_models:
        return "it needs no model, and names one or has a preview"
    if lossless and SECTION_CALIBRATION in stream.sections:
        return "a lossless stream has a calibration of its own"
    may_be_empty = SECTION_RESIDUAL if lossless else SECTION_LATENTS
    empty = [kind for kind, data in stream.sections.items() if not data and kind != may_be_empty]
    return f"section {empty[0]} is empty" if empty else ""


def _problem_of(stream: Stream) -> str:
    """Why these fields can't be packed, or an empty string."""
    lossless = stream.codec == CODEC_LOSSLESS
    digests = (stream.parameters_digest, stream.latents_digest)
    checks = (
        (stream.codec in (CODEC_LOSSY, CODEC_LOSSLESS), f"codec {stream.codec}"),
        (stream.mode in MODES, f"mode {stream.mode}"),
        (
            0 < stream.width <= MAX_SIDE and 0 < stream.height <= MAX_SIDE,
            f"{stream.width} x {stream.height} pixels",
        ),
        (
            len(stream.model) == (SHORT_MODEL_BYTES if lossless else MODEL_BYTES),
            f"a model digest of {len(stream.model)} bytes",
        ),
        (
            0 <= stream.level <= (255 if lossless else LAST_LEVEL)
            and stream.level * (1 if lossless else LEVEL_PARTS) % 1 == 0,
            f"level {stream.level}",
        ),
        ((stream.coder == 0) if lossless else (0 < stream.coder <= MAX_CODER), f"coder {stream.coder}"),
        (
            len(stream.coder_parameters) <= MAX_PARAMETERS_BYTES,
            f"{len(stream.coder_parameters)} coder parameters",
        ),
        (lossless or len(digests[0]) == DIGEST_BYTES, "a parameters digest that is not 4 bytes"),
        (lossless or len(digests[1]) == DIGEST_BYTES, "a latents digest that is not 4 bytes"),
        (
            len(stream.pixels_digest) == (DIGEST_BYTES if lossless else 0),
            "a pixels digest that is not 4 bytes" if lossless else "a pixels digest",
        ),
        (not (lossless and (any(digests) or stream.coder_parameters)), "a lossy stream's fields"),
    )
    for good, problem in checks:
        if not good:
            return problem
    foreign = [
        kind
        for kind in stream.sections
        if kind not in _CRITICAL_SECTIONS and not FIRST_ANCILLARY_SECTION <= kind <= LAST_SECTION
    ]
    return f"section kind {foreign[0]}" if foreign else _section_problem(stream)


def varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
