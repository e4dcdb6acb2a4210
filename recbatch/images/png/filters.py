"""The filter of each row, as few bytes: one for all, a rule, exceptions from the rule, or one after the other.

Shape letters: R rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptStream
from recbatch.images.png.scanlines import FILTERS, Bytes, least_sum_filters
from recbatch.images.png.wire import Reader

# 0..4: that filter for all rows. The rest may be seen as bits: how far from the rule, three rows in a byte.
_RULE, _FROM_RULE, _GIVEN, _FROM_RULE_DENSE, _GIVEN_DENSE = range(FILTERS, FILTERS + 5)
_DENSE = (_FROM_RULE_DENSE, _GIVEN_DENSE)


def filters_in(raw: bytes, pass_rows: Sequence[Bytes]) -> Bytes | None:
    """The filters [R] in what was deflated; None where it has another size or a number that is no filter."""
    if len(raw) != sum(rows.size + len(rows) for rows in pass_rows):
        return None
    found, at = [], 0
    lines = np.frombuffer(raw, dtype=np.uint8)
    for rows in pass_rows:
        end = at + rows.size + len(rows)
        found.append(lines[at : end : rows.shape[1] + 1])
        at = end
    filters_R = np.concatenate(found)
    return filters_R if int(filters_R.max()) < FILTERS else None


def pack_filters(filters_R: Bytes, pass_rows: Sequence[Bytes], pixel_bytes: int) -> bytes:
    """The shortest of the forms, as the zstd frame around it will see them."""
    import zstandard

    if (filters_R == filters_R[0]).all():
        return bytes([filters_R[0]])
    distance_R = (filters_R + FILTERS - least_sum_filters(pass_rows, pixel_bytes)) % FILTERS
    if not distance_R.any():
        return bytes([_RULE])
    forms = [
        bytes([_FROM_RULE]) + distance_R.tobytes(),
        bytes([_GIVEN]) + filters_R.tobytes(),
        bytes([_FROM_RULE_DENSE]) + _dense(distance_R),
        bytes([_GIVEN_DENSE]) + _dense(filters_R),
    ]
    packer = zstandard.ZstdCompressor(level=12)
    return min(forms, key=lambda form: min(len(form), len(packer.compress(form))))


def parse_filters(reader: Reader, pass_rows: Sequence[Bytes], pixel_bytes: int) -> Bytes:
    """The filters [R] again.

    Raises:
        CorruptStream: no such form, or no such filter.
    """
    form, count = reader.byte(), sum(len(rows) for rows in pass_rows)
    if form < FILTERS:
        return np.full(count, form, dtype=np.uint8)
    if form == _RULE:
        return least_sum_filters(pass_rows, pixel_bytes)
    if form > _GIVEN_DENSE:
        raise CorruptStream(f"the recipe has no filters of form {form}")
    if form in _DENSE:
        given_R = _loose(np.frombuffer(reader.take((count + 2) // 3), dtype=np.uint8), count)
    else:
        given_R = np.frombuffer(reader.take(count), dtype=np.uint8)
    if int(given_R.max()) >= FILTERS:
        raise CorruptStream(f"the recipe names filter {int(given_R.max())}")
    if form in (_GIVEN, _GIVEN_DENSE):
        return given_R
    return (given_R + least_sum_filters(pass_rows, pixel_bytes)) % FILTERS


def _dense(filters_R: Bytes) -> bytes:
    """Three to a byte, in base 5."""
    padded = np.zeros((filters_R.size + 2) // 3 * 3, dtype=np.uint8)
    padded[: filters_R.size] = filters_R
    return (padded.reshape(-1, 3) @ np.array([1, 5, 25], dtype=np.uint8)).astype(np.uint8).tobytes()


def _loose(dense: Bytes, count: int) -> NDArray[np.uint8]:
    digits = np.stack([dense % 5, dense // 5 % 5, dense // 25], axis=1)
    return digits.reshape(-1)[:count]
