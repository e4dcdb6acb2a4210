"""When a schedule falls due: cron expressions in a time zone, as instants that strictly increase.

The library reads the expression and walks the calendar; which instants its local times are is decided here, by
the rules of Debian's cron, and so that the answer does not depend on where the walk begins:

- A time is fixed when neither its minute nor its hour begins with ``*``. A fixed time that the clocks leap over
  falls due at the first minute after the leap; one that comes twice falls due at its first coming.
- Other expressions go by what the clock shows: a time that is leapt over does not come, one that comes twice
  counts twice.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from recbatch.engine.schedule.errors import BadSchedule
from recbatch.engine.schedule.wording import NEEDED, problem

COUNTED = 1000  # ticks that are counted one by one; beyond, "more than" has to do
_LEAD = timedelta(hours=4)  # more than any clock is put back
_MINUTE = timedelta(minutes=1)
_WINDOWS = tuple(timedelta(hours=hours) for hours in (1, 26, 24 * 8, 24 * 40, 24 * 400, 24 * 366 * 9))


def check(cron: str, timezone: str) -> None:
    """Raises BadSchedule where the expression or the zone is none, or no time ever matches."""
    if next_tick(cron, timezone, datetime.now(UTC)) is None:
        raise BadSchedule(cron, "it is never due, since no time matches it")


def zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadSchedule(name, "there is no such time zone; write it as in Europe/Berlin, or UTC") from error


def ticks(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """The instants (UTC) at which a schedule falls due, later than ``after``, strictly increasing.

    Raises BadSchedule.
    """
    from cronsim import CronSim, CronSimError

    where = zone(timezone)
    fields = cron.split()
    if len(fields) != 5:
        raise BadSchedule(cron, NEEDED)
    is_fixed = not (fields[0].startswith("*") or fields[1].startswith("*"))
    last = after.astimezone(UTC)
    begin, early = last.astimezone(where), (last - _LEAD).astimezone(where)
    if (
        begin.utcoffset() != early.utcoffset()
    ):  # local times that come twice: walk from before the first coming
        begin = early
    try:
        local_times = CronSim(cron, begin.replace(tzinfo=None))
    except CronSimError as error:
        raise BadSchedule(cron, problem(cron)) from error
    waiting: list[datetime] = []
    for local in local_times:
        first = local.replace(tzinfo=where, fold=0).astimezone(UTC)
        for instant in _instants(local, where, first, is_fixed=is_fixed):
            heapq.heappush(waiting, instant)
        while waiting and waiting[0] <= first:  # no later local time comes before this one's first instant
            instant = heapq.heappop(waiting)
            if instant > last:
                last = instant
                yield instant


def _instants(local: datetime, where: ZoneInfo, first: datetime, *, is_fixed: bool) -> list[datetime]:
    if first.astimezone(where).replace(tzinfo=None) != local:  # the clocks leap over it
        if not is_fixed:
            return []
        while _is_leapt_over(local, where):
            local += _MINUTE
        return [local.replace(tzinfo=where).astimezone(UTC)]
    second = local.replace(tzinfo=where, fold=1).astimezone(UTC)
    return [first] if is_fixed or second == first else [first, second]


def _is_leapt_over(local: datetime, where: ZoneInfo) -> bool:
    return local.replace(tzinfo=where).astimezone(UTC).astimezone(where).replace(tzinfo=None) != local


def next_tick(cron: str, timezone: str, after: datetime) -> datetime | None:
    return next(ticks(cron, timezone, after), None)


def latest_tick(cron: str, timezone: str, since: datetime, until: datetime) -> tuple[datetime | None, int]:
    """The last tick later than ``since`` and not later than ``until``, and how many there are, at most COUNTED."""
    between = list(takewhile(lambda tick: tick <= until, islice(ticks(cron, timezone, since), COUNTED)))
    if len(between) < COUNTED:
        return (between[-1] if between else None), len(between)
    for window in _WINDOWS:  # the near ones first: a schedule by the minute has had many
        latest = None
        for tick in ticks(cron, timezone, max(since, until - window)):
            if tick > until:
                break
            latest = tick
        if latest is not None:
            return latest, COUNTED
    return between[-1], COUNTED
