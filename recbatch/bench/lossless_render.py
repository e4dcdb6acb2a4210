"""Lossless codecs as tables for people, one for each set of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recbatch.bench.lossless import CodecRow, LosslessResult, SetResult
from recbatch.bench.render import number, table_of

NOTES = (
    "bits/dim: 8 x bytes of the complete file / (height x width x channels), mean, least and most of the images. enc, "
    "dec: megapixels a second of the processor's time, pixels to file and file to pixels. Every file was decoded, its "
    "pixels compared."
)
WALL = "2t: on two threads; wall: by the clock on the wall, where threads count, and what else the machine did, too."
MODEL = "model: what the codec's own model asks for, -log2 p and KL; over: bits of files beyond it."


@dataclass(frozen=True, slots=True)
class Column:
    head: str
    cell: Callable[[CodecRow], str]


def lossless_tables(result: LosslessResult, *, every_image: bool = False) -> RenderableType:
    """Means over the images, or with ``every_image`` each image, too."""
    everyone = [row for one in result.sets for row in one.codecs]
    model = any(row.model_bits_per_dim is not None for row in everyone)
    wall = any(row.threads > 1 for row in everyone)
    columns = _columns(model=model, wall=wall)
    parts: list[RenderableType] = []
    for one in result.sets:
        parts.append(_table(one, columns))
        if every_image:
            parts.append(_images(one))
    parts.append(Text(" ".join([NOTES, *([WALL] if wall else []), *([MODEL] if model else [])])))
    settings = {row.label: row.settings for row in everyone}
    parts.append(Text("\n".join(f"{label}: {text}" for label, text in settings.items())))
    machine = f"{result.cores} cores; load average before the run: {result.load_average:.1f}"
    return Group(*parts, Text(f"Measured on {machine}."))


def title(one: SetResult) -> str:
    """kodak: 24 images, 9.4 MP."""
    things = "images" if one.tiles is None else f"tiles of {one.tiles}x{one.tiles}"
    return f"{one.name}: {one.images:,} {things}, {one.megapixels:.3g} MP"


def _columns(*, model: bool, wall: bool) -> list[Column]:
    out = [
        Column("codec", lambda row: row.label + (f", {row.threads}t" if row.threads > 1 else "")),
        Column("bits/dim", lambda row: f"{row.bits_per_dim:.3f}"),
        Column("least", lambda row: f"{row.bits_per_dim_min:.2f}"),
        Column("most", lambda row: f"{row.bits_per_dim_max:.2f}"),
        Column("bytes", lambda row: f"{row.file_bytes:,}"),
        Column("% PNG", lambda row: number(_hundredfold(row.share_of_png), 1)),
    ]
    if model:
        out += [
            Column("model", lambda row: number(row.model_bits_per_dim, 3)),
            Column("over %", lambda row: number(_hundredfold(row.overhead), 2)),
        ]
    unit = "" if wall else " MP/s"  # all four just fit into a line
    out += [
        Column(f"enc{unit}", lambda row: f"{row.encode_mps:.3g}"),
        Column(f"dec{unit}", lambda row: f"{row.decode_mps:.3g}"),
    ]
    if wall:
        out += [
            Column("enc wall", lambda row: f"{row.encode_wall_mps:.3g}"),
            Column("dec wall", lambda row: f"{row.decode_wall_mps:.3g}"),
        ]
    return out


def _table(one: SetResult, columns: Sequence[Column]) -> Table:
    table = table_of(title(one), "|".join(column.head for column in columns))
    for row in one.codecs:
        table.add_row(*(column.cell(row) for column in columns))
    return table


def _images(one: SetResult) -> Table:
    """Bits per dimension of each image by each codec."""
    table = table_of(
        f"{one.name}: bits/dim of each image", "|".join(["image", *(row.codec for row in one.codecs)])
    )
    by_image: dict[str, list[str]] = {}
    for row in one.rows:  # codec after codec, each in the order of the images
        by_image.setdefault(row.image, []).append(f"{row.bits_per_dim:.3f}")
    for image, cells in by_image.items():
        table.add_row(image, *cells)
    return table


def _hundredfold(value: float | None) -> float | None:
    return None if value is None else 100 * value
