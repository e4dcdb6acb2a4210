"""Rate-distortion curves, and the Bjontegaard delta between two of them.

Quality is a number of dB (PSNR, or MS-SSIM as -10 log10(1 - x)); rate is any positive measure of bits. log(rate) is
interpolated over quality by PCHIP, which keeps a monotone curve monotone.

Source: Bjontegaard 2001, VCEG-M33; PCHIP in place of his cubic as in the reference software of later standards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from recbatch.errors import UsageError

PSNR_RANGES = ((30.1, 35.5), (27.0, 37.0))  # dB; the first is covered by all serious codecs
MS_SSIM_RANGES = ((13.3, 18.4), (10.0, 20.0))
LEAST_OVERLAP = 1.0  # dB; less says nothing about a curve
LEAST_POINTS = 3


class BadAnchors(UsageError):
    """A file of anchor curves can't be used."""

    code = "bad-anchors"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return (
            f"The anchor curves in {self.name} can't be used: {self.problem}. Give a JSON file "
            'like {"codecs": {"jpeg": {"measured": true, "points": [{"bpp": 0.5, "psnr": 30.1}]}}}.'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One setting of a codec, mean over images."""

    bpp: float
    psnr: float | None = None
    ms_ssim: float | None = None  # 0..1

    @property
    def ms_ssim_db(self) -> float | None:
        return None if self.ms_ssim is None else decibels(self.ms_ssim)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A codec's points, and whether they were measured here or published by others."""

    name: str
    points: tuple[Point, ...]
    measured: bool = True

    def series(self, metric: str) -> tuple[list[float], list[float]]:
        """Qualities, strictly ascending, and their rates; ``metric`` is "psnr" or "ms_ssim_db"."""
        pairs = sorted((q, p.bpp) for p in self.points if (q := getattr(p, metric)) is not None)
        kept = [pair for i, pair in enumerate(pairs) if i == 0 or pair[0] > pairs[i - 1][0] + 1e-9]
        return [q for q, _ in kept], [rate for _, rate in kept]


@dataclass(frozen=True, slots=True, kw_only=True)
class BdRate:
    """Percent of bits saved (negative) or lost at equal quality, and the dB over which."""

    percent: float
    low: float
    high: float


def decibels(ms_ssim: float) -> float:
    """MS-SSIM on the usual logarithmic scale."""
    return 100.0 if ms_ssim >= 1 else -10 * math.log10(1 - ms_ssim)


def bd_rate(
    test: Curve, anchor: Curve, *, metric: str = "psnr", bounds: tuple[float, float] | None = None
) -> BdRate | None:
    """Mean rate of ``test`` over that of ``anchor``, over the quality that both and ``bounds`` share.

    None where they share less than LEAST_OVERLAP dB, or one has fewer than LEAST_POINTS points.
    """
    sides = [curve.series(metric) for curve in (test, anchor)]
    if min(len(quality) for quality, _ in sides) < LEAST_POINTS:
        return None
    low, high = max(q[0] for q, _ in sides), min(q[-1] for q, _ in sides)
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    if high - low < LEAST_OVERLAP:
        return None
    log_test, log_anchor = (
        float(PchipInterpolator(quality, np.log(rate)).integrate(low, high)) for quality, rate in sides
    )
    return BdRate(percent=100 * math.expm1((log_test - log_anchor) / (high - low)), low=low, high=high)


def rate_at(quality: float, qualities: Sequence[float], rates: Sequence[float]) -> float:
    """The rate of a curve at a quality; beyond its ends by the slope of the last two points.

    With one point there is no slope: NaN, unless it is that very quality.
    """
    order = np.argsort(qualities)
    q, log_rate = np.asarray(qualities, np.float64)[order], np.log(np.asarray(rates, np.float64)[order])
    keep = np.concatenate([[True], np.diff(q) > 1e-9])
    q, log_rate = q[keep], log_rate[keep]
    if q.size == 1:
        return math.exp(log_rate[0]) if abs(quality - q[0]) < 1e-9 else math.nan
    for end, inner, outside in ((0, 1, quality < q[0]), (-1, -2, quality > q[-1])):
        if outside:
            slope = (log_rate[end] - log_rate[inner]) / (q[end] - q[inner])
            return math.exp(log_rate[end] + slope * (quality - q[end]))
    return math.exp(float(PchipInterpolator(q, log_rate)(quality)))


def load_anchors(path: str | Path) -> list[Curve]:
    """The curves of an anchor file. Raises BadAnchors."""
    try:
        codecs: Mapping[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))["codecs"]
        return [_curve(name, entry) for name, entry in codecs.items()]
    except OSError as error:
        raise BadAnchors(str(path), error.strerror or "it can't be read") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadAnchors(str(path), f"{type(error).__name__}: {error}") from error


def _curve(name: str, entry: Mapping[str, Any]) -> Curve:
    return Curve(name=name, points=tuple(_points(entry["points"])), measured=bool(entry.get("measured")))


def _points(entries: Iterable[Mapping[str, Any]]) -> Iterable[Point]:
    for entry in entries:
        ms_ssim = entry.get("msssim")
        if ms_ssim is None and entry.get("msssim_db") is not None:
            ms_ssim = 1 - 10 ** (-entry["msssim_db"] / 10)
        yield Point(bpp=float(entry["bpp"]), psnr=entry.get("psnr"), ms_ssim=ms_ssim)
