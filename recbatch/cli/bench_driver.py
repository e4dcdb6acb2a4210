"""``recbatch bench driver``: what a job's driver costs as workers become thousands."""

from __future__ import annotations

from typing import Annotated

import typer

from recbatch.cli import options
from recbatch.cli.bench import bench_app, show, talk

DRIVER_HELP = """Processor time of the driver for each shard, with 1 to 1,000 workers, which are simulated.

\b
Examples:
  recbatch bench driver
  recbatch bench driver --workers 100 --workers 10000 --shards 100000 --json
"""


def register(app: typer.Typer) -> None:
    bench_app.command("driver", help=DRIVER_HELP)(driver)


def driver(
    workers: Annotated[
        list[int] | None,
        typer.Option("--workers", min=1, metavar="N", help="Simulated workers; may be repeated."),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option("--shards", min=1, metavar="N", help="Shards to hand out; 100,000 by default."),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.bench import driver, driver_render

    result = driver.driver_benchmark(
        workers=workers or driver.WORKERS, shards=shards or driver.SHARDS, progress=talk(quiet=quiet)
    )
    show(result, lambda: driver_render.driver_table(result), as_json=as_json)
