"""Cron expressions as people write them: the well-known names, and what is wrong with one that can't be read."""

from __future__ import annotations

from datetime import datetime

NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELDS = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of month", "1 to 31; L for the last one, LW for the last from Monday to Friday"),
    ("month", "1 to 12, or JAN to DEC"),
    (
        "day of week",
        "0 to 7, where 0 and 7 are Sunday, or SUN to SAT; FRI#2 for the second Friday, 5L for the last",
    ),
)
NEEDED = f"it needs five fields: {', '.join(name for name, _ in FIELDS)}; or one of {', '.join(NAMES)}"


def written_out(cron: str) -> str:
    """Five fields, one space between them, for one of the NAMES; another expression as it is but for its spaces."""
    plain = " ".join(cron.split())
    return NAMES.get(plain.lower(), plain)


def problem(cron: str) -> str:
    """Why the library refuses an expression of five fields: the part that it can't read, and what may stand there."""
    for place, (field, (name, allowed)) in enumerate(zip(cron.split(), FIELDS, strict=True)):
        for part in field.split(","):
            if not _is_read(place, part):
                return f"{part!r} is no {name} ({allowed})"
    return "it is never due, since no month that it names has such a day"


def _is_read(place: int, part: str) -> bool:
    from cronsim import CronSim, CronSimError

    fields = ["*"] * len(FIELDS)
    fields[place] = part
    try:
        CronSim(" ".join(fields), datetime(2000, 1, 1))
    except CronSimError:
        return False
    return True
