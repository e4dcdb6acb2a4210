"""Numbers, sizes and times as the page's readers like them."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    return str(value)


def count(how_many: int, noun: str) -> str:
    return f"{how_many:,} {noun}" + ("" if how_many == 1 else "s")


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "–"


def size(number: float) -> str:
    """In units of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(number) < 999.5:
            return f"{number:.0f} B" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} PB"


def duration(seconds: float) -> str:
    if 0 < seconds < 0.95:
        return f"{max(1, round(1000 * seconds))} ms"
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours / 24:.1f} days"


def day(at: datetime) -> str:
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
