"""From pixels to what a PNG deflates: samples, rows of the interlacing passes, filters.

Shape letters: H height, W width, C channels, S samples of a pixel, R rows, B bytes of a row.

Source: W3C, Portable Network Graphics specification, third edition, sections 8 and 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptStream
from recbatch.images.png.chunks import Kind

Bytes = NDArray[np.uint8]

FILTERS = 5
_STRIP_BYTES = 2**18
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = (  # first row, first column, row step, column step
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def samples_of(pixels_HWC: Bytes, alpha_HW: Bytes | None, kind: Kind, chunks: dict[bytes, bytes]) -> Bytes:
    """The file's samples [H, W, S] from the planes that ``read_picture`` makes of them.

    Args:
        chunks: those before the pixels, by type: a palette is undone with PLTE and tRNS. Of two equal colours in
            a palette the first is taken, so a file that uses the second is not met.

    Raises:
        CorruptStream: the planes are not those of such a file.
    """
    channels = pixels_HWC.shape[2]
    if channels != (1 if kind.colour_type in (0, 4) else 3):
        raise CorruptStream(
            f"the recipe is of colour type {kind.colour_type}, the picture has {channels} channels"
        )
    if kind.colour_type == 3:
        return _indices(pixels_HWC, alpha_HW, chunks)
    if kind.colour_type in (4, 6):
        if alpha_HW is None:
            raise CorruptStream("the recipe is of a file with alpha, the picture has none")
        return np.concatenate([pixels_HWC, alpha_HW[:, :, np.newaxis]], axis=2)
    if kind.depth < 8:
        step = 255 // (2**kind.depth - 1)
        return pixels_HWC // np.uint8(step)
    return np.ascontiguousarray(pixels_HWC)


def _indices(pixels_HWC: Bytes, alpha_HW: Bytes | None, chunks: dict[bytes, bytes]) -> Bytes:
    palette = np.frombuffer(chunks.get(b"PLTE", b""), dtype=np.uint8)
    if palette.size == 0 or palette.size % 3 or palette.size > 768:
        raise CorruptStream("the recipe is of a file with a palette and has none")
    colours_KS = np.full((palette.size // 3, 4), 255, dtype=np.uint8)
    colours_KS[:, :3] = palette.reshape(-1, 3)
    opacity = np.frombuffer(chunks.get(b"tRNS", b""), dtype=np.uint8)[: len(colours_KS)]
    colours_KS[: opacity.size, 3] = opacity
    planes_HWS = np.full((*pixels_HWC.shape[:2], 4), 255, dtype=np.uint8)
    planes_HWS[:, :, :3] = pixels_HWC
    if alpha_HW is not None:
        planes_HWS[:, :, 3] = alpha_HW
    keys_K, first_K = np.unique(_as_words(colours_KS), return_index=True)
    wanted_HW = _as_words(planes_HWS)
    place_HW = np.searchsorted(keys_K, wanted_HW).clip(max=len(keys_K) - 1)
    if not np.array_equal(keys_K[place_HW], wanted_HW):
        raise CorruptStream("the picture has a colour that is not in the file's palette")
    index_HW: Bytes = first_K.astype(np.uint8)[place_HW]
    return index_HW[:, :, np.newaxis]


def _as_words(colours: Bytes) -> NDArray[np.uint32]:
    return np.ascontiguousarray(colours).view("<u4")[..., 0]


def passes(samples_HWS: Bytes, kind: Kind) -> list[Bytes]:
    """The packed rows [R, B] of each pass that has any; one pass where the file is not interlaced."""
    found = []
    for row, column, row_step, column_step in _ADAM7 if kind.interlaced else _WHOLE:
        part_RWS = samples_HWS[row::row_step, column::column_step]
        if part_RWS.size:
            found.append(_packed(part_RWS.reshape(len(part_RWS), -1), kind.depth))
    return found


def _packed(samples_RN: Bytes, depth: int) -> Bytes:
    if depth == 8:
        return np.ascontiguousarray(samples_RN)
    shifts = np.arange(depth - 1, -1, -1, dtype=np.uint8)
    bits = (samples_RN[:, :, np.newaxis] >> shifts) & 1
    return np.packbits(bits.reshape(len(samples_RN), -1), axis=1)


def scanlines(pass_rows: Iterable[Bytes], filters_R: Bytes, pixel_bytes: int) -> Iterator[bytes]:
    """What is deflated, strip by strip: each row after the number of its filter."""
    start = 0
    for rows_RB in pass_rows:
        for first, strip_RB, above_RB in _strips(rows_RB):
            chosen_R = filters_R[start + first : start + first + len(strip_RB)]
            out_RB = np.empty((len(strip_RB), strip_RB.shape[1] + 1), dtype=np.uint8)
            out_RB[:, 0] = chosen_R
            for number in np.unique(chosen_R):
                here = chosen_R == number
                out_RB[here, 1:] = _filtered(int(number), strip_RB[here], above_RB[here], pixel_bytes)
            yield out_RB.tobytes()
        start += len(rows_RB)


def least_sum_filters(pass_rows: Iterable[Bytes], pixel_bytes: int) -> Bytes:
    """The filters [R] that most encoders choose: of least sum of absolute differences, the lower number on a tie."""
    found = []
    for rows_RB in pass_rows:
        for _, strip_RB, above_RB in _strips(rows_RB):
            sums = [
                np.abs(_filtered(number, strip_RB, above_RB, pixel_bytes).view(np.int8).astype(np.int16))
                .sum(axis=1, dtype=np.int64)
                for number in range(FILTERS)
            ]  # fmt: skip
            found.append(np.argmin(sums, axis=0).astype(np.uint8))
    return np.concatenate(found)


def _strips(rows_RB: Bytes) -> Iterator[tuple[int, Bytes, Bytes]]:
    """(number of the first row, the rows, the rows above them): filters need several times a strip's memory."""
    step = max(1, _STRIP_BYTES // rows_RB.shape[1])
    for first in range(0, len(rows_RB), step):
        strip_RB = rows_RB[first : first + step]
        above_RB = np.zeros_like(strip_RB)
        above_RB[1:] = strip_RB[:-1]
        if first:
            above_RB[0] = rows_RB[first - 1]
        yield first, strip_RB, above_RB


def _filtered(number: int, rows_RB: Bytes, above_RB: Bytes, pixel_bytes: int) -> Bytes:
    """Rows under one filter: 0 none, 1 left, 2 above, 3 average, 4 Paeth."""
    if number == 0:
        return rows_RB
    if number == 2:
        return rows_RB - above_RB
    left_RB = _moved(rows_RB, pixel_bytes)
    if number == 1:
        return rows_RB - left_RB
    if number == 3:
        mean_RB = (left_RB.astype(np.uint16) + above_RB) >> 1
        return rows_RB - mean_RB.astype(np.uint8)
    corner_RB = _moved(above_RB, pixel_bytes)
    from_left = np.abs(above_RB.astype(np.int16) - corner_RB)
    from_above = np.abs(left_RB.astype(np.int16) - corner_RB)
    from_corner = np.abs(left_RB.astype(np.int16) + above_RB - 2 * corner_RB.astype(np.int16))
    nearest_RB = np.where(from_above <= from_corner, above_RB, corner_RB)
    take_left = (from_left <= from_above) & (from_left <= from_corner)
    return rows_RB - np.where(take_left, left_RB, nearest_RB)


def _moved(rows_RB: Bytes, pixel_bytes: int) -> Bytes:
    """Each byte's neighbour one pixel to the left, 0 at the border."""
    moved_RB = np.zeros_like(rows_RB)
    moved_RB[:, pixel_bytes:] = rows_RB[:, :-pixel_bytes]
    return moved_RB
