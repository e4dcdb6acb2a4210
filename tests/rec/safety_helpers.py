"""What the tests of safety and of damage share: every coder at a fast setting, hostile payloads, what may come of them.

Run as a script it is the long form of the fuzz test, in a process of its own, so that a crash, a hang or a hunger for
memory is a failed test and not the end of all tests:

    python tests/rec/safety_helpers.py CODER SEED CASES

It prints one JSON object: how many cases were refused, how many gave samples, the slowest case and the memory grown.

Legend: N dimensions of a section, as in recbatch.rec.base.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from compliance import channel, encode

from recbatch.errors import CorruptStream
from recbatch.rec import coder as coder_of
from recbatch.rec.base import Coder, Samples, Scales
from recbatch.rec.coders.irec import IrecCoder
from recbatch.rec.coders.registry import NUMBERS
from recbatch.rec.coders.trellis import Trellis

NAMES = tuple(NUMBERS)  # whatever is registered is tested
REFUSED, SAMPLES = "refused", "samples"


def fast(name: str) -> Coder:
    """The registered coder of this name at a setting that costs little; a new coder comes at its least effort."""
    if name == "trellis":
        return Trellis(bits=9)
    if name == "irec":
        return IrecCoder(beams=2)
    return coder_of(name, effort=1)


def scales_of(size: int, seed: int, *, top: int = 70) -> Scales:
    """Mostly small scales, some zeros, a few wide ones."""
    generator = np.random.default_rng(seed)
    return np.minimum(generator.exponential(22, size), top).astype(np.uint8)


def small_stream(
    coder: Coder, *, sizes: Sequence[int], seed: int
) -> tuple[bytes, list[Scales], list[Samples]]:
    """A payload of a few small sections, their scales and their samples."""
    generator = np.random.default_rng(seed)
    scales = [scales_of(size, seed + n) for n, size in enumerate(sizes)]
    payload, samples = encode(coder, [(channel(scales_N, generator), scales_N) for scales_N in scales])
    return payload, scales, samples


def outcome(coder: Coder, payload: bytes, scales: Sequence[Scales]) -> list[Samples] | None:
    """The samples of a payload, each checked for what any sample must be; None where the reader refuses it.

    Nothing but CorruptStream may be raised: any other exception, numpy's warnings among them, passes through.
    """
    out = []
    try:
        reader = coder.reader(payload)
        for scales_N in scales:
            sample_N = reader.decode(scales_N)
            assert sample_N.dtype == np.int32
            assert sample_N.shape == scales_N.shape
            assert not sample_N[scales_N == 0].any()
            out.append(sample_N)
        reader.finish()
    except CorruptStream:
        return None
    return out


def damaged(payload: bytes, generator: np.random.Generator) -> Iterator[bytes]:
    """Payloads that no writer wrote, without end: changed, cut, lengthened, spliced, invented."""
    while True:
        kind, data = int(generator.integers(8)), bytearray(payload or b"\x01")
        at = int(generator.integers(len(data)))
        if kind == 0:
            data[at] ^= 1 << int(generator.integers(8))
        elif kind == 1:
            for place in generator.integers(0, len(data), 1 + int(generator.integers(6))):
                data[place] = int(generator.integers(256))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + 1 + int(generator.integers(8))]
        elif kind == 4:
            data[at:at] = generator.bytes(1 + int(generator.integers(8)))
        elif kind == 5:
            data[at:] = generator.bytes(int(generator.integers(1, 2 * len(data))))
        elif kind == 6:
            data = bytearray(generator.bytes(int(generator.integers(0, 4 * len(data)))))
        else:  # long runs of one byte: nothing but zeros, nothing but carries
            data = bytearray([int(generator.choice([0, 1, 127, 128, 255]))] * int(generator.integers(0, 300)))
        yield bytes(data)


def hostile_scales(generator: np.random.Generator) -> list[Scales]:
    """Sections for payloads that were not made for them: none, one dimension, all scales, many escapes."""
    sizes = generator.choice([0, 1, 2, 9, 60, 400], 1 + int(generator.integers(3)))
    low, high = np.sort(generator.integers(0, 151, 2))
    return [generator.integers(low, high + 1, size).astype(np.uint8) for size in sizes]


def fuzz(coder: Coder, seed: int, cases: int) -> Counter[str]:
    """Decode ``cases`` damaged payloads, half of them against scales that they were not made for."""
    generator = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    while found.total() < cases:
        sizes = tuple(int(size) for size in generator.choice([3, 20, 60, 150], 2))
        payload, scales, _ = small_stream(coder, sizes=sizes, seed=int(generator.integers(2**31)))
        for data, _ in zip(damaged(payload, generator), range(min(200, cases - found.total())), strict=False):
            against = scales if generator.random() < 0.5 else hostile_scales(generator)
            found[REFUSED if outcome(coder, data, against) is None else SAMPLES] += 1
    return found


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(name: str, seed: int, cases: int) -> None:
    coder = fast(name)
    fuzz(coder, seed, 50)  # compiles
    before, slowest_s, found = peak_bytes(), 0.0, Counter[str]()
    batch = 500
    for n in range(-(-cases // batch)):
        start_s = time.perf_counter()
        found += fuzz(coder, seed + 1 + n, min(batch, cases - batch * n))
        slowest_s = max(slowest_s, time.perf_counter() - start_s)
    report = {**found, "slowest_batch_s": round(slowest_s, 2), "grown_bytes": peak_bytes() - before}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
