"""The stream's outer form: header, sections, checksum."""

import zlib
from dataclasses import dataclass

from .errors import Corrupt, Unsupported, require

MAGIC = bytes.fromhex("93524543 0d0a1a0a")
MAJOR = 1
LATENTS, ALPHA, METADATA, RESIDUAL, CALIBRATION, PIXELS, FILE_RECIPE = 1, 2, 3, 4, 5, 6, 8
RESERVED, LAST_KIND = (7,), 28
MODES = ("L", "RGB", "LA", "RGBA")
LOSSY, LOSSLESS = 1, 2
MAX_SIDE = 2**31 - 1
PIXELS_PER_BYTE = 2**18


@dataclass(frozen=True)
class Header:
    """The fields before the sections. Those of the other codec are 0 or empty; `level` is the byte as it is."""

    mode: str
    width: int
    height: int
    level: int
    model: bytes
    coder: int = 0
    parameters: bytes = b""
    parameters_digest: bytes = b""
    latents_digest: bytes = b""
    pixels_digest: bytes = b""
    codec: int = LOSSY

    @property
    def rate(self) -> tuple[int, int]:
        """The whole level of a lossy stream, 0..31, and the eighths beside it, -4..3."""
        eighths = self.level >> 5
        return self.level & 31, eighths - 8 if eighths >= 4 else eighths


class Reader:
    """Takes bytes from the front, never more than there are."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        """How many bytes have not been taken."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        require(count <= self.left, "cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        """The next byte as a number."""
        return self.take(1)[0]

    def varint(self) -> int:
        """An integer in groups of 7 bits; only the shortest spelling passes."""
        value = 0
        for group in range(9):
            byte = self.byte()
            value |= (byte & 127) << (7 * group)
            if byte < 128:
                require(byte > 0 or group == 0, "varint is not the shortest")
                return value
        raise Corrupt("varint is too long")


def parse(stream: bytes, max_pixels: int = 10**9) -> tuple[Header, dict[int, bytes]]:
    """Header, and the sections by kind."""
    body = checked_body(stream)
    reader = Reader(body)
    reader.take(len(MAGIC) + 1)
    header = read_header(reader)
    sections = read_sections(reader, header.codec)
    require((ALPHA in sections) == header.mode.endswith("A"), "alpha section does not go with the mode")
    modelless = header.model == bytes(4) and header.level == 0 and LATENTS not in sections
    require(PIXELS not in sections or modelless, "pixels without a model, and yet a model or a preview")
    pixels = header.width * header.height
    require(pixels <= PIXELS_PER_BYTE * len(stream), "more pixels than so few bytes may stand for")
    if pixels > max_pixels:
        raise Unsupported(f"{pixels} pixels")
    return header, sections


def checked_body(stream: bytes) -> bytes:
    """The bytes before the checksum, once magic, version and checksum are found right."""
    require(stream.startswith(MAGIC), "magic")
    require(len(stream) > len(MAGIC), "cut short")
    major = stream[len(MAGIC)] >> 4
    if major > MAJOR:
        raise Unsupported(f"version {major}")
    require(major > 0, "version 0")
    require(len(stream) >= len(MAGIC) + 5, "cut short")
    body, checksum = stream[:-4], stream[-4:]
    require(zlib.crc32(body) == int.from_bytes(checksum, "little"), "checksum")
    return body


def read_header(reader: Reader) -> Header:
    """The fields from kind to the digests."""
    kind = reader.byte()
    require(kind >> 5 == 0, "kind has unknown bits")
    codec = kind >> 2
    if codec not in (LOSSY, LOSSLESS):
        raise Unsupported(f"codec {codec}")
    width, height = reader.varint(), reader.varint()
    require(1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE, "size")
    mode, level = MODES[kind & 3], reader.byte()
    if codec == LOSSLESS:
        model, digest = reader.take(4), reader.take(4)
        return Header(mode, width, height, level, model, pixels_digest=digest, codec=LOSSLESS)
    model = reader.take(8)
    coder, count = divmod(reader.varint(), 16)
    require(1 <= coder <= 65535 and count <= 8, "coder")
    return Header(
        mode,
        width,
        height,
        level,
        model,
        coder,
        reader.take(count),
        reader.take(4),
        reader.take(4),
    )


def read_sections(reader: Reader, codec: int) -> dict[int, bytes]:
    """Sections by kind: all that is left, every length known before any section is cut."""
    listed = reader.varint()
    require(0 < listed < 1 << LAST_KIND, "section list")
    kinds = [kind for kind in range(1, LAST_KIND + 1) if listed >> (kind - 1) & 1]
    lossless = codec == LOSSLESS
    require(lossless or LATENTS in kinds, "no latents")
    require(
        (RESIDUAL in kinds) + (PIXELS in kinds) == lossless,
        "the pixels' code and codec contradict each other",
    )
    require(not (lossless and CALIBRATION in kinds), "calibration outside the preview")
    for kind in RESERVED:
        if kind in kinds:
            raise Unsupported(f"section {kind}")
    lengths = [reader.varint() for _ in kinds[:-1]]
    require(sum(lengths) <= reader.left, "section lengths")
    lengths.append(reader.left - sum(lengths))
    sections = {kind: reader.take(length) for kind, length in zip(kinds, lengths, strict=True)}
    may_be_empty = RESIDUAL if lossless else LATENTS
    require(all(data or kind == may_be_empty for kind, data in sections.items()), "empty section")
    return sections
