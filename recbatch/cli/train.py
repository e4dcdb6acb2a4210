"""``recbatch train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recbatch.cli import options
from recbatch.cli.text import print_json

HELP = """Train a model.

\b
Examples:
  recbatch train lossy photographs/ runs/mine --name mine --minutes 60
  recbatch train lossy --help
"""

LOSSY_HELP = """Train the lossy model; stop it whenever you like, the same command goes on.

Writes a checkpoint, the history of the run, and at the end NAME.safetensors to OUT.

\b
Examples:
  recbatch train lossy photographs/ runs/mine --name mine --minutes 60
  recbatch train lossy shards/ runs/mine --held-out kodak --threads 4
"""

train_app = typer.Typer(rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(train_app, name="train", help=HELP)


@train_app.callback(help=HELP)
def train() -> None:
    """Keeps ``lossy`` a sub-command of its own while it is the only one."""


@train_app.command("lossy", help=LOSSY_HELP)
def lossy(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder of images, or of Parquet shards (columns data, source)."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the run; made where it is missing.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the model.")] = "photo-s",
    minutes: Annotated[
        float, typer.Option("--minutes", min=0, metavar="N", help="Training time, all runs together.")
    ] = 60.0,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="TEXT", help="Only images whose source has this; may be repeated."),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", metavar="TEXT", help="Sources to measure on instead; may be repeated."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Crops in a step.")] = 8,
    crop: Annotated[
        int, typer.Option("--crop", min=64, metavar="N", help="Side of a crop, in pixels.")
    ] = 128,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of start and crops.")] = 0,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, metavar="N", help="Threads; all cores by default.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.train.lossy import Recipe, train_lossy

    recipe = Recipe(
        data=data,
        out=out,
        name=name,
        minutes=minutes,
        sources=tuple(source or ()),
        held_out=tuple(held_out or ()),
        batch=batch,
        crop=crop,
        seed=seed,
        threads=threads,
    )
    path = train_lossy(recipe, (lambda line: None) if quiet else (lambda line: typer.echo(line, err=True)))
    if as_json:
        print_json({"event": "report", "weights": str(path)})
    else:
        typer.echo(path)
