"""The index coders as tables for people, one for each kind of latents, and as a plot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recbatch.bench import synthetic
from recbatch.bench.rec_contestants import CALIBRATED, EXACT
from recbatch.bench.rec_rows import RecResult, RecRow
from recbatch.bench.render import number, table_of

NOTES = (
    "n: images, or pieces of synthetic latents. var: variance of (z - posterior mean) / posterior deviation; exact "
    "samples have 1. loss: dB below exact posterior samples. vs: file bits at equal PSNR, %, on the images that both "
    "ran on. Times are of the search and the payload's packing, on one thread (1t), two or a GPU; dec: of its decoder; "
    "networks are in none. x iREC: seconds per nat of iREC lossless, one thread, over these. Files are decoded from "
    "their bytes, their container is counted; posterior: its KL and the same container. *: the default."
)
WRONG = (
    "Wrong plan: KL, excess and EQ are those of the planned prior, under which the bits are coded. Zero is what exact "
    "samples with that plan cost: the price of the plan itself is not in them, and a coder that adapts may fall below."
)

Found = dict[tuple[int, str], RecRow]  # rows of one coder and level by threads and device


@dataclass(frozen=True, slots=True)
class Column:
    head: str
    cell: Callable[[Found, RecRow], str]


def rec_tables(result: RecResult, *, every_level: bool = False) -> RenderableType:
    """Means over the levels, or with ``every_level`` each level, too."""
    kinds = list(dict.fromkeys(row.latents for row in result.rows))
    gpu = any(row.device != "cpu" for row in result.rows)
    parts: list[RenderableType] = [_table(result, kind, every_level, gpu) for kind in kinds]
    notes = [NOTES]
    if any(kind in synthetic.LAWS and not synthetic.known_plan(kind) for kind in kinds):
        notes.append(WRONG)
    load = "" if result.load_average is None else f"; load average before the run: {result.load_average:.1f}"
    machine = f"{result.cores} cores" + (f", {result.gpu}" if result.gpu else "") + load
    return Group(*parts, *(Text(note) for note in notes), Text(f"Measured on {machine}."))


def _table(result: RecResult, latents: str, every_level: bool, gpu: bool) -> Table:
    rows = [row for row in result.rows if row.latents == latents]
    levels = list(dict.fromkeys(row.level for row in rows))
    real = levels != [None]
    titled = (
        f"{latents}: latents of {result.images} images, model {(result.digest or '')[:12]}"
        if real
        else latents
    )
    if real and not every_level:
        titled += f"; mean of {'level' if len(levels) == 1 else 'levels'} {', '.join(map(str, levels))}"
    columns = _real_columns(gpu) if real else _synthetic_columns(gpu)
    if real and every_level:
        columns.insert(2, Column("level", lambda _, row: "mean" if row.level is None else str(row.level)))
    table = table_of(titled, "|".join(column.head for column in columns))
    means = [row for row in result.means() if row.latents == latents]
    if real and every_level and len(levels) > 1:
        _fill(table, columns, rows)
        table.add_section()
    _fill(table, columns, rows if len(levels) == 1 else means)
    return table


def _fill(table: Table, columns: Sequence[Column], rows: Sequence[RecRow]) -> None:
    for found in _by_place(rows):
        first = next(iter(found.values()))
        table.add_row(*(column.cell(found, first) for column in columns))


def _by_place(rows: Sequence[RecRow]) -> list[Found]:
    groups: dict[tuple[str, int | None, int | None], Found] = {}
    for row in rows:
        groups.setdefault((*row.key, row.level), {})[row.threads, row.device] = row
    return list(groups.values())


def _shared_columns() -> list[Column]:
    return [
        Column("EQ %", lambda _, row: _percent(row.eq)),
        Column("excess", lambda _, row: _percent(row.excess)),
        Column("side", lambda _, row: number(100 * row.side_share, 2)),
        Column("var", lambda _, row: number(row.error_variance, 3)),
    ]


def _head_columns(rate: str) -> list[Column]:
    return [
        Column("coder", lambda _, row: _label(row)),
        Column("n", lambda _, row: str(row.images)),
        Column(rate, lambda _, row: number(row.rate, 3)),
    ]


def _real_columns(gpu: bool) -> list[Column]:
    columns = [
        *_head_columns("bpp"),
        *_shared_columns(),
        Column("loss", lambda _, row: number(row.psnr_loss, 3)),
        Column("vs exact", lambda _, row: _percent(row.rate_vs_posterior)),
        Column("vs iREC", lambda _, row: _percent(row.rate_vs_irec)),
        Column("vs ECSQ", lambda _, row: _percent(row.rate_vs_ecsq)),
        Column("s/MP 1t", lambda found, _: _time(found, (1, "cpu"), "s_per_megapixel")),
        Column("2t", lambda found, _: _time(found, (2, "cpu"), "s_per_megapixel")),
    ]
    if gpu:  # there is room for one more column, so one goes
        columns = [column for column in columns if column.head != "side"]
        columns.append(Column("GPU", lambda found, _: _time(found, (1, "cuda"), "s_per_megapixel")))
    return [
        *columns,
        Column("dec", lambda found, _: _time(found, (1, "cpu"), "decode_s_per_megapixel")),
        Column("x iREC", lambda found, _: _time(found, (1, "cpu"), "speed_vs_irec")),
    ]


def _synthetic_columns(gpu: bool) -> list[Column]:
    columns = [
        *_head_columns("bits/dim"),
        *_shared_columns(),
        Column("mean", lambda _, row: f"{row.error_mean:+.3f}"),
        Column("knats/s 1t", lambda found, _: _time(found, (1, "cpu"), "nats_per_s", 1e-3)),
        Column("2t", lambda found, _: _time(found, (2, "cpu"), "nats_per_s", 1e-3)),
    ]
    if gpu:
        columns.append(Column("GPU", lambda found, _: _time(found, (1, "cuda"), "nats_per_s", 1e-3)))
    return [
        *columns,
        Column("dec", lambda found, _: _time(found, (1, "cpu"), "decode_nats_per_s", 1e-3)),
        Column("x iREC", lambda found, _: _time(found, (1, "cpu"), "speed_vs_irec")),
    ]


def _label(row: RecRow) -> str:
    setting = {EXACT: "", CALIBRATED: "cal"}.get(row.setting, row.setting.removeprefix("effort "))
    return " ".join(filter(None, (row.coder, setting, "*" if row.default else "")))


def _percent(value: float | None) -> str:
    """Two places where they tell coders apart."""
    return "-" if value is None else f"{100 * value:+.{2 if abs(value) < 0.0995 else 1}f}"


def _time(found: Found, place: tuple[int, str], name: str, scale: float = 1.0) -> str:
    row = found.get(place)
    value = None if row is None else getattr(row, name)
    return "-" if value is None else f"{scale * value:.3g}" if scale * value < 100 else f"{scale * value:.0f}"
