"""Progress of long work, on standard error: a bar on a terminal, else a plain line every 30 seconds.

With ``--json`` the events themselves go to standard output, one object a line; ``--quiet`` shows nothing.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from recbatch.cli.text import bytes_text, count, duration_text, plain, print_json

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from recbatch.engine import Report
    from recbatch.engine.events import Event

LINE_EVERY_S = 30.0
WARNINGS_SHOWN = 10  # quarantined images named one by one; the archive has all of them as rows


@dataclass(slots=True)
class Tally:
    """What the events so far add up to."""

    total: int = 0
    known: int = 0
    done: int = 0
    quarantined: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    started_s: float = field(default_factory=time.monotonic)
    working_since_s: float | None = None  # rates begin here: loading a model is no work on images

    def update(self, event: Event, *, now_s: float) -> None:
        from recbatch.engine import events

        match event:
            case events.Planned():
                self.total, self.known = event.images, event.known
            case events.WorkersReady():
                self.working_since_s = now_s
            case events.ShardDone():
                self.done += event.images + event.quarantined
                self.quarantined += event.quarantined
                self.bytes_in += event.bytes_in
                self.bytes_out += event.bytes_out
            case _:
                pass

    def rate(self, now_s: float) -> float:
        """Images a second since the workers were ready."""
        since = self.started_s if self.working_since_s is None else self.working_since_s
        return self.done / max(now_s - since, 1e-6)

    def eta_s(self, now_s: float) -> float | None:
        return (self.total - self.done) / self.rate(now_s) if self.done else None

    @property
    def saved(self) -> int:
        return self.bytes_in - self.bytes_out

    def facts(self, now_s: float, *, restoring: bool) -> list[str]:
        """Rate, time left and bytes saved, where they are known yet."""
        if not self.done:
            return ["starting"]
        found = [f"{self.rate(now_s):.1f} images/s"]
        eta_s = self.eta_s(now_s)
        if eta_s is not None and self.done < self.total:
            found.append(f"{duration_text(eta_s)} left")
        if restoring:
            found.append(f"{bytes_text(self.bytes_out)} written")
        elif self.bytes_in:
            found.append(f"{bytes_text(self.saved)} saved ({self.saved / self.bytes_in:.0%})")
        if self.quarantined:
            found.append(f"{self.quarantined:,} quarantined")
        return found


class Progress:
    """Shows the events of one job; use as a context manager and pass ``event`` as the progress callback."""

    def __init__(self, verb: str, *, as_json: bool = False, quiet: bool = False) -> None:
        self.verb = verb
        self.tally = Tally()
        self.as_json, self.quiet = as_json, quiet
        self.warnings = 0
        self._bar: tuple[RichProgress, TaskID] | None = None
        self._stopped = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self.as_json or self.quiet:
            return self
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = start_bar(self.verb)
        else:
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._bar is not None:
            self._bar[0].stop()
        if self._ticker is not None:
            self._ticker.join()

    def event(self, event: Event) -> None:
        from recbatch.engine import events

        now_s = time.monotonic()
        self.tally.update(event, now_s=now_s)
        if self.as_json:
            if not isinstance(event, events.Finished):  # the report follows as the last line
                print_json({"event": event_name(event), **plain(event)})
            return
        if self.quiet:
            return
        match event:
            case events.Planned():
                self._say(planned_line(event))
            case events.ImageQuarantined():
                self.warnings += 1
                if self.warnings <= WARNINGS_SHOWN:
                    self._say(f"quarantined [{event.code}]: {event.error}")
                elif self.warnings == WARNINGS_SHOWN + 1:
                    self._say("more images are quarantined; they are not listed here")
            case events.ActorDied():
                self._say(f"a worker was lost ({event.reason}); shard {event.shard}: {event.action}")
            case events.Stopping():
                self._say(f"{event.signal}: finishing what is under way and committing it ...")
            case _:
                pass
        if self._bar is not None:
            bar, task = self._bar
            facts = ", ".join(self.tally.facts(now_s, restoring=self.verb == "restore"))
            bar.update(task, completed=self.tally.done, total=self.tally.total or None, facts=facts)

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar[0].console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            typer.echo(line, err=True)

    def _tick(self) -> None:
        while not self._stopped.wait(LINE_EVERY_S):
            typer.echo(self.line(time.monotonic()), err=True)

    def line(self, now_s: float) -> str:
        tally = self.tally
        facts = tally.facts(now_s, restoring=self.verb == "restore")
        return ", ".join([f"{self.verb}: {tally.done:,} of {count(tally.total, 'image')}", *facts])


def start_bar(verb: str) -> tuple[RichProgress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        console=Console(stderr=True),
        transient=True,
        expand=True,
    )
    bar.start()
    return bar, bar.add_task(verb, total=None, facts="starting")


def event_name(event: Any) -> str:
    """``ShardDone`` is ``shard-done`` in JSON."""
    name = type(event).__name__
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


def planned_line(event: Any) -> str:
    parts = [f"{count(event.images, 'image')}, {bytes_text(event.bytes)}, in {count(event.shards, 'shard')}"]
    if event.known:
        parts.append(f"{event.known:,} archived already")
    if event.skipped:
        parts.append(f"{count(event.skipped, 'other file')} skipped")
    return "; ".join(parts)


def report_text(report: Report, *, archive: str, as_json: bool = False, quiet: bool = False) -> None:
    """The outcome of a job, on standard output."""
    if as_json:
        print_json({"event": "report", "schema": 1, **report.to_dict()})
        return
    problems = [f"warning: {problem}" for problem in report.problems]
    for line in problems:
        typer.echo(line, err=True)
    if not quiet:
        for line in report_lines(report, archive=archive):
            typer.echo(line)
    if report.quarantined and not quiet:
        typer.echo(remedy_line(report, archive), err=True)


def report_lines(report: Report, *, archive: str) -> list[str]:
    if report.dry_run:
        return [
            f"would archive {count(report.images, 'image')} ({bytes_text(report.bytes_in)}); nothing was written"
        ]
    verb = "restored" if report.kind == "restore" else "archived"
    if not report.images and not report.quarantined and report.kind != "restore" and not report.interrupted:
        return [f"nothing to do: {archive} has all {count(report.known, 'image')}"]
    line = f"{verb} {count(report.images, 'image')} in {duration_text(report.seconds)}"
    line += f" ({report.megapixels_per_second:.2f} MP/s)"
    lines = [line]
    if report.images and report.kind != "restore":
        ratio = report.bytes_out / max(report.bytes_in, 1)
        bpp = f", {8 * report.bytes_out / report.pixels:.3f} bpp" if report.pixels else ""
        lines.append(
            f"{bytes_text(report.bytes_in)} in, {bytes_text(report.bytes_out)} out ({ratio:.0%}{bpp})"
        )
    if report.known:
        lines.append(f"{count(report.known, 'image')} archived before")
    if report.deaths:
        lines.append(f"{count(report.deaths, 'worker')} lost, {count(report.retries, 'shard')} done again")
    if report.interrupted:
        lines.append("interrupted: run the same command again to go on")
    return lines


def remedy_line(report: Report, archive: str) -> str:
    if report.kind == "restore":
        first = "; ".join(f"{key} [{code}]" for key, code, _ in report.failures[:3])
        return f"{count(report.quarantined, 'image')} could not be restored: {first}"
    return (
        f"{count(report.quarantined, 'image')} quarantined: see them with "
        f"recbatch ls {archive} --long --where \"status = 'quarantined'\""
    )
