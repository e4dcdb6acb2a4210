"""iREC: beam search over auxiliary variables, the coder that the trellis is measured against.

Source: Flamich, Havasi & Hernandez-Lobato 2020, "Compressing Images by Encoding Their Latent Representations
with Relative Entropy Coding", NeurIPS; docs/theory.md gives the equations.

A section's coded dimensions, in order, form blocks of 1000. A block whose posterior lies KL nats from the
prior takes T = ceil(KL / omega) steps; the decoder can't know T, so it is sent. Each step sends the index of
one of ``candidates`` shared draws of an auxiliary variable, and the sum of all T is the sample.

Draws. Two beams must not see the same moves, or their children are one set shifted twice: with common draws
the overhead on mixed rates was 45 % instead of 17. The authors seed each beam's draws by its own indices.
Here all beams share a step's draws, and a hash of the path flips the sign of each dimension: a decoder
rebuilds it from the indices, the law of each draw is unchanged (the table of normals is symmetric), the
overhead is that of separate draws, and the scores become a dense product.

Payload: one entropy-coded stack (``ans``). Per section with coded dimensions: the Rice parameter of the step
counts; for all blocks the quotients of (steps - expected steps), then the remainders, then escapes; all
indices, block by block.

Shapes: N dimensions of a section, M of them coded; K blocks; T steps of all blocks, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numba
import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptData, CorruptStream, InvalidPosterior, UsageError
from recbatch.rec import ans
from recbatch.rec import make_irec_tables as made
from recbatch.rec.base import SCALES, UNIT, Bits, Reader, Samples, Scales, Targets, Writer
from recbatch.rec.coders.trellis import BadEffort, ForeignWriter
from recbatch.rec.kernels.irec_search.cpu import replay_block, search_block
from recbatch.rec.kernels.irec_search.law import BEAM_BITS, MAX_CANDIDATES, MAX_STEPS
from recbatch.rec.noise import CANDIDATE, key, word

TABLES_SHA256: Final = "67074732e396aaff648acc520f3e82d3de4baf8f8932f158cc91e80cf13899ad"
BLOCK: Final = 1000  # dimensions, as published
OMEGA_UNIT: Final = 16  # omega is given in sixteenths of a nat
PRESETS: Final = {"lossy": (48, 20, 10), "lossless": (48, 36, 20)}  # omega, candidates, beams, as published
DRAWS, PATHS = CANDIDATE, CANDIDATE + 1  # purposes of shared randomness

_REACH = (
    64.0  # prior deviations: a posterior mean further out is searched for there, so that steps stay bounded
)
_QUOTIENTS = 16  # the last one escapes to a raw step count
_RAW_LOW = 64  # an escaped step count travels as two symbols, the upper part first
_RICE = 8  # Rice parameters 0 .. 7
_LN2_16 = 45426  # ln 2 in 1/65536, for the expected number of steps

Integers = NDArray[np.int64]


class BadIrecSettings(UsageError):
    """Settings of the iREC coder are outside what the format can express."""

    code = "bad-irec-settings"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"The iREC coder can't be set up: {self.problem}. Use one of its presets: {', '.join(PRESETS)}."
        )


class DamagedIrecTables(CorruptData):
    """The integer tables installed with the package are not those of the format."""

    code = "damaged-irec-tables"

    def __init__(self, got: str) -> None:
        super().__init__(got)
        self.got = got

    def __str__(self) -> str:
        return f"irec_tables.npz has digest {self.got}, not that of the format. Install recbatch again."


@dataclass(frozen=True, slots=True)
class IrecTables:
    """The shipped literals: make_irec_tables.py says what they are."""

    normal: NDArray[np.int16]
    ratio: NDArray[np.uint32]
    sigma: NDArray[np.uint32]
    rate: NDArray[np.uint16]


@lru_cache(maxsize=1)
def irec_tables() -> IrecTables:
    """Load and check the shipped tables, once a process."""
    with np.load(Path(__file__).parents[1] / made.PATH.name) as file:
        arrays = {name: file[name] for name in ("normal", "ratio", "sigma", "rate")}
    got = made.digest(arrays)
    if got != TABLES_SHA256:
        raise DamagedIrecTables(got)
    return IrecTables(**arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class IrecCoder:
    """A posterior sample as indices into shared draws, ``omega`` nats a step.

    ``omega`` (sixteenths of a nat) and ``candidates`` (draws a step) are part of the format; ``beams`` is the
    encoder's business.
    """

    number: ClassVar[int] = 2
    name: ClassVar[str] = "irec"

    omega: int = PRESETS["lossy"][0]
    candidates: int = PRESETS["lossy"][1]
    beams: int = PRESETS["lossy"][2]

    def __post_init__(self) -> None:
        if not 1 <= self.omega <= 255:
            raise BadIrecSettings(f"omega is {self.omega} sixteenths of a nat, outside 1..255")
        if not 2 <= self.candidates <= MAX_CANDIDATES:
            raise BadIrecSettings(f"{self.candidates} candidates a step, outside 2..{MAX_CANDIDATES}")
        if not 1 <= self.beams <= 1024:
            raise BadIrecSettings(f"{self.beams} beams, outside 1..1024")

    @classmethod
    def preset(cls, name: str) -> IrecCoder:
        """One of the two published settings, "lossy" or "lossless"."""
        if name not in PRESETS:
            raise BadIrecSettings(f"there is no preset {name!r}")
        omega, candidates, beams = PRESETS[name]
        return cls(omega=omega, candidates=candidates, beams=beams)

    @classmethod
    def from_parameters(cls, parameters: bytes | None, *, effort: int = 5) -> IrecCoder:
        """The coder a stream header names; without parameters, the preset for an effort of 1..9."""
        if not 1 <= effort <= 9:
            raise BadEffort(effort)
        chosen = cls.preset("lossy" if effort <= 5 else "lossless")
        if parameters is None:
            return chosen
        if len(parameters) != 2:
            raise CorruptStream(f"the iREC coder takes 2 bytes of parameters, not {len(parameters)}")
        try:
            return cls(omega=parameters[0], candidates=parameters[1] + 1, beams=chosen.beams)
        except BadIrecSettings as error:
            raise CorruptStream(f"the iREC coder's parameters are out of range: {error.problem}") from error

    @property
    def parameters(self) -> bytes:
        return bytes((self.omega, self.candidates - 1))

    def writer(self, *, seed: int = 0) -> Writer:
        return _IrecWriter(self.candidates, self.parameters, seed)

    def reader(self, payload: bytes, *, seed: int = 0) -> Reader:
        return _IrecReader(self, payload, seed)

    def encode(
        self, writers: Sequence[Writer], targets: Sequence[Targets], scales: Sequence[Scales]
    ) -> list[Samples]:
        """Code the next section of each image; blocks of all images are searched side by side."""
        if not len(writers) == len(targets) == len(scales):
            raise InvalidPosterior(f"{len(writers)} writers, {len(targets)} targets and {len(scales)} scales")
        mine = [self._own(writer) for writer in writers]
        sections = [_section(t, s, self.omega) for t, s in zip(targets, scales, strict=True)]
        tables = irec_tables()
        jobs: list[Callable[[], None]] = []
        for writer, section in zip(mine, sections, strict=True):
            seed, number = writer.seed, writer.next_section()
            for k, (dims, steps) in enumerate(_spans(section.steps, section.mean.size)):
                draw_key, path = _keys(seed, number, k)
                jobs.append(
                    partial(
                        search_block,
                        section.mean[dims],
                        section.variance[dims],
                        draw_key,
                        path,
                        self.candidates,
                        self.beams,
                        tables.normal,
                        tables.ratio,
                        section.indices[steps],
                        section.noise[dims],
                    )
                )
        _run(jobs)
        for writer, section in zip(mine, sections, strict=True):
            writer.add(section)
        return [_samples(section.noise, section.scales) for section in sections]

    def _own(self, writer: Writer) -> _IrecWriter:
        if not isinstance(writer, _IrecWriter) or writer.parameters != self.parameters:
            raise ForeignWriter("another coder made it")
        if writer.finished:
            raise ForeignWriter("it is finished")
        return writer


@dataclass(frozen=True, slots=True)
class _Section:
    scales: Scales  # [N]
    mean: NDArray[np.float64]  # [M] posterior, in prior deviations
    variance: NDArray[np.float64]  # [M]
    steps: Integers  # [K]
    expected: Integers  # [K]
    indices: NDArray[np.int32]  # [T]
    noise: Integers  # [M]


def _section(target_N: Targets, scales_N: Scales, omega: int) -> _Section:
    """Check one section and lay out its blocks."""
    scales_N = _checked_scales(scales_N)
    if (
        not isinstance(target_N, np.ndarray)
        or target_N.dtype != np.float32
        or target_N.shape != scales_N.shape
    ):
        raise InvalidPosterior("targets must be a float32 array of the scales' shape")
    coded = scales_N > 0
    sigma_M = irec_tables().sigma[scales_N[coded]] / 2.0**made.SIGMA_BITS
    e_M = target_N[coded].astype(np.float64)
    if not np.isfinite(e_M).all():
        raise InvalidPosterior("a target is NaN or infinite")
    variance_M = 1 / (1 + sigma_M**2)
    mean_M = np.clip(e_M * sigma_M * variance_M, -_REACH, _REACH)
    kl_M = 0.5 * (variance_M + mean_M**2 - 1 - np.log(variance_M))
    starts = range(0, mean_M.size, BLOCK)
    kl_K = np.array([math.fsum(kl_M[s : s + BLOCK]) for s in starts])
    steps_K = np.clip(np.ceil(kl_K * OMEGA_UNIT / omega), 1, MAX_STEPS).astype(np.int64)
    return _Section(
        scales_N,
        mean_M,
        variance_M,
        steps_K,
        _expected_steps(scales_N, omega),
        np.zeros(int(steps_K.sum()), np.int32),
        np.zeros(mean_M.size, np.int64),
    )


def _checked_scales(scales_N: Scales) -> Scales:
    if not isinstance(scales_N, np.ndarray) or scales_N.dtype != np.uint8 or scales_N.ndim != 1:
        raise InvalidPosterior("scales must be a uint8 array of one dimension")
    if scales_N.size and int(scales_N.max()) >= SCALES:
        raise InvalidPosterior(f"a scale index is {scales_N.max()}, the last is {SCALES - 1}")
    return scales_N


def _expected_steps(scales_N: Scales, omega: int) -> Integers:
    """Steps of each block if its KL were what the scales lead to expect; integers, both sides compute it."""
    rate_M = irec_tables().rate[scales_N[scales_N > 0]].astype(np.int64)
    sums_K = np.add.reduceat(rate_M, np.arange(0, rate_M.size, BLOCK)) if rate_M.size else rate_M
    unit = (omega << 16 << made.RATE_BITS) // OMEGA_UNIT
    return np.clip(-((-sums_K * _LN2_16) // unit), 1, MAX_STEPS)


def _keys(seed: int, section: int, block: int) -> tuple[np.uint64, np.uint64]:
    return (
        np.uint64(word(key(seed, section, DRAWS), block)),
        np.uint64(word(key(seed, section, PATHS), block)),
    )


def _spans(steps_K: Integers, n_dims: int) -> list[tuple[slice, slice]]:
    """Each block's dimensions and steps."""
    ends = np.cumsum(steps_K).tolist()
    return [
        (slice(k * BLOCK, min((k + 1) * BLOCK, n_dims)), slice(end - int(steps), end))
        for k, (steps, end) in enumerate(zip(steps_K, ends, strict=True))
    ]


def _run(jobs: Sequence[Callable[[], None]]) -> None:
    """Each job writes its own arrays, so the number of threads leaves no trace."""
    threads = min(numba.get_num_threads(), len(jobs))
    if threads <= 1:
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


def _samples(noise_M: Integers, scales_N: Scales) -> Samples:
    """Noise times prior deviation, in 1/UNIT of the observation noise; int64 throughout."""
    drop = BEAM_BITS - 20  # 20 bits of fraction are kept, 29 before the point are possible, sigma has 30
    rounded_M = (noise_M + (1 << (drop - 1))) >> drop
    shift = 20 + made.SIGMA_BITS - (UNIT.bit_length() - 1)
    coded = scales_N > 0
    out_N = np.zeros(scales_N.size, np.int32)
    product_M = rounded_M * irec_tables().sigma[scales_N[coded]].astype(np.int64)
    out_N[coded] = (product_M + (1 << (shift - 1))) >> shift
    return out_N


@lru_cache(maxsize=64)
def _uniform_row(size: int) -> ans.Rows:
    """One row of equal weights; the first ones take what is left over."""
    share, left = divmod(ans.TOTAL - size, size)
    return (share + (np.arange(size) < left)).astype(np.float32)[None]


@lru_cache(maxsize=1)
def _quotient_row() -> ans.Rows:
    """Each quotient half as likely as the one before."""
    weights = [ans.TOTAL >> min(q + 1, _QUOTIENTS - 1) for q in range(_QUOTIENTS)]
    return (np.array(weights) - 1).astype(np.float32)[None]


def _rice(folded_K: Integers) -> int:
    """The parameter that makes these numbers shortest."""
    return min(
        range(_RICE), key=lambda k: int(np.minimum(folded_K >> k, 2 * _QUOTIENTS).sum()) + k * folded_K.size
    )


class _IrecWriter:
    """Symbols of all sections in the decoder's order; ``finish`` stacks them backwards."""

    def __init__(self, candidates: int, parameters: bytes, seed: int) -> None:
        self.parameters, self.seed, self.finished = parameters, seed, False
        self._numbered = 0
        self._candidates = candidates
        self._runs: list[tuple[NDArray[np.int32], ans.Rows]] = []
        self._indices = 0
        self._bits = Bits()

    @property
    def bits(self) -> Bits:
        return self._bits

    def next_section(self) -> int:
        """The number of the next section to be searched."""
        self._numbered += 1
        return self._numbered - 1

    def add(self, section: _Section) -> None:
        """Take the symbols of a searched section."""
        if section.steps.size == 0:
            return
        delta_K = section.steps - section.expected
        folded_K = np.where(delta_K >= 0, 2 * delta_K, -2 * delta_K - 1)
        rice = _rice(folded_K)
        quotients_K = np.minimum(folded_K >> rice, _QUOTIENTS - 1)
        escaped = quotients_K == _QUOTIENTS - 1
        raw = section.steps[escaped] - 1
        self._put(np.array([rice]), _uniform_row(_RICE))
        self._put(quotients_K, _quotient_row())
        if rice:
            self._put(folded_K[~escaped] & ((1 << rice) - 1), _uniform_row(1 << rice))
        self._put(raw // _RAW_LOW, _uniform_row(MAX_STEPS // _RAW_LOW))
        self._put(raw % _RAW_LOW, _uniform_row(_RAW_LOW))
        self._put(section.indices, _uniform_row(self._candidates))
        self._indices += section.indices.size

    def _put(self, symbols: NDArray[Any], row: ans.Rows) -> None:
        self._runs.append((symbols.astype(np.int32), row))

    def finish(self) -> bytes:
        """Pack the sections into one payload."""
        self.finished = True
        encoder = ans.Encoder()
        for symbols, row in reversed(self._runs):
            encoder.push(symbols, np.zeros(symbols.size, np.int32), row)
        payload = encoder.finish()
        index = min(round(self._indices * math.log2(self._candidates)), 8 * len(payload))
        self._bits = Bits(index=index, side=8 * len(payload) - index)
        return payload


class _IrecReader:
    """Takes the sections back in the order written."""

    def __init__(self, coder: IrecCoder, payload: bytes, seed: int) -> None:
        self._coder = coder
        self._seed = seed
        self._section = 0
        self._stack = ans.Decoder(payload)
        # a stack of B bits holds at most so many indices; more would be read from nothing
        self._room = int((8 * len(payload) + 64) / math.log2(coder.candidates))

    def decode(self, scales_N: Scales) -> Samples:
        scales_N = _checked_scales(scales_N)
        expected_K = _expected_steps(scales_N, self._coder.omega)
        section, self._section = self._section, self._section + 1
        if expected_K.size == 0:
            return np.zeros(scales_N.size, np.int32)
        steps_K = self._steps(expected_K)
        total = int(steps_K.sum())
        if total > self._room:
            raise CorruptStream(
                f"section {section} claims {total} steps, the payload has room for {self._room}"
            )
        self._room -= total
        indices_T = self._take(total, _uniform_row(self._coder.candidates))
        noise_M = np.zeros(int((scales_N > 0).sum()), np.int64)
        tables = irec_tables()
        jobs: list[Callable[[], None]] = []
        for k, (dims, steps) in enumerate(_spans(steps_K, noise_M.size)):
            draw_key, path = _keys(self._seed, section, k)
            jobs.append(
                partial(
                    replay_block, draw_key, path, tables.normal, tables.ratio, indices_T[steps], noise_M[dims]
                )
            )
        _run(jobs)
        return _samples(noise_M, scales_N)

    def _steps(self, expected_K: Integers) -> Integers:
        rice = int(self._take(1, _uniform_row(_RICE))[0])
        quotients_K = self._take(expected_K.size, _quotient_row()).astype(np.int64)
        escaped = quotients_K == _QUOTIENTS - 1
        folded_K = quotients_K << rice
        if rice:
            folded_K[~escaped] |= self._take(int((~escaped).sum()), _uniform_row(1 << rice))
        steps_K = expected_K + np.where(folded_K % 2 == 0, folded_K // 2, -(folded_K // 2) - 1)
        count = int(escaped.sum())
        high = self._take(count, _uniform_row(MAX_STEPS // _RAW_LOW)).astype(np.int64)
        steps_K[escaped] = high * _RAW_LOW + self._take(count, _uniform_row(_RAW_LOW)) + 1
        if steps_K.min() < 1 or steps_K.max() > MAX_STEPS:
            raise CorruptStream(
                f"section {self._section - 1} has a block of a step count outside 1..{MAX_STEPS}"
            )
        return steps_K

    def _take(self, count: int, row: ans.Rows) -> NDArray[np.int32]:
        return self._stack.pop(np.zeros(count, np.int32), row)

    def finish(self) -> None:
        self._stack.finish()
