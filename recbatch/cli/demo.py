"""``recbatch demo``: the whole way on a folder of photographs, with figures and a picture at the end."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recbatch.cli import options
from recbatch.cli.compress import Executor
from recbatch.cli.demo_lossless import show_lossless
from recbatch.cli.display import Progress
from recbatch.cli.text import bytes_text, columns, count, duration_text, number
from recbatch.cli.verify import finding_line, summary
from recbatch.errors import UsageError

if TYPE_CHECKING:
    import recbatch
    from recbatch.archive import Record
    from recbatch.engine import Report

HELP = """Archive, verify and restore a folder of photographs, and show what came of it.

\b
Examples:
  recbatch demo docs/demo/photographs
  recbatch demo my-photos/ --quality 30 --output my-demo
"""

MARKER = ".recbatch-demo"  # marks a folder as ours to empty


class OutputTaken(UsageError):
    """The demo's folder holds something else."""

    code = "output-taken"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} holds files that no demo wrote. Name another folder with --output."


def register(app: typer.Typer) -> None:
    app.command("demo", help=HELP)(demo)


def demo(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of images.")],
    output: Annotated[
        Path,
        typer.Option("--output", metavar="FOLDER", help="Archive, restored files and the picture go here."),
    ] = Path("demo-out"),
    quality: Annotated[
        float, typer.Option("--quality", min=0, max=100, metavar="0..100", help="As of 'recbatch compress'.")
    ] = 50,
    model: options.LossyModel = options.DEFAULT_LOSSY_MODEL,
    coder: options.Coder = options.DEFAULT_CODER,
    executor: Annotated[Executor, typer.Option("--executor", help="How workers run.")] = Executor.ray,
    debug: options.Debug = False,
) -> None:
    import recbatch

    empty(output)
    url, restored = output / "photographs.rba", output / "restored"
    say = typer.echo
    say(f"1. Archive {source} as {url}, lossy, quality {quality:g}")
    with Progress("compress") as progress:
        report = recbatch.compress(
            source,
            url,
            quality=quality,
            model=model,
            coder=coder,
            executor=executor.value,
            progress=progress.event,
        )
    tally = progress.tally
    start_up_s = (tally.working_since_s or tally.started_s) - tally.started_s
    say("2. Verify it: log, digests, every stream decoded")
    checked = recbatch.verify(url, level="pixels")
    for line in [*map(finding_line, checked.findings), summary(checked)]:
        say(f"   {line}")
    say(f"3. Restore it to {restored}")
    with Progress("restore") as progress:
        back = recbatch.restore(url, restored, format="png", progress=progress.event)
    say(f"   {count(back.images, 'image')} in {duration_text(back.seconds)}")
    say("")
    archive = recbatch.open(url)
    records = sorted(archive.records(archive.light_columns), key=lambda record: record.key)
    say(table(records))
    say("")
    say(
        "over KL: bits of indices and symbols against the relative entropy of posteriors from priors. Below 0 the"
    )
    say(
        "image's prior was calibrated, or samples lie nearer to it; docs/benchmarks.md has the rate at equal PSNR."
    )
    say("")
    say(speed(report, start_up_s))
    picture = output / "comparison.png"
    if compare(archive, records, source, picture):
        say(f"Originals beside restorations: {picture}")
    say("")
    say(f"4. Archive {source} again, lossless, restore it and compare")
    lossless = show_lossless(source, output, executor=executor.value)
    raise typer.Exit(max(report.exit_status, checked.exit_status, back.exit_status, lossless))


def empty(output: Path) -> None:
    """Make the folder, or empty it where an earlier demo made it. Raises OutputTaken."""
    if output.exists() and not (output / MARKER).exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputTaken(str(output))
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / MARKER).write_text("made by recbatch demo, which empties this folder when it runs again\n")


def coded_bits(record: Record) -> int:
    """Bits spent on indices and their symbols: the stream without header, digests, metadata and lengths."""
    return 8 * (record.stream_size or 0) - (record.side_bits or 0)


def overhead(records: Sequence[Record]) -> float | None:
    """Share by which the coded bits exceed the relative entropy, in percent."""
    lossy = [record for record in records if record.codec == "lossy" and record.kl_bits]
    if not lossy:
        return None
    return 100 * (sum(map(coded_bits, lossy)) / sum(record.kl_bits or 0 for record in lossy) - 1)


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def table(records: Sequence[Record]) -> str:
    """A row for each image and one for all."""
    good = [record for record in records if record.status == "ok"]
    rows = [["image", "pixels", "bytes in", "bytes out", "bpp", "PSNR dB", "MS-SSIM", "over KL %", "codec"]]
    for record in records:
        if record.status != "ok":
            rows.append([record.key, "-", "-", "-", "-", "-", "-", "-", f"quarantined: {record.error_code}"])
            continue
        rows.append([record.key, f"{record.width}x{record.height}", *figures([record]), record.codec or "-"])
    rows.append([f"all {len(good)}", f"{sum(map(pixels, good)) / 1e6:.2f} MP", *figures(good), ""])
    return columns(rows, right=range(1, 8))


def speed(report: Report, start_up_s: float) -> str:
    line = f"Archiving took {duration_text(report.seconds)}, {report.megapixels_per_second:.2f} MP/s."
    work_s = report.seconds - start_up_s
    if work_s < 1:  # the first worker was done before the last was ready: there is no time in between
        return line
    rate = report.megapixels / work_s
    return (
        f"{line} Starting workers and loading the model took {duration_text(start_up_s)} of it; "
        f"after that {rate:.2f} MP/s."
    )


def pixels(record: Record) -> int:
    return (record.width or 0) * (record.height or 0)


def figures(records: Sequence[Record]) -> list[str]:
    bytes_in = sum(record.source_size or 0 for record in records)
    bytes_out = sum(record.stream_size or 0 for record in records)
    area = sum(map(pixels, records))
    return [
        bytes_text(bytes_in),
        bytes_text(bytes_out),
        number(8 * bytes_out / area if area else None, 3),
        number(mean([record.psnr for record in records])),
        number(mean([record.ms_ssim for record in records]), 4),
        number(overhead(records), 1),
    ]


def compare(archive: recbatch.Archive, records: Sequence[Record], source: Path, path: Path) -> bool:
    """Write the picture; False where no image is lossy."""
    from recbatch import api
    from recbatch.cli.comparison import Pair, draw_comparison

    lossy = [record for record in records if record.status == "ok" and record.codec == "lossy"]
    if not lossy:
        return False
    pairs = []
    for record in lossy:
        bpp = 8 * (record.stream_size or 0) / pixels(record)
        pairs.append(
            Pair(
                name=record.key,
                original=api.read_image((source / record.key).read_bytes()),
                restored=archive.image(record.key),
                original_label=bytes_text(record.source_size or 0),
                restored_label=f"{bytes_text(record.stream_size or 0)}, {bpp:.2f} bpp, {number(record.psnr)} dB",
            )
        )
    total = sum(record.stream_size or 0 for record in lossy)
    draw_comparison(
        pairs,
        title="Originals and their restorations by recbatch",
        subtitle=f"Centres at true size; {count(len(lossy), 'photograph')}, {bytes_text(total)} in all.",
    ).save(path)
    return True
