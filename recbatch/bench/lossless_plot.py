"""Rate against speed, a mark for each codec: encoding on the left, decoding on the right, a row for each set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recbatch.bench.extras import need
from recbatch.bench.lossless import CodecRow, LosslessResult
from recbatch.bench.lossless_render import title
from recbatch.bench.rec_plot import COLOURS, Mark, place_labels

Speed = Callable[[CodecRow], float]


def lossless_plot(result: LosslessResult, path: str | Path) -> None:
    """Draw the result into a file. Speed is by the wall clock if threads are used, else by the processor's."""
    need("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    names = list(dict.fromkeys(row.codec for one in result.sets for row in one.codecs))
    colour_of = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(names)}
    wall = any(row.threads > 1 for one in result.sets for row in one.codecs)
    ways: list[tuple[str, Speed]] = [
        ("encoding", lambda row: row.encode_wall_mps if wall else row.encode_mps),
        ("decoding", lambda row: row.decode_wall_mps if wall else row.decode_mps),
    ]
    figure = Figure(figsize=(12, 5 * len(result.sets)), layout="constrained")
    panels = []
    for one, pair in zip(result.sets, figure.subplots(len(result.sets), 2, squeeze=False), strict=True):
        for axis, (way, speed) in zip(pair, ways, strict=True):
            marks = [Mark(row.codec, _label(row), speed(row), *[row.bits_per_dim] * 3) for row in one.codecs]
            for mark in marks:
                axis.plot([mark.cost], [mark.overhead], "o", color=colour_of[mark.coder], ms=7)
            axis.set_title(f"{title(one)}\n{way}", fontsize=10)
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(LogFormatter())
            axis.set_xlabel("megapixels a second" + ("" if wall else " of the processor's time, one thread"))
            axis.set_ylabel("bits per dimension of files")
            axis.margins(x=0.2, y=0.15)
            axis.grid(alpha=0.25, which="both")
            panels.append((axis, marks))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # labels are placed by pixels, which the layout decides
    for axis, marks in panels:
        place_labels(axis, marks, colour_of, canvas.get_renderer())  # type: ignore[no-untyped-call]
    figure.savefig(path, dpi=120)


def _label(row: CodecRow) -> str:
    return row.label + (f", {row.threads} threads" if row.threads > 1 else "")
