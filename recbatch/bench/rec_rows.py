"""What ``recbatch bench rec`` reports: a row per coder, latents, level and place, and means of them over the levels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from recbatch.bench.bd import rate_at
from recbatch.bench.rec_contestants import ECSQ, IREC_LOSSLESS, POSTERIOR, Contestant, Key
from recbatch.bench.rec_measure import Measured, Place, Sample
from recbatch.bench.recording import Clock
from recbatch.rec.yardstick import LN2

Levels = Mapping[int | None, Measured]  # by level; synthetic latents have the one "level" None
FIRST: Place = (1, "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecRow:
    """One coder on one kind of latents at one level. Fractions, not percent; None where a thing does not apply.

    The row of one thread on the CPU is the measurement. Rows of other ``threads`` or another ``device`` repeat its
    rates, and hold the time of the same search there.
    """

    coder: str
    effort: int | None
    setting: str
    default: bool  # the coder and effort that archives are written by unless told otherwise
    ideal: bool  # code lengths are ideal, not of a payload
    latents: str  # the folder's name, or one of synthetic.LAWS
    images: int  # or pieces of synthetic latents
    level: int | None
    rate: float  # bits per pixel of files; synthetic: bits of payloads per dimension, coded or not
    kl_rate: float  # the KL's bits by the same measure
    eq: float
    excess: float
    bits_per_dim: float  # bits per coded dimension
    side_share: float  # of all bits, what is neither index nor symbol; a file's container included
    error_mean: float  # of (z - posterior mean) / posterior deviation
    error_variance: float
    psnr: float | None = None
    psnr_loss: float | None = None  # dB below exact posterior samples
    rate_vs_posterior: float | None = None  # file bits at equal PSNR over those of the other, minus one
    rate_vs_irec: float | None = None
    rate_vs_ecsq: float | None = None
    nats_per_s: float | None = None  # of KL; the time is the search's and the payload's
    s_per_megapixel: float | None = None
    decode_s_per_megapixel: float | None = None  # the payload's decoder only, no networks
    decode_nats_per_s: float | None = None
    speed_vs_irec: float | None = None  # seconds per nat of iREC (lossless, as many threads, CPU) over these
    threads: int = 1
    device: str = "cpu"

    @property
    def key(self) -> Key:
        return self.coder, self.effort

    @property
    def label(self) -> str:
        return f"{self.coder}, {self.setting}" if self.setting else self.coder


@dataclass(frozen=True, slots=True, kw_only=True)
class RecResult:
    """All rows: by latents, coder, level, place."""

    model: str | None  # None without real latents
    digest: str | None
    images: int  # of the folder
    slow_images: int  # of these, and of pieces of synthetic latents, so many for slow coders
    pieces: int  # of each kind of synthetic latents
    load_average: float | None  # before the run: how idle the machine was
    cores: int
    gpu: str | None  # the name of the device "cuda"
    rows: tuple[RecRow, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def means(self) -> list[RecRow]:
        """One row per latents, coder and place: the mean over the levels of what all its levels have."""
        groups: dict[tuple[Any, ...], list[RecRow]] = {}
        for row in self.rows:
            groups.setdefault((row.latents, *row.key, row.threads, row.device), []).append(row)
        return [_mean(rows) for rows in groups.values()]


_AVERAGED = (
    *("rate", "kl_rate", "eq", "excess", "bits_per_dim", "side_share", "error_mean", "error_variance"),
    *("psnr", "psnr_loss", "rate_vs_posterior", "rate_vs_irec", "rate_vs_ecsq"),
    *("nats_per_s", "s_per_megapixel", "decode_s_per_megapixel", "decode_nats_per_s", "speed_vs_irec"),
)


def _mean(rows: list[RecRow]) -> RecRow:
    values = {name: [getattr(row, name) for row in rows] for name in _AVERAGED}
    means = {name: None if None in own else float(np.mean(own)) for name, own in values.items()}
    return replace(rows[0], level=None, **means)  # type: ignore[arg-type]


def rows_of(latents: str, everyone: Iterable[Contestant], measured: Mapping[Key, Levels]) -> Iterator[RecRow]:
    """The rows of one kind of latents."""
    for contestant in everyone:
        for level, mine in measured[contestant.key].items():
            row = _row(contestant, latents, level, measured)
            if not mine.clocks:
                yield row
            for place, clock in mine.clocks.items():
                yield _timed(row, place, clock, mine, measured.get(IREC_LOSSLESS, {}).get(level))


def _row(contestant: Contestant, latents: str, level: int | None, measured: Mapping[Key, Levels]) -> RecRow:
    """Sums over the coder's images at one level, and comparisons image by image."""
    samples = measured[contestant.key][level].samples
    marks = [s.yardstick for s in samples]
    bits, coded = math.fsum(s.bits for s in samples), math.fsum(s.coded for s in samples)
    kl_bits = math.fsum(y.kl_bits for y in marks)
    return RecRow(
        coder=contestant.coder,
        effort=contestant.effort,
        setting=contestant.setting,
        default=contestant.default,
        ideal=contestant.ideal,
        latents=latents,
        images=len(samples),
        level=level,
        rate=float(np.mean([s.bits / (s.pixels or s.dimensions) for s in samples])),
        kl_rate=float(np.mean([s.yardstick.kl_bits / (s.pixels or s.dimensions) for s in samples])),
        eq=bits / math.fsum(y.equal_quality_bits for y in marks) - 1,
        excess=(bits - math.fsum(y.realised_bits for y in marks)) / kl_bits,
        bits_per_dim=bits / coded,
        side_share=math.fsum(s.side_bits for s in samples) / bits,
        error_mean=math.fsum(s.coded * s.yardstick.error_mean for s in samples) / coded,
        error_variance=math.fsum(s.coded * s.yardstick.error_variance for s in samples) / coded,
        psnr=_psnr(samples),
        psnr_loss=_psnr_loss(samples, measured.get((POSTERIOR, None), {}).get(level)),
        rate_vs_posterior=rate_against(measured, contestant.key, (POSTERIOR, None), level),
        rate_vs_irec=rate_against(measured, contestant.key, IREC_LOSSLESS, level),
        rate_vs_ecsq=rate_against(measured, contestant.key, (ECSQ, None), level),
    )


def _timed(row: RecRow, place: Place, clock: Clock, mine: Measured, irec: Measured | None) -> RecRow:
    """The row with the times of one place."""
    nats = _nats(mine)
    pixels = math.fsum(s.pixels or 0 for s in mine.samples)
    speed = None
    if irec is not None and (theirs := irec.clocks.get((place[0], "cpu"))) is not None:
        speed = _over(_over(theirs.encode_s, _nats(irec)), _over(clock.encode_s, nats))
    return replace(
        row,
        threads=place[0],
        device=place[1],
        nats_per_s=_over(nats, clock.encode_s),
        s_per_megapixel=_over(clock.encode_s, pixels / 1e6),
        decode_s_per_megapixel=_over(clock.decode_s, pixels / 1e6),
        decode_nats_per_s=_over(nats, clock.decode_s),
        speed_vs_irec=speed,
    )


def rate_against(measured: Mapping[Key, Levels], mine: Key, other: Key, level: int | None) -> float | None:
    """Bits over the other coder's at the PSNR that mine has at this level, minus one; mean over common images."""
    if other not in measured or mine == other:
        return None
    curves: dict[str, list[tuple[float, int]]] = {}
    for theirs in measured[other].values():
        for s in theirs.samples:
            if s.psnr is not None:
                curves.setdefault(s.image, []).append((s.psnr, s.bits))
    logs = []
    for s in measured[mine][level].samples:
        if s.psnr is None or len(curve := curves.get(s.image, [])) < 2:
            continue
        qualities, rates = zip(*curve, strict=True)
        logs.append(math.log(s.bits / rate_at(s.psnr, qualities, rates)))
    known = [x for x in logs if not math.isnan(x)]  # a curve of one quality has no slope
    return math.expm1(float(np.mean(known))) if known else None


def _psnr(samples: list[Sample]) -> float | None:
    values = [s.psnr for s in samples if s.psnr is not None]
    return float(np.mean(values)) if values else None


def _psnr_loss(samples: list[Sample], exact: Measured | None) -> float | None:
    there = {s.image: s.psnr for s in exact.samples} if exact is not None else {}
    losses = [
        other - s.psnr for s in samples if s.psnr is not None and (other := there.get(s.image)) is not None
    ]
    return float(np.mean(losses)) if losses else None


def _nats(measured: Measured) -> float:
    return LN2 * math.fsum(s.yardstick.kl_bits for s in measured.samples)


def _over(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
