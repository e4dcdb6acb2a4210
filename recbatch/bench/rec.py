"""Index coders on a model's real latents: overhead over the KL, and rate at equal PSNR.

Every coder gets the same pictures and networks; its own samples go through its own context and synthesis. Coders with
streams are measured by their files, decoded from their bytes. Exact posterior samples and entropy-coded scalar
quantisation have no stream here: they cost their ideal code length and the container of the trellis's file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numba
import numpy as np

from recbatch import rec, stream
from recbatch.bench.bd import rate_at
from recbatch.bench.ecsq import EcsqCoder
from recbatch.bench.ideal import IdealCoder, PosteriorCoder
from recbatch.bench.inputs import Image, load_images, load_weights
from recbatch.bench.recording import RecordingCoder, Section
from recbatch.codec import lossy
from recbatch.codec.quality import psnr
from recbatch.models.photo import PhotoModel
from recbatch.rec.base import Coder
from recbatch.rec.yardstick import LN2, Yardstick, measure

DEFAULT_LEVELS = (4, 12, 20)
DEFAULT_EFFORT = 5
IREC_PRESETS = ((5, "lossy"), (9, "lossless"))  # effort chooses; the paper's two settings
BATCH = 8  # images in one search

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One coder with its setting; ``few`` says that it is slow and runs on some images only."""

    coder: str
    effort: int
    setting: str
    few: bool = False
    ideal: bool = False

    @property
    def key(self) -> tuple[str, int]:
        return self.coder, self.effort


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image, one level, one coder."""

    image: str
    pixels: int
    file_bits: int
    side_bits: int
    coded: int  # dimensions with a prior of more than a point
    psnr: float
    yardstick: Yardstick


@dataclass(frozen=True, slots=True, kw_only=True)
class RecRow:
    """One coder at one level, over its images. Fractions, not percent; ``rate_vs_*`` are of bits at equal PSNR."""

    coder: str
    effort: int
    setting: str
    default: bool
    ideal: bool  # code lengths are ideal, not of a file
    latents: str
    images: int
    level: int
    rate: float  # bpp of the file
    kl_rate: float  # bpp of the KL
    eq: float
    excess: float
    bits_per_dim: float
    side_share: float  # of the file's bits, all that is neither index nor symbol, container included
    error_mean: float  # of (z - posterior mean) / posterior deviation
    error_variance: float
    psnr: float
    psnr_loss: float | None = None  # dB below exact posterior samples
    rate_vs_posterior: float | None = None
    rate_vs_irec: float | None = None
    rate_vs_ecsq: float | None = None
    nats_per_s: float = 0.0
    s_per_megapixel: float = 0.0
    threads: int = 1
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecResult:
    """All rows, by coder and then by level."""

    model: str
    digest: str
    images: int
    irec_images: int
    rows: tuple[RecRow, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def means(self) -> list[RecRow]:
        """One row per coder: overheads and comparisons averaged over the levels; ``level`` is -1."""
        out = []
        for key in dict.fromkeys((row.coder, row.effort) for row in self.rows):
            rows = [row for row in self.rows if (row.coder, row.effort) == key]
            names = [name for name in _AVERAGED if all(getattr(row, name) is not None for row in rows)]
            average = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
            out.append(replace(rows[0], level=-1, **average))  # type: ignore[arg-type]
        return out


_AVERAGED = (
    *(
        "rate",
        "kl_rate",
        "eq",
        "excess",
        "bits_per_dim",
        "side_share",
        "error_mean",
        "error_variance",
        "psnr",
    ),
    *("psnr_loss", "rate_vs_posterior", "rate_vs_irec", "rate_vs_ecsq", "nats_per_s", "s_per_megapixel"),
)


def rec_benchmark(
    folder: str | Path,
    *,
    model: str = "photo-s",
    levels: Sequence[int] = DEFAULT_LEVELS,
    efforts: Sequence[int] = (DEFAULT_EFFORT,),
    images: int | None = None,
    irec_images: int = 3,
    latents: str | None = None,
    progress: Progress | None = None,
) -> RecResult:
    """Measure trellis, iREC (both published settings), exact posterior samples and scalar quantisation.

    Args:
        folder: images, one model pass each; smaller ones than 64 pixels a side say little.
        levels: rate levels; two at least for the comparisons at equal PSNR.
        efforts: of the trellis.
        images: only so many, spread over the folder.
        irec_images: iREC is slow; it runs on so many, comparisons with it are on those. 0: not at all.
        latents: what to call these latents in the rows; the folder's name by default.
    """
    say = progress or (lambda _: None)
    chosen = load_images(folder, images)
    few = {image.name for image in load_images(folder, irec_images)} if irec_images else set()
    few &= {image.name for image in chosen}
    few = few or {image.name for image in chosen[:irec_images]}
    net = PhotoModel.from_bytes(load_weights(model))
    contestants = [
        *(Contestant(coder="trellis", effort=effort, setting=f"effort {effort}") for effort in efforts),
        Contestant(coder="posterior", effort=0, setting="exact", ideal=True),
        Contestant(coder="ecsq", effort=0, setting="RDO", ideal=True),
    ]
    if few:
        contestants += [
            Contestant(coder="irec", effort=effort, setting=setting, few=True)
            for effort, setting in IREC_PRESETS
        ]
    measured: dict[tuple[str, int], dict[int, list[Sample]]] = {}
    seconds: dict[tuple[str, int, int], float] = {}
    for level in levels:
        container: dict[str, int] = {}
        for contestant in contestants:
            mine = [image for image in chosen if not contestant.few or image.name in few]
            samples, spent = run(contestant, mine, net, level, container)
            measured.setdefault(contestant.key, {})[level] = samples
            seconds[(*contestant.key, level)] = spent
            say(f"level {level}: {contestant.coder} ({contestant.setting}), {len(mine)} images")
    name = latents or Path(folder).resolve().name
    rows = [
        row(contestant, level, measured, seconds[(*contestant.key, level)], name, efforts)
        for contestant in contestants
        for level in levels
    ]
    return RecResult(
        model=net.name, digest=net.digest.hex(), images=len(chosen), irec_images=len(few), rows=tuple(rows)
    )


def run(
    contestant: Contestant, images: Sequence[Image], net: PhotoModel, level: int, container: dict[str, int]
) -> tuple[list[Sample], float]:
    """Samples of one coder at one level, and the seconds of its search.

    ``container`` maps an image to the bytes around its payload; coders with streams fill it in, others read it.
    """
    coder = make_coder(contestant, net)
    recorder = RecordingCoder(coder)
    passing = cast(Coder, recorder)  # its number and name are its coder's
    out = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        pictures = [image.picture for image in batch]
        if contestant.ideal:
            jobs = lossy.encode_latents(pictures, net, passing, level)
            for image, job, section in zip(batch, jobs, recorder.take(), strict=True):
                bits = 8 * (len(job.writer.finish()) + container[image.name])
                pixels = net.synthesise(job.samples, level)[0, : image.picture.height, : image.picture.width]
                side = bits - job.writer.bits.symbols
                quality = psnr(image.picture.pixels, pixels)
                out.append(_sample(image, section, bits, side, quality))
            continue
        coded = lossy.encode(pictures, net, passing, level)
        for image, one, section in zip(batch, coded, recorder.take(), strict=True):
            parsed = stream.parse(one.data)
            container.setdefault(image.name, len(one.data) - len(parsed.sections[stream.SECTION_LATENTS]))
            restored = lossy.decode(parsed, net, coder)
            bits = 8 * len(one.data)
            side = bits - one.bits.index - one.bits.symbols
            out.append(_sample(image, section, bits, side, psnr(image.picture.pixels, restored.pixels)))
    return out, recorder.seconds


def make_coder(contestant: Contestant, net: PhotoModel) -> Coder | IdealCoder:
    tables = lossy.tables_of(net)
    if contestant.coder == "posterior":
        return PosteriorCoder()
    if contestant.coder == "ecsq":
        return EcsqCoder(tables)
    return rec.coder(contestant.coder, effort=contestant.effort, tables=tables)


def _sample(image: Image, section: Section, bits: int, side: int, quality: float) -> Sample:
    return Sample(
        image=image.name,
        pixels=image.pixels,
        file_bits=bits,
        side_bits=side,
        coded=int(np.count_nonzero(section.scale_N)),
        psnr=quality,
        yardstick=measure(section.target_N, section.scale_N, section.sample_N, bits),
    )


def row(
    contestant: Contestant,
    level: int,
    measured: dict[tuple[str, int], dict[int, list[Sample]]],
    seconds: float,
    latents: str,
    efforts: Sequence[int],
) -> RecRow:
    """Sums over the coder's images at one level, and comparisons image by image."""
    samples = measured[contestant.key][level]
    marks = [s.yardstick for s in samples]
    pixels, bits = _total(s.pixels for s in samples), _total(s.file_bits for s in samples)
    kl_bits = _total(y.kl_bits for y in marks)
    coded = _total(s.coded for s in samples)
    weight = [s.coded / coded for s in samples]
    loss = None
    if exact := measured.get(("posterior", 0)):
        there = {s.image: s.psnr for s in exact[level]}
        loss = float(np.mean([there[s.image] - s.psnr for s in samples]))
    return RecRow(
        coder=contestant.coder,
        effort=contestant.effort,
        setting=contestant.setting,
        default=contestant.coder == "trellis" and contestant.effort == DEFAULT_EFFORT,
        ideal=contestant.ideal,
        latents=latents,
        images=len(samples),
        level=level,
        rate=float(np.mean([s.file_bits / s.pixels for s in samples])),
        kl_rate=float(np.mean([s.yardstick.kl_bits / s.pixels for s in samples])),
        eq=bits / _total(y.equal_quality_bits for y in marks) - 1,
        excess=(bits - _total(y.realised_bits for y in marks)) / kl_bits,
        bits_per_dim=bits / coded,
        side_share=_total(s.side_bits for s in samples) / bits,
        error_mean=_total(w * y.error_mean for w, y in zip(weight, marks, strict=True)),
        error_variance=_total(w * y.error_variance for w, y in zip(weight, marks, strict=True)),
        psnr=float(np.mean([s.psnr for s in samples])),
        psnr_loss=loss,
        rate_vs_posterior=rate_against(measured, contestant.key, ("posterior", 0), level),
        rate_vs_irec=rate_against(measured, contestant.key, ("irec", IREC_PRESETS[1][0]), level),
        rate_vs_ecsq=rate_against(measured, contestant.key, ("ecsq", 0), level),
        nats_per_s=kl_bits * LN2 / seconds if seconds > 0 else 0.0,
        s_per_megapixel=1e6 * seconds / pixels,
        threads=numba.get_num_threads(),
    )


def rate_against(
    measured: dict[tuple[str, int], dict[int, list[Sample]]],
    mine: tuple[str, int],
    other: tuple[str, int],
    level: int,
) -> float | None:
    """Bits over the other coder's at the PSNR that mine has at this level, minus one; mean over common images."""
    if other not in measured or mine == other:
        return None
    curves: dict[str, list[tuple[float, int]]] = {}
    for samples in measured[other].values():
        for s in samples:
            curves.setdefault(s.image, []).append((s.psnr, s.file_bits))
    logs = []
    for s in measured[mine][level]:
        if len(curve := curves.get(s.image, [])) < 2:
            continue
        qualities, rates = zip(*curve, strict=True)
        logs.append(math.log(s.file_bits / rate_at(s.psnr, qualities, rates)))
    return math.expm1(float(np.mean(logs))) if logs else None


def _total(values: Iterable[float]) -> float:
    return math.fsum(values)
