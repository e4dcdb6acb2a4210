"""A PNG file taken apart into what its pixels need and what else describes them, and put together again.

Pillow gets the first part alone. It mixes a file's texts with its own settings: a text named "interlace" before
the image data changes how the pixels are decoded, one named "exif" passes for EXIF, a profile or text that
unpacks to more than a mebibyte spoils the image.

Source: W3C, Portable Network Graphics specification, third edition, section 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from recbatch.images.errors import TruncatedImage
from recbatch.images.picture import PngChunk

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 2**14  # that are carried; real files have a few, and each costs more memory than its bytes
_OF_PIXELS = frozenset((b"tRNS", b"acTL", b"fcTL", b"fdAT"))
_ANCILLARY = 0x20  # of the first letter: lower case
_DEPTH_AT, _COLOUR_TYPE_AT = 24, 25


@dataclass(frozen=True, slots=True, kw_only=True)
class PngFile:
    """What ``take_apart`` finds."""

    pixels: bytes  # a PNG file with the critical chunks, the colour key and the animation, nothing else
    depth: int  # bits of a sample, or of a palette's index
    colour_type: int
    chunks: tuple[PngChunk, ...] = ()  # the others, in the file's order; no more than MAX_CHUNKS + 1
    damaged: frozenset[bytes] = frozenset()  # types of chunks that were left out: their checksum is wrong


def take_apart(data: bytes) -> PngFile | None:
    """A PNG file's two parts; None where it is none, or does not lead to its end.

    Raises:
        TruncatedImage: an ancillary chunk before the image data has a wrong checksum, as Pillow says, too. Behind
            the image data nobody looks, so there such a chunk is only left out.
    """
    if not data.startswith(SIGNATURE) or len(data) <= _COLOUR_TYPE_AT:
        return None
    kept: list[bytes] = []
    chunks: list[PngChunk] = []
    damaged: set[bytes] = set()
    start, at, is_after = 0, len(SIGNATURE), False
    while at + 12 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IEND":
            kept.append(data[start:end])
            return PngFile(
                pixels=b"".join(kept),
                depth=data[_DEPTH_AT],
                colour_type=data[_COLOUR_TYPE_AT],
                chunks=tuple(chunks),
                damaged=frozenset(damaged),
            )
        if end > len(data):
            return None
        is_after = is_after or kind == b"IDAT"
        # a type that is no four letters is left to Pillow, which refuses it or stops there
        if kind.isalpha() and kind[0] & _ANCILLARY and kind not in _OF_PIXELS:
            kept.append(data[start:at])
            start = end
            if zlib.crc32(memoryview(data)[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big"):
                if len(chunks) <= MAX_CHUNKS:
                    chunks.append(PngChunk(kind, data[at + 8 : end - 4], is_after))
            elif is_after:
                damaged.add(kind)
            else:
                raise TruncatedImage(f"its {kind.decode()} chunk has a wrong checksum")
        at = end
    return None


def with_chunks(png: bytes, chunks: Iterable[PngChunk]) -> bytes:
    """A whole PNG file of ours with more chunks: just before its image data, and just before its end."""
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for kind, data, is_after in chunks:
        parts[is_after].append(chunk(kind, data))
    first = len(SIGNATURE)
    while png[first + 4 : first + 8] != b"IDAT":
        first += 12 + int.from_bytes(png[first : first + 4], "big")
    end = len(png) - 12
    return b"".join([png[:first], *parts[0], png[first:end], *parts[1], png[end:]])


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk's bytes: length, type, data, checksum."""
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + checksum.to_bytes(4, "big")
