"""Totals over an archive, from its cheap columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from recbatch.archive.schema import DataFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over one group of rows. Bytes in are the sources', bytes out the streams', with their previews."""

    images: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0
    previews: int = 0  # rows whose preview can be read alone
    preview_bytes: int = 0

    @property
    def bpp(self) -> float | None:
        return 8 * self.bytes_out / self.pixels if self.pixels else None

    @property
    def ratio(self) -> float | None:
        """Bytes out by bytes in."""
        return self.bytes_out / self.bytes_in if self.bytes_in else None

    @property
    def preview_share(self) -> float | None:
        """Bytes of previews by bytes out: what browsing all of it reads."""
        return self.preview_bytes / self.bytes_out if self.bytes_out else None

    def to_dict(self) -> dict[str, Any]:
        more = {"bpp": self.bpp, "ratio": self.ratio, "preview_share": self.preview_share}
        return {**asdict(self), **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """``total`` and the groups by codec and model are of rows with status "ok"; ``by_status`` is of all."""

    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("key", "status", "codec", "model", "source_size", "stream_size", "preview_size"),
        *("width", "height", "kl_bits", "index_bits", "side_bits", "error_code"),
    )

    rows: int
    files: int
    file_bytes: int
    total: Totals
    by_status: dict[str, Totals]
    by_codec: dict[str, Totals]
    by_model: dict[str, Totals]
    by_error: dict[str, int]  # quarantined rows by code
    kl_bits: float
    index_bits: int
    side_bits: int
    models: int = 0  # whose weights lie in the archive, beside the files
    model_bytes: int = 0

    @property
    def quarantined(self) -> int:
        return self.by_status.get("quarantined", Totals()).images

    def to_dict(self) -> dict[str, Any]:
        groups = ("by_status", "by_codec", "by_model")
        return {
            **asdict(self),
            "total": self.total.to_dict(),
            **{name: {key: value.to_dict() for key, value in getattr(self, name).items()} for name in groups},
        }


def gather(files: Sequence[DataFile], tables: Iterable[pa.Table]) -> Stats:
    chunks = [table.select(_GROUPS + _SUMS).append_column("pixels", _pixels(table)) for table in tables]
    # group as we go: an archive's rows may be many, their kinds are few
    partial = [chunk.group_by(_GROUPS).aggregate(_AGGREGATES) for chunk in chunks if chunk.num_rows]
    rows: list[dict[str, Any]] = pa.concat_tables(partial).to_pylist() if partial else []
    good = [row for row in rows if row["status"] == "ok"]
    errors: dict[str, int] = {}
    for row in rows:
        if row["status"] != "ok":
            code = row["error_code"] or ""
            errors[code] = errors.get(code, 0) + row["status_count"]
    return Stats(
        rows=sum(row["status_count"] for row in rows),
        files=len(files),
        file_bytes=sum(file.size for file in files),
        total=_totals(good),
        by_status=_grouped(rows, "status"),
        by_codec=_grouped(good, "codec"),
        by_model=_grouped([row for row in good if row["model"]], "model"),
        by_error=dict(sorted(errors.items())),
        kl_bits=float(sum(row["kl_bits_sum"] or 0 for row in good)),
        index_bits=sum(row["index_bits_sum"] or 0 for row in good),
        side_bits=sum(row["side_bits_sum"] or 0 for row in good),
    )


_GROUPS = ["status", "codec", "model", "error_code"]
_SUMS = ["source_size", "stream_size", "preview_size", "kl_bits", "index_bits", "side_bits"]
_AGGREGATES = [
    ("status", "count"),
    ("preview_size", "count"),
    *((name, "sum") for name in (*_SUMS, "pixels")),
]


def _pixels(table: pa.Table) -> Any:
    return pc.multiply(table.column("width").cast(pa.int64()), table.column("height").cast(pa.int64()))


def _totals(rows: Iterable[dict[str, Any]]) -> Totals:
    rows = list(rows)
    return Totals(
        images=sum(row["status_count"] for row in rows),
        bytes_in=sum(row["source_size_sum"] or 0 for row in rows),
        bytes_out=sum(row["stream_size_sum"] or 0 for row in rows),
        pixels=sum(row["pixels_sum"] or 0 for row in rows),
        previews=sum(row["preview_size_count"] for row in rows),
        preview_bytes=sum(row["preview_size_sum"] or 0 for row in rows),
    )


def _grouped(rows: Iterable[dict[str, Any]], column: str) -> dict[str, Totals]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[column] or "", []).append(row)
    return {name: _totals(groups[name]) for name in sorted(groups)}
