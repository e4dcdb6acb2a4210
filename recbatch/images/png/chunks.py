"""A PNG file as its chunks, and back.

Source: W3C, Portable Network Graphics specification, third edition, section 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from recbatch.images.png_file import SIGNATURE, chunk

_DEPTHS = {0: (1, 2, 4, 8), 2: (8,), 3: (1, 2, 4, 8), 4: (8,), 6: (8,)}  # 16 bits are not ours
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

Chunks = tuple[tuple[bytes, bytes], ...]  # (type, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What IHDR says beside the size."""

    depth: int
    colour_type: int
    interlaced: bool

    def __post_init__(self) -> None:
        if self.depth not in _DEPTHS.get(self.colour_type, ()):
            raise ValueError(f"{self.depth} bits of colour type {self.colour_type}")

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return _SAMPLES[self.colour_type]

    @property
    def pixel_bytes(self) -> int:
        """How far back the filters look: 1 where several pixels share a byte."""
        return max(1, self.samples * self.depth // 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A whole PNG file."""

    width: int
    height: int
    kind: Kind
    before: Chunks  # between IHDR and the first IDAT
    stream: bytes  # what all IDAT chunks hold, joined
    idat_sizes: tuple[int, ...]
    after: Chunks  # between the last IDAT and IEND
    trailing: bytes  # after IEND


def split(data: bytes) -> Parts | None:
    """The parts of a PNG file that ``join`` puts together again; None where it can't."""
    if not data.startswith(SIGNATURE):
        return None
    chunks: list[tuple[bytes, bytes]] = []
    at = len(SIGNATURE)
    while not chunks or chunks[-1][0] != b"IEND":
        if at + 12 > len(data):
            return None
        (size,) = struct.unpack_from(">I", data, at)
        end = at + 12 + size
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(
            data[end - 4 : end], "big"
        ):
            return None
        chunks.append((data[at + 4 : at + 8], data[at + 8 : end - 4]))
        at = end

    kinds = [kind for kind, _ in chunks]
    if kinds[0] != b"IHDR" or len(chunks[0][1]) != 13 or chunks[-1][1] or b"IDAT" not in kinds:
        return None
    first, count = kinds.index(b"IDAT"), kinds.count(b"IDAT")
    idat = [part for kind, part in chunks[first : first + count] if kind == b"IDAT"]
    width, height, depth, colour_type, *methods, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    if len(idat) != count or not all(idat[:-1]) or methods != [0, 0] or interlace > 1:
        return None
    try:
        kind = Kind(depth=depth, colour_type=colour_type, interlaced=interlace == 1)
    except ValueError:
        return None
    return Parts(
        width=width,
        height=height,
        kind=kind,
        before=tuple(chunks[1:first]),
        stream=b"".join(idat),
        idat_sizes=tuple(len(part) for part in idat),
        after=tuple(chunks[first + count : -1]),
        trailing=data[at:],
    )


def join(parts: Parts) -> bytes:
    """The file's bytes."""
    kind = parts.kind
    header = struct.pack(
        ">IIBBBBB", parts.width, parts.height, kind.depth, kind.colour_type, 0, 0, kind.interlaced
    )
    out = [SIGNATURE, chunk(b"IHDR", header), _chunks(parts.before)]
    at = 0
    for size in parts.idat_sizes:
        out.append(chunk(b"IDAT", parts.stream[at : at + size]))
        at += size
    return b"".join([*out, _chunks(parts.after), chunk(b"IEND", b""), parts.trailing])


def _chunks(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"".join(chunk(kind, data) for kind, data in chunks)
