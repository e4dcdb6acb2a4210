"""Coder 1, the mixed trellis: one raw bit a step picks offsets of lattices, lattice integers are entropy coded.

Legend: N dimensions of a section, C scalar ones, D lattice ones, T trellis steps.

A section, in the decoder's order. Bits: one per step; the low bits of wide integers; the codes behind escapes.
Symbols: scalar dimensions, narrow lattice integers, wide ones. A payload is the sections' bits, one after another,
and one stack of symbols: varint of the bits' length in bytes, the bits, the stack. No bit and no symbol: no byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numba
import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptStream, InvalidPosterior, UsageError
from recbatch.rec import ans, bits, noise
from recbatch.rec.base import Bits, Reader, Samples, Scales, Targets, Writer
from recbatch.rec.coders import symbols
from recbatch.rec.kernels.rows.cpu import UNITS_PER_NOISE
from recbatch.rec.kernels.viterbi.cpu import codes_of_bits, search_block
from recbatch.rec.plan import Plan, make_plan
from recbatch.rec.tables import NARROW, WIDE, Tables, columns

if TYPE_CHECKING:
    from recbatch.rec.kernels.viterbi.gpu import Section

BLOCK = 4096  # steps searched at once
FEWEST_BITS, MOST_BITS = 9, 16
BITS_OF_EFFORT = {1: 9, 2: 10, 3: 10, 4: 11, 5: 12, 6: 12, 7: 13, 8: 14, 9: 16}
FARTHEST = np.float32(1 << 24)  # targets beyond are coded as this, so that samples fit int32

Bytes = NDArray[np.uint8]


class BadEffort(UsageError):
    """An effort that no setting answers to."""

    code = "bad-effort"

    def __init__(self, effort: int) -> None:
        super().__init__(effort)
        self.effort = effort

    def __str__(self) -> str:
        return f"Effort {self.effort} does not exist. Give 1 (fastest) to 9 (smallest)."


class BadTrellisSize(UsageError):
    """A number of states that the format can't name."""

    code = "bad-trellis-size"

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.bits = bits

    def __str__(self) -> str:
        return f"A trellis of 2^{self.bits} states does not exist. Use {FEWEST_BITS} to {MOST_BITS} bits of state."


class NoTriton(UsageError):
    """A search on a GPU was asked for where Triton is not installed."""

    code = "no-triton"

    def __str__(self) -> str:
        return "The search on a GPU needs Triton, which is not installed. Install recbatch[gpu], or search on the CPU."


class ForeignWriter(UsageError):
    """A writer was handed to a coder that did not make it, or was already finished."""

    code = "foreign-writer"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"This writer can't take a section: {self.problem}. Use a fresh one from this coder's writer()."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trellis:
    """Mixed trellis of 2**bits states; four times the states take four times as long and save about half a percent."""

    number: ClassVar[int] = 1
    name: ClassVar[str] = "trellis"
    bits: int = 12
    tables: Tables = field(default_factory=Tables.default)
    device: str = "cpu"  # where encoders search; a stream's bytes say nothing of it

    def __post_init__(self) -> None:
        if not FEWEST_BITS <= self.bits <= MOST_BITS:
            raise BadTrellisSize(self.bits)

    @classmethod
    def from_parameters(
        cls,
        parameters: bytes | None,
        *,
        effort: int = 5,
        tables: Tables | None = None,
        device: str = "cpu",
    ) -> Trellis:
        """The coder a stream's header names, or with ``parameters`` None the one that ``effort`` asks for."""
        if parameters is None:
            if effort not in BITS_OF_EFFORT:
                raise BadEffort(effort)
            width = BITS_OF_EFFORT[effort]
        elif len(parameters) != 1 or not FEWEST_BITS <= parameters[0] <= MOST_BITS:
            raise CorruptStream(f"the trellis coder has parameters {parameters.hex() or 'of no length'}")
        else:
            width = parameters[0]
        return cls(bits=width, tables=tables or Tables.default(), device=device)

    @property
    def parameters(self) -> bytes:
        return bytes([self.bits])

    def writer(self, *, seed: int = 0) -> Writer:
        return TrellisWriter(self, seed)

    def encode(
        self, writers: Sequence[Writer], targets: Sequence[Targets], scales: Sequence[Scales]
    ) -> list[Samples]:
        """Code the next section of each writer's image; blocks run on as many threads as numba is set to use.

        On a GPU all blocks of all images are searched by one launch.
        """
        if not len(writers) == len(targets) == len(scales):
            raise InvalidPosterior(f"{len(writers)} writers, {len(targets)} targets and {len(scales)} scales")
        mine = [self._own(writer) for writer in writers]
        jobs = [_Job(self, target_N, scale_N) for target_N, scale_N in zip(targets, scales, strict=True)]
        for writer, job in zip(mine, jobs, strict=True):
            job.draw(_Draws(writer.seed, writer.next_section(), job.plan, self.bits))
        if self.device == "cpu":
            _run([work for job in jobs for work in job.blocks()])
        else:
            from recbatch.rec.coders.score import scores

            try:
                from recbatch.rec.kernels.viterbi.gpu import search_sections
            except ModuleNotFoundError as e:
                raise NoTriton() from e
            search, _ = scores(self.tables)
            search_sections([job.section() for job in jobs], self.bits, search, device=self.device)
        return [job.finish(writer) for writer, job in zip(mine, jobs, strict=True)]

    def reader(self, payload: bytes, *, seed: int = 0) -> Reader:
        return TrellisReader(self, payload, seed)

    def _own(self, writer: Writer) -> TrellisWriter:
        if not isinstance(writer, TrellisWriter) or writer.coder != self:
            raise ForeignWriter("another coder made it")
        if writer.finished:
            raise ForeignWriter("it is finished")
        return writer


class _Draws:
    """The shared randomness of one section."""

    def __init__(self, seed: int, section: int, plan: Plan, width: int) -> None:
        lattices = plan.lattice_D.size
        signs = noise.octets(seed, section, (lattices + 7) // 8, purpose=noise.SIGN)
        self.sign_D: Bytes = np.unpackbits(signs, count=lattices, bitorder="little")
        self.rotation_T: Bytes = noise.octets(seed, section, plan.steps, purpose=noise.STEP) & np.uint8(254)
        self.map_G: Bytes = noise.octets(seed, section, 1 << (width - 9), purpose=noise.STATE_MAP) & np.uint8(
            254
        )


def _blocks(steps: int) -> list[tuple[int, int]]:
    """Cut steps evenly into blocks of about BLOCK."""
    count = max(1, (2 * steps + BLOCK) // (2 * BLOCK))
    return [(steps * n // count, steps * (n + 1) // count) for n in range(count)] if steps else []


class _Job:
    """One section on its way through the encoder."""

    def __init__(self, coder: Trellis, target_N: Targets, scale_N: Scales) -> None:
        self.coder, self.tables = coder, coder.tables
        self.plan = make_plan(scale_N, self.tables)
        if (
            not isinstance(target_N, np.ndarray)
            or target_N.dtype != np.float32
            or target_N.shape != scale_N.shape
        ):
            raise InvalidPosterior("targets must be a float32 array of the scales' shape")
        coded = (
            target_N if target_N.size and np.isfinite(target_N).all() else np.where(scale_N > 0, target_N, 0)
        )
        if not np.isfinite(coded).all():
            raise InvalidPosterior("a target is NaN or infinite")
        self.scale_N = np.ascontiguousarray(scale_N)
        self.target_N = np.clip(coded, -FARTHEST, FARTHEST).astype(np.float32)
        self.bit_T = np.zeros(self.plan.steps, np.uint8)
        self.code_T = np.zeros(self.plan.steps, np.uint8)
        self.integer_D = np.zeros(self.plan.lattice_D.size, np.int32)

    def draw(self, draws: _Draws) -> None:
        self.draws = draws

    def blocks(self) -> list[Callable[[], None]]:
        """The section's searches, independent of one another."""
        from recbatch.rec.coders.score import scores

        search, _ = scores(self.tables)
        e_D, scale_D = self._lattice()

        def block(first: int, last: int) -> None:
            found = search_block(
                e_D, scale_D, self.plan.starts_T1, first, last, self.draws.map_G, self.draws.rotation_T,
                self.coder.bits, search, self.bit_T, self.code_T, self.integer_D,
            )  # fmt: skip
            if not found:
                raise RuntimeError(f"steps {first} to {last}: the trellis path is not closed")

        return [lambda first=a, last=b: block(first, last) for a, b in _blocks(self.plan.steps)]  # type: ignore[misc]

    def section(self) -> Section:
        """The same searches for a GPU."""
        from recbatch.rec.kernels.viterbi.gpu import Section

        e_D, scale_D = self._lattice()
        return Section(
            e_D=e_D,
            scale_D=scale_D,
            starts_T1=self.plan.starts_T1,
            map_G=self.draws.map_G,
            rotation_T=self.draws.rotation_T,
            blocks=_blocks(self.plan.steps),
            bit_T=self.bit_T,
            code_T=self.code_T,
            integer_D=self.integer_D,
        )

    def _lattice(self) -> tuple[NDArray[np.float32], Bytes]:
        """Targets of the lattice dimensions, turned by their signs, in the kernel's unit; and their scale indices."""
        unit = np.float32(UNITS_PER_NOISE)
        e_D = self.target_N[self.plan.lattice_D] * np.where(self.draws.sign_D > 0, -unit, unit)
        return e_D, self.scale_N[self.plan.lattice_D]

    def finish(self, writer: TrellisWriter) -> Samples:
        """Turn what was found into bits and symbols, and into samples."""
        from recbatch.rec.coders.score import scores

        plan, tables = self.plan, self.tables
        _, scalar = scores(tables)
        integer_C = symbols.quantise_scalars(self.target_N, self.scale_N, plan.scalar_C, *scalar)
        narrow_rows, wide_rows, widths, offset_D = symbols.row_numbers(
            self.scale_N, plan.scalar_C, plan.lattice_D, plan.starts_T1, self.code_T, columns(), tables.first_row_S,
            tables.wide_S, tables.shift_S,
        )  # fmt: skip
        narrow, wide, low, escapes = symbols.split_integers(
            integer_C,
            self.integer_D,
            self.scale_N,
            plan.lattice_D,
            tables.wide_S,
            tables.shift_S,
            narrow_rows.size,
        )
        out, fits = symbols.samples(
            integer_C.astype(np.int64), self.integer_D.astype(np.int64), self.scale_N, plan.scalar_C, plan.lattice_D,
            offset_D, self.draws.sign_D, tables.centroid_SA, tables.delta_S, tables.offsets_SQ,
        )  # fmt: skip
        if not fits:
            raise RuntimeError("a sample does not fit int32")
        writer.add(
            _Section(
                steps=self.bit_T,
                extra=np.concatenate([bits.fixed(low, widths), bits.gammas(escapes)]),
                narrow=narrow,
                narrow_rows=narrow_rows,
                wide=wide,
                wide_rows=wide_rows,
            )
        )
        return out


def _run(tasks: Sequence[Callable[[], None]]) -> None:
    """Run independent searches; order and number of threads leave no trace in the result."""
    threads = min(int(numba.get_num_threads()), len(tasks))
    if threads <= 1:
        for task in tasks:
            task()
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """What a finished section adds to the payload."""

    steps: Bytes
    extra: Bytes
    narrow: ans.Symbols
    narrow_rows: ans.RowNumbers
    wide: ans.Symbols
    wide_rows: ans.RowNumbers


class TrellisWriter:
    """Collects sections; symbols are coded at the end, since the stack gives back last what went in first."""

    def __init__(self, coder: Trellis, seed: int) -> None:
        self.coder, self.seed, self.finished = coder, seed, False
        self._sections: list[_Section] = []
        self._numbered = 0
        self._bits = Bits()

    @property
    def bits(self) -> Bits:
        return self._bits

    def next_section(self) -> int:
        self._numbered += 1
        return self._numbered - 1

    def add(self, section: _Section) -> None:
        self._sections.append(section)

    def finish(self) -> bytes:
        self.finished = True
        stack = ans.Encoder()
        for section in reversed(self._sections):
            stack.push(section.wide, section.wide_rows, self.coder.tables.wide_rows)
            stack.push(section.narrow, section.narrow_rows, self.coder.tables.narrow_rows)
        coded = stack.finish()
        parts = [part for section in self._sections for part in (section.steps, section.extra)]
        packed = bits.pack(np.concatenate([np.zeros(0, np.uint8), *parts]))
        payload = bits.varint(len(packed)) + packed + coded if packed or coded else b""
        index = sum(section.steps.size for section in self._sections)
        symbol_bits = 8 * len(coded) + sum(section.extra.size for section in self._sections)
        self._bits = Bits(index=index, symbols=symbol_bits, side=8 * len(payload) - index - symbol_bits)
        return payload


class TrellisReader:
    """Gives sections back; every bit and every word must be used."""

    def __init__(self, coder: Trellis, payload: bytes, seed: int) -> None:
        self._coder, self._seed, self._section = coder, seed, 0
        length, start = bits.parse_varint(payload) if payload else (0, 0)
        if len(payload) - start < length:
            raise CorruptStream(
                f"the index bits should take {length} bytes, {len(payload) - start} are left", start
            )
        if payload and len(payload) == start:
            raise CorruptStream("an empty payload is written as no byte at all", 0)
        self._bits = bits.BitReader(payload[start : start + length])
        self._symbols = ans.Decoder(payload[start + length :], offset=start + length)

    def decode(self, scales_N: Scales) -> Samples:
        tables = self._coder.tables
        plan = make_plan(scales_N, tables)
        scale_N = np.ascontiguousarray(scales_N)
        bit_T = self._bits.take(plan.steps)
        draws = _Draws(self._seed, self._section, plan, self._coder.bits)
        self._section += 1
        code_T = np.zeros(plan.steps, np.uint8)
        for first, last in _blocks(plan.steps):
            codes_of_bits(bit_T, first, last, draws.map_G, draws.rotation_T, self._coder.bits, code_T)
        narrow_rows, wide_rows, widths, offset_D = symbols.row_numbers(
            scale_N, plan.scalar_C, plan.lattice_D, plan.starts_T1, code_T, columns(), tables.first_row_S,
            tables.wide_S, tables.shift_S,
        )  # fmt: skip
        low = bits.parse_fixed(self._bits.take(int(widths.sum())), widths)
        narrow = self._symbols.pop(narrow_rows, tables.narrow_rows)
        wide = self._symbols.pop(wide_rows, tables.wide_rows)
        escapes = int((narrow == NARROW - 1).sum() + (wide == WIDE - 1).sum())
        integer_C, integer_D = symbols.join_integers(
            narrow, wide, low, self._bits.take_gammas(escapes), scale_N, plan.lattice_D, plan.scalar_C.size,
            tables.wide_S, tables.shift_S,
        )  # fmt: skip
        out, fits = symbols.samples(
            integer_C, integer_D, scale_N, plan.scalar_C, plan.lattice_D, offset_D, draws.sign_D, tables.centroid_SA,
            tables.delta_S, tables.offsets_SQ,
        )  # fmt: skip
        if not fits:
            raise CorruptStream("a sample is out of range")
        return out

    def finish(self) -> None:
        self._bits.finish()
        self._symbols.finish()
