"""The run card: one picture of how a run went, and of what its model costs on photographs that it never saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbatch.train.data import prepared
from recbatch.train.evaluate import Curve, held_out_curve, jpeg_curve
from recbatch.train.loop import Progress, saved_average
from recbatch.train.lossy import FACTS, HELD_OUT

CARD, CURVE = "card.png", "curve.json"
OURS, JPEG, SECOND, THIRD = "#0072b2", "#777777", "#d55e00", "#009e73"
GRID = "#0072b218"  # behind the steps on the integer grid

Line = list[tuple[float, float]]  # bits per pixel, dB
Saving = Callable[[Line, Line], tuple[float, float, float] | None]  # percent, and the dB from and to
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What the picture shows."""

    progress: Progress
    history: Sequence[dict[str, float]]
    facts: dict[str, Any]  # name, workers and floor of the run, as ``train`` has written them; may be empty
    ours: Curve  # empty where nothing was held out
    jpeg: Curve

    def column(self, name: str) -> Floats:
        return np.array([row.get(name, np.nan) for row in self.history], float)

    @property
    def similarity(self) -> bool:
        """Whether MS-SSIM was trained for, and so measured in every step."""
        return any("ms_ssim_db" in row for row in self.history)


def write_card(run: Path, saving: Saving) -> Path:
    """Draw ``card.png`` into the folder of a run, which may still be under way.

    The curves are measured where they are missing or of an earlier step, which takes up to a minute.

    Args:
        saving: BD-rate of the first line against the second, None where they have too little in common.

    Raises:
        FileNotFoundError: no checkpoint lies in the folder.
    """
    net, progress = saved_average(run)
    history = json.loads((run / "history.json").read_text())
    facts = json.loads((run / FACTS).read_text()) if (run / FACTS).exists() else {}
    curves = json.loads((run / CURVE).read_text()) if (run / CURVE).exists() else {}
    if curves.get("step") != progress.step or any(len(point) != 3 for point in curves["ours"]):
        held = prepared(run / HELD_OUT)
        curves = {
            "step": progress.step,
            "ours": held_out_curve(net, held) if held else [],
            "jpeg": jpeg_curve(held) if held else [],
        }
        (run / CURVE).write_text(json.dumps(curves))
    card = Card(progress=progress, history=history, facts=facts, ours=curves["ours"], jpeg=curves["jpeg"])
    draw(card, run / CARD, saving)
    return run / CARD


def draw(card: Card, path: Path, saving: Saving) -> None:
    """The picture of a card, as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 1.05))
    top = figure.add_subplot(grid[0, 0])
    panels = [top, *(figure.add_subplot(grid[i, 0], sharex=top) for i in (1, 2))]
    _loss(panels[0], card)
    _rate_and_quality(panels[1], card)
    _schedule(panels[2], card)
    for panel in panels:
        _mark_grid(panel, card)
        panel.grid(alpha=0.25)
        panel.margins(x=0.01)
    for panel in panels[:2]:
        panel.tick_params(labelbottom=False)
    panels[2].set_xlabel("steps")
    _minutes_above(top, card)
    if card.similarity and card.ours:
        right = grid[:, 1].subgridspec(2, 1)
        _curves(figure.add_subplot(right[0]), card, saving)
        _similarity_curves(figure.add_subplot(right[1]), card)
    else:
        _curves(figure.add_subplot(grid[:, 1]), card, saving)
    figure.suptitle(headline(card), fontsize=11)
    figure.savefig(path, dpi=110)


def headline(card: Card) -> str:
    """Name, length, and what the machine reached of what it could."""
    p, facts = card.progress, card.facts
    workers = facts.get("workers", 1)
    text = f"{facts.get('name', 'run')}: {p.step:,} steps, {p.elapsed_s / 60:.3g} minutes"
    text += f", {p.pixels / 1e6:,.0f} megapixels" + (f", {workers} workers" if workers > 1 else "")
    if facts and p.elapsed_s:
        reached = facts["step_flop"] * p.step / p.elapsed_s
        text += (
            f"\n{facts['step_flop'] / 1e9:.3g} GFLOP a step and worker, {facts['device']}, {facts['precision']}; "
            f"{reached / 1e9:.3g} GFLOP/s, {reached / facts['peak_flop_s']:.0%} of what matrix products reach"
        )
    return text


def smooth(values: Floats) -> Floats:
    """Running means over a twenty-fifth of the rows; shorter at both ends."""
    width = max(1, len(values) // 25)
    kernel = np.ones(2 * width + 1)
    sums, counts = (np.convolve(v, kernel)[width:-width] for v in (values, np.ones_like(values)))
    mean: Floats = sums / counts
    return mean


def _line(panel: Any, card: Card, name: str, colour: str) -> None:
    steps, values = card.column("step"), card.column(name)
    panel.plot(steps, values, color=colour, alpha=0.25, lw=0.8)
    if len(values):
        panel.plot(steps, smooth(values), color=colour, lw=1.8)


def _loss(panel: Any, card: Card) -> None:
    _line(panel, card, "loss", OURS)
    panel.set_ylabel("loss")
    values = card.column("loss")
    if len(values) > 4:  # the first rows would flatten all others
        low, high = np.nanmin(values), np.nanquantile(values, 0.97)
        panel.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _rate_and_quality(panel: Any, card: Card) -> None:
    _line(panel, card, "bpp", OURS)
    panel.set_ylabel("bits per pixel", color=OURS)
    other = panel.twinx()
    _line(other, card, "psnr", SECOND)
    other.set_ylabel("PSNR (dB)", color=SECOND)
    if card.similarity:
        _line(other, card, "ms_ssim_db", THIRD)
        other.set_ylabel("PSNR (red), MS-SSIM (green), dB", color="black")


def _schedule(panel: Any, card: Card) -> None:
    panel.plot(card.column("step"), card.column("rate"), color=OURS, lw=1.8)
    panel.set_ylabel("learning rate")
    panel.set_ylim(bottom=0)
    elapsed_s, on = card.column("elapsed_s"), card.column("quantised")
    if len(on) and np.isfinite(on).all():
        share = float((np.diff(elapsed_s, prepend=0.0) * on).sum() / max(elapsed_s[-1], 1e-9))
        panel.text(
            0.98,
            0.94,
            f"shaded: on the integer grid, {share:.0%} of the time",
            ha="right",
            va="top",
            fontsize=9,
            transform=panel.transAxes,
        )


def _mark_grid(panel: Any, card: Card) -> None:
    steps = card.column("step")[card.column("quantised") == 1]
    if len(steps):
        panel.axvspan(steps[0], steps[-1], color=GRID, lw=0)


def _minutes_above(panel: Any, card: Card) -> None:
    steps, minutes = (np.append(0.0, card.column(name)) for name in ("step", "elapsed_s"))
    minutes = np.maximum.accumulate(minutes / 60) + 1e-9 * np.arange(len(minutes))  # to be inverted

    def forth(x: Floats) -> Floats:
        return _interpolate(x, steps, minutes)

    def back(x: Floats) -> Floats:
        return _interpolate(x, minutes, steps)

    if len(steps) > 2:
        panel.secondary_xaxis("top", functions=(forth, back)).set_xlabel("minutes", fontsize=9)


def _interpolate(x: Floats, from_: Floats, to: Floats) -> Floats:
    """np.interp, straight on beyond the ends, as axes ask for values beyond them."""
    inside: Floats = np.interp(x, from_, to)
    slope = (to[-1] - to[0]) / (from_[-1] - from_[0])
    beyond: Floats = np.minimum(x - from_[0], 0) + np.maximum(x - from_[-1], 0)
    extended: Floats = inside + slope * beyond
    return extended


def _curves(panel: Any, card: Card, saving: Saving) -> None:
    if not card.ours:
        panel.set_axis_off()
        panel.text(0.5, 0.5, "Nothing was held out to measure on (--held-out).", ha="center", va="center")
        return
    saved = saving(*_draw_lines(panel, card, 1))
    panel.set_title(
        "Held-out photographs: no BD-rate,\nthe curves have too little in common"
        if saved is None
        else f"Held-out photographs: BD-rate {saved[0]:+.1f} % against JPEG 4:2:0\n"
        f"(by relative entropy, not by files; {saved[1]:.1f} to {saved[2]:.1f} dB)",
        fontsize=11,
    )
    panel.set_ylabel("PSNR (dB)")


def _similarity_curves(panel: Any, card: Card) -> None:
    _draw_lines(panel, card, 2)
    panel.set_ylabel("MS-SSIM (dB)")


def _points(curve: Curve, which: int) -> Line:
    return [(point[0], height) for point in curve if (height := point[which]) is not None]


def _draw_lines(panel: Any, card: Card, which: int) -> tuple[Line, Line]:
    """The model's line and JPEG's: rate, and the ``which``-th entry of each point that has it."""
    ours, jpeg = _points(card.ours, which), _points(card.jpeg, which)
    for line, colour, name in (
        (jpeg, JPEG, "JPEG 4:2:0, bits of its file"),
        (ours, OURS, "this model's moving average, relative entropy"),
    ):
        panel.plot([x for x, _ in line], [y for _, y in line], "o-", color=colour, ms=4, label=name)
    panel.set_xlabel("bits per pixel (ours: relative entropy, to which coding and headers add)")
    panel.set_xlim(left=0)
    panel.grid(alpha=0.25)
    panel.legend(loc="lower right", frameon=False)
    return ours, jpeg
