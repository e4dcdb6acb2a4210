"""What is due, from a schedule, its record and the time. Nothing here reads a clock or a store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from recbatch.engine.schedule.spec import Schedule, Tick

GRACE = timedelta(minutes=10)  # with --missed skip: a tick found due so late was missed
ATTEMPTS = 2  # of one tick, where the first died or was killed; those that were asked to stop don't count

Action: TypeAlias = Literal["nothing", "run", "again", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What to do about a schedule now."""

    action: Action
    tick: datetime | None = None
    passed_over: int = 0


def decide(schedule: Schedule, newest: Tick | None, run: Tick | None, now: datetime) -> Due:
    """The one tick that counts now; earlier ones that were missed are passed over.

    Args:
        newest: the last tick on record.
        run: the last one on record that was run, or is being run: whether its run still lives is for the lease to say.
    """
    since = schedule.created if newest is None else max(newest.tick, schedule.created)
    tick, count = schedule.latest(since, now)
    if tick is not None:
        is_missed = schedule.missed == "skip" and now - tick > GRACE
        return Due(action="skip" if is_missed else "run", tick=tick, passed_over=count - 1)
    is_unfinished = run is not None and run.state in ("running", "interrupted")
    if run is None or not is_unfinished or run.tick < schedule.created:
        return Due(action="nothing")
    if run.attempt - run.spared < ATTEMPTS:
        return Due(action="again", tick=run.tick)
    return Due(action="nothing")
