"""What a run's rows add up to: totals by codec and model, distributions, the best and the worst of them.

Read once, a row group at a time, into sums of fixed size: ten million rows take no more memory than ten.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from recbatch.api.page_rows import RunRows

QUARANTINED_SHOWN = 200
LISTED = 6  # of the worst pictures, and of those that shrink least
COLUMNS = (
    *("key", "status", "codec", "model", "source_size", "stream_size", "width", "height", "psnr", "ms_ssim"),
    *("quality", "error_code", "error"),
)
FEWEST_BARS, MOST_BARS = 6, 32


@dataclass(slots=True, kw_only=True)
class Group:
    """Images of one codec and model."""

    codec: str
    model: str
    name: str = ""  # of the model, where this package has it
    images: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An image that is named: among the worst by quality, or by how little it shrank."""

    key: str
    codec: str
    source_size: int
    stream_size: int
    width: int
    height: int
    psnr: float | None
    ms_ssim: float | None
    quality: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts between ``low`` and ``low + step * len(counts)``; what lies beyond is in the outermost bars."""

    title: str
    unit: str
    places: int  # decimals that its numbers are shown with
    low: float
    step: float
    counts: tuple[int, ...]
    p05: float
    median: float
    p95: float
    more: str = ""


@dataclass(slots=True)
class Bins:
    """Many narrow bins, of which a few wide ones are made when the range is known."""

    low: float
    step: float
    number: int
    counts: Any = None

    def add(self, values: np.ndarray[Any, Any]) -> None:
        import numpy as np

        if self.counts is None:
            self.counts = np.zeros(self.number, np.int64)
        places = np.floor((values - self.low) / self.step + 1e-6)
        index = np.clip(places, 0, self.number - 1).astype(np.int64)
        self.counts += np.bincount(index, minlength=self.number)

    @property
    def total(self) -> int:
        return 0 if self.counts is None else int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """Of the middle of the narrow bin that holds it."""
        import numpy as np

        place = int(np.searchsorted(np.cumsum(self.counts), share * self.total))
        return self.low + self.step * (min(place, self.number - 1) + 0.5)

    def shown(self, title: str, unit: str, places: int, *, more: str = "") -> Histogram | None:
        """None where there was nothing to count."""
        import numpy as np

        if not self.total:
            return None
        used = np.flatnonzero(self.counts)
        first, last = int(used[0]), int(used[-1])
        bars = min(MOST_BARS, max(FEWEST_BARS, 2 * math.isqrt(self.total)))  # few images make no fine curve
        wide = nice_multiple((last - first + 1) / bars)
        start = max(0, first // wide - 1) * wide  # one empty bar on either side
        end = min(-(-self.number // wide), last // wide + 2) * wide
        padded = np.pad(self.counts, (0, max(0, end - self.number)))
        return Histogram(
            title=title,
            unit=unit,
            places=places,
            low=self.low + self.step * start,
            step=self.step * wide,
            counts=tuple(int(count) for count in padded[start:end].reshape(-1, wide).sum(axis=1)),
            p05=self.quantile(0.05),
            median=self.quantile(0.5),
            p95=self.quantile(0.95),
            more=more,
        )


def nice_multiple(least: float) -> int:
    """1, 2, 5, 10, 20, 50, ...: the first that is at least ``least``."""
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power >= least:
                return step * power
        power *= 10


@dataclass(slots=True)
class Sums:
    """All of a run's rows in few numbers."""

    rows: int = 0
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    by_code: Counter[str] = field(default_factory=Counter)
    quarantined: list[tuple[str, str, str]] = field(default_factory=list)  # key, code, sentence
    worst: list[Row] = field(default_factory=list)  # lowest PSNR first
    least_saved: list[Row] = field(default_factory=list)
    psnr: Bins = field(default_factory=lambda: Bins(0.0, 0.1, 1000))
    ms_ssim: Bins = field(default_factory=lambda: Bins(0.0, 0.0005, 2000))
    share: Bins = field(default_factory=lambda: Bins(0.0, 0.1, 1500))  # stream by source, per cent
    exact: int = 0  # lossy images that came out with every pixel as it was
    last_created: datetime | None = None

    @property
    def images(self) -> int:
        return sum(group.images for group in self.groups.values())

    def histograms(self) -> list[Histogram]:
        exact = f"{self.exact:,} more are identical to their sources" if self.exact else ""
        shown = (
            self.psnr.shown("PSNR, dB", "dB", 1, more=exact),
            self.ms_ssim.shown("MS-SSIM", "", 4),
            self.share.shown("Archived size, % of the source", "%", 1),
        )
        return [histogram for histogram in shown if histogram is not None]


def gather(rows: RunRows) -> Sums:
    """One pass over the run's rows, without their streams."""
    sums = Sums()
    for table in rows.tables(COLUMNS):
        if table.num_rows:
            add(sums, table)
    return sums


def add(sums: Sums, table: pa.Table) -> None:
    import pyarrow.compute as pc

    sums.rows += table.num_rows
    latest = pc.max(table.column("created_at")).as_py()
    sums.last_created = max(filter(None, (sums.last_created, latest)), default=None)
    is_good = pc.equal(table.column("status"), "ok")
    good = table.filter(is_good)
    add_quarantined(sums, table.filter(pc.invert(is_good)))
    if good.num_rows:
        add_groups(sums, good)
        add_distributions(sums, good)


def add_quarantined(sums: Sums, bad: pa.Table) -> None:
    if not bad.num_rows:
        return
    sums.by_code.update(code or "" for code in bad.column("error_code").to_pylist())
    room = QUARANTINED_SHOWN - len(sums.quarantined)
    first = bad.slice(0, max(0, room)).select(["key", "error_code", "error"]).to_pylist()
    sums.quarantined += [(row["key"], row["error_code"] or "", row["error"] or "") for row in first]


def add_groups(sums: Sums, good: pa.Table) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    pixels = pc.multiply(good.column("width").cast(pa.int64()), good.column("height").cast(pa.int64()))
    table = good.select(["codec", "model", "source_size", "stream_size"]).append_column("pixels", pixels)
    grouped = table.group_by(["codec", "model"]).aggregate(
        [("codec", "count"), ("source_size", "sum"), ("stream_size", "sum"), ("pixels", "sum")]
    )
    for row in grouped.to_pylist():
        name = (row["codec"] or "", row["model"] or "")
        group = sums.groups.setdefault(name, Group(codec=name[0], model=name[1]))
        group.images += row["codec_count"]
        group.bytes_in += row["source_size_sum"] or 0
        group.bytes_out += row["stream_size_sum"] or 0
        group.pixels += row["pixels_sum"] or 0


def add_distributions(sums: Sums, good: pa.Table) -> None:
    import numpy as np
    import pyarrow.compute as pc

    def numbers(name: str, table: pa.Table = good) -> np.ndarray[Any, Any]:
        return np.asarray(table.column(name).to_numpy(), np.float64)

    size = numbers("source_size")
    share = 100 * np.divide(numbers("stream_size"), size, out=np.full_like(size, np.nan), where=size > 0)
    sums.share.add(share[np.isfinite(share)])
    exactly = good.filter(pc.is_in(good.column("codec"), value_set=_strings(["lossless", "jpeg"])))
    sums.least_saved = lowest(
        [
            *sums.least_saved,
            *named(exactly, -numbers("stream_size", exactly) / numbers("source_size", exactly)),
        ],
        lambda row: -row.stream_size / max(row.source_size, 1),
    )
    lossy = good.filter(pc.equal(good.column("codec"), "lossy"))
    psnr = numbers("psnr", lossy)
    is_exact = np.isposinf(psnr)
    sums.exact += int(is_exact.sum())
    sums.psnr.add(psnr[np.isfinite(psnr)])
    ms_ssim = numbers("ms_ssim", lossy)
    sums.ms_ssim.add(ms_ssim[np.isfinite(ms_ssim)])
    sums.worst = lowest(
        [*sums.worst, *named(lossy, psnr)], lambda row: row.psnr if row.psnr is not None else math.inf
    )


def named(table: pa.Table, order: np.ndarray[Any, Any]) -> list[Row]:
    """The few rows that come first."""
    import numpy as np

    finite = np.flatnonzero(np.isfinite(order))
    first = finite[np.argsort(order[finite], kind="stable")[:LISTED]]
    names = tuple(Row.__dataclass_fields__)
    return [Row(**values) for values in table.take(first).select(names).to_pylist()]


def lowest(rows: list[Row], order: Any) -> list[Row]:
    return sorted(rows, key=order)[:LISTED]


def _strings(values: list[str]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())
