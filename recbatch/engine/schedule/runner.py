"""Runs what is due: one run of a tick, one run at a time, whoever asks and from how many machines.

The order is what makes it so. See what is due; take the lease; look whether that still holds; put the tick on record
under the condition that nobody has; run; write the outcome under the condition that the tick is still ours; note the
ticks that fell due meanwhile as skipped; give the lease back. Whoever finds a tick ``running`` and can take its
lease knows that its runner is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, TypeAlias

from recbatch.engine.lease import Lease, keeping, new_owner
from recbatch.engine.schedule.book import Book, Entry
from recbatch.engine.schedule.decide import Due, decide
from recbatch.engine.schedule.errors import RunNotStarted, WrongClock
from recbatch.engine.schedule.job import INTERRUPTED, CommandJob, Job, Outcome
from recbatch.engine.schedule.spec import Schedule, State, Tick, tick_name
from recbatch.engine.schedule.ticks import COUNTED
from recbatch.errors import RecbatchError

AHEAD_S = 300.0  # that a clock may be ahead of the store's
_INTERRUPTED = (INTERRUPTED, 137, 143)  # by a signal: asked to stop, or killed

Launch: TypeAlias = Callable[[Schedule, Tick], Job]
Say: TypeAlias = Callable[[str], None]


class Clock(Protocol):
    """The time of day. Tests have one that leaps."""

    def now(self) -> datetime: ...

    def wait(self, seconds: float) -> None:
        """Return after so long, or earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a look at one schedule led to."""

    schedule: str
    tick: Tick | None = None  # that was run or noted
    waits_for: str = ""  # what else is running


def local_launch(submit: str | None = None, *, shared_paths: bool = False) -> Launch:
    """Jobs as child processes; with an address, on the Ray cluster there, whose nodes may see this machine's paths."""

    def launch(schedule: Schedule, tick: Tick) -> Job:
        run_id = f"recbatch-{schedule.name}-{tick_name(tick.tick)}"
        return CommandJob(schedule.command, run_id=run_id, submit=submit, shared_paths=shared_paths)

    return launch


class Runner:
    """One process that runs schedules; it has at most one job under way."""

    def __init__(self, book: Book, *, clock: Clock, launch: Launch, say: Say) -> None:
        self._book, self._clock, self._launch, self._say = book, clock, launch, say
        self._owner = new_owner()
        self._job: Job | None = None
        self._stopping = False

    @property
    def stopping(self) -> bool:
        return self._stopping

    @property
    def busy(self) -> bool:
        return self._job is not None

    def stop(self) -> None:
        """Begin nothing more, and ask the job under way to end. For signal handlers."""
        self._stopping = True
        if self._job is not None:
            self._job.stop()

    def run_due(self, names: Sequence[str]) -> list[Step]:
        """Look at each schedule once, in order, and run what is due.

        Raises StoreError where the archive can't be reached, WrongClock, RunNotStarted, UnknownSchedule,
        DamagedSchedule.
        """
        steps = []
        for name in names:
            if self._stopping:
                break
            schedule, store_now = self._book.schedule_at(name)
            ahead_s = (self._clock.now() - store_now).total_seconds() if store_now is not None else 0.0
            if ahead_s > AHEAD_S:  # its ticks would stand on record, and no others run until they really come
                raise WrongClock(self._book.archive, round(ahead_s))
            steps.append(self.step(schedule))
        return steps

    def step(self, schedule: Schedule) -> Step:
        """Look at one schedule and do what is due."""
        newest, run = self._book.recent(schedule.name)
        due = decide(schedule, newest, run.tick if run else None, self._clock.now())
        if due.tick is None:
            return Step(schedule=schedule.name)
        if due.action == "skip":
            return self._skip(schedule, due, "missed")
        run_id = f"{schedule.name}/{tick_name(due.tick)}"
        lease = self._book.lease(schedule, owner=self._owner, purpose=run_id)
        if not lease.take():
            return self._give_way(schedule, due, run_id, lease.holder.purpose)
        try:
            newest, now_run = self._book.recent(schedule.name)  # another one may have been here just now
            if due.action == "run" and not (
                newest is None or newest.tick < due.tick or newest.during == run_id
            ):
                return Step(schedule=schedule.name)
            if due.action == "again" and (now_run is None or run is None or now_run.etag != run.etag):
                return Step(schedule=schedule.name)
            return self._run(schedule, due, now_run, lease)
        finally:
            with suppress(RecbatchError):  # it expires by itself
                lease.release()

    # --- steps of a run

    def _run(self, schedule: Schedule, due: Due, run: Entry | None, lease: Lease) -> Step:
        assert due.tick is not None
        started = self._clock.now()
        tick = Tick(
            schedule=schedule.name,
            tick=due.tick,
            state="running",
            attempt=1,
            passed_over=due.passed_over,
            owner=self._owner,
            lease_epoch=lease.epoch,
            started=started,
        )
        etag = None
        if due.action == "again" and run is not None:
            earlier = run.tick
            tick = replace(
                tick, attempt=earlier.attempt + 1, spared=earlier.spared, passed_over=earlier.passed_over
            )
            etag = run.etag
        elif run is not None and run.tick.state == "running":
            lost = replace(run.tick, state="lost", reason="its runner died; a later tick was due")
            self._book.claim(lost, etag=run.etag)
        entry = self._book.claim(tick, etag=etag)
        if entry is None:
            return Step(schedule=schedule.name)
        self._say_start(schedule, tick)
        try:
            outcome, was_lost = self._work(schedule, tick, lease)
        except (RunNotStarted, KeyboardInterrupt) as error:
            self._leave(entry, error)
            raise
        entry = self._finish(entry, outcome, was_lost)
        self._note_overlap(schedule, entry.tick)
        with suppress(RecbatchError):  # who may not delete here keeps them all
            self._book.prune(schedule.name)
        return Step(schedule=schedule.name, tick=entry.tick)

    def _work(self, schedule: Schedule, tick: Tick, lease: Lease) -> tuple[Outcome, bool]:
        was_lost = False
        job = self._launch(schedule, tick)
        self._job = job

        def lost() -> None:
            nonlocal was_lost
            was_lost = True
            self._say(f"{tick.id}: the lease is lost; the run is asked to stop")
            job.stop()

        try:
            if self._stopping:  # the signal came before there was a job to ask
                job.stop()
            with keeping(lease, lost):
                outcome = job.wait()
            return outcome, was_lost
        except KeyboardInterrupt:  # the second Ctrl-C: the job, too, is to leave everything as it is
            job.stop()
            raise
        finally:
            self._job = None

    def _leave(self, entry: Entry, error: RunNotStarted | KeyboardInterrupt) -> None:
        """Note that a run did not begin, or is left at once: the tick is taken up by the next call."""
        never = error.problem if isinstance(error, RunNotStarted) else None
        tick = replace(
            entry.tick,
            state="interrupted",
            exit_status=INTERRUPTED if never is None else None,
            finished=self._clock.now(),
            reason="it was told twice to stop" if never is None else f"it could not be started: {never}",
            spared=entry.tick.spared + 1,
        )
        with suppress(RecbatchError):  # it stays "running" then, and counts as one that died
            self._book.claim(tick, etag=entry.etag)

    def _finish(self, entry: Entry, outcome: Outcome, was_lost: bool) -> Entry:
        status = outcome.exit_status
        state: State = "done" if status in (0, 1) else "interrupted" if status in _INTERRUPTED else "failed"
        reason = "the lease was lost" if was_lost else ""
        tick = replace(
            entry.tick,
            state=state,
            exit_status=status,
            finished=self._clock.now(),
            report=dict(outcome.report),
            reason=reason,
            spared=entry.tick.spared + (self._stopping and state == "interrupted"),
        )
        written = self._book.claim(tick, etag=entry.etag)
        if written is None:
            self._say(f"{tick.id}: another runner has taken this tick over; its record stands")
        images = tick.report.get("images")
        counts = f", {images} images" if isinstance(images, int) else ""
        self._say(f"{tick.id}: {state}, exit status {status}{counts}")
        return written or Entry(tick=tick, etag=entry.etag)

    # --- ticks that are not run

    def _give_way(self, schedule: Schedule, due: Due, run_id: str, other: str) -> Step:
        """Somebody else is at work. A tick that falls due while the same schedule's run goes on is skipped."""
        if due.action == "again" or other == run_id:
            return Step(schedule=schedule.name)  # the other one does this very tick
        if other.partition("/")[0] == schedule.name:
            return self._skip(schedule, due, f"the run of {other} was still going", during=other)
        self._say(f"{schedule.name}: due, but {other or 'another run'} is at work; it stays due")
        return Step(schedule=schedule.name, waits_for=other)

    def _note_overlap(self, schedule: Schedule, run: Tick) -> None:
        """Ticks that fell due during a run are not made up for: the next one finds what they would have found."""
        tick, count = schedule.latest(run.tick, self._clock.now())
        if tick is not None:
            due = Due(action="skip", tick=tick, passed_over=count - 1)
            self._skip(schedule, due, f"the run of {run.id} was still going", during=run.id)

    def _skip(self, schedule: Schedule, due: Due, reason: str, *, during: str = "") -> Step:
        assert due.tick is not None
        tick = Tick(
            schedule=schedule.name,
            tick=due.tick,
            state="skipped",
            passed_over=due.passed_over,
            owner=self._owner,
            reason=reason,
            during=during,
        )
        if self._book.claim(tick) is None:
            return Step(schedule=schedule.name)
        self._say(f"{tick.id}: skipped, {reason}{_passed_over(tick.passed_over)}")
        return Step(schedule=schedule.name, tick=tick)

    def _say_start(self, schedule: Schedule, tick: Tick) -> None:
        again = " again" if tick.attempt > 1 else ""
        words = " ".join(schedule.command)
        self._say(f"{tick.id}: running{again}{_passed_over(tick.passed_over)}: recbatch {words}")


def _passed_over(count: int) -> str:
    if not count:
        return ""
    more = "more than " if count >= COUNTED - 1 else ""
    return f" ({more}{count} earlier {'one' if count == 1 else 'ones'} missed)"
