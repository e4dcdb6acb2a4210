"""Results of ``bench driver`` as a table for people."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recbatch.bench.driver import SHARD_S, DriverCosts


def driver_table(result: DriverCosts) -> RenderableType:
    table = Table(title="What the driver costs, by the number of workers", box=SIMPLE_HEAD)
    for name in ("workers", "shards", "processor s", "us a shard", "busy", "simulation s, not counted"):
        table.add_column(name, justify="right")
    for row in result.rows:
        table.add_row(
            f"{row.workers:,}",
            f"{row.shards:,}",
            f"{row.cpu_s:.2f}",
            f"{row.us_per_shard:.0f}",
            f"{row.busy:.2%}",
            f"{row.simulation_s:.2f}",
        )
    note = (
        "Workers are simulated; Ray's own calls and commits are not in it. 'busy' is the share of one core "
        f"where a shard takes {SHARD_S:.0f} s on a worker."
    )
    return Group(table, Text(note))
