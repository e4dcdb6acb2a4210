"""Bytes of a recipe: varints, byte strings and run lengths, written and read within bounds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from recbatch.errors import CorruptStream

Runs = tuple[tuple[int, int], ...]
_MAX_VARINT_BYTES = 6  # 42 bits: far more than any file has bytes


def varint(value: int) -> bytes:
    """7 bits a byte, lowest first; the high bit says that more follow."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def counted(data: bytes) -> bytes:
    """A byte string after its length."""
    return varint(len(data)) + data


def in_runs(sizes: Iterable[int]) -> Runs:
    """Sizes as (size, how many times) pairs."""
    return tuple((size, sum(1 for _ in group)) for size, group in groupby(sizes))


def pack_runs(runs: Runs) -> bytes:
    """Runs of sizes that are all >= 1."""
    return varint(len(runs)) + b"".join(varint(size) + varint(times) for size, times in runs)


def split_to_sizes(total: int, runs: Runs) -> list[int]:
    """The sizes of the parts of ``total``: those of the runs, then what remains, which may be 0.

    Raises:
        CorruptStream: the runs ask for more than there is. Nothing is allocated then.
    """
    rest = total - sum(size * times for size, times in runs)
    if rest < 0:
        raise CorruptStream(f"the recipe cuts {total} bytes into parts of {total - rest} bytes")
    return [size for size, times in runs for _ in range(times)] + [rest]


class Reader:
    """Takes a recipe's body apart; every step checks that the bytes are there."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise CorruptStream(f"the recipe ends inside a field of {size} bytes", self._at)
        self._at += size
        return self._data[self._at - size : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
            part = self.byte()
            value |= (part & 0x7F) << shift
            if part < 0x80:
                return value
        raise CorruptStream("a number in the recipe is too long", self._at)

    def counted(self) -> bytes:
        return self.take(self.varint())

    def runs(self) -> Runs:
        pairs = []
        for _ in range(self.varint()):  # each takes two bytes at least: take() ends it
            size, times = self.varint(), self.varint()
            if size == 0 or times == 0:
                raise CorruptStream("the recipe holds an empty run", self._at)
            pairs.append((size, times))
        return tuple(pairs)

    def end(self) -> None:
        if self._at != len(self._data):
            raise CorruptStream("bytes follow the recipe", self._at)
