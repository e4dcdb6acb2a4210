"""A verification spread over days: every run checks a slice of the rows, and all slices together all of them.

A row's slot is a hash of its key, so it stays while the archive grows and while the row is replaced. Slots are days:
day ``d`` (counted from 1970, UTC) has slot ``d mod days``. A run checks today's slot and those of the days since the
last run that the archive's ledger tells of, so a day on which nothing ran is caught up by the next run, and any rhythm
will do: nightly runs check one slot each, weekly ones seven. Nobody has to keep anything but the runs' own records.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from recbatch.archive.errors import CorruptArchive

if TYPE_CHECKING:
    from recbatch.archive.archive import Archive

Level = Literal["structure", "digests", "pixels"]
LEVELS: tuple[Level, ...] = ("structure", "digests", "pixels")  # each with all of the one before

CHECKS = "verify"  # folder of the ledger
MOST_DAYS = 3650
LOOK_BACK = 4000  # records; more than ten years of nightly runs
_EPOCH = dt.date(1970, 1, 1)


def day_of(moment: dt.datetime) -> int:
    """Days since 1970, UTC."""
    return (moment.astimezone(dt.UTC).date() - _EPOCH).days


def slot_of(key: str, days: int) -> int:
    """0 <= slot < days; the same for a key for ever."""
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8, person=b"rec-rotate").digest()
    return int.from_bytes(digest, "big") % days


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What one run checks: the rows of ``slots``, of ``days`` in all."""

    days: int
    slots: frozenset[int]
    missed: int = 0  # earlier days whose slots this run makes up for
    lost: int = 0  # days beyond ``days`` that went by without a run: so much longer some rows had to wait
    is_first: bool = False  # nothing is known of an earlier run: all rows have had their turn after ``days``

    def takes(self, key: str) -> bool:
        return slot_of(key, self.days) in self.slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The record of one verification, in the ledger."""

    finished: str  # ISO 8601, UTC
    day: int  # since 1970, UTC: on which it began
    level: Level
    version: int
    rows: int  # in the archive
    rows_checked: int
    findings: int
    seconds: float
    sample: float = 1.0
    where: str | None = None
    days: int | None = None  # of a rotation
    slots: tuple[int, ...] = ()
    codes: tuple[tuple[str, int], ...] = ()  # findings by code

    @property
    def is_whole(self) -> bool:
        """Was the content of every row looked at?"""
        return self.sample >= 1 and self.where is None and self.days is None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def due(checks: Iterable[Check], *, today: int, days: int, level: Level) -> Rotation:
    """What is to be checked today, by the records of earlier runs, newest first.

    Each slot was due last on one of the ``days`` days that end today; it is due now unless a run of this level or a
    deeper one has taken it on that day or later. Whole verifications take every slot. Records of a day later than
    today come from a wrong clock, and count as little as those of another number of days.
    """
    seen: dict[int, int] = {}  # slot: day of its last check
    newest = oldest = None
    for check in checks:
        deep_enough = LEVELS.index(check.level) >= LEVELS.index(level)
        counts = check.is_whole or (check.days == days and check.where is None)
        if not deep_enough or not counts or check.day > today:
            continue
        newest, oldest = (check.day if newest is None else newest), check.day
        for slot in range(days) if check.is_whole else check.slots:
            seen[slot] = max(check.day, seen.get(slot, check.day))
        if check.day <= today - days or len(seen) == days:
            break
    if newest is None or oldest is None:
        return Rotation(days=days, slots=frozenset((today % days,)), is_first=True)
    made_up = [
        day % days
        for day in range(max(oldest, today - days) + 1, today)
        if seen.get(day % days, oldest) < day  # before the oldest record nothing was promised
    ]
    slots = frozenset((today % days, *made_up))
    return Rotation(days=days, slots=slots, missed=len(made_up), lost=max(0, today - newest - days))


def record_check(archive: Archive, check: Check) -> str:
    """Keep the record; returns its name in the ledger. Raises StoreError where the store refuses."""
    stamp = "".join(letter for letter in check.finished if letter.isdecimal() or letter == "T")[:21]
    text = json.dumps({"schema": 1, **check.to_dict()}, ensure_ascii=False)
    data = text.encode("utf-8", "backslashreplace")
    for number in range(100):  # two runs that end in the same microsecond have a name each
        name = f"{CHECKS}/{stamp}{f'-{number}' if number else ''}.json"
        if archive.put_object_once(name, data):
            return name
    raise CorruptArchive(archive.url, f"the ledger's folder {CHECKS} is full of records of {check.finished}")


def checks(archive: Archive) -> Iterator[Check]:
    """The records of verifications, newest first; what is no such record is passed over."""
    for name in sorted(archive.objects(CHECKS), reverse=True)[:LOOK_BACK]:
        data = archive.object(f"{CHECKS}/{name}") if name.endswith(".json") else None
        if data is not None and (check := _parse(data)) is not None:
            yield check


def _parse(data: bytes) -> Check | None:
    try:
        fields = json.loads(data)
        level = fields["level"]
        if level not in LEVELS:
            return None
        return Check(
            finished=str(fields["finished"]),
            day=int(fields["day"]),
            level=level,
            version=int(fields["version"]),
            rows=int(fields["rows"]),
            rows_checked=int(fields["rows_checked"]),
            findings=int(fields["findings"]),
            seconds=float(fields["seconds"]),
            sample=float(fields["sample"]),
            where=fields["where"],
            days=None if fields["days"] is None else int(fields["days"]),
            slots=tuple(int(slot) for slot in fields["slots"]),
            codes=tuple((str(code), int(count)) for code, count in fields["codes"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
