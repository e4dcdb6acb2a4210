"""The result of ``kinds`` as tables for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recbatch.bench.bd import BdRate
from recbatch.bench.kinds import METRICS, OURS, KindsResult
from recbatch.bench.render import number, table_of

NOTES = (
    "Percent: our bits over the other's at equal quality (negative: ours are fewer), over all dB that the two curves "
    "share; -: under 1 dB of them. bpp and dB: whole files, decoded from their bytes."
)


def kinds_tables(result: KindsResult) -> RenderableType:
    """Rates at equal PSNR and MS-SSIM, what each level and each lossless codec takes, and who is worst."""
    parts: list[RenderableType] = [_rates(result, metric) for metric in METRICS]
    parts += [_sizes(result), Text(_worst(result)), Text(NOTES)]
    return Group(*parts)


def _rates(result: KindsResult, metric: str) -> Table:
    names = [curve.name for curve in result.rows[0].others]
    table = table_of(f"Bits of ours at equal {METRICS[metric]}, %, against", "|".join(["picture", *names]))
    for row in result.rows:
        table.add_row(row.picture, *(percent(row.against(name, metric)) for name in names))
    return table


def _sizes(result: KindsResult) -> Table:
    """Rate and PSNR of ours at each level, then bits per pixel without loss."""
    title = f"Bits per pixel; model {result.digest[:12]}, {result.coder}, effort {result.effort}"
    levels = [f"level {level:g}|dB" for level in result.levels]
    others = [name for name in result.rows[0].lossless if name != OURS]
    table = table_of(title, "|".join(["picture", *levels, "lossless", *others]))
    for row in result.rows:
        cells = [cell for point in row.ours.points for cell in (f"{point.bpp:.2f}", number(point.psnr, 1))]
        cells += ["-"] * (2 * len(levels) - len(cells))  # without a loss, a level is no point of the curve
        sizes = [8 * row.lossless[name] / (row.width * row.height) for name in (OURS, *others)]
        table.add_row(row.picture, *cells, *(f"{bpp:.2f}" for bpp in sizes))
    return table


def _worst(result: KindsResult) -> str:
    lines = []
    for curve in result.rows[0].others:
        named = [
            f"{found[0]} {percent(found[1])} % at equal {label}"
            for metric, label in METRICS.items()
            if (found := result.worst(curve.name, metric)) is not None
        ]
        lines.append(f"Worst against {curve.name}: {', '.join(named) or '-'}.")
    return "\n".join(lines)


def percent(rate: BdRate | None) -> str:
    return "-" if rate is None else f"{rate.percent:+.0f}"
