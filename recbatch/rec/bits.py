"""Bit strings and small integers as bytes.

Bits travel as uint8 arrays of 0 and 1, one element a bit, first bit first; bytes hold them from the high bit down.
A varint is base 128, lowest group first, in its shortest form only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptStream
from recbatch.rec.kernels import jit

Bitstring = NDArray[np.uint8]
Integers = NDArray[np.int64]

GAMMA_LIMIT = 40  # no Elias-gamma code of this format has more leading zeros


def pack(bits: Bitstring) -> bytes:
    """Bits to bytes; the last byte is filled up with zeros."""
    return np.packbits(bits).tobytes()


def unpack(data: bytes) -> Bitstring:
    """All bits of ``data``, filling included."""
    return np.unpackbits(np.frombuffer(data, np.uint8))


def varint(value: int) -> bytes:
    """``value`` >= 0 as a varint."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def parse_varint(data: bytes, offset: int = 0, *, limit: int = 1 << 62) -> tuple[int, int]:
    """The varint at ``offset`` and the offset behind it; raises CorruptStream if cut, too long or above ``limit``."""
    value, shift, at = 0, 0, offset
    while True:
        if at >= len(data):
            raise CorruptStream("a length is cut off", offset)
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            break
        shift += 7
        if shift > 62:
            raise CorruptStream("a length has too many bytes", offset)
    if (byte == 0 and at > offset + 1) or value > limit:
        raise CorruptStream("a length is not in its shortest form, or out of range", offset)
    return value, at


class BitReader:
    """Takes bits off the front of a string."""

    def __init__(self, data: bytes) -> None:
        self._bits = unpack(data)
        self.position = 0

    @property
    def left(self) -> int:
        return int(self._bits.size) - self.position

    def take(self, count: int) -> Bitstring:
        """The next ``count`` bits; raises CorruptStream if there are fewer."""
        if count > self.left:
            raise CorruptStream(f"{count} index bits are wanted and {self.left} are left", self.position // 8)
        self.position += count
        return self._bits[self.position - count : self.position]

    def take_gammas(self, count: int) -> Integers:
        """The next ``count`` Elias-gamma codes, integers >= 1."""
        values, used = _read_gammas(self._bits[self.position :], count)
        if used < 0:
            raise CorruptStream("an escape code is cut off or too long", self.position // 8)
        self.position += used
        return values

    def finish(self) -> None:
        """Raises CorruptStream unless only the filling of the last byte is left, and it is zero."""
        if self.left >= 8 or self._bits[self.position :].any():
            raise CorruptStream("index bits are left over", self.position // 8)


def gammas(values: Integers) -> Bitstring:
    """Elias-gamma codes of integers >= 1: as many zeros as the binary form has bits after its first, then that form."""
    return _write_gammas(np.ascontiguousarray(values, np.int64))


def fixed(values: Integers, widths: Integers) -> Bitstring:
    """The low ``widths[i]`` bits of ``values[i]``, high bit first, one after another."""
    return _write_fixed(np.ascontiguousarray(values, np.int64), np.ascontiguousarray(widths, np.int64))


def parse_fixed(bits: Bitstring, widths: Integers) -> Integers:
    """Inverse of ``fixed``; ``bits`` has exactly the sum of ``widths``."""
    return _read_fixed(bits, np.ascontiguousarray(widths, np.int64))


@jit
def _bit_length(value: int) -> int:
    length = 0
    while value > 0:
        value >>= 1
        length += 1
    return length


@jit
def _write_gammas(values: Integers) -> Bitstring:
    total = 0
    for i in range(values.size):
        total += 2 * _bit_length(values[i]) - 1
    out = np.zeros(total, np.uint8)
    at = 0
    for i in range(values.size):
        length = _bit_length(values[i])
        at += length - 1
        for b in range(length - 1, -1, -1):
            out[at] = (values[i] >> b) & 1
            at += 1
    return out


@jit
def _read_gammas(bits: Bitstring, count: int) -> tuple[Integers, int]:
    values = np.zeros(min(count, bits.size), np.int64)
    if count > bits.size:
        return values, -1
    at = 0
    for i in range(count):
        zeros = 0
        while at < bits.size and bits[at] == 0:
            zeros += 1
            at += 1
        if zeros >= GAMMA_LIMIT or at + zeros >= bits.size:
            return values, -1
        value = 0
        for _ in range(zeros + 1):
            value = (value << 1) | bits[at]
            at += 1
        values[i] = value
    return values, at


@jit
def _write_fixed(values: Integers, widths: Integers) -> Bitstring:
    out = np.empty(widths.sum(), np.uint8)
    at = 0
    for i in range(values.size):
        for b in range(widths[i] - 1, -1, -1):
            out[at] = (values[i] >> b) & 1
            at += 1
    return out


@jit
def _read_fixed(bits: Bitstring, widths: Integers) -> Integers:
    values = np.zeros(widths.size, np.int64)
    at = 0
    for i in range(widths.size):
        value = 0
        for _ in range(widths[i]):
            value = (value << 1) | bits[at]
            at += 1
        values[i] = value
    return values
