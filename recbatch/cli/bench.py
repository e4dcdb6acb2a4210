"""``recbatch bench``: the measurements behind docs/benchmarks.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from recbatch.cli import options
from recbatch.cli.text import print_json
from recbatch.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

LOSSY_HELP = """Rate and quality of the lossy codec, from files, beside other codecs' curves.

\b
Examples:
  recbatch bench lossy kodak/ --anchors kodak-lossy.json --plot curves.png
  recbatch bench lossy photos/ --levels 4,16,28 --images 6
"""

REC_HELP = """Index coders on a model's real latents, beside quantisation and exact posterior samples.

\b
Examples:
  recbatch bench rec kodak/
  recbatch bench rec kodak/ --levels 4,20 --efforts 1,5,9 --irec-images 0
"""

SPEED_HELP = """Time of the whole job beside JPEG XL and AVIF, its memory, and where the time goes.

\b
Examples:
  recbatch bench speed kodak/
  recbatch bench speed kodak/ --level 24 --workers 2 --repeats 5
"""

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of images.")]
Weights = Annotated[
    str, typer.Option("--model", metavar="NAME|FILE", help="A model of the package, or a .safetensors file.")
]
Images = Annotated[
    int | None,
    typer.Option("--images", min=1, metavar="N", help="Only so many images, spread over the folder."),
]
Plot = Annotated[
    str | None, typer.Option("--plot", metavar="FILE", help="Write a plot to this file as well.")
]

bench_app = typer.Typer(rich_markup_mode=None, no_args_is_help=False)


class BadList(UsageError):
    """An option that takes numbers got something else."""

    code = "bad-list"

    def __init__(self, text: str, low: int, high: int) -> None:
        super().__init__(text, low, high)
        self.text, self.low, self.high = text, low, high

    def __str__(self) -> str:
        return f"'{self.text}' is no list of numbers. Give numbers from {self.low} to {self.high}, such as 4,16,28."


class NoBenchmarkPackages(UsageError):
    """The packages that only benchmarks need are not installed."""

    code = "no-bench"

    def __init__(self, module: str) -> None:
        super().__init__(module)
        self.module = module

    def __str__(self) -> str:
        return f"The package {self.module} is missing. Install what benchmarks need: pip install 'recbatch[bench]'."


def register(app: typer.Typer) -> None:
    app.add_typer(bench_app, name="bench", help="Measure rate, quality, overhead and speed.")


def numbers(text: str, low: int, high: int) -> list[int]:
    """``4,16,28`` as ascending numbers within a range. Raises BadList."""
    try:
        values = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise BadList(text, low, high) from None
    if values[0] < low or values[-1] > high:
        raise BadList(text, low, high)
    return values


@bench_app.command("lossy", help=LOSSY_HELP)
def lossy(
    folder: Folder,
    model: Weights = options.DEFAULT_MODEL,
    levels: Annotated[
        str | None,
        typer.Option("--levels", metavar="N,N,...", help="Rate levels, 0 to 31; seven by default."),
    ] = None,
    coder: options.Coder = options.DEFAULT_CODER,
    effort: options.Effort = options.DEFAULT_EFFORT,
    anchors: Annotated[
        str | None,
        typer.Option("--anchors", metavar="FILE", help="JSON file of other codecs' curves on these images."),
    ] = None,
    images: Images = None,
    archive: Annotated[
        bool, typer.Option("--archive/--no-archive", help="Count the bytes of a real archive as well.")
    ] = True,
    every: Annotated[bool, typer.Option("--every-level", help="Show each image at every level.")] = False,
    plot: Plot = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    _require("scipy", *(["matplotlib"] if plot else []))
    from recbatch.bench import bd, render
    from recbatch.bench.lossy import DEFAULT_LEVELS, lossy_benchmark

    result = lossy_benchmark(
        folder,
        model=model,
        levels=numbers(levels, 0, 31) if levels else DEFAULT_LEVELS,
        coder=coder,
        effort=effort,
        anchors=anchors,
        images=images,
        archive=archive,
        progress=None if quiet else _say,
    )
    if plot:
        render.lossy_plot(result, bd.load_anchors(anchors) if anchors else [], plot)
    _show(result.to_dict() if as_json else render.lossy_tables(result, every=every))


@bench_app.command("rec", help=REC_HELP)
def rec(
    folder: Folder,
    model: Weights = options.DEFAULT_MODEL,
    levels: Annotated[
        str | None, typer.Option("--levels", metavar="N,N,...", help="Rate levels, 0 to 31; four by default.")
    ] = None,
    efforts: Annotated[
        str, typer.Option("--efforts", metavar="N,N,...", help="Efforts of the trellis, 1 to 9.")
    ] = "5",
    images: Images = None,
    irec_images: Annotated[
        int, typer.Option("--irec-images", min=0, metavar="N", help="iREC is slow: run it on so many images.")
    ] = 3,
    plot: Plot = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    _require("scipy", *(["matplotlib"] if plot else []))
    from recbatch.bench import render
    from recbatch.bench.rec import DEFAULT_LEVELS, rec_benchmark

    result = rec_benchmark(
        folder,
        model=model,
        levels=numbers(levels, 0, 31) if levels else DEFAULT_LEVELS,
        efforts=numbers(efforts, 1, 9),
        images=images,
        irec_images=irec_images,
        progress=None if quiet else _say,
    )
    if plot:
        render.rec_plot(result, plot)
    _show(result.to_dict() if as_json else render.rec_tables(result))


@bench_app.command("speed", help=SPEED_HELP)
def speed(
    folder: Folder,
    model: options.Model = options.DEFAULT_MODEL,
    level: Annotated[int, typer.Option("--level", min=0, max=31, metavar="0..31", help="Rate level.")] = 16,
    coder: options.Coder = options.DEFAULT_CODER,
    effort: options.Effort = options.DEFAULT_EFFORT,
    workers: Annotated[
        int, typer.Option("--workers", min=1, metavar="N", help="Worker processes, of each codec.")
    ] = 2,
    repeats: Annotated[int, typer.Option("--repeats", min=1, metavar="N", help="Runs of the job.")] = 3,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    _require("pillow_jxl", "scipy")
    from recbatch.bench import render
    from recbatch.bench.speed import speed_benchmark

    result = speed_benchmark(
        folder,
        model=model,
        level=level,
        coder=coder,
        effort=effort,
        workers=workers,
        repeats=repeats,
        progress=None if quiet else _say,
    )
    _show(result.to_dict() if as_json else render.speed_tables(result))


def _require(*modules: str) -> None:
    from importlib.util import find_spec

    for module in modules:
        if find_spec(module) is None:
            raise NoBenchmarkPackages(module)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _show(result: dict[str, object] | RenderableType) -> None:
    """A result as JSON or as tables, on standard output."""
    if isinstance(result, dict):
        print_json(result)
        return
    from rich.console import Console

    Console(width=None if _terminal() else 160).print(result)


def _terminal() -> bool:
    import sys

    return sys.stdout.isatty()
