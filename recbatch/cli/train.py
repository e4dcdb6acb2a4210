"""``recbatch train``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from recbatch.cli import options
from recbatch.cli.text import print_json

HELP = """Train a model.

\b
Examples:
  recbatch train lossy photographs/ runs/mine --name mine --minutes 60
  recbatch train lossless photographs/ runs/plain --minutes 60
"""

LOSSY_HELP = """Train the lossy model; stop it whenever you like, the same command goes on.

Writes a checkpoint, the history of the run, and at the end NAME.safetensors to OUT.

\b
Examples:
  recbatch train lossy photographs/ runs/mine --name mine --minutes 60
  recbatch train lossy shards/ runs/mine --held-out kodak --threads 4
"""

LOSSLESS_HELP = """Train one variant of the lossless model; stop it whenever you like, the same command goes on.

Three stages train side by side, a process each. Variants: plain; preview (knows a lossy preview of the image;
give it the plain run to start from); small (for images of 32 x 32; DATA holds mosaics of such tiles, shards
whose images are reduced, or both).

\b
Examples:
  recbatch train lossless photographs/ runs/plain --minutes 60
  recbatch train lossless photographs/ runs/preview --variant preview --start runs/plain
"""

PACK_HELP = """Put the variants of finished runs together into one weight file of the lossless model.

\b
Examples:
  recbatch train pack mine.safetensors runs/plain runs/preview runs/small
  recbatch train pack plain-only.safetensors runs/plain
"""


class Variant(StrEnum):
    plain = "plain"
    preview = "preview"
    small = "small"


train_app = typer.Typer(rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(train_app, name="train", help=HELP)


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


@train_app.command("lossless", help=LOSSLESS_HELP)
def lossless(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder of images, or of Parquet shards (columns data, source)."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the run; made where it is missing.")],
    variant: Annotated[Variant, typer.Option("--variant", help="What to train.")] = Variant.plain,
    start: Annotated[
        Path | None,
        typer.Option("--start", metavar="RUN", help="A finished run whose weights to begin with."),
    ] = None,
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
    tiles: Annotated[
        int, typer.Option("--tiles", min=8, metavar="N", help="Side of the small variant's tiles.")
    ] = 32,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of start and crops.")] = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.models.lossless.network import LosslessConfig
    from recbatch.train.lossless import Recipe, small_recipe, train_variant

    make = small_recipe if variant is Variant.small else Recipe
    recipe = make(
        data=data,
        out=out,
        start=start,
        minutes=minutes,
        sources=tuple(source or ()),
        held_out=tuple(held_out or ()),
        tiles=tiles if variant is Variant.small else None,
        config=LosslessConfig(preview=variant is Variant.preview),
        seed=seed,
    )
    held = train_variant(recipe, (lambda line: None) if quiet else (lambda line: typer.echo(line, err=True)))
    if as_json:
        print_json({"event": "report", "run": str(out), "held_out": held})
    else:
        typer.echo(out)


@train_app.command("pack", help=PACK_HELP)
def pack(
    path: Annotated[Path, typer.Argument(metavar="NAME.safetensors", help="Weight file to write.")],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, a variant each.")],
    debug: options.Debug = False,
) -> None:
    from recbatch.train.lossless import write_model

    write_model(runs, path)
    typer.echo(path)
