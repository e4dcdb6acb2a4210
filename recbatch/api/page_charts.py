"""Plots as inline SVG. Places are per cent of the width, so that letters keep their size in any window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recbatch.api import page_words
from recbatch.api.page_html import Html, join, tag

if TYPE_CHECKING:
    from recbatch.api.page_sums import Histogram
    from recbatch.engine.runs import Point

HEIGHT = 150  # of the plot, CSS pixels; below it is the axis
AXIS = 24
BUCKETS = 72  # intervals of the throughput plot


def histogram(shown: Histogram) -> Html:
    """Bars, with the middle 90 per cent told in words."""
    most = max(shown.counts)
    top, ticks = scale(most)
    width = 100 / len(shown.counts)
    bars = []
    for place, count in enumerate(shown.counts):
        if not count:
            continue
        low = shown.low + place * shown.step
        label = (
            f"{low:.{shown.places}f} to {low + shown.step:.{shown.places}f} {shown.unit}: {count:,}".strip()
        )
        height = max(1.5, HEIGHT * count / top)
        bars.append(
            tag(
                "rect",
                tag("title", label),
                x=f"{width * place + 0.12 * width:.3f}%",
                width=f"{0.76 * width:.3f}%",
                y=f"{HEIGHT - height:.1f}",
                height=f"{height:.1f}",
                class_="bar",
            )
        )
    high = shown.low + shown.step * len(shown.counts)
    labels = [
        (100 * (value - shown.low) / (high - shown.low), number(value)) for value in between(shown.low, high)
    ]
    first, middle, last = (f"{value:.{shown.places}f}" for value in (shown.p05, shown.median, shown.p95))
    unit = "%" if shown.unit == "%" else f" {shown.unit}" if shown.unit else ""
    images = page_words.count(sum(shown.counts), "image")
    summary = f"{images}: median {middle}{unit}, nine in ten from {first} to {last}{unit}"
    body = join(grid(ticks, top), bars, x_axis(labels))
    return figure(
        shown.title, join(summary, f"; {shown.more}" if shown.more else "", "."), summary, ticks, top, body
    )


def throughput(history: Sequence[Point], seconds: float) -> Html | None:
    """Images a second over time, from the journal's sums; None where too little was noted."""
    if len(history) < 3 or history[-1][0] <= 0 or not history[-1][1]:
        return None
    end = history[-1][0]
    rates = resampled(history, end, min(BUCKETS, len(history) - 1))
    top, ticks = scale(max(rates))
    step = 1000 / len(rates)
    corners = [(step * place, rate) for place, rate in enumerate(rates)]
    outline = " ".join(
        f"L{x:.1f} {100 - 100 * rate / top:.2f} L{x + step:.1f} {100 - 100 * rate / top:.2f}"
        for x, rate in corners
    )
    mean = history[-1][1] / end
    level = f"{HEIGHT - HEIGHT * mean / top:.1f}"
    plot = tag(
        "svg",
        tag("path", d=f"M0 100 {outline} L1000 100 Z", class_="area"),
        tag("path", d="M" + outline[1:], class_="line", vector_effect="non-scaling-stroke"),
        viewBox="0 0 1000 100",
        preserveAspectRatio="none",
        width="100%",
        height=HEIGHT,
    )
    average = tag("line", x1="0", x2="100%", y1=level, y2=level, class_="mean")
    unit, size = time_unit(end)
    labels = [(100 * value * size / end, f"{number(value)} {unit}") for value in between(0, end / size)]
    summary = (
        f"On average {significant(mean)} images a second (the dashed line), "
        f"at most {significant(max(rates))} in one of {len(rates)} equal intervals."
    )
    body = join(grid(ticks, top), plot, average, x_axis(labels))
    return figure("Images a second", summary, summary, ticks, top, body)


def resampled(history: Sequence[Point], end: float, buckets: int) -> list[float]:
    """Images a second in equal intervals, the sums between two points taken as growing evenly."""
    edges = [end * place / buckets for place in range(buckets + 1)]
    sums, point = [], 0
    for edge in edges:
        while point < len(history) - 2 and history[point + 1][0] < edge:
            point += 1
        (start, before, *_), (stop, after, *_) = history[point], history[point + 1]
        part = 1.0 if stop <= start else min(1.0, max(0.0, (edge - start) / (stop - start)))
        sums.append(before + part * (after - before))
    return [max(0.0, b - a) / (end / buckets) for a, b in itertools.pairwise(sums)]


def figure(
    title: str, caption: str, description: str, ticks: Sequence[float], top: float, body: Html
) -> Html:
    """A plot with its title, its scale at the left, and what it shows in words."""
    name = "plot-" + "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    scale_labels = [
        tag("text", number(tick), x="100%", y=f"{HEIGHT - HEIGHT * tick / top + 4:.1f}", text_anchor="end")
        for tick in ticks
    ]
    return tag(
        "figure",
        tag("h3", title),
        tag(
            "div",
            tag("svg", scale_labels, height=HEIGHT + AXIS, class_="scale", aria_hidden="true"),
            tag(
                "svg",
                tag("title", title, id=f"{name}-title"),
                tag("desc", description, id=f"{name}-desc"),
                body,
                height=HEIGHT + AXIS,
                class_="plot",
                role="img",
                aria_labelledby=f"{name}-title {name}-desc",
            ),
            class_="chart",
        ),
        tag("figcaption", caption),
    )


def bar(part: float, kind: str = "part") -> Html:
    """Of the row's width; at least a hair of it."""
    return tag(
        "svg",
        tag("rect", width=f"{max(0.3, 100 * part):.2f}%", height="100%", rx=3, class_=kind),
        class_="track",
        aria_hidden="true",
    )


def grid(ticks: Sequence[float], top: float) -> Html:
    lines = []
    for tick in ticks:
        y = f"{HEIGHT - HEIGHT * tick / top:.1f}"
        lines.append(tag("line", x1="0", x2="100%", y1=y, y2=y, class_="base" if tick == 0 else "grid"))
    return join(lines)


def x_axis(labels: Sequence[tuple[float, str]]) -> Html:
    """Labels by their place in per cent; those at the ends stay inside."""
    parts = []
    for place, label in labels:
        anchor = "start" if place < 3 else "end" if place > 97 else "middle"
        x = f"{place:.2f}%"
        parts.append(tag("line", x1=x, x2=x, y1=HEIGHT, y2=HEIGHT + 4, class_="base"))
        parts.append(tag("text", label, x=x, y=HEIGHT + 18, text_anchor=anchor))
    return join(parts)


def scale(most: float) -> tuple[float, list[float]]:
    """The top of an axis from 0, and its ticks."""
    step = nice(most / 3)
    number_of = max(1, math.ceil(most / step - 1e-9))
    return step * number_of, [step * place for place in range(number_of + 1)]


def between(low: float, high: float) -> list[float]:
    """Round values from low to high, four to seven or so."""
    step = nice((high - low) / 5)
    first = math.ceil(low / step - 1e-6)
    return [step * place for place in range(first, math.floor(high / step + 1e-6) + 1)]


def nice(least: float) -> float:
    """The first of 1, 2, 5 times a power of ten that is at least so much."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def number(value: float) -> str:
    """As short as it can be read."""
    if abs(value) >= 10_000:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"
    return f"{round(value, 6):,g}"


def significant(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def time_unit(seconds: float) -> tuple[str, float]:
    if seconds < 180:
        return "s", 1.0
    return ("min", 60.0) if seconds < 2 * 3600 else ("h", 3600.0)
