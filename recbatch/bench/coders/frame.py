"""What all baselines share: checks, sections, and one payload of index bits and entropy-coded symbols.

Payload: varint of the bits' length in bytes, the bits of all sections one after another, one stack of symbols. No bit
and no symbol: no byte. A baseline says how one section becomes a ``Part``, and how a reader's bits and symbols
become its samples again.

Legend: N dimensions of a section.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar

import numba
import numpy as np
from numpy.typing import NDArray

from recbatch.bench.coders.stack import Book, Stack
from recbatch.errors import CorruptStream, InvalidPosterior
from recbatch.rec import ans, bits
from recbatch.rec.base import SCALES, Bits, Reader, Samples, Scales, Targets, Writer
from recbatch.rec.coders.trellis import FARTHEST, ForeignWriter
from recbatch.rec.tables import Tables

Bytes = NDArray[np.uint8]
NO_BITS: Bytes = np.zeros(0, np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Symbols with the rows they are coded by."""

    symbols: ans.Symbols
    numbers: ans.RowNumbers
    book: Book


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one section adds to the payload; bits stand in this order, runs in the decoder's."""

    side: Bytes = field(default_factory=lambda: NO_BITS)  # codes of scales and the like
    index: Bytes = field(default_factory=lambda: NO_BITS)  # raw index bits
    extra: Bytes = field(default_factory=lambda: NO_BITS)  # low bits and escapes, counted as symbols
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Names a section's shared randomness."""

    seed: int
    section: int


class Source:
    """A payload on its way back."""

    def __init__(self, payload: bytes) -> None:
        length, start = bits.parse_varint(payload) if payload else (0, 0)
        if len(payload) - start < length:
            raise CorruptStream(
                f"the bits should take {length} bytes, {len(payload) - start} are left", start
            )
        if payload and len(payload) == start:
            raise CorruptStream("an empty payload is written as no byte at all", 0)
        self.bits = bits.BitReader(payload[start : start + length])
        self.stack = Stack(payload[start + length :], offset=start + length)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Baseline:
    """Base of the baselines; two of one kind with the same parameters read each other's payloads."""

    number: ClassVar[int]
    name: ClassVar[str]
    tables: Tables = field(default_factory=Tables.default)

    @property
    def parameters(self) -> bytes:
        return b""

    @abstractmethod
    def code(self, target_N: Targets, scale_N: Scales, place: Place) -> tuple[Samples, Part]:
        """Samples of one section and what it adds; targets are finite and below 2**24."""

    @abstractmethod
    def restore(self, source: Source, scale_N: Scales, place: Place) -> Samples:
        """The samples of the next section."""

    def writer(self, *, seed: int = 0) -> Writer:
        return FrameWriter(self, seed)

    def encode(
        self, writers: Sequence[Writer], targets: Sequence[Targets], scales: Sequence[Scales]
    ) -> list[Samples]:
        """Code the next section of each writer's image. Raises InvalidPosterior."""
        if not len(writers) == len(targets) == len(scales):
            raise InvalidPosterior(f"{len(writers)} writers, {len(targets)} targets and {len(scales)} scales")
        mine = [self._own(writer) for writer in writers]
        checked = [
            checked_section(target_N, scale_N) for target_N, scale_N in zip(targets, scales, strict=True)
        ]
        out = []
        for writer, (target_N, scale_N) in zip(mine, checked, strict=True):
            samples, part = self.code(target_N, scale_N, Place(seed=writer.seed, section=len(writer.parts)))
            writer.parts.append(part)
            out.append(samples)
        return out

    def reader(self, payload: bytes, *, seed: int = 0) -> Reader:
        return FrameReader(self, payload, seed)

    def _own(self, writer: Writer) -> FrameWriter:
        if not isinstance(writer, FrameWriter) or writer.key != (self.number, self.parameters):
            raise ForeignWriter("another coder made it")
        if writer.finished:
            raise ForeignWriter("it is finished")
        return writer


class FrameWriter:
    """Collects sections; symbols are coded at the end, since the stack gives back last what went in first."""

    def __init__(self, coder: Baseline, seed: int) -> None:
        self.key, self.seed, self.finished = (coder.number, coder.parameters), seed, False
        self.parts: list[Part] = []
        self._bits = Bits()

    @property
    def bits(self) -> Bits:
        return self._bits

    def finish(self) -> bytes:
        self.finished = True
        stack = ans.Encoder()
        for part in reversed(self.parts):
            for run in reversed(part.runs):
                stack.push(run.symbols, run.numbers, run.book.rows)
        coded = stack.finish()
        pieces = [piece for part in self.parts for piece in (part.side, part.index, part.extra)]
        packed = bits.pack(np.concatenate([NO_BITS, *pieces]))
        payload = bits.varint(len(packed)) + packed + coded if packed or coded else b""
        index = sum(part.index.size for part in self.parts)
        symbols = 8 * len(coded) + sum(part.extra.size for part in self.parts)
        self._bits = Bits(index=index, symbols=symbols, side=8 * len(payload) - index - symbols)
        return payload


class FrameReader:
    """Gives sections back; every bit and every word must be used."""

    def __init__(self, coder: Baseline, payload: bytes, seed: int) -> None:
        self._coder, self._seed, self._section = coder, seed, 0
        self._source = Source(payload)

    def decode(self, scales_N: Scales) -> Samples:
        place = Place(seed=self._seed, section=self._section)
        self._section += 1
        return self._coder.restore(self._source, checked_scales(scales_N), place)

    def finish(self) -> None:
        self._source.bits.finish()
        self._source.stack.finish()


def checked_scales(scale_N: Scales) -> Scales:
    """Raises InvalidPosterior unless these are scale indices of one dimension."""
    if not isinstance(scale_N, np.ndarray) or scale_N.dtype != np.uint8 or scale_N.ndim != 1:
        raise InvalidPosterior("scales must be a uint8 array of one dimension")
    if scale_N.size and int(scale_N.max()) >= SCALES:
        raise InvalidPosterior(f"a scale index is {scale_N.max()}, the last is {SCALES - 1}")
    return np.ascontiguousarray(scale_N)


def checked_section(target_N: Targets, scale_N: Scales) -> tuple[Targets, Scales]:
    """Targets clipped so that samples fit int32. Raises InvalidPosterior for wrong types, shapes and NaN."""
    scale_N = checked_scales(scale_N)
    if (
        not isinstance(target_N, np.ndarray)
        or target_N.dtype != np.float32
        or target_N.shape != scale_N.shape
    ):
        raise InvalidPosterior("targets must be a float32 array of the scales' shape")
    coded_N = np.where(scale_N > 0, target_N, np.float32(0))
    if not np.isfinite(coded_N).all():
        raise InvalidPosterior("a target is NaN or infinite")
    return np.clip(coded_N, -FARTHEST, FARTHEST).astype(np.float32), scale_N


def run_all(tasks: Sequence[Callable[[], None]]) -> None:
    """Run independent searches on as many threads as numba is set to; each writes its own arrays."""
    threads = min(int(numba.get_num_threads()), len(tasks))
    if threads <= 1:
        for task in tasks:
            task()
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()
