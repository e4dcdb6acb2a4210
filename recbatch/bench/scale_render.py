"""Results of ``scale`` as tables for people."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recbatch.bench.scale import Scale


def scale_tables(result: Scale) -> RenderableType:
    return Group(_planning(result), _growth(result), Text(NOTE))


NOTE = (
    "The source and the workers are simulated; scratch files, plan, driver, committer and log are those of real jobs. "
    "The archive holds every second image before. Seconds of one core on a local disk."
)


def _planning(result: Scale) -> Table:
    table = Table(title="A job's driver, by the size of its source", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in (
        *("images", "listed", "sort\ns", "compare\ns", "store\nplan s", "shards", "drive\ns", "ms a\nshard"),
        *("commits", "commit\ns", "peak\nMB", "of it the\nplan's", "scratch\nMB", "log\nMB"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.planning:
        table.add_row(
            f"{row.images:,}",
            row.order,
            f"{row.list_s:.1f}",
            f"{row.compare_s:.1f}",
            f"{row.store_s:.1f}",
            f"{row.shards:,}",
            f"{row.drive_s:.1f}",
            f"{1000 * (row.drive_s - row.commit_s) / max(row.shards, 1):.2f}",
            str(row.commits),
            f"{row.commit_s:.1f}",
            f"{row.peak_rss_bytes / 1e6:.0f}",
            f"{(row.peak_rss_bytes - row.base_rss_bytes) / 1e6:.0f}",
            f"{row.scratch_bytes / 1e6:.0f}",
            f"{row.log_bytes / 1e6:.1f}",
        )
    return table


def _growth(result: Scale) -> Table:
    table = Table(title="One commit of 32 shards, by the files in the log", box=SIMPLE_HEAD)
    for name in ("files", "open ms", "commit ms (median)", "slowest of 11", "log MB"):
        table.add_column(name, justify="right")
    for row in result.growth:
        table.add_row(
            f"{row.files:,}",
            f"{row.open_ms:.0f}",
            f"{row.commit_ms:.0f}",
            f"{row.slowest_commit_ms:.0f}",
            f"{row.log_bytes / 1e6:.0f}",
        )
    return table
