"""The search for how a file was deflated: the likely settings first, each wrong one left at its first difference.

Shape letters: H height, W width, S samples of a pixel.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, product

import numpy as np
from numpy.typing import NDArray

from recbatch.images.png.chunks import Kind
from recbatch.images.png.deflate import How, Pillow, Stored, Zlib
from recbatch.images.png.wire import Runs, in_runs

_STEP_BYTES = 2**15
_MARK = b"\0\0\xff\xff"  # ends what a flush writes
_PROBE_ROWS = 64
# levels by the hint in the zlib header, the likely ones first; 0 stores
_LEVELS = ((1,), (5, 4, 3, 2), (6,), (9, 8, 7))
_PLAIN = (zlib.Z_FILTERED, zlib.Z_DEFAULT_STRATEGY)
_TWO_EMPTY_BLOCKS = 0b011 << 10 | 0b010


def find(stream: bytes, size: int, raw: bytes, samples_HWS: NDArray[np.uint8], kind: Kind) -> How | None:
    """How ``raw`` becomes the first ``size`` bytes of ``stream``, a zlib stream; None if no known way does it."""
    body = stream[2 : size - 4]
    stored = _stored_runs(body, len(raw))
    if stored is not None:
        return Stored(block_runs=stored)
    found: How | None = _by_zlib(body, raw, _likely(stream))
    if found is None and kind.depth == 8 and not kind.interlaced:
        found = _by_pillow(stream[:size], raw, samples_HWS, kind.colour_type)
    return found or _by_zlib(body, raw, _unlikely(stream))


def _stored_runs(body: bytes, raw_size: int) -> Runs | None:
    """Sizes of the blocks but the last, where all blocks are stored and all but the last hold something."""
    sizes, at = [], 0
    while True:
        if at + 5 > len(body) or body[at] > 1:
            return None
        size = int.from_bytes(body[at + 1 : at + 3], "little")
        sizes.append(size)
        is_last, at = body[at] == 1, at + 5 + size
        if is_last:
            break
        if size == 0:
            return None
    if at != len(body) or sum(sizes) != raw_size:
        return None
    return in_runs(sizes[:-1])


def _likely(stream: bytes) -> list[Zlib]:
    """What libpng and those who call zlib by its defaults use, under the level that the header hints at."""
    window = max(9, (stream[0] >> 4) + 8)
    levels = _LEVELS[stream[1] >> 6]
    found = [
        Zlib(level=level, memory=memory, strategy=strategy, window_bits=bits)
        for bits in dict.fromkeys((window, 15))
        for level, memory, strategy in product(levels, (8, 9), _PLAIN)
    ]
    if levels == _LEVELS[0]:  # these strategies hint at 0, and the level does not matter to them
        found += [
            Zlib(level=6, memory=memory, strategy=strategy, window_bits=window)
            for memory, strategy in product((8, 9), (zlib.Z_RLE, zlib.Z_HUFFMAN_ONLY))
        ]
    return found


def _unlikely(stream: bytes) -> list[Zlib]:
    """Headers whose hint is not true, rare strategies, odd sizes of memory."""
    hinted = _LEVELS[stream[1] >> 6]
    window = max(9, (stream[0] >> 4) + 8)
    starts_fixed = stream[2] >> 1 & 3 == 1
    plain = product(range(9, 0, -1), (8, 9), _PLAIN, (window, 15))
    rare = product(range(9, 0, -1) if starts_fixed else (), (8, 9), (zlib.Z_FIXED,), (window, 15))
    level_free = product((6,), range(9, 0, -1), (zlib.Z_RLE, zlib.Z_HUFFMAN_ONLY), (window, 15))
    odd = product(hinted, range(7, 0, -1), _PLAIN, (window,))
    found = (
        Zlib(level=level, memory=memory, strategy=strategy, window_bits=bits)
        for level, memory, strategy, bits in chain(plain, level_free, rare, odd)
    )
    known = set(_likely(stream))
    return [settings for settings in dict.fromkeys(found) if settings not in known]


def _by_zlib(body: bytes, raw: bytes, settings: list[Zlib]) -> Zlib | None:
    for flush, steps in _flushes(body, len(raw)):
        for chosen in settings:
            candidate = replace(chosen, flush=flush, flush_runs=steps)
            if _gives(candidate, raw, body):
                return candidate
    return None


def _flushes(body: bytes, raw_size: int) -> Iterator[tuple[int, Runs]]:
    """(kind of flush, bytes of rows between flushes), the likely ones first."""
    if _ends_in_partial_flush(body):
        yield zlib.Z_PARTIAL_FLUSH, ((raw_size, 1),)
    yield zlib.Z_NO_FLUSH, ()
    if _MARK in body:
        steps = _flush_runs(body)
        if steps:
            yield zlib.Z_SYNC_FLUSH, steps
            yield zlib.Z_FULL_FLUSH, steps


def _ends_in_partial_flush(body: bytes) -> bool:
    """Whether two empty blocks of fixed codes end it, 10 bits each, as Adobe's writer does."""
    end = int.from_bytes(body[-4:], "little")
    return any(end >> 12 - padding == _TWO_EMPTY_BLOCKS for padding in range(8))


def _gives(candidate: Zlib, raw: bytes, body: bytes) -> bool:
    at = 0
    for piece in candidate.pieces(_cut(raw)):
        if body[at : at + len(piece)] != piece:
            return False
        at += len(piece)
    return at == len(body)


def _cut(raw: bytes) -> Iterator[bytes]:
    for start in range(0, len(raw), _STEP_BYTES):
        yield raw[start : start + _STEP_BYTES]


def _flush_runs(body: bytes) -> Runs:
    """Bytes of rows between the marks that flushes leave. A mark may also come about by chance; then none fits."""
    machine = zlib.decompressobj(-15)
    steps, at = [], 0
    while (mark := body.find(_MARK, at)) >= 0:
        steps.append(len(machine.decompress(body[at : mark + len(_MARK)])))
        at = mark + len(_MARK)
    return in_runs(steps) if all(steps) else ()


def _by_pillow(stream: bytes, raw: bytes, samples_HWS: NDArray[np.uint8], colour_type: int) -> Pillow | None:
    """Pillow filters by its own rule: a look at the first rows tells most other writers' files apart."""
    probe = zlib.decompress(Pillow(level=1, colour_type=colour_type).stream(samples_HWS[:_PROBE_ROWS]))
    if not raw.startswith(probe):
        return None
    for level in _LEVELS[stream[1] >> 6]:
        how = Pillow(level=level, colour_type=colour_type)
        if how.stream(samples_HWS) == stream:
            return how
    return None
