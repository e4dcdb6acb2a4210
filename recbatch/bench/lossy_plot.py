"""Rate-distortion curves with their names at the ends of the lines: ours among other codecs', and ours by coder.

A few curves are named and coloured by kind; all others are thin and grey behind them, to show where the field lies.
Rates are on a logarithmic axis, where so many percent of bits are the same distance everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbatch.bench.bd import Curve, rate_at
from recbatch.bench.extras import need
from recbatch.bench.lossy import LossyResult
from recbatch.bench.quantisers import SCALAR, QuantiserResult

OURS, CLASSIC, LEARNED, REC, REST = "black", "#1f6fb4", "#c8691c", "#7a3fa0", "#cccccc"
NAMED = {  # anchor: (name on the figure, colour)
    "jpeg-420": ("JPEG", CLASSIC),
    "webp-m6": ("WebP", CLASSIC),
    "jxl-e7": ("JPEG XL", CLASSIC),
    "avif-s6-420-default": ("AVIF", CLASSIC),
    "bpg-444-tfc": ("BPG", CLASSIC),
    "vtm-intra": ("VTM", CLASSIC),
    "irec2020-mse": ("iREC 2020", REC),
    "mbt2018-mse": ("autoregressive 2018", LEARNED),
    "elic2022-mse": ("ELIC 2022", LEARNED),
}
PANELS = (("psnr", "PSNR, dB"), ("ms_ssim_db", "MS-SSIM, dB"))
APART = 0.036  # least distance of two names, of the height of a panel
SCALE_COLOURS = ("#888888", "#3b8fc4", "#1f4f8a", "#e0a030", "#c8691c", "#8a2d12", "#7a3fa0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve to name."""

    name: str
    rate: list[float]
    quality: list[float]
    colour: str
    style: str = "-"
    width: float = 1.3


def lossy_plot(result: LossyResult, anchors: Sequence[Curve], path: str | Path) -> None:
    """PSNR beside MS-SSIM; anchors that are not named stand behind in grey, published ones are dashed."""
    need("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    named = [curve for curve in anchors if curve.name in NAMED] or list(anchors)
    for axes, (metric, label) in zip(figure.subplots(1, 2), PANELS, strict=True):
        quality, rate = result.curve().series(metric)
        if rate:
            longest = 1.05 * max(rate)
            lines = [line for curve in named if (line := _anchor(curve, metric, longest)).rate]
            lines.append(
                Line(name="recbatch", rate=rate, quality=quality, colour=OURS, style="-o", width=2.2)
            )
            stored_quality, stored_rate = result.curve(archive=True).series(metric)
            axes.plot(stored_rate, stored_quality, ":", color=OURS, lw=1.5)
            _rates(axes)
            highest = max(max(line.quality) for line in lines)
            _draw(axes, lines, (0.85 * min(rate), longest), (min(quality) - 1.5, highest + 0.3))
            for curve in anchors:
                if curve not in named:
                    other_quality, other_rate = curve.series(metric)
                    axes.plot(other_rate, other_quality, "-", color=REST, lw=0.7, zorder=0)
        axes.set_xlabel("bits per pixel")
        axes.set_ylabel(label)
        axes.grid(alpha=0.2, which="both")
    figure.supxlabel(
        "blue: classic codecs; orange: learned; violet: relative entropy coding; dashed: published by others; "
        "grey: all other anchors; dotted: recbatch from archive bytes",
        fontsize=8,
    )
    figure.savefig(path, dpi=120)


def quantiser_plot(result: QuantiserResult, path: str | Path) -> None:
    """The curves beside JPEG, and what each takes of the bits of scalar quantisation at equal PSNR."""
    need("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    left, right = figure.subplots(1, 2)
    scalar = next(one for one in result.contestants if (one.coder, one.effort) == SCALAR)
    curves, shares = [], []
    for n, one in enumerate(result.contestants):
        colour = SCALE_COLOURS[n % len(SCALE_COLOURS)]
        few = one.images < result.images
        quality, rate = one.curve().series("psnr")
        if not few:  # a mean over other images is another curve
            curves.append(Line(name=one.label, rate=rate, quality=quality, colour=colour))
        names = list(dict.fromkeys(row.image for row in one.files))
        other_quality, other_rate = scalar.curve(names).series("psnr")
        share = [
            100 * (bits / rate_at(dB, other_quality, other_rate) - 1)
            for dB, bits in zip(quality, rate, strict=True)
        ]
        name = f"{one.label}: {one.encode_s_per_mp:.2g} s/MP" + (f", {one.images} images" if few else "")
        shares.append(Line(name=name, rate=quality, quality=share, colour=colour, style="-o"))
    longest = 1.05 * max(max(line.rate) for line in curves)
    shortest = 0.85 * min(min(line.rate) for line in curves)
    quality, rate = _cut(*result.jpeg.series("psnr"), longest)
    everything = [*curves, Line(name="JPEG 4:2:0", rate=rate, quality=quality, colour=CLASSIC)]
    lowest = min(min(line.quality) for line in curves) - 1.5
    _rates(left)
    _draw(left, everything, (shortest, longest), (lowest, max(max(x.quality) for x in everything) + 0.3))
    places = [dB for line in shares for dB in line.rate]
    values = [percent for line in shares for percent in line.quality]
    _draw(right, shares, (min(places) - 0.3, max(places) + 0.3), (min(values) - 1, max(values) + 1))
    left.set_xlabel("bits per pixel")
    left.set_ylabel("PSNR, dB")
    right.set_xlabel("PSNR, dB")
    right.set_ylabel("bits against scalar quantisation at equal PSNR, %")
    for axes in (left, right):
        axes.grid(alpha=0.2)
    figure.savefig(path, dpi=120)


def _rates(axes: Any) -> None:
    """A logarithmic axis of rates with plain numbers on it."""
    from matplotlib.ticker import FuncFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda bits, _: f"{bits:g}"))
    axes.xaxis.set_minor_formatter(
        FuncFormatter(lambda bits, _: f"{bits:.1g}" if f"{bits:.1g}"[-1] in "1235" else "")
    )


def _anchor(curve: Curve, metric: str, longest: float) -> Line:
    name, colour = NAMED.get(curve.name, (curve.name, CLASSIC))
    quality, rate = _cut(*curve.series(metric), longest)
    return Line(name=name, rate=rate, quality=quality, colour=colour, style="-" if curve.measured else "--")


def _cut(quality: list[float], rate: list[float], longest: float) -> tuple[list[float], list[float]]:
    """The part of a curve up to a rate, its end interpolated there."""
    inside = sum(bits <= longest for bits in rate)
    if inside in (0, len(rate)):
        return quality[:inside], rate[:inside]
    end = float(np.interp(longest, rate[inside - 1 : inside + 1], quality[inside - 1 : inside + 1]))
    return [*quality[:inside], end], [*rate[:inside], longest]


def _draw(axes: Any, lines: Sequence[Line], x: tuple[float, float], y: tuple[float, float]) -> None:
    """Lines within these limits, and their names on the right of the panel, no two of them on one another."""
    for line in lines:
        axes.plot(line.rate, line.quality, line.style, color=line.colour, lw=line.width, ms=4)
    axes.set_xlim(*x)
    low, high = y
    axes.set_ylim(low, high)
    order = sorted(lines, key=lambda line: line.quality[-1])
    for line, place in zip(order, spaced([(x.quality[-1] - low) / (high - low) for x in order]), strict=True):
        axes.annotate(
            line.name,
            xy=(line.rate[-1], line.quality[-1]),
            xytext=(1.03, place),
            textcoords="axes fraction",
            annotation_clip=False,
            color=line.colour,
            fontsize=9,
            fontweight="bold" if line.colour == OURS else "normal",
            va="center",
            arrowprops={"arrowstyle": "-", "color": line.colour, "lw": 0.6, "alpha": 0.6},
        )


def spaced(wanted: Sequence[float], apart: float = APART) -> list[float]:
    """Places near the wanted ones (ascending, 0..1), each at least ``apart`` above the one before."""
    groups: list[tuple[float, int]] = []  # centre and size of runs of names that touch
    for place in wanted:
        centre, size = place, 1
        while groups and groups[-1][0] + groups[-1][1] * apart / 2 > centre - size * apart / 2:
            before, count = groups.pop()
            centre = (before * count + centre * size) / (count + size)
            size += count
            centre = min(centre, 1 - (size - 1) * apart / 2)  # the highest name stays within the panel
        groups.append((centre, size))
    return [centre + (n - (size - 1) / 2) * apart for centre, size in groups for n in range(size)]
