"""Overhead against compute, a mark for each coder and effort: real latents on the left, synthetic ones on the right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbatch.bench import synthetic
from recbatch.bench.extras import need
from recbatch.bench.rec_contestants import IREC, POSTERIOR
from recbatch.bench.rec_rows import RecResult, RecRow

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#000000",
    "#999999",
    "#8c564b",
    "#7f7f00",
)
PLACES = (
    (8, 6),
    (8, -14),
    (-8, 6),
    (-8, -14),
    (0, 12),
    (0, -20),
    (14, 16),
    (14, -24),
    (-14, 16),
    (-14, -24),
)  # points


@dataclass(frozen=True, slots=True)
class Mark:
    """One coder and effort: the mean over levels, or over laws, and the range."""

    coder: str
    label: str
    cost: float
    overhead: float  # percent
    low: float
    high: float


def rec_plot(result: RecResult, path: str | Path) -> None:
    """Draw the rows of one thread on the CPU into a file.

    Pictures: bits at the PSNR of exact posterior samples. Synthetic latents have no picture; there excess weighs bits
    against quality. EQ would flatter a coder whose samples are far poorer than exact ones, since it compares with the
    tilted family of the fixed prior, which is on the rate-distortion curve at beta = 1 only.
    """
    need("matplotlib")
    from matplotlib.figure import Figure

    rows = [row for row in result.rows if (row.threads, row.device) == (1, "cpu")]
    real = [row for row in rows if row.level is not None]
    law = [row for row in rows if row.level is None and synthetic.known_plan(row.latents)]
    colour_of = {
        name: COLOURS[n % len(COLOURS)] for n, name in enumerate(dict.fromkeys(r.coder for r in rows))
    }
    figure = Figure(figsize=(13 if real and law else 7.5, 6), layout="constrained")
    axes = figure.subplots(1, bool(real) + bool(law), squeeze=False)[0]
    panels: list[tuple[Any, list[Mark]]] = []
    if real:
        exact = any(row.rate_vs_posterior is not None for row in real)
        panels.append(
            (axes[0], marks(real, _against_exact if exact else _eq, lambda row: row.s_per_megapixel))
        )
        levels = ", ".join(dict.fromkeys(str(row.level) for row in real))
        axes[0].set_title(f"{real[0].latents}: mean over levels {levels}; bar: their range", fontsize=10)
        axes[0].set_xlabel("seconds per megapixel, search and payload, one thread")
        axes[0].set_ylabel(
            "file bits over exact posterior samples, equal PSNR, %"
            if exact
            else "EQ: bits over KL at equal quality, %"
        )
    if law:
        panels.append((axes[-1], marks(law, _excess, _us_per_nat)))
        axes[-1].set_title("synthetic, known plan: mean of uniform and log-uniform; bar: both", fontsize=10)
        axes[-1].set_xlabel("microseconds per nat of KL, one thread")
        axes[-1].set_ylabel("excess: bits beyond what the sample is worth, % of KL")
    for axis, found in panels:
        axis.set_xscale("log")
        axis.margins(x=0.12, y=0.1)
        axis.grid(alpha=0.25, which="both")
        axis.axhline(0, color="black", lw=1, ls="--")
        for coder, colour in colour_of.items():
            mine = [mark for mark in found if mark.coder == coder]
            style = "o" if coder == IREC else "o-"  # its two settings are no scale
            axis.plot([m.cost for m in mine], [m.overhead for m in mine], style, color=colour, ms=6, lw=1)
            for mark in mine:
                axis.plot([mark.cost] * 2, [mark.low, mark.high], color=colour, lw=3, alpha=0.25)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # labels are placed by pixels, which the layout decides
    for axis, found in panels:
        place_labels(axis, found, colour_of, canvas.get_renderer())  # type: ignore[no-untyped-call]
    figure.savefig(path, dpi=120)


def marks(
    rows: Sequence[RecRow], overhead: Callable[[RecRow], float | None], cost: Callable[[RecRow], float | None]
) -> list[Mark]:
    """The mean of each coder and effort; what has no time or no overhead is left out."""
    groups: dict[tuple[str, int | None], list[RecRow]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    out = []
    for (coder, _), mine in groups.items():
        over = [100 * value for row in mine if (value := overhead(row)) is not None]
        costs = [value for row in mine if (value := cost(row))]
        if coder != POSTERIOR and over and costs:
            label = mine[0].label + (" (default)" if mine[0].default else "")
            middle = float(np.exp(np.mean(np.log(costs))))
            out.append(Mark(coder, label, middle, float(np.mean(over)), min(over), max(over)))
    return out


def place_labels(axis: Any, found: Sequence[Mark], colour_of: dict[str, str], renderer: Any) -> None:
    """Write each label where it covers no other label and no mark, if there is such a place near its mark."""
    points = axis.transData.transform([(mark.cost, mark.overhead) for mark in found]) if found else []
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    for mark in found:
        (x, low), (_, high) = axis.transData.transform([(mark.cost, mark.low), (mark.cost, mark.high)])
        taken.append((x - 3, low, x + 3, high))
    inside = axis.get_window_extent(renderer)
    zero = axis.transData.transform((1.0, 0.0))[1]
    taken.append((inside.x0, zero - 2, inside.x1, zero + 2))
    for mark in found:
        best, least = None, np.inf
        for x, y in PLACES:
            text = axis.annotate(
                mark.label, (mark.cost, mark.overhead), (x, y), textcoords="offset points", fontsize=8,
                ha="left" if x > 0 else "right" if x < 0 else "center", color=colour_of[mark.coder],
            )  # fmt: skip
            box = text.get_window_extent(renderer).extents
            covered = sum(_overlap(box, other) for other in taken)
            covered += 1e6 * (
                box[0] < inside.x0 or box[2] > inside.x1 or box[1] < inside.y0 or box[3] > inside.y1
            )
            if covered < least:
                if best is not None:
                    best[0].remove()
                best, least = (text, box), covered
            else:
                text.remove()
            if least == 0:
                break
        if best is not None:
            taken.append(tuple(best[1]))


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _eq(row: RecRow) -> float | None:
    return row.eq


def _excess(row: RecRow) -> float | None:
    return row.excess


def _against_exact(row: RecRow) -> float | None:
    return row.rate_vs_posterior


def _us_per_nat(row: RecRow) -> float | None:
    return 1e6 / row.nats_per_s if row.nats_per_s else None
