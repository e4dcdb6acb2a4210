"""The Poisson functional representation: exact posterior samples, their index coded by a Zipf law.

Candidates arrive as a Poisson process; the one that minimises arrival time over weight is a draw of the posterior, and
its number costs about KL + log2(KL + 1) + 4 bits under a Zipf law. A block is small, since the search takes exp(KL)
candidates; the surplus is paid in every block. The search ends when no later arrival can win, or at a cap that both
sides know from the plan. Dimensions that the trellis codes as scalar symbols are quantised as in ``ecsq``.

Sources: Li & El Gamal 2018, "Strong functional representation lemma and applications to coding theorems"; Theis,
Salimans, Hoffman & Mentzer 2022, "Lossy compression with Gaussian diffusion"; Vonderfecht & Liu 2025, "Lossy
compression with pretrained diffusion models", for blocks.

Legend: N dimensions of a section, D those in blocks, B blocks, C classes of planned rate, K symbols of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from recbatch.bench.coders.candidates import (
    MOST,
    Blocks,
    Codes,
    codebook,
    distances,
    drawn,
    make_blocks,
    quantiles,
    turns,
)
from recbatch.bench.coders.frame import Baseline, Part, Place, Run, Source, run_all
from recbatch.bench.coders.levels import Index, Ints, integer_rows
from recbatch.bench.coders.scalars import code_scalars, restore_scalars
from recbatch.bench.coders.stack import Book
from recbatch.errors import CorruptStream
from recbatch.rec import bits, noise
from recbatch.rec.base import Samples, Scales, Targets
from recbatch.rec.kernels import jit

ARRIVAL = 67  # purpose of the encoder's draws
# Excess on training photographs at levels 12 and 20, in percent, by planned bits of a block with 4 bits to spare:
# 6 60, 62; 8 49, 53; 10 40, 45; 12 34, 37. More candidates than 65536 cost more time than they are worth.
PLANNED = 12 * 256  # 1/256 bits of a block
SPARE = 4  # bits of candidates beyond the planned rate
MOST_BITS = MOST.bit_length() - 1
CLASSES = 4  # rows a planned bit
FINE = 3  # bits behind the first that a symbol tells
RUN = 64  # blocks of one task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pfr(Baseline):
    """Exact samples by the Poisson functional representation."""

    number: ClassVar[int] = 65007
    name: ClassVar[str] = "pfr"

    def code(self, target_N: Targets, scale_N: Scales, place: Place) -> tuple[Samples, Part]:
        blocks = make_blocks(scale_N, self.tables, PLANNED)
        index_B = np.zeros(blocks.rate_B.size, np.int64)
        run_all(_searches(target_N, scale_N, place, self, blocks, index_B))
        out = np.zeros(scale_N.size, np.int32)
        out[blocks.scalar_M], run_M, extra_M = code_scalars(target_N, scale_N, blocks.scalar_M, self.tables)
        out[blocks.dims_D] = drawn(index_B, blocks, scale_N, place, self.tables, MOST)
        symbol_B, width_B = symbols_of(index_B + 1)
        run_B = Run(symbols=symbol_B, numbers=classes(blocks.rate_B), book=zipf())
        extra_B = bits.fixed((index_B + 1) & ((1 << width_B) - 1), width_B)
        return out, Part(extra=np.concatenate([extra_M, extra_B]), runs=(run_M, run_B))

    def restore(self, source: Source, scale_N: Scales, place: Place) -> Samples:
        blocks = make_blocks(scale_N, self.tables, PLANNED)
        out = np.zeros(scale_N.size, np.int32)
        out[blocks.scalar_M] = restore_scalars(source, scale_N, blocks.scalar_M, self.tables)
        symbol_B = source.stack.pop(classes(blocks.rate_B), zipf()).astype(np.int64)
        first_B, width_B = ranges()
        width_B = width_B[symbol_B]
        low_B = bits.parse_fixed(source.bits.take(int(width_B.sum())), width_B)
        index_B = first_B[symbol_B] + low_B - 1
        if (index_B >= caps(blocks.rate_B)).any():
            raise CorruptStream("a candidate's number is beyond the search's end")
        out[blocks.dims_D] = drawn(index_B, blocks, scale_N, place, self.tables, MOST)
        return out


def caps(rate_B: Ints) -> Ints:
    """Candidates that a block of this planned rate has."""
    return np.asarray(1 << np.minimum((rate_B + 255) // 256 + SPARE, MOST_BITS), np.int64)


def classes(rate_B: Ints) -> Index:
    """Row of the index, by planned rate."""
    return np.minimum(rate_B * CLASSES // 256, MOST_BITS * CLASSES).astype(np.int32)


@cache
def ranges() -> tuple[Ints, Ints]:
    """First number and width of each symbol: numbers 1..7 alone, then eighths of an octave."""
    octave = np.repeat(np.arange(FINE, MOST_BITS + 1), 1 << FINE)
    eighth = np.tile(np.arange(1 << FINE), MOST_BITS + 1 - FINE)
    few = np.arange(1, 1 << FINE)
    first = np.concatenate([few, ((1 << FINE) + eighth) << (octave - FINE)])
    return first, np.concatenate([np.zeros_like(few), octave - FINE])


def symbols_of(number_B: Ints) -> tuple[Index, Ints]:
    """Symbol of each number >= 1, and how many low bits follow it."""
    first, width = ranges()
    symbol_B = np.searchsorted(first, number_B, "right") - 1
    return symbol_B.astype(np.int32), width[symbol_B]


@cache
def zipf() -> Book:
    """Rows by class: number i in proportion to i ** -(1 + 1 / (KL + log2(e) / e + 1)), up to the cap."""
    first, _ = ranges()
    mass_CK = np.zeros((MOST_BITS * CLASSES + 1, first.size))
    for c in range(mass_CK.shape[0]):
        kl_bits = (c + 0.5) / CLASSES
        top = int(caps(np.array([c * 256 // CLASSES + 256 // CLASSES - 1]))[0])
        power = 1 + 1 / (kl_bits + math.log2(math.e) / math.e + 1)
        weight = np.arange(1, top + 1) ** -power
        mass_CK[c] = np.bincount(symbols_of(np.arange(1, top + 1))[0], weight, first.size)
    return Book(integer_rows(mass_CK))


@jit
def _winner(distance_I: NDArray[np.float32], key: np.uint64, first: int) -> int:
    """The arrival of least time over weight: logarithms of times, plus distances."""
    best, least, time = 0, 1e300, 0.0
    nearest = distance_I.min()
    for i in range(distance_I.size):
        uniform = (np.float64(noise.word(key, first + i) >> np.uint64(11)) + 0.5) / 9007199254740992.0
        time -= math.log(uniform)
        if math.log(time) + nearest >= least:  # even the best weight there is comes too late
            break
        score = math.log(time) + distance_I[i]
        if score < least:
            best, least = i, score
    return best


def _searches(
    target_N: Targets, scale_N: Scales, place: Place, coder: Pfr, blocks: Blocks, index_B: Ints
) -> list[Callable[[], None]]:
    """Searches of runs of blocks; each writes its own indices."""
    e_D = target_N[blocks.dims_D].astype(np.float64)
    scale_D, turn_D = scale_N[blocks.dims_D].astype(np.int32), turns(place, blocks.dims_D.size)
    table_SQ, cap_B = quantiles(coder.tables), caps(blocks.rate_B)
    key = noise.key(place.seed, place.section, ARRIVAL)

    def search(first: int, last: int) -> None:
        codes_WI: Codes = codebook(place.seed, place.section, MOST)
        for b in range(first, last):
            dims = slice(int(blocks.starts_B1[b]), int(blocks.starts_B1[b + 1]))
            found_I = distances(e_D[dims], scale_D[dims], turn_D[dims], table_SQ, codes_WI, int(cap_B[b]))
            index_B[b] = _winner(found_I, key, b * MOST)

    return [partial(search, b, min(b + RUN, index_B.size)) for b in range(0, index_B.size, RUN)]
