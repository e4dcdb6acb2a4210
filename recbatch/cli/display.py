"""Progress of long work, on standard error: a bar on a terminal, else a plain line every 30 seconds.

``--log-format`` has lines on a terminal too, with times, or as JSON. With ``--json`` a job's events themselves go to
standard output, one object a line; ``--quiet`` shows nothing.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from recbatch.cli import logs
from recbatch.cli.logs import LogFormat
from recbatch.cli.text import bytes_text, count, duration_text, plain, print_json

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from recbatch.archive.verify import Checked
    from recbatch.engine.events import (
        Committed,
        Event,
        ImageQuarantined,
        Planned,
        Stopping,
        WaitingForWorkers,
        Working,
    )

LINE_EVERY_S = 30.0
WARNINGS_SHOWN = 10  # quarantined images named one by one; the archive has all of them as rows


class Screen:
    """The place where progress is shown; ``status`` gives done, total and facts whenever it is drawn."""

    def __init__(
        self, verb: str, status: Callable[[], tuple[int, int, Sequence[str]]], *, shown: bool = True
    ) -> None:
        self._verb, self._status, self._shown = verb, status, shown
        self._bar: tuple[RichProgress, TaskID] | None = None
        self._stopped = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Screen:
        if not self._shown:
            return self
        if logs.chosen() is None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = start_bar(self._verb)
        else:
            here = copy_context()  # a thread has a context of its own, which would not know the log's format
            self._ticker = threading.Thread(target=here.run, args=(self._tick,), name="progress", daemon=True)
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

    @property
    def has_bar(self) -> bool:
        return self._bar is not None

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar[0].console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif self._shown:
            logs.say(line)

    def record(self, event: str, level: str, **fields: Any) -> None:
        """The same for a log collector."""
        if self._shown:
            logs.say("", event=event, level=level, **fields)

    def draw(self) -> None:
        """Show the present status, where there is a bar."""
        if self._bar is not None:
            bar, task = self._bar
            done, total, facts = self._status()
            bar.update(task, completed=done, total=total or None, facts=", ".join(facts))

    def line(self, state: str = "") -> str:
        done, total, facts = self._status()
        state = f"{state}, " if state else ""
        return ", ".join([f"{self._verb}: {state}{done:,} of {count(total, 'image')}", *facts])

    def _tick(self) -> None:
        while not self._stopped.wait(LINE_EVERY_S):
            self.tell()

    def tell(self, state: str = "") -> None:
        """The present status as a line."""
        if logs.chosen() is LogFormat.json:
            done, total, facts = self._status()
            more = {"state": state} if state else {}
            self.record(
                "progress", "info", verb=self._verb, done=done, total=total, facts=list(facts), **more
            )
        else:
            logs.say(self.line(state))


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


@dataclass(slots=True)
class Tally:
    """What the events so far add up to."""

    total: int = 0
    total_bytes: int = 0
    known: int = 0
    done: int = 0
    quarantined: int = 0
    over: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    underway: Working | None = None  # what is done of unfinished shards
    started_s: float = field(default_factory=time.monotonic)
    working_since_s: float | None = None  # rates begin here: loading a model is no work on images

    def update(self, event: Event, *, now_s: float) -> None:
        from recbatch.engine import events

        match event:
            case events.Planned():
                self.total, self.total_bytes, self.known = event.images, event.bytes, event.known
            case events.WorkersReady():
                self.working_since_s = now_s
            case events.Working():
                self.underway = event
            case events.Finished():
                self.over = True
            case events.ShardDone():
                self.done += event.images + event.quarantined
                self.quarantined += event.quarantined
                self.bytes_in += event.bytes_in
                self.bytes_out += event.bytes_out
            case _:
                pass

    @property
    def images(self) -> int:
        """Done, in finished shards and in others."""
        return self.done + (self.underway.images if self.underway else 0)

    def rate(self, now_s: float) -> float:
        """Images a second since the workers were ready."""
        return self.images / self._seconds(now_s)

    def _seconds(self, now_s: float) -> float:
        since = self.started_s if self.working_since_s is None else self.working_since_s
        return max(now_s - since, 1e-6)

    def eta_s(self, now_s: float) -> float | None:
        """Seconds left, by the bytes where these are known: images may be of very different sizes."""
        if not self.images:
            return None
        done, total = float(self.images), float(self.total)
        if self.total_bytes and self.bytes[0]:
            total = float(self.total_bytes)
            done = self.bytes[0] + self.quarantined * self.total_bytes / max(self.total, 1)
        return max(0.0, total - done) * self._seconds(now_s) / done

    @property
    def bytes(self) -> tuple[int, int]:
        """In and out, of finished shards and of others."""
        parts = (self.underway.bytes_in, self.underway.bytes_out) if self.underway else (0, 0)
        return self.bytes_in + parts[0], self.bytes_out + parts[1]

    def facts(self, now_s: float, *, restoring: bool) -> list[str]:
        """Rate, time left and bytes saved, where they are known yet."""
        if not self.images:
            return ["starting"]
        bytes_in, bytes_out = self.bytes
        found = [f"{self.rate(now_s):.1f} images/s"]
        eta_s = self.eta_s(now_s)
        if eta_s is not None and self.images < self.total and not self.over:
            found.append(f"{duration_text(eta_s)} left")
        if restoring and bytes_out:
            found.append(f"{bytes_text(bytes_out)} written")
        elif not restoring and bytes_in and bytes_out:
            found.append(f"{bytes_text(bytes_in - bytes_out)} saved ({1 - bytes_out / bytes_in:.0%})")
        if self.quarantined:
            found.append(f"{self.quarantined:,} quarantined")
        return found


class Progress:
    """Shows the events of one job; use as a context manager and pass ``event`` as the progress callback."""

    def __init__(
        self, verb: str, *, as_json: bool = False, quiet: bool = False, log_format: LogFormat | None = None
    ) -> None:
        if log_format is not None:
            logs.use(log_format)
        self.verb, self.as_json, self.quiet = verb, as_json, quiet
        self.tally = Tally()
        self.last_commit_s = float("-inf")
        self.warnings = 0
        self.screen = Screen(verb, self.status, shown=is_shown(as_json, quiet))

    def __enter__(self) -> Progress:
        self.screen.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.screen.__exit__(kind, error, trace)

    def status(self) -> tuple[int, int, Sequence[str]]:
        facts = self.tally.facts(time.monotonic(), restoring=self.verb == "restore")
        return self.tally.images, self.tally.total, facts

    def event(self, event: Event) -> None:
        from recbatch.engine import events

        self.tally.update(event, now_s=time.monotonic())
        if isinstance(event, events.Working):
            self.screen.draw()
            return
        if self.as_json and not isinstance(event, events.Finished):  # the report follows as the last line
            print_json({"event": event_name(event), **plain(event)})
        if logs.chosen() is LogFormat.json:
            self.record(event)
        elif not self.as_json or logs.chosen() is not None:
            self.say(event)

    def record(self, event: Event) -> None:
        """An event for a log collector; shards are left to the sums that ``progress`` has every 30 seconds."""
        from recbatch.engine import events

        if isinstance(event, events.Finished):
            facts = {name: value for name, value in event.report.to_dict().items() if name != "failures"}
            self.screen.record("finished", "info", **facts)
        elif not isinstance(event, events.ShardDone):
            usual = events.Planned, events.WorkersReady, events.Committed
            level = "info" if isinstance(event, usual) else "warning"
            self.screen.record(event_name(event), level, **plain(event))

    def say(self, event: Event) -> None:
        """An event for people, where it is worth a line."""
        from recbatch.engine import events

        match event:
            case events.Planned():
                self.screen.say(planned_line(event, self.verb))
            case events.ImageQuarantined():
                self.warnings += 1
                if self.warnings <= WARNINGS_SHOWN:
                    self.screen.say(quarantined_line(event))
                elif self.warnings == WARNINGS_SHOWN + 1:
                    self.screen.say("more images are quarantined; they are not listed here")
            case events.ActorDied():
                self.screen.say(f"shard {event.shard} failed ({event.reason}): {event.action}")
            case events.WaitingForWorkers():
                self.screen.say(waiting_line(event))
            case events.NodeLeft():
                self.screen.say(f"node {event.node[:12]} is left: {event.reason}")
            case events.Committed() if not self.screen.has_bar and self.is_rare():
                self.screen.say(committed_line(event))
            case events.Finished() if self.tally.done and not self.screen.has_bar and not self.quiet:
                self.screen.tell("stopped" if event.report.interrupted else "finished")
            case events.Stopping():
                self.screen.say(stopping_line(event))
            case _:
                pass
        self.screen.draw()

    def is_rare(self) -> bool:
        """Whether no commit had a line for a while."""
        now_s = time.monotonic()
        if now_s - self.last_commit_s < LINE_EVERY_S:
            return False
        self.last_commit_s = now_s
        return True


class VerifyProgress:
    """Shows how far a verification is; used as ``Progress`` is."""

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, log_format: LogFormat | None = None
    ) -> None:
        if log_format is not None:
            logs.use(log_format)
        self.checked: Checked | None = None
        self.screen = Screen("verify", self.status, shown=is_shown(as_json, quiet))

    def __enter__(self) -> VerifyProgress:
        self.screen.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.screen.__exit__(kind, error, trace)

    def status(self) -> tuple[int, int, Sequence[str]]:
        if self.checked is None:
            return 0, 0, ["starting"]
        facts = [f"{bytes_text(self.checked.bytes)} read"]
        if self.checked.findings:
            facts.append(f"{self.checked.findings:,} wrong")
        return self.checked.rows, self.checked.rows_total, facts

    def event(self, checked: Checked) -> None:
        self.checked = checked
        self.screen.draw()


def is_shown(as_json: bool, quiet: bool) -> bool:
    """Events on standard output stand for lines on standard error, unless a log was asked for as well."""
    return not quiet and (not as_json or logs.chosen() is not None)


def event_name(event: Any) -> str:
    """``ShardDone`` is ``shard-done`` in JSON."""
    name = type(event).__name__
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


def quarantined_line(event: ImageQuarantined) -> str:
    name = "" if event.error.startswith(event.key) else f"{event.key}: "  # most sentences begin with it
    return f"quarantined [{event.code}] {name}{event.error}"


def waiting_line(event: WaitingForWorkers) -> str:
    return (
        f"waiting for a place for {count(event.wanted, 'worker')}: {duration_text(event.seconds)} by now, "
        f"{duration_text(event.patience_s)} at most"
    )


def committed_line(event: Committed) -> str:
    return (
        f"committed {count(event.images, 'image')} in {count(event.shards, 'shard')}: version {event.version}, "
        f"in {duration_text(event.seconds)}"
    )


def stopping_line(event: Stopping) -> str:
    if not event.patience_s:
        return f"{event.signal}: stopping ..."
    wait = duration_text(event.patience_s)
    return f"{event.signal}: taking what workers have done, for up to {wait}; once more ends it at once ..."


def planned_line(event: Planned, verb: str) -> str:
    restored = verb == "restore"
    parts = [f"{count(event.images, 'image')}, {bytes_text(event.bytes)}, in {count(event.shards, 'shard')}"]
    if event.known:
        parts.append(f"{event.known:,} {'restored' if restored else 'archived'} already")
    if event.skipped:
        parts.append(f"{count(event.skipped, 'quarantined row' if restored else 'other file')} skipped")
    return "; ".join(parts)
