"""Coder 1: mixed trellis.

Shapes: D lattice dimensions of a part, C scalar dimensions, T steps, K symbols of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import randomness as rnd
from .container import Reader
from .entropy import Bits, Stack, weighted_starts
from .errors import require
from .tables import Tables

WINDOW = 8192
STEP_RATE = 358
BLOCK = 8192
SCALAR = 1
NARROW, WIDE = 16, 64
WEIGHT_CAP = 2**36


@dataclass(frozen=True)
class Plan:
    """Which dimensions are coded how."""

    scalar_C: np.ndarray
    lattice_D: np.ndarray
    step_D: np.ndarray  # the step that a lattice dimension is in
    place_D: np.ndarray  # and its place there
    steps: int


def make_plan(scale_N: np.ndarray, tables: Tables) -> Plan:
    """Order of a part's dimensions, by nothing but their scale indices."""
    coded = np.flatnonzero(scale_N > 0)
    scalars: list[int] = []
    lattice: list[int] = []
    places: list[tuple[int, int]] = []
    step = 0
    for first in range(0, len(coded), WINDOW):
        window = coded[first : first + WINDOW]
        window = window[np.argsort(-scale_N[window].astype(np.int64), kind="stable")]
        is_scalar = tables["kind"][scale_N[window]] == SCALAR
        scalars.extend(window[is_scalar].tolist())
        lattice.extend(window[~is_scalar].tolist())
        groups = group_by_rate(tables["rate"][scale_N[window[~is_scalar]]].tolist())
        places.extend((step + group, place) for group, size in enumerate(groups) for place in range(size))
        step += len(groups)
    place_D2 = np.array(places, np.int64).reshape(-1, 2)
    as_index = [np.array(dims, np.int64) for dims in (scalars, lattice)]
    return Plan(as_index[0], as_index[1], place_D2[:, 0], place_D2[:, 1], step)


def group_by_rate(rates: Sequence[int]) -> list[int]:
    """Sizes of a window's steps: each ends as soon as its rates reach the threshold."""
    sizes: list[int] = []
    total = size = 0
    for rate in rates:
        total, size = total + rate, size + 1
        if total >= STEP_RATE:
            sizes.append(size)
            total = size = 0
    return [*sizes, size] if size else sizes


def columns() -> np.ndarray:
    """For each place in a step the permutation of offset numbers [5, 256]."""
    result = np.empty((5, 256), np.int64)
    for j in range(5):
        key = rnd.make_key(0, j, rnd.COLUMN)
        order = list(range(128))
        for i in range(127, 0, -1):
            other = rnd.word(key, i) % (i + 1)
            order[i], order[other] = order[other], order[i]
        for p in range(128):
            result[j, 2 * p] = order[p] + 128 * (rnd.word(key, p) >> 63)
            result[j, 2 * p + 1] = (result[j, 2 * p] + 128) % 256
    return result


COLUMNS = columns()


def walk(bits_T: Sequence[int], key_of: tuple[int, int], L: int) -> np.ndarray:
    """Index bits to codewords [T]; `key_of` is seed and part."""
    steps = len(bits_T)
    rotation = (rnd.octets(rnd.make_key(*key_of, rnd.STEP), steps) & 254).tolist()
    state_map = (rnd.octets(rnd.make_key(*key_of, rnd.STATE_MAP), 1 << (L - 9)) & 254).tolist()
    blocks = max(1, (2 * steps + BLOCK // 2) // BLOCK)
    codes: list[int] = []
    for block in range(blocks):
        first, end = steps * block // blocks, steps * (block + 1) // blocks
        state = 0
        for bit in bits_T[end - L : end] if end - first >= L else ():
            state = state << 1 | bit
        for t in range(first, end):
            state = (2 * state + bits_T[t]) % (1 << L)
            turned = (state + state_map[(state >> 8) % (1 << (L - 9))] + rotation[t]) & 255
            codes.append(turned ^ (state >> (L - 1)))
    return np.array(codes, np.int64)


def density_at(value_DI: np.ndarray, scale_D: np.ndarray, tables: Tables) -> np.ndarray:
    """The prior's density at integers [D, I], by straight lines between knots."""
    x = (np.abs(value_DI) * tables["inverse"][scale_D][:, None]) >> 16
    far = x - (8 << 16)
    near = far < 0
    knot = np.where(near, x >> 11, 256 + (far >> 14))
    rest = np.where(near, x & 2047, (far & 16383) >> 3)
    inside = knot < 512
    knot = np.where(inside, knot, 0)
    density = tables["density"]
    rows = scale_D[:, None]
    line = (density[rows, knot] * (2048 - rest) + density[rows, knot + 1] * rest) >> 11
    return np.where(inside, line, 0)


def lattice_starts(scale_D: np.ndarray, offset_D: np.ndarray, symbols: int, tables: Tables) -> np.ndarray:
    """Rows of lattice dimensions [D, K + 1]; `offset_D` are offsets, not their numbers."""
    half = symbols // 2 - 1
    integer_I = np.arange(-2 * symbols, 2 * symbols + 1)
    delta_D, shift_D = tables["delta"][scale_D], tables["shift"][scale_D]
    middle_D = (delta_D * ((1 << shift_D) - 1)) >> 1
    value_DI = (offset_D + middle_D)[:, None] + delta_D[:, None] * (integer_I << shift_D[:, None])
    weight_DI = density_at(value_DI, scale_D, tables)
    own_I = np.abs(integer_I) <= half
    # the cap holds after each addition; as nothing added is negative, capping the whole sum is the same
    escape_D = np.minimum(weight_DI[:, ~own_I].sum(axis=1), WEIGHT_CAP)
    return weighted_starts(np.concatenate([weight_DI[:, own_I], escape_D[:, None]], axis=1))


def scalar_starts(tables: Tables) -> np.ndarray:
    """Rows of scalar dimensions by scale index [151, 17]."""
    mass = tables["mass"]
    weights = [mass[:, 7:0:-1], 2 * mass[:, :1], mass[:, 1:8], 2 * mass[:, 8:]]
    return weighted_starts(np.concatenate(weights, axis=1))


class Decoder:
    """Decodes the parts of one payload, in order."""

    def __init__(self, parameters: bytes, payload: bytes, seed: int, tables: Tables) -> None:
        require(len(parameters) == 1 and 9 <= parameters[0] <= 16, "coder parameters")
        self.L, self.seed, self.tables = parameters[0], seed, tables
        self.part = 0
        reader = Reader(payload)
        count = reader.varint() if payload else 0
        self.bits = Bits(reader.take(count))
        self.stack = Stack(reader.take(reader.left))
        require(not payload or len(payload) > 1, "payload with nothing in it")
        self.scalar_rows = scalar_starts(tables).tolist()

    def decode_part(self, scale_N: np.ndarray) -> np.ndarray:
        """Residuals [N] of the next part, int64."""
        part, tables = self.part, self.tables
        self.part += 1
        plan = make_plan(scale_N, tables)
        scale_C, scale_D = scale_N[plan.scalar_C], scale_N[plan.lattice_D]
        codes_T = walk(self.bits.take(plan.steps), (self.seed, part), self.L)
        offset_D = tables["offsets"][scale_D, COLUMNS[plan.place_D, codes_T[plan.step_D]]]
        is_wide_D = tables["wide"][scale_D] == 1
        shift_wide = tables["shift"][scale_D[is_wide_D]]
        low_bits = [self.bits.number(shift) for shift in shift_wide.tolist()]

        narrow_rows = lattice_starts(scale_D[~is_wide_D], offset_D[~is_wide_D], NARROW, tables)
        wide_rows = lattice_starts(scale_D[is_wide_D], offset_D[is_wide_D], WIDE, tables)
        symbols_C = [self.stack.pop(self.scalar_rows[scale]) for scale in scale_C.tolist()]
        symbols_narrow = [self.stack.pop(row) for row in narrow_rows.tolist()]
        symbols_wide = [self.stack.pop(row) for row in wide_rows.tolist()]

        integer_C = self.integers(symbols_C, NARROW)
        integer_D = np.zeros(len(scale_D), np.int64)
        integer_D[~is_wide_D] = self.integers(symbols_narrow, NARROW)
        integer_D[is_wide_D] = (self.integers(symbols_wide, WIDE) << shift_wide) | np.array(
            low_bits, np.int64
        )

        residual_N = np.zeros(len(scale_N), np.int64)
        residual_N[plan.scalar_C] = scalar_law(integer_C, scale_C, tables)
        residual_N[plan.lattice_D] = self.lattice_law(integer_D, scale_D, offset_D, part)
        return residual_N

    def integers(self, symbols: Sequence[int], row: int) -> np.ndarray:
        """Symbols to integers; the escapes' sizes are read from the bits here, so call in their order."""
        half = row // 2 - 1
        values = [self.escape(half) if symbol == row - 1 else symbol - half for symbol in symbols]
        return np.array(values, np.int64)

    def escape(self, half: int) -> int:
        """An integer beyond the row's own."""
        code = self.bits.gamma()
        size = (code - 1) // 2 + half + 1
        return -size if code % 2 == 0 else size

    def lattice_law(
        self, integer_D: np.ndarray, scale_D: np.ndarray, offset_D: np.ndarray, part: int
    ) -> np.ndarray:
        """Lattice points [D], each with its sign bit."""
        sign_bytes = rnd.octets(rnd.make_key(self.seed, part, rnd.SIGN), (len(scale_D) + 7) // 8)
        minus_D = np.unpackbits(sign_bytes, bitorder="little")[: len(scale_D)] == 1
        # the longest escape, below 2^40, shifted by at most 9 and times delta stays within 64 bits
        value_D = offset_D + self.tables["delta"][scale_D] * integer_D
        return np.where(minus_D, -value_D, value_D)

    def finish(self) -> None:
        """The payload must be used up."""
        self.bits.finish()
        self.stack.finish()


def scalar_law(integer_C: np.ndarray, scale_C: np.ndarray, tables: Tables) -> np.ndarray:
    """Centroids near zero, multiples of delta beyond [C]."""
    size_C = np.abs(integer_C)
    near_C = tables["centroid"][scale_C, np.minimum(size_C, 7)]
    value_C = np.where(size_C < 8, near_C, size_C * tables["delta"][scale_C])
    return np.where(integer_C < 0, -value_C, value_C)
