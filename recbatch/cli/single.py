"""``recbatch encode`` and ``recbatch decode``: single files, ``-`` for standard streams."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from recbatch.cli import options, streams
from recbatch.cli.text import bytes_text, print_json

ENCODE_HELP = """Code one image file as a .rec stream; it is decoded again and compared or measured first.

Without a lossy option (--quality, --bpp, --psnr, --max-bytes, --min-psnr) every pixel comes back.

\b
Examples:
  recbatch encode photo.png photo.rec
  recbatch encode photo.png photo.rec --quality 50
  recbatch encode photo.png photo.rec --max-bytes 100000
  cat photo.jpg | recbatch encode - - --quality 30 > photo.rec
"""

DECODE_HELP = """Decode one .rec stream to an image file.

\b
Examples:
  recbatch decode photo.rec photo.png
  recbatch decode photo.rec - --format webp > photo.webp
"""


class ImageFormat(StrEnum):
    png = "png"
    webp = "webp"
    jpeg = "jpeg"
    tiff = "tiff"


def register(app: typer.Typer) -> None:
    app.command("encode", help=ENCODE_HELP)(encode)
    app.command("decode", help=DECODE_HELP)(decode)


def encode(
    source: Annotated[str, typer.Argument(metavar="IN", help="Image file; '-' is standard input.")],
    target: Annotated[
        str, typer.Argument(metavar="OUT.rec", help="Stream to write; '-' is standard output.")
    ],
    lossless: options.Lossless = False,
    quality: options.Quality = None,
    bpp: options.Bpp = None,
    psnr: options.Psnr = None,
    max_bytes: options.MaxBytes = None,
    min_psnr: options.MinPsnr = None,
    auto: options.Auto = False,
    preview: options.Preview = True,
    model: options.Model = None,
    coder: options.Coder = options.DEFAULT_CODER,
    effort: options.Effort = options.DEFAULT_EFFORT,
    max_pixels: options.MaxPixels = options.DEFAULT_MAX_PIXELS,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    from recbatch import api

    if as_json and target == "-":
        raise typer.BadParameter(
            "the stream and the report can't both go to standard output", param_hint="--json"
        )
    data = streams.read_bytes(source)
    streams.check_free(target, overwrite=overwrite)
    encoded = api.encode_measured(
        data,
        quality=quality,
        bpp=bpp,
        psnr=psnr,
        max_bytes=max_bytes,
        min_psnr=min_psnr,
        auto=auto,
        lossless=lossless,
        preview=preview,
        model=model,
        coder=coder,
        effort=effort,
        max_pixels=max_pixels,
    )
    streams.write_bytes(target, encoded.stream, overwrite=overwrite)
    pixels = encoded.width * encoded.height
    if as_json:
        print_json(
            {
                "event": "report",
                "bytes_in": len(data),
                "bytes_out": len(encoded.stream),
                "bpp": 8 * len(encoded.stream) / pixels,
                "width": encoded.width,
                "height": encoded.height,
                "psnr": encoded.psnr,
                "ms_ssim": encoded.ms_ssim,
                "kl_bits": encoded.kl_bits,
                "index_bits": encoded.index_bits,
                "side_bits": encoded.side_bits,
                "residual_bits": encoded.residual_bits,
                "model": encoded.model,
                "level": encoded.level,
                "coder": encoded.coder,
                "effort": encoded.effort,
                "notes": list(encoded.notes),
            }
        )
    elif not quiet:
        parts = [
            f"{bytes_text(len(data))} -> {bytes_text(len(encoded.stream))}",
            f"{8 * len(encoded.stream) / pixels:.3f} bpp",
        ]
        if encoded.psnr is not None:
            parts.append(f"PSNR {encoded.psnr:.2f} dB")
        typer.echo(", ".join([*parts, *encoded.notes]), err=True)


def decode(
    source: Annotated[str, typer.Argument(metavar="IN.rec", help="Stream; '-' is standard input.")],
    target: Annotated[
        str, typer.Argument(metavar="OUT", help="Image file to write; '-' is standard output.")
    ],
    format: Annotated[
        ImageFormat | None,
        typer.Option("--format", help="Instead of what OUT's suffix says; png for '-'."),
    ] = None,
    max_pixels: options.MaxPixels = 1_000_000_000,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    from recbatch import api

    wanted = format.value if format else "png" if target == "-" else api.file_format(target)
    stream = streams.read_bytes(source)
    streams.check_free(target, overwrite=overwrite)
    data = api.decode_file(stream, wanted, max_pixels=max_pixels)
    streams.write_bytes(target, data, overwrite=overwrite)
