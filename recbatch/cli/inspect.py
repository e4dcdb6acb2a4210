"""``recbatch ls``, ``stats`` and ``info``: what an archive or a stream holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recbatch.cli import options, streams
from recbatch.cli.maintenance import AtVersion
from recbatch.cli.text import bytes_text, columns, count, key_text, number, one_line, print_json
from recbatch.errors import UsageError

if TYPE_CHECKING:
    from recbatch.api import StreamInfo
    from recbatch.archive import Record, Stats, Totals
    from recbatch.archive.rotation import Check

LS_HELP = """List the keys of an archive, one a line.

A key that holds a line break or another control character is shown as bash and zsh read it, in
$'...'; --null and --json have every key as it is.

\b
Examples:
  recbatch ls photos.rba
  recbatch ls photos.rba --long --where "status = 'quarantined'"
  recbatch ls photos.rba --null | xargs -0 -n 1 recbatch get photos.rba
"""

STATS_HELP = """Totals of an archive by status, codec and model: images, bytes, bits per pixel, savings.

\b
Examples:
  recbatch stats photos.rba
  recbatch stats s3://bucket/photos --json
"""

INFO_HELP = """Show an archive, one image of it, or a .rec file in detail.

\b
Examples:
  recbatch info photos.rba 2024/beach.jpg
  recbatch info photo.rec
"""

LONG_COLUMNS = (
    *("key", "status", "codec", "width", "height", "source_size", "stream_size"),
    *("psnr", "error_code", "error"),
)


CHECKS_READ = 40  # records of verifications
EXACT_CODECS = ("lossless", "jpeg")  # nothing is lost, so what counts is the size beside the source's


def register(app: typer.Typer) -> None:
    app.command("ls", help=LS_HELP)(ls)
    app.command("stats", help=STATS_HELP)(stats)
    app.command("info", help=INFO_HELP)(info)


def ls(
    archive: options.ArchiveUrl,
    where: options.Where = None,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Also status, codec, size, PSNR or share of bytes, or error.")
    ] = False,
    null: Annotated[
        bool,
        typer.Option("--null", "-0", help="Keys as they are, each ended by a zero byte, as for xargs -0."),
    ] = False,
    version: AtVersion = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    import recbatch

    if null and (long or as_json):
        raise UsageError("--null is a list of keys. Leave out --long and --json, or --null.")
    opened = recbatch.open(archive, version)
    if as_json:
        for record in opened.records(opened.light_columns, where):
            print_json({name: getattr(record, name) for name in opened.light_columns})
        return
    for record in opened.records(LONG_COLUMNS if long else ("key",), where):
        if null:
            typer.echo(record.key + "\0", nl=False)
        else:
            typer.echo(long_line(record) if long else key_text(record.key))


def long_line(record: Record) -> str:
    """One row, tab-separated, so that a million of them stream and sort."""
    key = key_text(record.key)
    if record.status != "ok":
        return "\t".join([key, record.status, f"[{record.error_code}]", one_line(record.error or "")])
    size = f"{record.width}x{record.height}" if record.width else "-"
    share = f"{bytes_text(record.source_size or 0)} -> {bytes_text(record.stream_size or 0)}"
    quality = "-"
    if record.codec in EXACT_CODECS and record.source_size and record.stream_size is not None:
        quality = f"{record.stream_size / record.source_size:.1%}"
    elif record.psnr is not None:
        quality = f"{record.psnr:.2f} dB"
    return "\t".join([key, record.status, record.codec or "-", size, share, quality])


def stats(
    archive: options.ArchiveUrl,
    version: AtVersion = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    import recbatch

    opened = recbatch.open(archive, version)
    found = opened.stats()
    checked = checks_by_level(opened.url)
    if as_json:
        print_json({"url": opened.url, "version": opened.version, **found.to_dict(), "verified": checked})
        return
    line = f"{count(found.rows, 'row')} in {count(found.files, 'file')}, {bytes_text(found.file_bytes)}"
    if found.models:
        line += f"; {count(found.models, 'model')}, {bytes_text(found.model_bytes)}"
    typer.echo(line)
    if not found.rows:
        return
    typer.echo()
    typer.echo(columns(list(stats_rows(found)), right=range(1, 6)))
    if found.kl_bits:
        typer.echo()
        typer.echo(
            f"lossy streams: {bytes_text(found.kl_bits / 8)} of relative entropy, "
            f"side information {bytes_text(found.side_bits / 8)}"
        )
    if found.total.previews:
        typer.echo()
        typer.echo(previews_line(found))
    for code, how_many in found.by_error.items():
        typer.echo(f"quarantined [{code}]: {how_many:,}")
    if checked:
        typer.echo()
    for check in checked.values():
        typer.echo(check_line(check))


def checks_by_level(url: str) -> dict[str, Check]:
    """The newest verification of each level that the archive knows of."""
    from recbatch import api

    newest: dict[str, Check] = {}
    for check in islice(api.checks(url), CHECKS_READ):
        newest.setdefault(check.level, check)
    return newest


def check_line(check: Check) -> str:
    """When it was last looked at, how much of it, and what came of it."""
    part = "all of it"
    if check.days:
        part = f"{len(check.slots)} of {check.days} parts"
    elif not check.is_whole:
        part = "a choice" if check.where else f"{check.sample:.2g} of it"
    outcome = f"{count(check.findings, 'thing')} wrong" if check.findings else "all well"
    when = check.finished[:16].replace("T", " ")
    return f"verified at level {check.level}: {when} UTC, version {check.version}, {part}: {outcome}"


def stats_rows(found: Stats) -> Iterable[list[str]]:
    yield ["", "images", "bytes in", "bytes out", "saved", "bpp"]
    groups: list[tuple[str, Mapping[str, Totals]]] = [
        ("status", found.by_status),
        ("codec", found.by_codec),
        ("model", {name[:16]: totals for name, totals in found.by_model.items()}),
    ]
    for kind, group in groups:
        for name, totals in group.items():
            yield totals_row(f"{kind} {name}", totals)
    yield totals_row("total", found.total)


def previews_line(found: Stats) -> str:
    with_previews = found.by_codec.get("lossless", found.total)
    share = with_previews.preview_share or 0
    return (
        f"previews: {bytes_text(found.total.preview_bytes)} of {count(found.total.previews, 'image')}, "
        f"{share:.1%} of the lossless streams"
    )


def totals_row(label: str, totals: Totals) -> list[str]:
    saved = "-" if totals.ratio is None or not totals.bytes_out else f"{1 - totals.ratio:.1%}"
    sizes = [bytes_text(totals.bytes_in), bytes_text(totals.bytes_out)]
    return [label, f"{totals.images:,}", *sizes, saved, number(totals.bpp, 3)]


def info(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="An archive, or a .rec file; '-' is standard input.")
    ],
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="One image of the archive.")] = None,
    version: AtVersion = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    if key is None and (target == "-" or Path(target).is_file()):
        from recbatch import api

        found = api.stream_info(streams.read_bytes(target))
        print_json(found) if as_json else typer.echo(columns(stream_rows(found)))
        return
    import recbatch

    opened = recbatch.open(target, version)
    if key is not None:
        record = opened[key]
        facts = {name: getattr(record, name) for name in opened.light_columns}
        print_json(facts) if as_json else typer.echo(columns(record_rows(facts)))
        return
    archive = opened.describe()
    print_json(archive) if as_json else typer.echo(
        columns([[name, str(value)] for name, value in archive.items() if value != ""])
    )


def record_rows(facts: Mapping[str, Any]) -> list[list[str]]:
    """A row's fields that are filled in, as a reader likes them."""
    rows = []
    for name, value in facts.items():
        if value in (None, "", (), 0):
            continue
        text = (
            value.hex()
            if isinstance(value, bytes)
            else "; ".join(value)
            if isinstance(value, tuple)
            else str(value)
        )
        rows.append([name, key_text(text) if name == "key" else one_line(text)])
    return rows


def stream_rows(found: StreamInfo) -> list[list[str]]:
    model = f"{found.model} ({found.model_name or 'not one of this package'})" if found.model else "none"
    rows = [
        ["format", f"version {found.format}, codec {found.codec}"],
        ["image", f"{found.width} x {found.height}, {found.mode}"],
        ["size", f"{found.size_bytes:,} bytes, {found.bpp:.3f} bits per pixel"],
        ["model", model],
    ]
    if found.codec == "lossless" and not found.model:
        rows += [["coder", found.coder], ["digests", f"pixels {found.pixels_digest}"]]
    elif found.codec == "lossless":
        rows += [["networks", f"{found.level:g}"], ["digests", f"pixels {found.pixels_digest}"]]
    else:
        rows += [
            ["level", f"{found.level:g} (quality {found.quality:g})"],
            ["coder", f"{found.coder} ({found.coder_number}), parameters {found.coder_parameters or 'none'}"],
            ["digests", f"parameters {found.parameters_digest}, latents {found.latents_digest}"],
        ]
    rows += [
        [f"bytes: {part}", f"{size:,} ({size / found.size_bytes:.1%})"] for part, size in found.bytes.items()
    ]
    return rows
