"""Options that several commands share, declared once so that they read the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from recbatch.cli import logs

ArchiveUrl = Annotated[
    str, typer.Argument(metavar="ARCHIVE", help="Archive: a folder, or a URL such as s3://bucket/prefix.")
]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help="Only rows for which this holds, e.g. \"status = 'ok'\"."),
]
Quality = Annotated[
    float | None,
    typer.Option(
        "--quality",
        min=0,
        max=100,
        metavar="0..100",
        help="Lossy coding, pixels change: 0 smallest, 100 nearest to the source.",
    ),
]
Bpp = Annotated[
    float | None,
    typer.Option("--bpp", metavar="X", help="Lossy: bits of the stream for each pixel, of every image."),
]
Psnr = Annotated[float | None, typer.Option("--psnr", metavar="DB", help="Lossy: PSNR of every image, dB.")]
MaxBytes = Annotated[
    int | None,
    typer.Option("--max-bytes", metavar="N", help="Lossy: lower the quality until an image fits N bytes."),
]
MinPsnr = Annotated[
    float | None,
    typer.Option("--min-psnr", metavar="DB", help="Lossy: raise the quality until an image has DB."),
]
Auto = Annotated[
    bool,
    typer.Option(
        "--auto", help="Lossy: an image without loss where that is smaller, or little larger and far better."
    ),
]
Lossless = Annotated[bool, typer.Option("--lossless", help="Every pixel comes back; the default.")]
Preview = Annotated[
    bool,
    typer.Option(
        "--preview/--no-preview", help="Lossless streams begin with a lossy preview that is read alone."
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="Model to code with; see 'recbatch models ls'."),
]
LossyModel = Annotated[
    str, typer.Option("--model", metavar="NAME", help="Model of the lossy codec; see 'recbatch models ls'.")
]
Coder = Annotated[
    str,
    typer.Option(
        "--coder", metavar="trellis|irec", help="How latents are sent; 'irec' is slower, for comparison."
    ),
]
Effort = Annotated[
    int, typer.Option("--effort", min=1, max=9, metavar="1..9", help="Search effort: time against bytes.")
]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", min=1, metavar="N", help="Refuse images with more pixels than this.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are already there.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Worker processes; as many as fit by default."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to standard output instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
LogFormat = Annotated[
    logs.LogFormat | None,
    typer.Option(
        "--log-format",
        envvar=logs.VARIABLE,
        help="Lines on standard error, with times or as JSON, in place of a progress bar.",
    ),
]
# app.main looks for --debug itself, so that it also covers errors in parsing; here it is only declared.
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

DEFAULT_LOSSY_MODEL = "photo-s2"
DEFAULT_CODER = "trellis"
DEFAULT_EFFORT = 5
DEFAULT_MAX_PIXELS = 200_000_000
