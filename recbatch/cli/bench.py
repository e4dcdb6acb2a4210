"""``recbatch bench``: every figure of docs/benchmarks.md comes from one of these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from recbatch.cli import bench_stores, options
from recbatch.cli.text import print_json

HELP = """Measure rate, quality and speed. Needs the extra recbatch[bench].

\b
Examples:
  recbatch bench lossy kodak/ --anchors anchors.json
  recbatch bench lossless kodak/ --plot lossless.png
  recbatch bench speed kodak/ --workers 2
"""

LOSSY_HELP = """Rate and quality of the whole codec, from files, beside JPEG and the curves of other codecs.

\b
Examples:
  recbatch bench lossy kodak/ --anchors anchors.json --plot curves.png
  recbatch bench lossy photos/ --images 4 --level 8 --level 16 --json
  recbatch bench lossy kodak/ --quantisers --plot quantisers.png
  recbatch bench lossy kodak/ photos/ --every-image --hardest 12
"""

COMPLEXITY_HELP = """Multiply-accumulates per pixel of a model's networks, part by part, and MP/s of each on one core.

\b
Examples:
  recbatch bench complexity
  recbatch bench complexity --model photo-s --model mine.safetensors --json
"""

CROPS_HELP = """The same crops of the source and of JPEG, WebP, AVIF and our files, at equal bytes.

\b
Examples:
  recbatch bench crops kodak/ --out crops.html
  recbatch bench crops photos/ --image wine.jpg --image textiles.jpg@128,64 --level 4 --png crops.png
"""

LOSSLESS_HELP = """Bits per dimension and speed of lossless codecs: ours, PNG, WebP, JPEG XL, on the same images.

Every file is decoded, and its pixels are compared. A FOLDER is searched with its sub-folders; it may be one file.

\b
Examples:
  recbatch bench lossless kodak/ --plot lossless.png
  recbatch bench lossless mosaic.webp --tiles 32 --images 200 --codec png --codec jxl-e7 --json
"""

REC_HELP = """Every index coder on the same latents: overhead over the relative entropy, rate at equal PSNR, speed.

With FOLDER on a model's real latents and on synthetic ones, without it on synthetic ones only.

\b
Examples:
  recbatch bench rec kodak/ --plot rec.png
  recbatch bench rec photos/ --images 4 --coder trellis --effort 3 --effort 5 --every-level
  recbatch bench rec --coder trellis --json
"""

KINDS_HELP = """Pictures that learned codecs are bad at (text, drawings, ...): ours beside JPEG, WebP, JPEG XL, AVIF.

The pictures are made by script. With PHOTOGRAPHS, the demo's, there are faces and a screenshot's photograph, too.

\b
Examples:
  recbatch bench kinds docs/demo/photographs --plot kinds.png
  recbatch bench kinds --picture text-page --picture map --model mine.safetensors --json
"""

SPEED_HELP = """Megapixels a second of the whole job beside JPEG XL and AVIF, peak memory, where the time goes.

\b
Examples:
  recbatch bench speed kodak/
  recbatch bench speed photos/ --workers 2 --repeats 1 --json
"""

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of images.")]
Images = Annotated[
    int | None, typer.Option("--images", min=1, metavar="N", help="Only so many, spread over the folder.")
]
Levels = Annotated[
    list[int] | None,
    typer.Option("--level", min=0, max=31, metavar="0..31", help="Rate level; may be repeated."),
]
RateLevels = Annotated[
    list[float] | None,
    typer.Option("--level", min=0, max=31, metavar="0..31", help="Rate level; may be repeated."),
]
Folders = Annotated[list[str], typer.Argument(metavar="FOLDER", help="Folders of images.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the result, too.")]

bench_app = typer.Typer(rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(bench_app, name="bench", help=HELP)


def talk(*, quiet: bool) -> Callable[[str], None] | None:
    """Progress goes to standard error, where it is in no result's way."""
    return None if quiet else lambda line: typer.echo(line, err=True)


def show(result: Any, tables: Callable[[], Any], *, as_json: bool) -> None:
    if as_json:
        print_json({"event": "report", "schema": 1, **result.to_dict()})
        return
    import sys

    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(tables())


@bench_app.command("lossy", help=LOSSY_HELP)
def lossy(
    folders: Folders,
    anchors: Annotated[
        str | None, typer.Option("--anchors", metavar="FILE", help="JSON file of other codecs' curves.")
    ] = None,
    levels: RateLevels = None,
    images: Images = None,
    model: options.LossyModel = options.DEFAULT_LOSSY_MODEL,
    coder: options.Coder = options.DEFAULT_CODER,
    effort: options.Effort = options.DEFAULT_EFFORT,
    archive: Annotated[
        bool, typer.Option("--archive/--no-archive", help="Count the bytes of a whole archive, too.")
    ] = True,
    every: Annotated[bool, typer.Option("--every-image", help="A row for each image.")] = False,
    hardest: Annotated[
        int | None,
        typer.Option(
            "--hardest", min=1, metavar="N", help="A row for each of the N that gain least on JPEG."
        ),
    ] = None,
    quantisers: Annotated[
        bool, typer.Option("--quantisers", help="Compare quantisation with relative entropy coding instead.")
    ] = False,
    slow_images: Annotated[
        int, typer.Option("--slow-images", min=0, metavar="N", help="With --quantisers: images for iREC.")
    ] = 3,
    plot: Plot = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.bench import bd, lossy, lossy_plot, render
    from recbatch.bench import quantisers as rivals
    from recbatch.errors import UsageError

    if quantisers:
        if anchors or every or hardest:
            raise UsageError(
                "--quantisers is a comparison of its own. Leave --anchors, --every-image and --hardest away."
            )
        compared = rivals.quantiser_benchmark(
            folders,
            model=model,
            levels=levels or lossy.DEFAULT_LEVELS,
            images=images,
            slow_images=slow_images,
            progress=talk(quiet=quiet),
        )
        show(compared, lambda: render.quantiser_tables(compared), as_json=as_json)
        if plot is not None:
            lossy_plot.quantiser_plot(compared, plot)
        return
    result = lossy.lossy_benchmark(
        folders,
        model=model,
        levels=levels or lossy.DEFAULT_LEVELS,
        coder=coder,
        effort=effort,
        anchors=anchors,
        images=images,
        archive=archive,
        progress=talk(quiet=quiet),
    )
    show(result, lambda: render.lossy_tables(result, every=every, hardest=hardest), as_json=as_json)
    if plot is not None:
        lossy_plot.lossy_plot(result, bd.load_anchors(anchors) if anchors else [], plot)


@bench_app.command("complexity", help=COMPLEXITY_HELP)
def complexity(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="NAME", help="Lossy model; may be repeated. All of the package if none."
        ),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.bench import complexity, render

    result = complexity.complexity_benchmark(models or None)
    show(result, lambda: render.complexity_tables(result), as_json=as_json)


@bench_app.command("crops", help=CROPS_HELP)
def crops(
    folders: Folders,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="NAME[@LEFT,TOP]",
            help="Image to show, and where; may be repeated. The best, median and worst if none.",
        ),
    ] = None,
    levels: RateLevels = None,
    model: options.LossyModel = options.DEFAULT_LOSSY_MODEL,
    effort: options.Effort = options.DEFAULT_EFFORT,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="HTML page that needs no other file.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="One picture of all crops.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.bench import crops, crops_render, render

    result = crops.crops_benchmark(
        folders,
        model=model,
        levels=levels or crops.DEFAULT_LEVELS,
        effort=effort,
        names=names or (),
        progress=talk(quiet=quiet),
    )
    show(result, lambda: render.crops_tables(result), as_json=as_json)
    if out is not None:
        out.write_text(crops_render.crops_page(result), encoding="utf-8")
    if png is not None:
        crops_render.save_sheet(result, png)


@bench_app.command("lossless", help=LOSSLESS_HELP)
def lossless(
    folders: Annotated[list[str], typer.Argument(metavar="FOLDER", help="Folders of images, or images.")],
    tiles: Annotated[
        int | None,
        typer.Option(
            "--tiles", min=1, metavar="N", help="Cut every image into tiles of NxN; code each alone."
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            "--limit",
            min=1,
            metavar="N",
            help="Only so many images or tiles of each FOLDER, spread.",
        ),
    ] = None,
    codecs: Annotated[
        list[str] | None, typer.Option("--codec", metavar="NAME", help="Only this codec; may be repeated.")
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, metavar="N", help="Threads of codecs that can use them.")
    ] = 1,
    every: Annotated[bool, typer.Option("--every-image", help="A row for each image.")] = False,
    plot: Plot = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.bench import lossless, lossless_plot, lossless_render

    result = lossless.lossless_benchmark(
        folders, tiles=tiles, images=images, codecs=codecs, threads=threads, progress=talk(quiet=quiet)
    )
    show(result, lambda: lossless_render.lossless_tables(result, every_image=every), as_json=as_json)
    if plot is not None:
        lossless_plot.lossless_plot(result, plot)


@bench_app.command("rec", help=REC_HELP)
def rec(
    folder: Annotated[
        str | None, typer.Argument(metavar="FOLDER", help="Folder of images.", show_default=False)
    ] = None,
    levels: Levels = None,
    coders: Annotated[
        list[str] | None,
        typer.Option(
            "--coder", metavar="NAME", help="Only this coder and what it is compared with; may be repeated."
        ),
    ] = None,
    efforts: Annotated[
        list[int] | None,
        typer.Option("--effort", min=1, max=9, metavar="1..9", help="Search effort; may be repeated."),
    ] = None,
    images: Images = None,
    slow_images: Annotated[
        int,
        typer.Option("--slow-images", min=0, metavar="N", help="Images for slow coders; 0 leaves these out."),
    ] = 3,
    synthetic: Annotated[
        bool, typer.Option("--synthetic/--no-synthetic", help="Measure on synthetic latents, too.")
    ] = True,
    every: Annotated[bool, typer.Option("--every-level", help="A row for each level.")] = False,
    model: options.LossyModel = options.DEFAULT_LOSSY_MODEL,
    plot: Plot = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.bench import rec, rec_plot, rec_render

    result = rec.rec_benchmark(
        folder,
        model=model,
        levels=levels or rec.DEFAULT_LEVELS,
        efforts=efforts or rec.DEFAULT_EFFORTS,
        coders=coders,
        images=images,
        slow_images=slow_images,
        with_synthetic=synthetic,
        progress=talk(quiet=quiet),
    )
    show(result, lambda: rec_render.rec_tables(result, every_level=every), as_json=as_json)
    if plot is not None:
        rec_plot.rec_plot(result, plot)


@bench_app.command("kinds", help=KINDS_HELP)
def kinds(
    photographs: Annotated[
        str | None,
        typer.Argument(metavar="PHOTOGRAPHS", help="Folder of the demo's photographs.", show_default=False),
    ] = None,
    levels: RateLevels = None,
    names: Annotated[
        list[str] | None, typer.Option("--picture", metavar="NAME", help="Only this one; may be repeated.")
    ] = None,
    model: options.LossyModel = options.DEFAULT_LOSSY_MODEL,
    coder: options.Coder = options.DEFAULT_CODER,
    effort: options.Effort = options.DEFAULT_EFFORT,
    plot: Plot = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.bench import kinds, kinds_plot, kinds_render

    result = kinds.kinds_benchmark(
        photographs,
        model=model,
        levels=levels or kinds.DEFAULT_LEVELS,
        coder=coder,
        effort=effort,
        only=names,
        progress=talk(quiet=quiet),
    )
    show(result, lambda: kinds_render.kinds_tables(result), as_json=as_json)
    if plot is not None:
        kinds_plot.kinds_plot(result, plot, photographs)


@bench_app.command("speed", help=SPEED_HELP)
def speed(
    folder: Folder,
    level: Annotated[int, typer.Option("--level", min=0, max=31, metavar="0..31", help="Rate level.")] = 16,
    workers: Annotated[int, typer.Option("--workers", min=1, metavar="N", help="Worker processes.")] = 2,
    repeats: Annotated[int, typer.Option("--repeats", min=1, metavar="N", help="Runs of the whole job.")] = 3,
    model: options.LossyModel = options.DEFAULT_LOSSY_MODEL,
    coder: options.Coder = options.DEFAULT_CODER,
    effort: options.Effort = options.DEFAULT_EFFORT,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch.bench import render, speed

    result = speed.speed_benchmark(
        folder,
        model=model,
        level=level,
        coder=coder,
        effort=effort,
        workers=workers,
        repeats=repeats,
        progress=talk(quiet=quiet),
    )
    show(result, lambda: render.speed_tables(result), as_json=as_json)


bench_app.command("stores", help=bench_stores.HELP)(bench_stores.stores)
