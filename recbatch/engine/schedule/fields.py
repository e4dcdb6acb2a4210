"""A cron expression as sets of numbers, for schedulers that say the same in other words."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

_BARE_STEP = re.compile(r"(\d+)/(\d+)")  # "5/15": not every cron knows it
_LAST = (59, 23, 31, 12, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronFields:
    """What matches, field by field; Sunday is 0."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    both_days: bool  # a day has to fit both of its fields, not one of them
    starred_steps: bool  # one of the fields of days is '*/n'
    standard: str  # the expression in words that every cron knows


def read_fields(cron: str) -> CronFields | None:
    """The fields of an expression that is known to be right; None where days are counted from the end of a month."""
    from datetime import datetime

    from cronsim import CronSim

    parsed = CronSim(cron, datetime(2000, 1, 1))
    weekdays = {day for day in parsed.weekdays if isinstance(day, int)}
    days = {day for day in parsed.days if day > 0}
    if len(weekdays) != len(parsed.weekdays) or len(days) != len(parsed.days):
        return None
    words = cron.upper().split()
    starred = [word.startswith("*") and word != "*" for word in (words[2], words[4])]
    return CronFields(
        minutes=frozenset(parsed.minutes),
        hours=frozenset(parsed.hours),
        days=frozenset(days),
        months=frozenset(parsed.months),
        weekdays=frozenset(day % 7 for day in weekdays),
        both_days=parsed.day_and,
        starred_steps=any(starred),
        standard=" ".join(_standard(word, index, weekdays) for index, word in enumerate(words)),
    )


def day_rule(fields: CronFields) -> Literal["and", "or", "one"]:
    """How the two fields of days go together; "one" where at most one of them says anything."""
    if len(fields.days) == 31 or len(fields.weekdays) == 7:
        return "one"
    return "and" if fields.both_days else "or"


def ranges(numbers: Collection[int], last: int, *, width: int) -> str:
    """``*`` for all numbers up to the last, else runs as ``02..05`` and single ones, by commas."""
    ordered = sorted(numbers)
    if len(ordered) == last + 1 or (ordered[0] == 1 and len(ordered) == last):
        return "*"
    runs: list[list[int]] = []
    for number in ordered:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{a:0{width}}" if a == b else f"{a:0{width}}..{b:0{width}}" for a, b in runs)


def _standard(word: str, index: int, weekdays: Collection[int]) -> str:
    if index == 4 and "7" in re.split(r"[,/-]", word):  # Kubernetes has no seventh day
        return ",".join(map(str, sorted({day % 7 for day in weekdays})))
    return _BARE_STEP.sub(lambda match: f"{match[1]}-{_LAST[index]}/{match[2]}", word)
