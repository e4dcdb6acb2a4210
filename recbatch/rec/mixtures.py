"""Entropy coding of integers whose law is a mixture of three logistics, by integers alone.

A symbol's law comes as nine integers r and a base in 1/16. A block's tuning, a gain g and a bias b for each of them,
first makes r into r g / 64 + b. Then: logits r[0:3] in 1/128 nat, means base + r[3:6] in 1/16, scale indices
128 + r[6:9] / 4. The distribution function at the edges between values is computed from integer tables (``Law``), in
units of 2**-24, so that every value keeps at least one unit. It drives a range coder with 64-bit state and 32-bit words
(Martin, 1979), the same on every machine.

Symbols of an image are spread over lanes, each a code of its own, which encode and decode side by side: lane l of L
takes the rows h l / L .. h (l + 1) / L of every block. A block is a rectangle of symbols of one component.

Shapes: B images, L lanes each, h x w symbols of a block, 9 parameters.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recbatch.errors import CorruptStream

LOGISTICS = 3
PARAMETERS = 3 * LOGISTICS
PRECISION = 24  # bits of a probability
UNIT = 1 << PRECISION
BASE_BITS = 4  # bases, means and edges are in 1/16
REACH = 12  # scales from its mean where a logistic ends
NODES_PER_SCALE_BITS = 6
INVERSE_BITS = 20  # of a reciprocal scale
INDEX_AT_ZERO, INDEX_SHIFT, LAST_INDEX = 128, 2, 255
SMALLEST_SCALE, INDICES_PER_NAT = 0.05, 32  # scale = 0.05 exp(index / 32)
LOGITS_PER_NAT, LOGIT_REACH = 128, 12
WEIGHT_BITS = 16
GAIN_BITS = 6  # of a block's gains
GAIN_UNIT = 1 << GAIN_BITS
BIAS_UNITS = (8, 1, 4)  # raw units in a bias of 1: of logits, of means, of scales
WORD = 1 << 32

Words = NDArray[np.uint32]
Tuning = NDArray[np.int32]  # [B, 18]: gains in 1/64, then biases in raw units


@dataclass(frozen=True, slots=True)
class Law:
    """The integer tables. They are shipped with a model; ``make`` is for those who train one."""

    sigmoid: NDArray[np.int32]  # [24 * 64 + 1] of -12 .. 12 in steps of 1/64, times 2**24
    inverse: NDArray[np.int32]  # [256] 2**20 over the scale
    weight: NDArray[np.int32]  # [12 * 128 + 1] of exp(-d / 128), times 2**16

    @classmethod
    def make(cls) -> Law:
        """The tables, from floating point: not for decoders."""
        steps = 1 << NODES_PER_SCALE_BITS
        t = np.arange(-REACH * steps, REACH * steps + 1) / steps
        scale = SMALLEST_SCALE * np.exp(np.arange(LAST_INDEX + 1) / INDICES_PER_NAT)
        d = np.arange(LOGIT_REACH * LOGITS_PER_NAT + 1)
        return cls(
            np.rint(UNIT / (1 + np.exp(-t))).astype(np.int32),
            np.rint((1 << INVERSE_BITS) / scale).astype(np.int32),
            np.rint((1 << WEIGHT_BITS) * np.exp(-d / LOGITS_PER_NAT)).astype(np.int32),
        )


def tuning_of(numbers_B18: NDArray[np.int8]) -> Tuning:
    """What the kernels multiply and add, from the numbers that a stream holds; zeros change nothing."""
    tuning = numbers_B18.astype(np.int32)
    tuning[..., :PARAMETERS] += GAIN_UNIT
    tuning[..., PARAMETERS:] *= np.repeat(np.array(BIAS_UNITS, np.int32), LOGISTICS)
    return np.ascontiguousarray(tuning)


# -- the law -------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _sigmoid(distance: Any, inverse: Any, sigmoid: Any) -> Any:
    """Of a distance in 1/16 times a reciprocal scale, in 2**-24."""
    t = distance * inverse
    limit = np.int64(REACH) << (INVERSE_BITS + BASE_BITS)
    t = min(max(t, -limit), limit - 1) + limit
    fine = INVERSE_BITS + BASE_BITS - NODES_PER_SCALE_BITS
    i = t >> fine
    part = (t >> (fine - 10)) & 1023
    here = np.int64(sigmoid[i])
    return here + (((np.int64(sigmoid[i + 1]) - here) * part + 512) >> 10)


@njit(cache=True, nogil=True, inline="always")
def _share(
    value: Any,
    low: Any,
    high: Any,
    m0: Any,
    m1: Any,
    m2: Any,
    i0: Any,
    i1: Any,
    i2: Any,
    w0: Any,
    w1: Any,
    w2: Any,
    sigmoid: Any,
) -> Any:
    """Units below ``value``: the distribution function at value - 1/2."""
    if value <= low:
        return np.int64(0)
    if value > high:
        return np.int64(UNIT)
    edge = (np.int64(value) << BASE_BITS) - (1 << (BASE_BITS - 1))
    total = (
        _sigmoid(edge - m0, i0, sigmoid) * w0
        + _sigmoid(edge - m1, i1, sigmoid) * w1
        + _sigmoid(edge - m2, i2, sigmoid) * w2
    ) >> WEIGHT_BITS
    return (value - low) + ((total * (UNIT - (high - low + 1))) >> PRECISION)


@njit(cache=True, nogil=True, inline="always")
def _tuned(raw: Any, tuning: Any, b: Any, k: Any, i: Any, j: Any) -> Any:
    half = 1 << (GAIN_BITS - 1)
    return ((np.int64(raw[b, k, i, j]) * tuning[b, k] + half) >> GAIN_BITS) + tuning[b, PARAMETERS + k]


@njit(cache=True, nogil=True, inline="always")
def _mixture(raw: Any, tuning: Any, b: Any, i: Any, j: Any, base: Any, inverse: Any, weight: Any) -> Any:
    """Means in 1/16, reciprocal scales and weights (sum 2**16) of a symbol."""
    r0, r1, r2 = (
        _tuned(raw, tuning, b, 0, i, j),
        _tuned(raw, tuning, b, 1, i, j),
        _tuned(raw, tuning, b, 2, i, j),
    )
    largest = max(r0, max(r1, r2))
    far = LOGIT_REACH * LOGITS_PER_NAT
    e0 = np.int64(weight[min(largest - r0, far)])
    e1 = np.int64(weight[min(largest - r1, far)])
    e2 = np.int64(weight[min(largest - r2, far)])
    total = e0 + e1 + e2
    w0, w1, w2 = (e0 << WEIGHT_BITS) // total, (e1 << WEIGHT_BITS) // total, (e2 << WEIGHT_BITS) // total
    rest = (1 << WEIGHT_BITS) - w0 - w1 - w2
    if r0 == largest:  # what the floors leave goes to the first of the largest
        w0 += rest
    elif r1 == largest:
        w1 += rest
    else:
        w2 += rest
    m0, m1, m2 = (
        base + _tuned(raw, tuning, b, 3, i, j),
        base + _tuned(raw, tuning, b, 4, i, j),
        base + _tuned(raw, tuning, b, 5, i, j),
    )
    half = 1 << (INDEX_SHIFT - 1)
    s0 = min(max(((_tuned(raw, tuning, b, 6, i, j) + half) >> INDEX_SHIFT) + INDEX_AT_ZERO, 0), LAST_INDEX)
    s1 = min(max(((_tuned(raw, tuning, b, 7, i, j) + half) >> INDEX_SHIFT) + INDEX_AT_ZERO, 0), LAST_INDEX)
    s2 = min(max(((_tuned(raw, tuning, b, 8, i, j) + half) >> INDEX_SHIFT) + INDEX_AT_ZERO, 0), LAST_INDEX)
    return m0, m1, m2, np.int64(inverse[s0]), np.int64(inverse[s1]), np.int64(inverse[s2]), w0, w1, w2


@njit(cache=True, nogil=True)
def distribution(raw_9: Any, base: int, low: int, high: int, sigmoid: Any, inverse: Any, weight: Any) -> Any:
    """Units below each value of low .. high + 1, int64 [high - low + 2]: the law in full, for tests and readers."""
    raw, tuning = raw_9.reshape(1, PARAMETERS, 1, 1), np.zeros((1, 2 * PARAMETERS), np.int32)
    tuning[0, :PARAMETERS] = GAIN_UNIT
    m0, m1, m2, i0, i1, i2, w0, w1, w2 = _mixture(raw, tuning, 0, 0, 0, np.int64(base), inverse, weight)
    out = np.empty(high - low + 2, np.int64)
    for v in range(low, high + 2):
        out[v - low] = _share(v, low, high, m0, m1, m2, i0, i1, i2, w0, w1, w2, sigmoid)
    return out


# -- the coder -----------------------------------------------------------------------------------------------

# fields of a lane's state, uint64
_LOW, _RANGE, _HELD, _HELD_COUNT, _FULL_COUNT, _POSITION = range(6)


@njit(cache=True, nogil=True)
def _put(state: Any, words: Any, start: Any, count: Any) -> None:
    """Narrow a lane's interval to units start .. start + count.

    A word is held back until no carry can reach it; words of all ones after it are only counted.
    """
    low, span = state[_LOW], state[_RANGE] >> np.uint64(PRECISION)
    raised = low + span * np.uint64(start)
    span = span * np.uint64(count)
    if raised < low:  # a carry
        if state[_FULL_COUNT] > 0:
            position = state[_POSITION]
            words[position] = np.uint32(state[_HELD] + np.uint64(1))
            position += np.uint64(1)
            for _ in range(state[_FULL_COUNT] - np.uint64(1)):
                words[position] = np.uint32(0)
                position += np.uint64(1)
            state[_POSITION] = position
            state[_HELD], state[_FULL_COUNT] = np.uint64(0), np.uint64(0)
        else:
            state[_HELD] += np.uint64(1)
    while span < np.uint64(WORD):
        _shift(state, words, raised >> np.uint64(32))
        raised <<= np.uint64(32)
        span <<= np.uint64(32)
    state[_LOW], state[_RANGE] = raised, span


@njit(cache=True, nogil=True)
def _shift(state: Any, words: Any, word: Any) -> None:
    if word == np.uint64(WORD - 1) and state[_HELD_COUNT] > 0:
        state[_FULL_COUNT] += np.uint64(1)
        return
    position = state[_POSITION]
    if state[_HELD_COUNT] > 0:
        words[position] = np.uint32(state[_HELD])
        position += np.uint64(1)
    for _ in range(state[_FULL_COUNT]):
        words[position] = np.uint32(WORD - 1)
        position += np.uint64(1)
    state[_POSITION] = position
    state[_HELD], state[_HELD_COUNT], state[_FULL_COUNT] = word, np.uint64(1), np.uint64(0)


@njit(cache=True, nogil=True)
def _encode_rows(
    state: Any,
    words: Any,
    raw: Any,
    tuning: Any,
    base: Any,
    values: Any,
    b: Any,
    first: Any,
    last: Any,
    low: Any,
    high: Any,
    sigmoid: Any,
    inverse: Any,
    weight: Any,
) -> Any:
    """Encode rows first .. last of image b; returns -log2 of their probability."""
    bits, mass = 0.0, 1.0
    for i in range(first, last):
        for j in range(values.shape[2]):
            m0, m1, m2, i0, i1, i2, w0, w1, w2 = _mixture(
                raw, tuning, b, i, j, np.int64(base[b, i, j]), inverse, weight
            )
            v = np.int64(values[b, i, j])
            start = _share(v, low, high, m0, m1, m2, i0, i1, i2, w0, w1, w2, sigmoid)
            count = _share(v + 1, low, high, m0, m1, m2, i0, i1, i2, w0, w1, w2, sigmoid) - start
            _put(state, words, start, count)
            mass *= count
            if mass > 1e270:
                bits -= math.log2(mass)
                mass = 1.0
    return bits - math.log2(mass) + PRECISION * (last - first) * values.shape[2]


@njit(cache=True, nogil=True)
def _decode_rows(
    state: Any,
    words: Any,
    raw: Any,
    tuning: Any,
    base: Any,
    values: Any,
    b: Any,
    first: Any,
    last: Any,
    low: Any,
    high: Any,
    sigmoid: Any,
    inverse: Any,
    weight: Any,
    logit: Any,
) -> Any:
    """Decode rows first .. last of image b into ``values``; False where no encoder can have made the words."""
    rest, span, position = state[_LOW], state[_RANGE], state[_POSITION]
    good = True
    for i in range(first, last):
        for j in range(values.shape[2]):
            m0, m1, m2, i0, i1, i2, w0, w1, w2 = _mixture(
                raw, tuning, b, i, j, np.int64(base[b, i, j]), inverse, weight
            )
            unit = span >> np.uint64(PRECISION)
            wanted = np.int64(rest // unit)
            if wanted >= UNIT:
                good, wanted = False, np.int64(UNIT - 1)
            # where to begin looking is free: the search ends at the same value
            t = logit[wanted >> 14]
            if w0 >= w1 and w0 >= w2:
                guess = m0 + t / i0
            elif w1 >= w2:
                guess = m1 + t / i1
            else:
                guess = m2 + t / i2
            v = np.int64(min(max(guess / (1 << BASE_BITS) + 0.5, low + 0.0), high + 0.0))
            start = _share(v, low, high, m0, m1, m2, i0, i1, i2, w0, w1, w2, sigmoid)
            step = np.int64(1)
            if start <= wanted:
                end = _share(v + 1, low, high, m0, m1, m2, i0, i1, i2, w0, w1, w2, sigmoid)
                upper = v + 1
                while end <= wanted:
                    v, start = upper, end
                    step *= 2
                    upper = min(v + step, np.int64(high + 1))
                    end = _share(upper, low, high, m0, m1, m2, i0, i1, i2, w0, w1, w2, sigmoid)
            else:
                upper, end = v, start
                v = max(upper - step, np.int64(low))
                start = _share(v, low, high, m0, m1, m2, i0, i1, i2, w0, w1, w2, sigmoid)
                while start > wanted:
                    upper, end = v, start
                    step *= 2
                    v = max(upper - step, np.int64(low))
                    start = _share(v, low, high, m0, m1, m2, i0, i1, i2, w0, w1, w2, sigmoid)
            while upper - v > 1:
                middle = (v + upper) >> 1
                here = _share(middle, low, high, m0, m1, m2, i0, i1, i2, w0, w1, w2, sigmoid)
                if here <= wanted:
                    v, start = middle, here
                else:
                    upper, end = middle, here
            values[b, i, j] = v
            rest -= unit * np.uint64(start)
            span = unit * np.uint64(end - start)
            while span < np.uint64(WORD):
                word = np.uint64(words[position]) if position < words.size else np.uint64(0)
                rest = (rest << np.uint64(32)) | word
                span <<= np.uint64(32)
                position += np.uint64(1)
    state[_LOW], state[_RANGE], state[_POSITION] = rest, span, position
    return good


def _guesses() -> NDArray[np.float64]:
    """Distance from the mean, in 1/16 over reciprocal scale, at every 2**14 units."""
    p = (np.arange(1 << (PRECISION - 14)) + 0.5) / (1 << (PRECISION - 14))
    return np.log(p / (1 - p)) * (1 << (INVERSE_BITS + BASE_BITS))


class _Lanes:
    """What encoder and decoder share: one state a lane, and which rows each lane has."""

    def __init__(self, law: Law, images: int, lanes: int, threads: int) -> None:
        self._tables = (law.sigmoid, law.inverse, law.weight)
        self._images, self._lanes = images, lanes
        self._untuned = tuning_of(np.zeros((images, 2 * PARAMETERS), np.int8))
        self._state = np.zeros((images * lanes, 6), np.uint64)
        self._state[:, _RANGE] = np.uint64(2**64 - 1)
        workers = min(threads, images * lanes)
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None

    def _each(self, run: Any, rows: int) -> list[Any]:
        """``run(lane, image, first, last)`` for every lane."""
        jobs = [
            (b * self._lanes + lane, b, rows * lane // self._lanes, rows * (lane + 1) // self._lanes)
            for b in range(self._images)
            for lane in range(self._lanes)
        ]
        if self._pool is None:
            return [run(*job) for job in jobs]
        return list(self._pool.map(lambda job: run(*job), jobs))

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


class Encoder(_Lanes):
    """Takes blocks of symbols in the decoder's order.

    Args:
        images, lanes: of every block; threads: at most so many lanes at a time.
    """

    def __init__(self, law: Law, images: int, lanes: int, *, threads: int = 1) -> None:
        super().__init__(law, images, lanes, threads)
        self._words = [np.empty(1024, np.uint32) for _ in range(images * lanes)]
        self.bits_B = np.zeros(images)  # -log2 of the probability of what was put so far

    def put(
        self,
        raw_B9hw: NDArray[Any],
        base_Bhw: NDArray[np.int32],
        values_Bhw: NDArray[np.int32],
        low: int,
        high: int,
        tuning_B18: Tuning | None = None,
    ) -> None:
        """Encode a block; values lie in low .. high."""
        rows, columns = values_Bhw.shape[1:]
        tuning = self._untuned if tuning_B18 is None else tuning_B18

        def run(lane: int, b: int, first: int, last: int) -> float:
            words, state = self._words[lane], self._state[lane]
            # a symbol takes at most 24 bits, and a little for the range's rounding
            needed = int(state[_POSITION] + state[_FULL_COUNT]) + (last - first) * columns + 4
            if needed > words.size:
                words = self._words[lane] = np.concatenate([words, np.empty(needed, np.uint32)])
            bits: float = _encode_rows(
                state, words, raw_B9hw, tuning, base_Bhw, values_Bhw, b, first, last, low, high, *self._tables
            )
            return bits

        bits = np.array(self._each(run, rows), np.float64).reshape(self._images, self._lanes)
        self.bits_B += bits.sum(axis=1)

    def finish(self) -> list[list[bytes]]:
        """The bytes of every lane of every image."""
        self._close()
        out = []
        for state, words in zip(self._state, self._words, strict=True):
            last = _ending(int(state[_LOW]), int(state[_RANGE]))
            head = int(state[_HELD]) + (last >> 64)
            full = (WORD - 1) if last < 1 << 64 else 0
            tail = [head] if state[_HELD_COUNT] else []
            tail += [full] * int(state[_FULL_COUNT])
            tail += [(last >> 32) & (WORD - 1), last & (WORD - 1)]
            whole = np.concatenate([words[: int(state[_POSITION])], np.array(tail, np.uint32)])
            out.append(whole.astype(">u4").tobytes().rstrip(b"\0"))
        return [out[b * self._lanes : (b + 1) * self._lanes] for b in range(self._images)]


def _ending(low: int, span: int) -> int:
    """The number of low .. low + span - 1 with the most zero bytes at its end; may be 2**64 and above."""
    for zeros in range(64, 0, -8):
        found = -(-low >> zeros) << zeros
        if found < low + span:
            return found
    return low


class Decoder(_Lanes):
    """Gives blocks of symbols back.

    Args:
        data: bytes of every lane of every image, as ``Encoder.finish`` gave them.
    """

    def __init__(self, law: Law, data: list[list[bytes]], *, threads: int = 1) -> None:
        super().__init__(law, len(data), len(data[0]), threads)
        self._logit = _guesses()
        self._words = []
        for lane, code in enumerate(code for image in data for code in image):
            if code.endswith(b"\0"):
                raise CorruptStream("an entropy-coded part ends in a zero byte")
            words = np.frombuffer(code + bytes(-len(code) % 4), ">u4").astype(np.uint32)
            self._words.append(words)
            first = [int(words[k]) if k < words.size else 0 for k in range(2)]
            self._state[lane, _LOW] = np.uint64(first[0] << 32 | first[1])
            self._state[lane, _POSITION] = 2

    def take(
        self,
        raw_B9hw: NDArray[Any],
        base_Bhw: NDArray[np.int32],
        low: int,
        high: int,
        tuning_B18: Tuning | None = None,
    ) -> NDArray[np.int32]:
        """The values [B, h, w] of a block. Raises CorruptStream where no encoder can have made the bytes."""
        values = np.empty(base_Bhw.shape, np.int32)
        tuning = self._untuned if tuning_B18 is None else tuning_B18

        def run(lane: int, b: int, first: int, last: int) -> bool:
            good: bool = _decode_rows(
                self._state[lane],
                self._words[lane],
                raw_B9hw,
                tuning,
                base_Bhw,
                values,
                b,
                first,
                last,
                low,
                high,
                *self._tables,
                self._logit,
            )
            return good

        if not all(self._each(run, base_Bhw.shape[1])):
            self._close()
            raise CorruptStream("an entropy-coded part holds what no encoder writes")
        return values

    def finish(self) -> None:
        """Raises CorruptStream unless every word was used up."""
        self._close()
        for state, words in zip(self._state, self._words, strict=True):
            if int(state[_POSITION]) < words.size:
                raise CorruptStream("an entropy-coded part goes on after its last symbol")
