"""Integer tables by scale index: the law that turns symbols into samples, and the probabilities of the symbols.

Legend: S = 151 scale indices, Q = 256 offsets in ascending order, K = symbols of a row, B = knots of a density.

Structure (fixed by the format, ``tables.npz``): planned rate, kind, lattice step, offsets, width of the row. Prior
(data: the Gaussian one is shipped, a trained one comes with a model): for lattice dimensions a density of |z| / sigma
at ``knots()``, for scalar dimensions the masses and values of the symbols. ``Tables`` derives all rows from them by
integer arithmetic, so a prior is as exact as the structure.
"""

# ruff: noqa: N802  (cached arrays are properties, and array names end in their shape)

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import CorruptData, UsageError
from recbatch.rec import noise
from recbatch.rec.ans import TOTAL, Rows
from recbatch.rec.base import SCALES
from recbatch.rec.kernels import jit

SHA256 = "2e319e3febcc733e04f11385bf9d07df32302fc7d9e5a8d3459a9b127f6ad73d"

NONE, SCALAR, GROUP, OWN = 0, 1, 2, 3  # kinds of dimension
GROUP_RATE = (
    358  # 1.4 bits in 1/256: a step covers one dimension of this rate or more, or a group that reaches it
)
NARROW, WIDE = 16, 64  # symbols of a row, the last of them the escape
COLUMNS = 5  # orders of the codebook; a group has at most five members
FINE, COARSE = 32, 4  # knots per deviation below and above EDGE deviations
EDGE, REACH = 8, 72
KNOTS = EDGE * FINE + (REACH - EDGE) * COARSE + 1

U16, I32, U32 = np.dtype("<u2"), np.dtype("<i4"), np.dtype("<u4")
FORMAT: Mapping[str, tuple[np.dtype[np.generic], tuple[int, ...]]] = {
    "rate": (U16, (SCALES,)),  # planned bits in 1/256
    "kind": (np.dtype("u1"), (SCALES,)),
    "wide": (
        np.dtype("u1"),
        (SCALES,),
    ),  # 1: rows of WIDE symbols, for the integer without its low ``shift`` bits
    "shift": (np.dtype("u1"), (SCALES,)),
    "delta": (I32, (SCALES,)),  # lattice (or scalar) step, 1/UNIT of noise
    "offsets": (I32, (SCALES, 256)),  # 1/UNIT of noise, ascending
    "inverse": (U32, (SCALES,)),  # 2**32 / sigma, sigma in 1/UNIT of noise
    "density": (U32, (SCALES, KNOTS)),  # lattice: any scale
    "mass": (U32, (SCALES, 9)),  # scalar: of |symbol| 0..7 and beyond, both signs together, any scale
    "centroid": (I32, (SCALES, 8)),  # scalar: what |symbol| stands for, 1/UNIT of noise
}
PRIOR = ("density", "mass", "centroid")

Array = NDArray[np.generic]
Ints = NDArray[np.int64]


class InvalidTables(UsageError):
    """Arrays given as a coder's tables do not have the format's names, shapes and ranges."""

    code = "invalid-tables"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"The coder's tables can't be used: {self.problem}. Use the tables that came with the model."


class DamagedTables(CorruptData):
    """The shipped tables are not those this version of the format was defined with."""

    code = "damaged-tables"

    def __init__(self, want: str, got: str) -> None:
        super().__init__(want, got)
        self.want, self.got = want, got

    def __str__(self) -> str:
        return f"tables.npz has digest {self.got}, this version needs {self.want}. Install the package again."


def sigma(index: int) -> float:
    """Prior deviation of a scale index, in units of the observation noise; for encoders, never for decoding."""
    return float(0.083 * 1.085 ** (index - 1)) if index else 0.0


def knots() -> NDArray[np.float64]:
    """Where a density is given, in prior deviations: every 1/32 up to 8, then every 1/4 up to 72."""
    fine = np.arange(EDGE * FINE) / FINE
    return np.concatenate([fine, EDGE + np.arange((REACH - EDGE) * COARSE + 1) / COARSE])


def digest(arrays: Mapping[str, Array]) -> str:
    """SHA-256 over names and little-endian values, whatever the file they came in."""
    total = hashlib.sha256()
    for name in FORMAT:
        total.update(name.encode() + b"\0" + np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


@dataclass(frozen=True, eq=False)
class Tables:
    """Structure and prior as integers, and what follows from them. Make one by ``default()`` or ``with_prior()``."""

    arrays: Mapping[str, Array]

    @classmethod
    def default(cls) -> Tables:
        """The shipped tables; loaded once, their digest checked."""
        return _default()

    @classmethod
    def with_prior(
        cls, *, density: Array | None = None, mass: Array | None = None, centroid: Array | None = None
    ) -> Tables:
        """The shipped structure with another prior; what is not given stays as shipped. Raises InvalidTables."""
        arrays = dict(_default().arrays)
        for name, given in (("density", density), ("mass", mass), ("centroid", centroid)):
            if given is None:
                continue
            dtype, shape = FORMAT[name]
            if not np.issubdtype(given.dtype, np.integer) or given.shape != shape:
                raise InvalidTables(f"{name} is {given.dtype}{list(given.shape)}, not {dtype}{list(shape)}")
            top = (1 << 15) - 1 if name == "centroid" else (1 << 32) - 1
            if int(given.min()) < 0 or int(given.max()) > top:
                raise InvalidTables(f"{name} holds values outside 0..{top}")
            if name == "centroid" and given[:, 0].any():
                raise InvalidTables("centroid gives the symbol 0 a value, which has no sign")
            arrays[name] = given.astype(dtype)
        return cls(arrays)

    @cached_property
    def digest(self) -> str:
        """Names these tables: 64 hexadecimal digits."""
        return digest(self.arrays)

    @cached_property
    def rate_S(self) -> Ints:
        return self.arrays["rate"].astype(np.int64)

    @cached_property
    def kind_S(self) -> Ints:
        return self.arrays["kind"].astype(np.int64)

    @cached_property
    def wide_S(self) -> Ints:
        return self.arrays["wide"].astype(np.int64)

    @cached_property
    def shift_S(self) -> Ints:
        return self.arrays["shift"].astype(np.int64)

    @cached_property
    def delta_S(self) -> Ints:
        return self.arrays["delta"].astype(np.int64)

    @cached_property
    def offsets_SQ(self) -> Ints:
        return self.arrays["offsets"].astype(np.int64)

    @cached_property
    def centroid_SA(self) -> Ints:
        return self.arrays["centroid"].astype(np.int64)

    @cached_property
    def first_row_S(self) -> Ints:
        """Number of an index's first row among the narrow or the wide ones; a lattice index has one per offset."""
        first, narrow, wide = np.zeros(SCALES, np.int64), 0, 0
        for k in range(SCALES):
            if self.kind_S[k] == SCALAR:
                first[k], narrow = narrow, narrow + 1
            elif self.kind_S[k] and self.wide_S[k]:
                first[k], wide = wide, wide + 256
            elif self.kind_S[k]:
                first[k], narrow = narrow, narrow + 256
        return first

    @cached_property
    def narrow_rows(self) -> Rows:
        """float32 [rows, NARROW], every value an integer: ``ans`` says what a row is."""
        return self._rows(wide=False)

    @cached_property
    def wide_rows(self) -> Rows:
        """float32 [rows, WIDE]."""
        return self._rows(wide=True)

    def _rows(self, *, wide: bool) -> Rows:
        parts = [np.zeros((0, WIDE if wide else NARROW), np.int64)]
        density_SB, mass_SA = self.arrays["density"].astype(np.int64), self.arrays["mass"].astype(np.int64)
        inverse_S = self.arrays["inverse"].astype(np.int64)
        for k in range(SCALES):
            if self.kind_S[k] == SCALAR and not wide:
                half_A = mass_SA[k, 1:8]
                row_K = np.concatenate([half_A[::-1], 2 * mass_SA[k, :1], half_A, 2 * mass_SA[k, 8:]])
                parts.append(normalise(row_K[None]))
            elif self.kind_S[k] >= GROUP and bool(self.wide_S[k]) == wide:
                weights_QK = _lattice_weights(
                    density_SB[k],
                    inverse_S[k],
                    self.delta_S[k],
                    self.offsets_SQ[k],
                    self.shift_S[k],
                    WIDE if wide else NARROW,
                )
                parts.append(normalise(weights_QK))
        return np.concatenate(parts).astype(np.float32)


@cache
def _default() -> Tables:
    with np.load(Path(__file__).with_name("tables.npz"), allow_pickle=False) as file:
        arrays = {name: file[name].astype(dtype) for name, (dtype, _) in FORMAT.items()}
    got = digest(arrays)
    if got != SHA256:
        raise DamagedTables(SHA256, got)
    return Tables(arrays)


@cache
def columns() -> NDArray[np.uint8]:
    """uint8 [COLUMNS, 256]: which offset a codeword means in the j-th dimension of a step.

    Codewords 2p and 2p + 1 are half a step apart in every dimension: they are what two paths that part, or meet,
    choose between.
    """
    out = np.zeros((COLUMNS, 256), np.uint8)
    for j in range(COLUMNS):
        draws = noise.words(0, j, np.arange(128), purpose=noise.COLUMN)
        order = list(range(128))
        for i in range(127, 0, -1):  # Fisher and Yates
            other = int(draws[i] % np.uint64(i + 1))
            order[i], order[other] = order[other], order[i]
        first = np.array(order) + 128 * (draws >> np.uint64(63)).astype(np.int64)
        out[j, 0::2], out[j, 1::2] = first, (first + 128) & 255
    return out


@jit
def _density_at(density_B: Ints, inverse: int, z: int) -> int:
    """The density at ``z`` (1/UNIT of noise), linear between knots and zero beyond the last; below 2**32."""
    x = (abs(z) * inverse) >> 16  # prior deviations in 1/65536
    if x < EDGE << 16:
        knot, rest = x >> 11, x & 2047
    else:
        x -= EDGE << 16
        knot, rest = EDGE * FINE + (x >> 14), (x & 16383) >> 3
        if knot >= KNOTS - 1:
            return 0
    return int((density_B[knot] * (2048 - rest) + density_B[knot + 1] * rest) >> 11)


@jit
def _lattice_weights(
    density_B: Ints, inverse: int, delta: int, offsets_Q: Ints, shift: int, symbols: int
) -> Ints:
    """Weights [Q, K] of the lattice integers (or of cells of 2**shift of them), the tail's sum as escape."""
    half = symbols // 2 - 1
    out = np.zeros((offsets_Q.size, symbols), np.int64)
    middle = (delta * ((1 << shift) - 1)) >> 1
    for q in range(offsets_Q.size):
        for cell in range(-2 * symbols, 2 * symbols + 1):
            weight = _density_at(density_B, inverse, offsets_Q[q] + delta * (cell << shift) + middle)
            if abs(cell) <= half:
                out[q, cell + half] = weight
            else:
                out[q, symbols - 1] = min(out[q, symbols - 1] + weight, 1 << 36)
    return out


@jit
def normalise(weights_CK: Ints) -> Ints:
    """Scale each row to the sum 2**24 - K: floors, the rest to the first of the largest. Weights at most 2**36."""
    classes, symbols = weights_CK.shape
    out = np.zeros((classes, symbols), np.int64)
    room = TOTAL - symbols
    for c in range(classes):
        total = weights_CK[c].sum()
        if total == 0:
            out[c, :] = room // symbols
            out[c, 0] += room % symbols
            continue
        best, used = 0, 0
        for j in range(symbols):
            out[c, j] = weights_CK[c, j] * room // total
            used += out[c, j]
            if weights_CK[c, j] > weights_CK[c, best]:
                best = j
        out[c, best] += room - used
    return out
