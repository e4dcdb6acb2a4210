"""What a recipe's body says: a file's parts without its pixels, and how to make the rest. As bytes, and back.

Shape letters: H height, W width, C channels.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from recbatch.errors import CorruptStream
from recbatch.images.png.chunks import Chunks, Kind, Parts
from recbatch.images.png.deflate import How, Pillow, Stored, Zlib
from recbatch.images.png.filters import pack_filters, parse_filters
from recbatch.images.png.scanlines import Bytes, passes, samples_of, scanlines
from recbatch.images.png.wire import Reader, Runs, counted, pack_runs, split_to_sizes, varint

# chunk types that get a number; 0 is any other. Only added to at the end: the numbers lie in archives.
_TYPES = (
    *(b"gAMA", b"sRGB", b"cHRM", b"iCCP", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf", b"PLTE"),
    *(b"tRNS", b"bKGD", b"sBIT", b"hIST", b"oFFs", b"sCAL", b"sPLT", b"cICP", b"vpAg", b"orNT", b"caBX"),
)
_COLOUR_BITS, _INTERLACED = 2, 32
_DEPTHS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A file's parts without its pixels."""

    kind: Kind
    before: Chunks
    after: Chunks
    trailing: bytes
    idat_runs: Runs  # sizes of all IDAT chunks but the last
    zlib_header: bytes
    how: How
    family: int  # of the zlib that the file was proved with
    filters_R: Bytes | None  # None where Pillow filters
    after_stream: bytes  # inside the last IDAT chunks, after the zlib stream

    def pack(self, samples_HWS: Bytes) -> bytes:
        """The body's bytes."""
        kind = self.kind
        layout = _DEPTHS.index(kind.depth) | kind.colour_type << _COLOUR_BITS | kind.interlaced * _INTERLACED
        filters = b""
        if self.filters_R is not None:
            filters = pack_filters(self.filters_R, passes(samples_HWS, kind), kind.pixel_bytes)
        return b"".join(
            (
                bytes([layout]),
                _pack_chunks(self.before),
                _pack_chunks(self.after),
                counted(self.trailing),
                pack_runs(self.idat_runs),
                bytes([self.how.number | self.family << 4]),
                self.zlib_header,
                self.how.pack(),
                filters,
                counted(self.after_stream),
            )
        )

    def file(self, samples_HWS: Bytes) -> Parts:
        """The file's parts. Raises CorruptStream where the plan contradicts itself."""
        stream = self._stream(samples_HWS) + self.after_stream
        return Parts(
            width=samples_HWS.shape[1],
            height=samples_HWS.shape[0],
            kind=self.kind,
            before=self.before,
            stream=stream,
            idat_sizes=tuple(split_to_sizes(len(stream), self.idat_runs)),
            after=self.after,
            trailing=self.trailing,
        )

    def _stream(self, samples_HWS: Bytes) -> bytes:
        if isinstance(self.how, Pillow):
            return self.how.stream(samples_HWS)
        if self.filters_R is None:
            raise CorruptStream("the recipe has no filters")
        lines = Summed(scanlines(passes(samples_HWS, self.kind), self.filters_R, self.kind.pixel_bytes))
        body = self.how.deflate(lines)
        return self.zlib_header + body + lines.adler.to_bytes(4, "big")


class Summed:
    """Passes lines on and keeps their Adler-32."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines, self.adler = lines, 1

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self.adler = zlib.adler32(line, self.adler)
            yield line


def parse_plan(body: bytes, pixels_HWC: Bytes, alpha_HW: Bytes | None) -> tuple[Plan, Bytes]:
    """The plan, and the file's samples [H, W, S], which the picture's size bounds.

    Raises:
        CorruptStream: no such plan, or it is not one for these pixels.
    """
    reader = Reader(body)
    kind = _parse_kind(reader.byte())
    before, after, trailing = _parse_chunks(reader), _parse_chunks(reader), reader.counted()
    samples_HWS = samples_of(pixels_HWC, alpha_HW, kind, dict(before))
    idat_runs = reader.runs()
    family, number = divmod(reader.byte(), 16)
    header, filters_R = b"", None
    how: How
    if number == Pillow.number:
        if kind.depth != 8 or kind.interlaced:
            raise CorruptStream("the recipe leaves to Pillow what it does not write")
        how = Pillow.parse(reader, kind.colour_type)
    elif number in (Stored.number, Zlib.number):
        header = reader.take(2)
        how = Zlib.parse(reader) if number == Zlib.number else Stored.parse(reader)
        filters_R = parse_filters(reader, passes(samples_HWS, kind), kind.pixel_bytes)
    else:
        raise CorruptStream(f"the recipe deflates by way {number}")
    plan = Plan(
        kind=kind,
        before=before,
        after=after,
        trailing=trailing,
        idat_runs=idat_runs,
        zlib_header=header,
        how=how,
        family=family,
        filters_R=filters_R,
        after_stream=reader.counted(),
    )
    reader.end()
    return plan, samples_HWS


def _parse_kind(layout: int) -> Kind:
    try:
        return Kind(
            depth=_DEPTHS[layout & 3],
            colour_type=layout >> _COLOUR_BITS & 7,
            interlaced=bool(layout & _INTERLACED),
        )
    except ValueError as error:
        raise CorruptStream(f"the recipe is of no PNG: {error}") from None


def _pack_chunks(chunks: Chunks) -> bytes:
    out = [varint(len(chunks))]
    for kind, data in chunks:
        number = _TYPES.index(kind) + 1 if kind in _TYPES else 0
        out.append(bytes([number]) + (b"" if number else kind) + counted(data))
    return b"".join(out)


def _parse_chunks(reader: Reader) -> Chunks:
    chunks = []
    for _ in range(reader.varint()):  # each takes two bytes at least: the reader ends it
        number = reader.byte()
        if number > len(_TYPES):
            raise CorruptStream(f"the recipe has a chunk of type {number}")
        kind = _TYPES[number - 1] if number else reader.take(4)
        chunks.append((kind, reader.counted()))
    return tuple(chunks)
