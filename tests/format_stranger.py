"""A decoder written from docs/format.md alone: plain integers, no word of recbatch. Slow, and meant to be.

It reads the shipped tables as the page describes them, the container, and the payloads of both coders.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
TRELLIS_TABLES = "2e319e3febcc733e04f11385bf9d07df32302fc7d9e5a8d3459a9b127f6ad73d"
IREC_TABLES = "67074732e396aaff648acc520f3e82d3de4baf8f8932f158cc91e80cf13899ad"
TRELLIS_NAMES = (
    "rate",
    "kind",
    "wide",
    "shift",
    "delta",
    "offsets",
    "inverse",
    "density",
    "mass",
    "centroid",
)
IREC_NAMES = ("normal", "ratio", "sigma", "rate")


class Refused(Exception):
    """The bytes break a rule of the page."""


def need(rule: bool) -> None:
    if not rule:
        raise Refused


# Container


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for group in range(9):
        need(at < len(data))
        byte, at = data[at], at + 1
        value |= (byte & 127) << 7 * group
        if byte < 128:
            need(byte > 0 or group == 0)
            return value, at
    raise Refused


def read_container(data: bytes) -> dict[str, Any]:
    need(len(data) >= 13 and data[:8] == bytes.fromhex("93524543 0d0a1a0a"))
    need(data[8] >> 4 == 1)
    need(zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little"))
    body, out = data[:-4], {}
    need(len(body) > 9)
    need(body[9] >> 2 == 1)
    out["mode"] = ("L", "RGB", "LA", "RGBA")[body[9] & 3]
    out["width"], at = read_varint(body, 10)
    out["height"], at = read_varint(body, at)
    need(0 < out["width"] < 2**31 and 0 < out["height"] < 2**31)
    need(out["width"] * out["height"] <= 2**18 * len(data))

    def take(count: int) -> bytes:
        nonlocal at
        need(at + count <= len(body))
        at += count
        return body[at - count : at]

    out["level"] = take(1)[0]
    out["model"] = take(8)
    coder, at = read_varint(body, at)
    need(0 < coder >> 4 < 2**16 and coder & 15 <= 8)
    out["coder"], out["coder_parameters"] = coder >> 4, take(coder & 15)
    out["parameters_digest"], out["latents_digest"] = take(4), take(4)
    present, at = read_varint(body, at)
    kinds = [kind for kind in range(1, 64) if present >> (kind - 1) & 1]
    need(bool(kinds) and kinds[-1] <= 28 and kinds[0] == 1 and not {4, 5, 6, 7} & set(kinds))
    need((2 in kinds) == out["mode"].endswith("A"))
    lengths = []
    for _ in kinds[:-1]:
        length, at = read_varint(body, at)
        lengths.append(length)
    out["sections"] = {kind: take(length) for kind, length in zip(kinds, lengths, strict=False)}
    out["sections"][kinds[-1]] = take(len(body) - at)
    need(all(content for kind, content in out["sections"].items() if kind != 1))
    return out


# Tables


def read_tables(path: Path, names: Sequence[str], digest: str, *, named: bool) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        arrays = {name: np.lib.format.read_array(archive.open(f"{name}.npy")) for name in names}
    total = hashlib.sha256()
    for name in names:
        values = arrays[name].astype(arrays[name].dtype.newbyteorder("<")).tobytes()
        total.update((name.encode() + b"\0" if named else b"") + values)
    need(total.hexdigest() == digest)
    return {name: array.tolist() for name, array in arrays.items()}


# Shared randomness


def mix(x: int) -> int:
    x &= MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def key(seed: int, part: int, purpose: int) -> int:
    state = 0
    for value in (seed, part, purpose):
        state = mix(state + GOLDEN + value)
    return state


def word(of: int, i: int) -> int:
    return mix(of + (i + 1) * GOLDEN)


def octets(of: int, count: int) -> bytes:
    return b"".join(word(of, i).to_bytes(8, "little") for i in range(-(-count // 8)))[:count]


# Entropy coding


class Stack:
    def __init__(self, data: bytes) -> None:
        need(not data.endswith(b"\0"))
        data += bytes(-len(data) % 4)
        self.words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        self.state = 0
        while self.words and self.state < 2**32:
            self.state = self.state << 32 | self.words.pop()

    def symbol(self, row: Sequence[int]) -> int:
        u, start = self.state & (2**24 - 1), 0
        j = 0
        while u >= start + row[j] + 1:
            start += row[j] + 1
            j += 1
        self.state = (self.state >> 24) * (row[j] + 1) + u - start
        if self.state < 2**32 and self.words:
            self.state = self.state << 32 | self.words.pop()
        return j

    def finish(self) -> None:
        need(not self.words and self.state == 0)


# Coder 1


class MixedTrellis:
    def __init__(self, parameters: bytes, folder: Path, seed: int = 0) -> None:
        need(len(parameters) == 1 and 9 <= parameters[0] <= 16)
        self.L, self.seed = parameters[0], seed
        self.t = read_tables(folder / "tables.npz", TRELLIS_NAMES, TRELLIS_TABLES, named=True)
        self.columns = [self._column(j) for j in range(5)]
        self.rows: dict[tuple[int, int], list[int]] = {}

    @staticmethod
    def _column(j: int) -> list[int]:
        order, words = list(range(128)), [word(key(0, j, 4), i) for i in range(128)]
        for i in range(127, 0, -1):
            other = words[i] % (i + 1)
            order[i], order[other] = order[other], order[i]
        column = []
        for p in range(128):
            first = order[p] + 128 * (words[p] >> 63)
            column += [first, (first + 128) % 256]
        return column

    def decode(self, payload: bytes, parts: Sequence[Sequence[int]]) -> list[list[int]]:
        n, at = read_varint(payload, 0) if payload else (0, 0)
        need(at + n <= len(payload))
        bits = [byte >> i & 1 for byte in payload[at : at + n] for i in range(7, -1, -1)]
        feed, stack = iter(bits), Stack(payload[at + n :])
        out = [self._part(number, scales, feed, stack) for number, scales in enumerate(parts)]
        rest = list(feed)
        need(len(rest) < 8 and not any(rest))
        stack.finish()
        return out

    def _plan(self, scales: Sequence[int]) -> tuple[list[int], list[list[int]]]:
        scalars, steps, n = [], [], 0
        while n < len(scales):
            window: list[int] = []
            while n < len(scales) and len(window) < 8192:
                window += [n] if scales[n] else []
                n += 1
            window.sort(key=lambda d: -scales[d])
            scalars += [d for d in window if self.t["kind"][scales[d]] == 1]
            step, rate = [], 0
            for d in (d for d in window if self.t["kind"][scales[d]] > 1):
                step.append(d)
                rate += self.t["rate"][scales[d]]
                if rate >= 358:
                    steps, step, rate = [*steps, step], [], 0
            steps += [step] if step else []
        return scalars, steps

    def _part(self, number: int, scales: Sequence[int], feed: Iterator[int], stack: Stack) -> list[int]:
        scalars, steps = self._plan(scales)
        lattice = [(d, j) for step in steps for j, d in enumerate(step)]
        signs = octets(key(self.seed, number, 2), -(-len(lattice) // 8))
        codes = self._codes(number, len(steps), feed)
        step_of = [t for t, step in enumerate(steps) for _ in step]
        offset = [self.columns[j][codes[t]] for (_, j), t in zip(lattice, step_of, strict=True)]
        wide = [i for i, (d, _) in enumerate(lattice) if self.t["wide"][scales[d]]]
        narrow = [i for i, (d, _) in enumerate(lattice) if not self.t["wide"][scales[d]]]
        low = {i: take_bits(feed, self.t["shift"][scales[lattice[i][0]]]) for i in wide}
        of_scalar = [stack.symbol(self._row(scales[d], 0)) for d in scalars]
        symbol = {i: stack.symbol(self._row(scales[lattice[i][0]], offset[i])) for i in narrow}
        symbol |= {i: stack.symbol(self._row(scales[lattice[i][0]], offset[i])) for i in wide}

        def integer(value: int, half: int) -> int:
            if value <= 2 * half:
                return value - half
            g = take_gamma(feed)
            return ((g - 1) // 2 + half + 1) * (-1 if g % 2 == 0 else 1)

        out = [0] * len(scales)
        for d, value in zip(scalars, of_scalar, strict=True):
            i, k = integer(value, 7), scales[d]
            size = self.t["centroid"][k][abs(i)] if abs(i) < 8 else abs(i) * self.t["delta"][k]
            out[d] = -size if i < 0 else size
        integers = {i: integer(symbol[i], 7) for i in narrow}
        for i in wide:
            integers[i] = integer(symbol[i], 31) << self.t["shift"][scales[lattice[i][0]]] | low[i]
        for i, (d, _) in enumerate(lattice):
            value = self.t["offsets"][scales[d]][offset[i]] + self.t["delta"][scales[d]] * integers[i]
            out[d] = -value if signs[i // 8] >> (i % 8) & 1 else value
        need(all(-(2**31) <= value < 2**31 for value in out))
        return out

    def _codes(self, number: int, count: int, feed: Iterator[int]) -> list[int]:
        bits = [take_bits(feed, 1) for _ in range(count)]
        rotation = [byte & 254 for byte in octets(key(self.seed, number, 1), count)]
        size = 2 ** (self.L - 9)
        turn = [byte & 254 for byte in octets(key(self.seed, number, 3), size)]
        blocks, codes = max(1, (2 * count + 4096) // 8192), []
        for n in range(blocks):
            first, last = count * n // blocks, count * (n + 1) // blocks
            s = 0
            if last - first >= self.L:
                for b in bits[last - self.L : last]:
                    s = 2 * s + b
            for t in range(first, last):
                s = (2 * s + bits[t]) % 2**self.L
                codes.append((s + turn[(s >> 8) % size] + rotation[t] & 255) ^ s >> self.L - 1)
        return codes

    def _row(self, k: int, o: int) -> list[int]:
        if (k, o) not in self.rows:
            self.rows[k, o] = normalised(self._weights(k, o))
        return self.rows[k, o]

    def _weights(self, k: int, o: int) -> list[int]:
        if self.t["kind"][k] == 1:
            mass = self.t["mass"][k]
            return [*mass[7:0:-1], 2 * mass[0], *mass[1:8], 2 * mass[8]]
        size = 64 if self.t["wide"][k] else 16
        half, shift, delta = size // 2 - 1, self.t["shift"][k], self.t["delta"][k]
        middle, weights = delta * (2**shift - 1) >> 1, [0] * size
        for i in range(-2 * size, 2 * size + 1):
            weight = self._density(k, self.t["offsets"][k][o] + delta * (i << shift) + middle)
            if abs(i) <= half:
                weights[i + half] = weight
            else:
                weights[-1] = min(weights[-1] + weight, 2**36)
        return weights

    def _density(self, k: int, v: int) -> int:
        x = abs(v) * self.t["inverse"][k] >> 16
        if x < 8 << 16:
            knot, rest = x >> 11, x & 2047
        else:
            x -= 8 << 16
            knot, rest = 256 + (x >> 14), (x & 16383) >> 3
        if knot >= 512:
            return 0
        at = self.t["density"][k]
        return at[knot] * (2048 - rest) + at[knot + 1] * rest >> 11


def normalised(weights: Sequence[int]) -> list[int]:
    size, total = len(weights), sum(weights)
    room = 2**24 - size
    if total == 0:
        return [room // size + (room % size if j == 0 else 0) for j in range(size)]
    row = [w * room // total for w in weights]
    row[list(weights).index(max(weights))] += room - sum(row)
    return row


def take_bits(feed: Iterator[int], count: int) -> int:
    value = 0
    for _ in range(count):
        bit = next(feed, None)
        need(bit is not None)
        value = 2 * value + (bit or 0)
    return value


def take_gamma(feed: Iterator[int]) -> int:
    zeros = 0
    while take_bits(feed, 1) == 0:
        zeros += 1
        need(zeros < 40)
    return 1 << zeros | take_bits(feed, zeros)


# Coder 2


class Irec:
    def __init__(self, parameters: bytes, folder: Path, seed: int = 0) -> None:
        need(len(parameters) == 2 and parameters[0] > 0 and parameters[1] > 0)
        self.omega, self.candidates, self.seed = parameters[0], parameters[1] + 1, seed
        self.t = read_tables(folder / "irec_tables.npz", IREC_NAMES, IREC_TABLES, named=False)

    def decode(self, payload: bytes, parts: Sequence[Sequence[int]]) -> list[list[int]]:
        stack = Stack(payload)
        out = [self._part(number, scales, stack) for number, scales in enumerate(parts)]
        stack.finish()
        return out

    def _part(self, number: int, scales: Sequence[int], stack: Stack) -> list[int]:
        coded = [d for d, k in enumerate(scales) if k]
        blocks = [coded[i : i + 1000] for i in range(0, len(coded), 1000)]
        out = [0] * len(scales)
        if not blocks:
            return out
        counts = self._counts([[scales[d] for d in block] for block in blocks], stack)
        row = uniform(self.candidates)
        indices = [[stack.symbol(row) for _ in range(count)] for count in counts]
        for n, (block, picks) in enumerate(zip(blocks, indices, strict=True)):
            for d, noise in zip(block, self._noise(number, n, picks, len(block)), strict=True):
                out[d] = ((noise + 2**14 >> 15) * self.t["sigma"][scales[d]] + 2**29) >> 30
        return out

    def _counts(self, blocks: Sequence[Sequence[int]], stack: Stack) -> list[int]:
        unit = (self.omega << 24) // 16
        expected = []
        for block in blocks:
            total = sum(self.t["rate"][k] for k in block)
            expected.append(min(max(-(-total * 45426 // unit), 1), 8192))
        rice = stack.symbol(uniform(8))
        row = [(2**24 >> min(j + 1, 15)) - 1 for j in range(16)]
        quotients = [stack.symbol(row) for _ in blocks]
        folded = [q << rice | (stack.symbol(uniform(2**rice)) if rice and q < 15 else 0) for q in quotients]
        escaped = [n for n, q in enumerate(quotients) if q == 15]
        high = [stack.symbol(uniform(128)) for _ in escaped]
        raw = {n: 64 * h + stack.symbol(uniform(64)) + 1 for n, h in zip(escaped, high, strict=True)}
        counts = []
        for n, (e, f) in enumerate(zip(expected, folded, strict=True)):
            counts.append(raw[n] if n in raw else e + f // 2 if f % 2 == 0 else e - (f + 1) // 2)
        need(all(1 <= count <= 8192 for count in counts))
        return counts

    def _noise(self, number: int, block: int, picks: Sequence[int], size: int) -> list[int]:
        draws, path = word(key(self.seed, number, 16), block), word(key(self.seed, number, 17), block)
        left, noise = 2**44, [0] * size
        for t, p in enumerate(picks):
            taken = left * self.t["ratio"][len(picks) - t - 1] >> 18
            left -= taken
            width, step = math.isqrt(taken), word(draws, t)
            for d in range(size):
                u = word(step, 64 * d + (p >> 2)) >> 16 * (p & 3) + 4 & 4095
                minus = word(path, 1024 + d // 64) >> d % 64 & 1
                noise[d] += (-1 if minus else 1) * width * self.t["normal"][u]
            path = word(path, p)
        return noise


def uniform(size: int) -> list[int]:
    share, left = divmod(2**24 - size, size)
    return [share + (j < left) for j in range(size)]


CODERS: dict[int, Callable[[bytes, Path], Any]] = {1: MixedTrellis, 2: Irec}
