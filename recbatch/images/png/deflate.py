"""How a file's rows were deflated, and how to do it again.

Three ways are known: blocks that are only stored; Python's zlib under some settings; Pillow's own encoder, which
also filters and may hold another zlib than Python's.

Shape letters: H height, W width, S samples of a pixel.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptStream
from recbatch.images.png.chunks import split
from recbatch.images.png.wire import Reader, Runs, pack_runs, split_to_sizes

_MAX_STORED = 2**16 - 1
_FAMILIES = ("zlib", "zlib-ng", "zlib-rs", "another zlib")
FLUSHES = (zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH)


def family(version: str) -> int:
    """Number of the zlib family that a version string names, such as "1.3.1.zlib-ng"."""
    if "ng" in version:
        return 1
    if "rs" in version:
        return 2
    return 0 if version[:2] == "1." and version.replace(".", "").isdigit() else 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Deflate blocks without compression. The same bytes on every machine."""

    number: ClassVar[int] = 0
    block_runs: Runs  # sizes of all blocks but the last, and how often each

    def pack(self) -> bytes:
        return pack_runs(self.block_runs)

    @staticmethod
    def parse(reader: Reader) -> Stored:
        return Stored(block_runs=reader.runs())

    def deflate(self, scanlines: Iterable[bytes]) -> bytes:
        raw = memoryview(b"".join(scanlines))
        sizes = split_to_sizes(len(raw), self.block_runs)
        if max(sizes) > _MAX_STORED:
            raise CorruptStream(f"the recipe asks for a stored block of {max(sizes)} bytes")
        out: list[bytes | memoryview] = []
        at = 0
        for number, size in enumerate(sizes, start=1):
            lengths = size.to_bytes(2, "little") + (size ^ _MAX_STORED).to_bytes(2, "little")
            out += [bytes([number == len(sizes)]), lengths, raw[at : at + size]]
            at += size
        return b"".join(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Zlib:
    """Settings of Python's zlib."""

    number: ClassVar[int] = 1
    level: int
    memory: int
    strategy: int
    window_bits: int
    flush: int = zlib.Z_NO_FLUSH
    flush_runs: Runs = ()  # bytes of rows between flushes

    def pack(self) -> bytes:
        word = self.level | self.memory << 4 | self.strategy << 8 | (self.window_bits - 9) << 11
        flush = FLUSHES.index(self.flush) + 1 if self.flush_runs else 0
        return (word | flush << 14).to_bytes(2, "little") + (pack_runs(self.flush_runs) if flush else b"")

    @staticmethod
    def parse(reader: Reader) -> Zlib:
        word = int.from_bytes(reader.take(2), "little")
        flush = word >> 14
        found = Zlib(
            level=word & 15,
            memory=word >> 4 & 15,
            strategy=word >> 8 & 7,
            window_bits=(word >> 11 & 7) + 9,
            flush=FLUSHES[flush - 1] if flush else zlib.Z_NO_FLUSH,
            flush_runs=reader.runs() if flush else (),
        )
        if not (
            found.level <= 9 and 1 <= found.memory <= 9 and found.strategy <= 4 and found.window_bits <= 15
        ):
            raise CorruptStream("the recipe names settings that zlib does not have")
        return found

    def deflate(self, scanlines: Iterable[bytes]) -> bytes:
        return b"".join(self.pieces(scanlines))

    def pieces(self, scanlines: Iterable[bytes]) -> Iterator[bytes]:
        """The deflated bytes as they come, for those who stop at the first difference."""
        machine = zlib.compressobj(self.level, zlib.DEFLATED, -self.window_bits, self.memory, self.strategy)
        if self.flush_runs:
            raw, at = b"".join(scanlines), 0
            sizes = split_to_sizes(len(raw), self.flush_runs)
            for size in sizes[:-1]:
                yield machine.compress(raw[at : at + size]) + machine.flush(self.flush)
                at += size
            scanlines = [raw[at:]]
        for part in scanlines:
            yield machine.compress(part)
        yield machine.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pillow:
    """Settings of Pillow's PNG encoder, which filters by itself."""

    number: ClassVar[int] = 2
    level: int
    colour_type: int

    def pack(self) -> bytes:
        return bytes([self.level])

    @staticmethod
    def parse(reader: Reader, colour_type: int) -> Pillow:
        level = reader.byte()
        if level > 9:
            raise CorruptStream(f"the recipe names compression level {level}")
        return Pillow(level=level, colour_type=colour_type)

    def stream(self, samples_HWS: NDArray[np.uint8]) -> bytes:
        """The whole zlib stream."""
        from PIL import Image

        planes = samples_HWS[:, :, 0] if samples_HWS.shape[2] == 1 else samples_HWS
        image = Image.fromarray(np.ascontiguousarray(planes))
        options: dict[str, Any] = {}
        if self.colour_type == 3:
            image.putpalette(bytes(768))
            options["bits"] = 8
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=self.level, **options)
        parts = split(file.getvalue())
        return parts.stream if parts else b""


How = Stored | Zlib | Pillow


def maker(how: How) -> tuple[int, str]:
    """Family of the zlib that makes these bytes here, and its name with the version. Zero where none is asked."""
    if isinstance(how, Stored):
        return 0, "no zlib"
    if isinstance(how, Pillow):
        from PIL import features

        version = str(features.version("zlib_ng") or features.version("zlib") or "")
        number = 1 if features.check("zlib_ng") else family(version)
        return number, f"Pillow's {_FAMILIES[number]} {version}"
    number = family(zlib.ZLIB_RUNTIME_VERSION)
    return number, f"{_FAMILIES[number]} {zlib.ZLIB_RUNTIME_VERSION}"


def family_name(how: How, number: int) -> str:
    """For a message: what made the bytes elsewhere."""
    return ("Pillow's " if isinstance(how, Pillow) else "") + _FAMILIES[min(number, 3)]
