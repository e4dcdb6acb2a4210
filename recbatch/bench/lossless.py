"""Bits per dimension and speed of lossless codecs, ours beside PNG, WebP and JPEG XL, in one run on the same images.

Definitions: bits per dimension are 8 x bytes of the complete file / (height x width x channels), mean over images.
Speed is megapixels a second of the processor's time, from pixels to the file's bytes in memory, and back. Every file
is decoded and its pixels are compared. The codecs take turns: a machine that is busy for a while slows all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from recbatch.bench.lossless_codecs import PNG, Coded, Contestant, contestants, on_threads, same
from recbatch.bench.lossless_inputs import ImageSet, Item, Loader, Pixels, grouped, image_set
from recbatch.bench.rec_progress import Progress, Say
from recbatch.errors import RecbatchError

TURN_PIXELS = 2**16  # a turn is one image, or so many small ones that they make this
LEAST_S = 0.05  # what is quicker is repeated until it has taken as long
TICK_S = 1e-9  # no time is less, whatever a coarse clock says
PARTS = 20  # lines of progress, about

Result = TypeVar("Result")


class CodecFailed(RecbatchError):
    """A codec in a benchmark could not code an image, or gave back other pixels."""

    code = "codec-failed"

    def __init__(self, codec: str, image: str, problem: str) -> None:
        super().__init__(codec, image, problem)
        self.codec, self.image, self.problem = codec, image, problem

    def __str__(self) -> str:
        return (
            f"{self.codec} failed on {self.image}: {self.problem}. "
            "Leave the image or the codec out; if the codec is recbatch, report it."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """One image, or tile, by one codec."""

    image: str
    codec: str
    pixels: int
    channels: int
    file_bytes: int
    ideal_bits: float | None  # the model's own, where the codec says them

    @property
    def dimensions(self) -> int:
        return self.pixels * self.channels

    @property
    def bits_per_dim(self) -> float:
        return 8 * self.file_bytes / self.dimensions


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecRow:
    """One codec on one set of images. Fractions, not percent; None where a thing does not apply."""

    codec: str
    label: str
    settings: str
    threads: int
    bits_per_dim: float  # mean over images
    bits_per_dim_min: float
    bits_per_dim_max: float
    file_bytes: int  # of all images
    share_of_png: float | None  # of the bytes
    model_bits_per_dim: float | None
    overhead: float | None  # file bits over the model's, minus one
    encode_mps: float  # megapixels a second of the processor's time, all threads together
    decode_mps: float
    encode_wall_mps: float  # the same by the clock on the wall
    decode_wall_mps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SetResult:
    """All codecs on one set of images."""

    name: str
    tiles: int | None  # side of the tiles that the images were cut into
    images: int
    megapixels: float
    codecs: tuple[CodecRow, ...]
    rows: tuple[ImageRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LosslessResult:
    """Everything of one run on one machine."""

    threads: int
    cores: int
    load_average: float  # before the run: how idle the machine was
    sets: tuple[SetResult, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Tally:
    """What one codec did so far on one set, and how long it took."""

    rows: list[ImageRow] = field(default_factory=list)
    encode_cpu_s: float = 0.0
    decode_cpu_s: float = 0.0
    encode_wall_s: float = 0.0
    decode_wall_s: float = 0.0


def lossless_benchmark(
    folders: Sequence[str | Path],
    *,
    tiles: int | None = None,
    images: int | None = None,
    codecs: Sequence[str | Contestant] | None = None,
    threads: int = 1,
    progress: Say | None = None,
    least_s: float = LEAST_S,
) -> LosslessResult:
    """Every codec on every set of images; each folder, or file, is a set.

    Args:
        folders: image files lie in them or in their sub-folders.
        tiles: cut every image into tiles of this side, and code each by itself.
        images: only so many images, or tiles, of each set, spread over it.
        codecs: names, or contestants of one's own; None: all.
        threads: for the codecs that can use them.
        least_s: repeat what takes less, for its time.

    Raises:
        NoImages, UsageError (an unknown codec, a file that is no image), MissingExtra, CodecFailed.
    """
    everyone = contestants(codecs, threads=threads)
    sets = [image_set(folder, tiles=tiles, images=images) for folder in folders]
    load = os.getloadavg()[0]
    at_once = sum(one.pixels for one in sets) // PARTS
    parts = [(one, list(grouped(one.items, at_once))) for one in sets]
    talk = Progress(progress)
    talk.expect("pixels", sum(len(mine) for _, mine in parts))
    return LosslessResult(
        threads=threads,
        cores=os.cpu_count() or 1,
        load_average=load,
        sets=tuple(_run_set(one, mine, everyone, talk, least_s) for one, mine in parts),
    )


def _run_set(
    images: ImageSet,
    parts: Sequence[list[Item]],
    everyone: Sequence[Contestant],
    talk: Progress,
    least_s: float,
) -> SetResult:
    loader = Loader()
    tallies = [Tally() for _ in everyone]
    first = [(images.items[0], loader.load(images.items[0]))]
    done = 0
    for number, part in enumerate(parts):
        things = "images" if images.tiles is None else "tiles"
        label = f"{images.name}, {done + len(part)} of {len(images.items)} {things}"
        with talk.part("pixels", label) as step:
            if number == 0:
                for one in everyone:  # warm-up: libraries load, kernels compile
                    _turn(one, first, Tally(), 0.0)
            shown = 0
            for turn in grouped(part, TURN_PIXELS):
                loaded = [(item, loader.load(item)) for item in turn]
                for n, (one, tally) in enumerate(zip(everyone, tallies, strict=True)):
                    _turn(one, loaded, tally, least_s)
                    step(shown * len(everyone) + (n + 1) * len(turn), len(part) * len(everyone))
                shown += len(turn)
        done += len(part)
    png = next((tally for one, tally in zip(everyone, tallies, strict=True) if one.name == PNG), None)
    return SetResult(
        name=images.name,
        tiles=images.tiles,
        images=len(images.items),
        megapixels=images.pixels / 1e6,
        codecs=tuple(_codec_row(one, mine, png) for one, mine in zip(everyone, tallies, strict=True)),
        rows=tuple(row for tally in tallies for row in tally.rows),
    )


def _turn(one: Contestant, loaded: Sequence[tuple[Item, Pixels]], tally: Tally, least_s: float) -> None:
    """Code these images and decode them again, each direction timed as a whole; then compare."""
    with on_threads(one.threads):
        files, cpu_s, wall_s = timed(
            lambda: [_encoded(one, item, pixels) for item, pixels in loaded], least_s
        )
        tally.encode_cpu_s += cpu_s
        tally.encode_wall_s += wall_s
        pairs = [(item, file) for (item, _), file in zip(loaded, files, strict=True)]
        restored, cpu_s, wall_s = timed(lambda: [_decoded(one, item, file) for item, file in pairs], least_s)
        tally.decode_cpu_s += cpu_s
        tally.decode_wall_s += wall_s
    for (item, pixels_HWC), file, back_HWC in zip(loaded, files, restored, strict=True):
        if not same(pixels_HWC, back_HWC):
            raise CodecFailed(one.label, item.name, "other pixels came back")
        tally.rows.append(
            ImageRow(
                image=item.name,
                codec=one.name,
                pixels=item.pixels,
                channels=pixels_HWC.shape[2],
                file_bytes=len(file.data),
                ideal_bits=file.ideal_bits,
            )
        )


def timed(work: Callable[[], Result], least_s: float) -> tuple[Result, float, float]:
    """The result, and seconds of processor and of wall a call; a quick one is called again and again."""
    calls, cpu, wall = 0, time.process_time(), time.perf_counter()
    while True:
        out = work()
        calls += 1
        if (wall_s := time.perf_counter() - wall) >= least_s:
            return out, (time.process_time() - cpu) / calls, wall_s / calls


def _encoded(one: Contestant, item: Item, pixels_HWC: Pixels) -> Coded:
    try:
        return one.encode(pixels_HWC)
    except RecbatchError:
        raise
    except Exception as error:
        raise CodecFailed(one.label, item.name, str(error) or type(error).__name__) from error


def _decoded(one: Contestant, item: Item, file: Coded) -> Pixels:
    try:
        return one.decode(file.data)
    except RecbatchError:
        raise
    except Exception as error:
        raise CodecFailed(one.label, item.name, str(error) or type(error).__name__) from error


def _codec_row(one: Contestant, tally: Tally, png: Tally | None) -> CodecRow:
    rates = [row.bits_per_dim for row in tally.rows]
    size = sum(row.file_bytes for row in tally.rows)
    ideal = [(row.ideal_bits, row.dimensions) for row in tally.rows if row.ideal_bits is not None]
    known = len(ideal) == len(tally.rows)
    megapixels = sum(row.pixels for row in tally.rows) / 1e6
    return CodecRow(
        codec=one.name,
        label=one.label,
        settings=one.settings,
        threads=one.threads,
        bits_per_dim=float(np.mean(rates)),
        bits_per_dim_min=min(rates),
        bits_per_dim_max=max(rates),
        file_bytes=size,
        share_of_png=None if png is None else size / sum(row.file_bytes for row in png.rows),
        model_bits_per_dim=float(np.mean([bits / count for bits, count in ideal])) if known else None,
        overhead=8 * size / sum(bits for bits, _ in ideal) - 1 if known else None,
        encode_mps=megapixels / max(tally.encode_cpu_s, TICK_S),
        decode_mps=megapixels / max(tally.decode_cpu_s, TICK_S),
        encode_wall_mps=megapixels / max(tally.encode_wall_s, TICK_S),
        decode_wall_mps=megapixels / max(tally.decode_wall_s, TICK_S),
    )
