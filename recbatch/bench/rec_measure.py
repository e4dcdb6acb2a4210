"""One coder on one kind of latents: its samples measured, its search timed.

Pictures go through the codec, so that a coder's own samples meet their own context and synthesis; its files are decoded
from their bytes. Synthetic latents go to the coder as they are; its payloads are decoded as well, and the decoder's
samples must be the encoder's. Exact posterior samples have no stream: they cost their KL, and with pictures the
container that another coder's file has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numba
import numpy as np
import torch

from recbatch import rec, stream
from recbatch.bench import synthetic
from recbatch.bench.inputs import Image
from recbatch.bench.rec_contestants import Contestant, Key, make_coder, make_ideal, on_device
from recbatch.bench.recording import Clock, RecordingCoder, Section, joined
from recbatch.bench.synthetic import SIGMA_S, Piece
from recbatch.codec import calibration, lossy
from recbatch.codec.quality import psnr
from recbatch.models.photo import PhotoModel
from recbatch.rec.base import SCALES, Coder, Samples
from recbatch.rec.yardstick import Yardstick, measure

BATCH = 8  # images in one search
THREADS = (1, 2)  # every coder is measured with the first, those that use threads also with the others

Place = tuple[int, str]  # threads and device
Step = Callable[[int, int], None]  # done, of


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image, or piece of synthetic latents, at one level by one coder."""

    image: str
    pixels: int | None
    dimensions: int
    coded: int  # dimensions with a prior of more than a point
    bits: int  # of the file, or of the payload
    side_bits: int
    psnr: float | None
    yardstick: Yardstick


@dataclass(slots=True, kw_only=True)
class Measured:
    """All samples of one coder at one level, and the time they took by place."""

    samples: list[Sample] = field(default_factory=list)
    clocks: dict[Place, Clock] = field(default_factory=dict)

    def timed(self, place: Place, clock: Clock) -> None:
        self.clocks.setdefault(place, Clock()).add(clock)


class Coders:
    """The coders of a run: each is made, and warmed up, when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[tuple[Key, rec.Tables | None], Coder] = {}

    def get(self, contestant: Contestant, tables: rec.Tables | None) -> Coder:
        """The coder with the tables of a model, or with the shipped ones."""
        name = contestant.key, tables
        if name not in self._made:
            coder = make_coder(contestant, tables)
            warm_up(coder, tables)
            self._made[name] = coder
        return self._made[name]


def places(contestant: Contestant, coder: Coder) -> list[Place]:
    """Where a search is repeated, after it ran on one thread."""
    out: list[Place] = []
    if contestant.threaded:
        out += [(n, "cpu") for n in THREADS[1:] if n <= vars(numba.config)["NUMBA_NUM_THREADS"]]
    if torch.cuda.is_available() and on_device(coder, "cuda") is not None:
        out.append((1, "cuda"))
    return out


def run_images(
    coders: Coders,
    contestant: Contestant,
    images: Sequence[Image],
    net: PhotoModel,
    level: int,
    container: dict[tuple[int, str], int],
    step: Step,
) -> Measured:
    """Samples of one coder at one level.

    ``container`` has the bytes around a payload by level and image; coders with streams fill it in, the posterior
    reads it.
    """
    out = Measured()
    coder = None if contestant.ideal else coders.get(contestant, lossy.tables_of(net))
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        if coder is None:
            out.samples += _exact_images(batch, net, level, container, calibrate=contestant.calibrated)
        else:
            _code_images(contestant, coder, batch, net, level, container, out)
        step(start + len(batch), len(images))
    return out


def _code_images(
    contestant: Contestant,
    coder: Coder,
    images: Sequence[Image],
    net: PhotoModel,
    level: int,
    container: dict[tuple[int, str], int],
    out: Measured,
) -> None:
    """Files, and what comes back from their bytes."""
    recorder = RecordingCoder(coder)
    passing = cast(Coder, recorder)  # its number and name are its coder's
    with threads(1):
        pictures = [image.picture for image in images]
        coded = lossy.encode(pictures, net, passing, level, steps=contestant.steps)
        taken = recorder.take()
        for image, one, sections in zip(images, coded, taken, strict=True):
            parsed = stream.parse(one.data)
            recorder.clock.encode_s += one.tuning_s
            shifts = len(parsed.sections.get(stream.SECTION_CALIBRATION, b""))
            around = len(one.data) - len(parsed.sections[stream.SECTION_LATENTS]) - shifts
            container.setdefault((level, image.name), around)
            restored = lossy.decode(parsed, net, passing)
            bits = 8 * len(one.data)
            side = bits - one.bits.index - one.bits.symbols
            quality = psnr(image.picture.pixels, restored.pixels)
            out.samples.append(_sample(image.name, image.pixels, sections, bits, side, quality))
    out.timed((1, "cpu"), recorder.clock)
    _again(contestant, coder, taken, [0] * len(taken), out, sum(one.tuning_s for one in coded))


def _exact_images(
    images: Sequence[Image],
    net: PhotoModel,
    level: int,
    container: dict[tuple[int, str], int],
    *,
    calibrate: bool,
) -> Iterator[Sample]:
    """Exact posterior samples through context and synthesis, at the price of their KL and another's container."""
    recorder = RecordingCoder(cast(Coder, make_ideal()))
    pictures = [image.picture for image in images]
    jobs = lossy.encode_latents(pictures, net, cast(Coder, recorder), level, calibrate=calibrate)
    for image, job, sections in zip(images, jobs, recorder.take(), strict=True):
        shifts = len(job.calibration.pack())
        bits = 8 * (len(job.writer.finish()) + container[level, image.name] + shifts)
        pixels = net.synthesise(job.samples, level)[0, : image.picture.height, : image.picture.width]
        side = bits - job.writer.bits.symbols
        yield _sample(image.name, image.pixels, sections, bits, side, psnr(image.picture.pixels, pixels))


def run_pieces(
    coders: Coders, contestant: Contestant, name: str, numbers: Sequence[int], size: int, step: Step
) -> Measured:
    """Samples of one coder on pieces of synthetic latents, each with a seed of its own."""
    out = Measured()
    coder = None if contestant.ideal else coders.get(contestant, None)
    for start in range(0, len(numbers), BATCH):
        seeds = list(numbers[start : start + BATCH])
        pieces = [synthetic.piece(name, seed, size) for seed in seeds]
        if coder is None:
            out.samples += (_exact_piece(one, seed) for one, seed in zip(pieces, seeds, strict=True))
            continue
        with threads(1):
            found, clock, sizes = search(coder, [[one] for one in pieces], seeds)
        out.timed((1, "cpu"), clock)
        taken = [[Section(p.target_N, p.scale_N, own[0])] for p, own in zip(pieces, found, strict=True)]
        for seed, sections, (bits, side) in zip(seeds, taken, sizes, strict=True):
            out.samples.append(_sample(str(seed), None, sections, bits, side, None))
        _again(contestant, coder, taken, seeds, out)
        step(start + len(seeds), len(numbers))
    return out


def _exact_piece(piece: Piece, seed: int) -> Sample:
    ideal = make_ideal(seed + 1)
    writer = ideal.writer()
    (sample_N,) = ideal.encode([writer], [piece.target_N], [piece.scale_N])
    bits = 8 * len(writer.finish())
    sections = [Section(piece.target_N, piece.scale_N, sample_N)]
    return _sample(str(seed), None, sections, bits, writer.bits.side, None)


def search(
    coder: Coder, images: Sequence[Sequence[Section | Piece]], seeds: Sequence[int]
) -> tuple[list[list[Samples]], Clock, list[tuple[int, int]]]:
    """Code sections as the codec does, all images at once, and decode them.

    Returns the samples of each image's sections, the time, and each payload's bits with those of its side information.
    """
    recorder = RecordingCoder(coder)
    passing = cast(Coder, recorder)
    writers = [passing.writer(seed=seed) for seed in seeds]
    sections = range(len(images[0]))
    rounds = [
        passing.encode(writers, [own[n].target_N for own in images], [own[n].scale_N for own in images])
        for n in sections
    ]
    payloads = [writer.finish() for writer in writers]
    found = [[rounds[n][i] for n in sections] for i in range(len(images))]
    for own, samples, payload, seed in zip(images, found, payloads, seeds, strict=True):
        reader = passing.reader(payload, seed=seed)
        for section, sample_N in zip(own, samples, strict=True):
            if not np.array_equal(reader.decode(section.scale_N), sample_N):
                raise RuntimeError(f"{coder.name}: the decoder's samples are not the encoder's")
        reader.finish()
    sizes = [(8 * len(p), w.bits.side) for p, w in zip(payloads, writers, strict=True)]
    return found, recorder.clock, sizes


def warm_up(coder: Coder, tables: rec.Tables | None = None) -> None:
    """Compile and load everything that a search and its decoder need, for every scale index."""
    scale_N = np.tile(np.arange(SCALES, dtype=np.uint8), 2)
    target_N = (np.sqrt(1 + SIGMA_S[scale_N] ** 2) * np.where(np.arange(scale_N.size) % 3, 0.7, -1.2)).astype(
        np.float32
    )
    search(coder, [[Piece(target_N, scale_N)]], [0])
    calibration.choose(target_N, scale_N, np.zeros(scale_N.size, np.int16), tables or rec.Tables.default(), 1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Searches use so many threads inside."""
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _again(
    contestant: Contestant,
    coder: Coder,
    taken: Sequence[Sequence[Section]],
    seeds: Sequence[int],
    out: Measured,
    tuning_s: float = 0.0,
) -> None:
    """Repeat the search of known latents elsewhere, for its time; what comes before it takes as long there."""
    for count, device in places(contestant, coder):
        moved = on_device(coder, device)
        if moved is None:
            continue
        with threads(count):
            if device != "cpu" and (count, device) not in out.clocks:
                search(moved, taken, seeds)  # kernels are compiled for the shapes they meet
            clock = search(moved, taken, seeds)[1]
            clock.encode_s += tuning_s
            out.timed((count, device), clock)


def _sample(
    image: str, pixels: int | None, sections: Sequence[Section], bits: int, side: int, quality: float | None
) -> Sample:
    whole = joined(sections)
    return Sample(
        image=image,
        pixels=pixels,
        dimensions=whole.scale_N.size,
        coded=int(np.count_nonzero(whole.scale_N)),
        bits=bits,
        side_bits=side,
        psnr=quality,
        yardstick=measure(whole.target_N, whole.scale_N, whole.sample_N, bits),
    )
