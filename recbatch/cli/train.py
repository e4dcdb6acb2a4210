"""``recbatch train``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from recbatch.cli import options
from recbatch.cli.errors import INTERRUPTED
from recbatch.cli.text import print_json
from recbatch.errors import UsageError

HELP = """Train a model.

\b
Examples:
  recbatch train lossy photographs/ runs/mine --name mine --minutes 60
  recbatch train lossless photographs/ runs/plain --minutes 60
"""

LOSSY_HELP = """Train the lossy model; stop it whenever you like, the same command goes on.

Writes a checkpoint, the history of the run, at the end NAME.safetensors and, with recbatch[train], card.png to OUT.

\b
Examples:
  recbatch train lossy photographs/ runs/mine --name mine --minutes 60
  recbatch train lossy shards/ runs/mine --held-out kodak --threads 4
  recbatch train lossy my-photos/ runs/mine --name mine --start photo-s --minutes 20
  recbatch train lossy shards/ runs/similar --name similar --start photo-s --objective ms-ssim
  recbatch train lossy shards/ runs/photo-m --size photo-m --workers 4 --steps 200000
"""

CARD_HELP = """Draw card.png of a run of the lossy model, which may still be under way.

Loss, rate, quality and schedule, and the curve on what was held out beside JPEG.

\b
Examples:
  recbatch train card runs/mine
  recbatch train card runs/mine --json
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


class Precision(StrEnum):
    auto = "auto"
    float32 = "float32"
    bf16 = "bf16"


class Size(StrEnum):
    small = "photo-s"
    medium = "photo-m"


class Objective(StrEnum):  # as recbatch.train.objective, which loads torch
    mse = "mse"
    ms_ssim = "ms-ssim"


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
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the model; that of its size by default."),
    ] = None,
    size: Annotated[
        Size | None,
        typer.Option("--size", help="Sizes of its networks; photo-s by default. Not with --start."),
    ] = None,
    objective: Annotated[
        Objective, typer.Option("--objective", help="What to make small beside the rate.")
    ] = Objective.mse,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", min=0, metavar="N", help="Training time, all runs together; 60 by default."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, metavar="N", help="Steps instead of minutes: a run that can be repeated."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="NAME|FILE",
            help="A trained model to begin with: fine-tuning, at a lower rate.",
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="TEXT", help="Only images whose source has this; may be repeated."),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", metavar="TEXT", help="Sources to measure on instead; may be repeated."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", min=1, metavar="N", help="Crops in a step, of each worker; 8, or 4 for ms-ssim."
        ),
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(
            "--crop",
            min=64,
            metavar="N",
            help="Side of a crop, in pixels; 128, or 192 for ms-ssim, which needs that much.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of start and crops.")] = 0,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, metavar="N", help="Threads; all cores by default.")
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", min=1, metavar="N", help="Worker processes on Ray, a GPU each if there are."
        ),
    ] = 1,
    device: Annotated[
        str, typer.Option("--device", metavar="auto|cpu|cuda", help="'auto': the GPU where there is one.")
    ] = "auto",
    precision: Annotated[
        Precision, typer.Option("--precision", help="'auto': bf16 where the hardware multiplies it.")
    ] = Precision.auto,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from functools import partial
    from importlib.util import find_spec

    from recbatch.engine.signals import stop_on_signals
    from recbatch.models.lossy import PRESETS
    from recbatch.train import objective as objectives
    from recbatch.train.lossy import Recipe, train_lossy

    if minutes is not None and steps is not None:
        raise typer.BadParameter("--minutes and --steps both say when the run ends; give one of them")
    if start is not None and size is not None:
        raise typer.BadParameter("--start brings the sizes of its model along; leave --size out")
    chosen = (size or Size.small).value
    recipe = Recipe(
        data=data,
        out=out,
        name=name or chosen,
        config=PRESETS[chosen],
        objective=objectives.Objective(objective.value),
        minutes=60.0 if minutes is None else minutes,
        steps=steps,
        start=start,
        sources=tuple(source or ()),
        held_out=tuple(held_out or ()),
        batch=batch,
        crop=crop,
        seed=seed,
        threads=threads,
        device=device,
        precision=precision.value,
        workers=workers,
    )
    launch = None
    if workers > 1:
        if find_spec("pandas") is None:
            raise typer.BadParameter(
                "--workers needs Ray Train; install it with pip install 'recbatch[train]'"
            )
        from recbatch.engine.parallel import run_parallel
        from recbatch.train.distributed import launch as launch_on

        launch = partial(launch_on, run_parallel)

    def report(line: str) -> None:
        if not quiet:
            typer.echo(line, err=True)

    with stop_on_signals(lambda signal: report(f"{signal}: stopping after this step")) as stop:
        path = train_lossy(recipe, report, stop=stop.is_set, launch=launch)
    if path is None:  # it has said where it stopped
        if as_json:
            print_json({"event": "report", "weights": None, "card": None})
        raise typer.Exit(INTERRUPTED)
    try:
        drawn = draw_card(out)
    except (UsageError, OSError) as missing:  # the weights are there all the same
        report(f"no card was drawn: {missing}")
        drawn = None
    if as_json:
        print_json({"event": "report", "weights": str(path), "card": None if drawn is None else str(drawn)})
    else:
        typer.echo(path)


@train_app.command("card", help=CARD_HELP)
def card(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of 'train lossy'.")],
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    if not (run / "checkpoint.pt").exists():
        raise typer.BadParameter(f"{run} holds no run; give a folder that 'train lossy' has written")
    path = draw_card(run)
    if as_json:
        print_json({"event": "report", "card": str(path)})
    else:
        typer.echo(path)


def draw_card(run: Path) -> Path:
    """``card.png`` of a run, with the BD-rate of ``bench``. Raises MissingExtra."""
    from recbatch.bench.extras import need

    for module in ("matplotlib", "scipy"):
        need(module)
    from recbatch.bench import bd
    from recbatch.train.card import Line, write_card

    def saving(test: Line, anchor: Line) -> tuple[float, float, float] | None:
        ours, theirs = (
            bd.Curve(name="", points=tuple(bd.Point(bpp=bpp, psnr=psnr) for bpp, psnr in curve))
            for curve in (test, anchor)
        )
        found = bd.bd_rate(ours, theirs, bounds=bd.PSNR_RANGES[0])
        return None if found is None else (found.percent, found.low, found.high)

    return write_card(run, saving)


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
