"""``recbatch recompress``."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from recbatch.cli import logs, options
from recbatch.cli.compress import Executor, KeepOriginals
from recbatch.cli.display import WARNINGS_SHOWN, Progress, Tally
from recbatch.cli.logs import LogFormat
from recbatch.cli.text import bytes_text, count, duration_text, plain, print_json

if TYPE_CHECKING:
    from recbatch.engine import Report
    from recbatch.engine.events import Event, ImageQuarantined

HELP = """Code images of an archive again with new settings, from their sources.

Settings are those of 'recbatch compress': without --original or a lossy option every pixel
comes back. Each new row takes its old one's place in one commit: an image is absent at no
version, and versions before can be read until 'recbatch vacuum'. A row whose source is gone,
is another file now, or can't be coded stays as it is and is named (exit status 1). Rows that
have the settings are left alone, so the same command goes on after any interruption.

\b
Examples:
  recbatch recompress photos.rba --quality 40 --where "key like '2019/%'"
  recbatch recompress photos.rba --effort 7 --sources-moved /old/photos=s3://bucket/photos
  recbatch recompress photos.rba --quality 60 --from-archive --where "codec = 'lossless'"
"""


class Changed(StrEnum):
    leave = "leave"
    take = "take"


class RowTally(Tally):
    """What can't be coded again is no quarantined row: the old one stays."""

    def facts(self, now_s: float, *, restoring: bool) -> list[str]:
        found = super().facts(now_s, restoring=restoring)
        return [fact.replace("quarantined", "kept as before") for fact in found]


class RecompressProgress(Progress):
    """The same for the events."""

    def __init__(
        self, verb: str, *, as_json: bool = False, quiet: bool = False, log_format: LogFormat | None = None
    ) -> None:
        super().__init__(verb, as_json=as_json, quiet=quiet, log_format=log_format)
        self.tally = RowTally()

    def event(self, event: Event) -> None:
        from recbatch.engine import events

        if isinstance(event, events.ShardDone) and self.as_json:
            self.tally.update(event, now_s=time.monotonic())
            facts = plain(event)
            print_json({"event": "shard-done", **facts, "quarantined": 0, "kept": facts["quarantined"]})
            return
        if not isinstance(event, events.ImageQuarantined):
            super().event(event)
            return
        if self.as_json:
            print_json({"event": "row-kept", **plain(event)})
        if logs.chosen() is LogFormat.json:
            self.screen.record("row-kept", "warning", **plain(event))
        elif not self.as_json or logs.chosen() is not None:
            self.kept(event)

    def say(self, event: Event) -> None:
        from recbatch.engine import events

        if not isinstance(event, events.Planned):
            super().say(event)
            return
        parts = [
            f"{count(event.images, 'row')}, {bytes_text(event.bytes)}, in {count(event.shards, 'shard')}"
        ]
        if event.known:
            parts.append(f"{event.known:,} with these settings left alone")
        if event.skipped:
            parts.append(f"{count(event.skipped, 'quarantined row')} skipped")
        self.screen.say("; ".join(parts))
        self.screen.draw()

    def kept(self, event: ImageQuarantined) -> None:
        self.warnings += 1
        if self.warnings <= WARNINGS_SHOWN:
            name = "" if event.error.startswith(event.key) else f"{event.key}: "
            self.screen.say(f"stays as it is [{event.code}] {name}{event.error}")
        elif self.warnings == WARNINGS_SHOWN + 1:
            self.screen.say("more rows stay as they are; --json names all of them")


def register(app: typer.Typer) -> None:
    app.command("recompress", help=HELP)(recompress)


def recompress(
    archive: options.ArchiveUrl,
    where: options.Where = None,
    lossless: options.Lossless = False,
    quality: options.Quality = None,
    bpp: options.Bpp = None,
    psnr: options.Psnr = None,
    max_bytes: options.MaxBytes = None,
    min_psnr: options.MinPsnr = None,
    auto: options.Auto = False,
    original: Annotated[
        bool, typer.Option("--original", help="Keep the files' own bytes instead of coding their pixels.")
    ] = False,
    preview: options.Preview = True,
    exact_files: Annotated[
        bool,
        typer.Option(
            "--exact-files", help="Lossless: the very source files come back, or are kept as they are."
        ),
    ] = False,
    model: options.Model = None,
    coder: options.Coder = options.DEFAULT_CODER,
    effort: options.Effort = options.DEFAULT_EFFORT,
    keep_originals: Annotated[
        KeepOriginals,
        typer.Option("--keep-originals", help="Store a file's own bytes instead of its stream: when?"),
    ] = KeepOriginals.smaller,
    max_pixels: options.MaxPixels = options.DEFAULT_MAX_PIXELS,
    sources_moved: Annotated[
        list[str] | None,
        typer.Option(
            "--sources-moved",
            metavar="FROM=TO",
            help="Sources that lay below FROM lie below TO now; may be repeated.",
        ),
    ] = None,
    changed: Annotated[
        Changed,
        typer.Option("--changed", help="A source that is another file now: leave its row, or take the file."),
    ] = Changed.leave,
    from_archive: Annotated[
        bool,
        typer.Option(
            "--from-archive", help="Take images from the archive itself: files it gives back, exact pixels."
        ),
    ] = False,
    lossy_again: Annotated[
        bool,
        typer.Option("--lossy-again", help="With --from-archive: lossy rows too, which lose more each time."),
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="Rows that have these settings already, too, such as damaged ones."),
    ] = False,
    workers: options.Workers = None,
    gpus_per_worker: Annotated[
        float,
        typer.Option("--gpus-per-worker", min=0, metavar="N", help="GPUs per worker; fractions share one."),
    ] = 0,
    executor: Annotated[
        Executor,
        typer.Option(
            "--executor",
            help="How workers run: on Ray, as plain processes, or inline (unprotected from crashes).",
        ),
    ] = Executor.ray,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Count, and look which sources are gone or changed; write nothing."),
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    log_format: options.LogFormat = None,
    debug: options.Debug = False,
) -> None:
    import recbatch

    with RecompressProgress("recompress", as_json=as_json, quiet=quiet, log_format=log_format) as progress:
        report = recbatch.recompress(
            archive,
            where=where,
            lossless=lossless,
            quality=quality,
            bpp=bpp,
            psnr=psnr,
            max_bytes=max_bytes,
            min_psnr=min_psnr,
            auto=auto,
            original=original,
            preview=preview,
            exact_files=exact_files,
            model=model,
            coder=coder,
            effort=effort,
            keep_originals=keep_originals.value,
            max_pixels=max_pixels,
            sources_moved=sources_moved or (),
            changed=changed.value,
            from_archive=from_archive,
            lossy_again=lossy_again,
            again=again,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            dry_run=dry_run,
            executor=executor.value,
            progress=progress.event,
        )
    if as_json:
        print_json({"event": "report", "schema": 1, **report.to_dict()})
    else:
        for problem in report.problems:
            logs.say(f"warning: {problem}", level="warning")
        if not quiet:
            for line in report_lines(report, archive=archive):
                typer.echo(line)
    raise typer.Exit(report.exit_status)


def report_lines(report: Report, *, archive: str) -> list[str]:
    if report.dry_run:
        line = f"would code {count(report.images, 'image')} again ({bytes_text(report.bytes_in)} to read)"
        lines = [f"{line}; nothing was written"]
    elif not report.images and not report.kept and not report.interrupted:
        lines = [f"nothing to do in {archive}"]
    else:
        line = f"{count(report.images, 'image')} coded again in {duration_text(report.seconds)}"
        lines = [f"{line} ({report.megapixels_per_second:.2f} MP/s)"]
        if report.images:
            ratio = report.bytes_out / max(report.bytes_in, 1)
            sizes = f"sources of {bytes_text(report.bytes_in)}, now {bytes_text(report.bytes_out)}"
            bpp = f", {8 * report.bytes_out / report.pixels:.3f} bpp" if report.pixels else ""
            lines.append(f"{sizes} ({ratio:.0%}{bpp})")
    if report.known:
        lines.append(f"{count(report.known, 'row')} with these settings left alone")
    if report.kept and not report.dry_run:
        lines.append(f"kept as before, not coded again: {count(report.kept, 'row')}")
    if report.skipped:
        lines.append(f"{count(report.skipped, 'quarantined row')} skipped: 'recbatch compress' tries those")
    if report.deaths:
        lines.append(f"{count(report.deaths, 'worker')} lost, {count(report.retries, 'shard')} done again")
    if report.interrupted:
        lines.append("interrupted: run the same command again to go on")
    return lines
