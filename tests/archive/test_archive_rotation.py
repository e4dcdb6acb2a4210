"""A verification spread over days: every row has its turn, whatever the rhythm of the runs."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from archive_helpers import image, quarantined
from hypothesis import example, given
from hypothesis import strategies as st

from recbatch.archive import Archive, Finding, Record, verify
from recbatch.archive.rotation import (
    LEVELS,
    Check,
    Rotation,
    checks,
    day_of,
    due,
    record_check,
    slot_of,
)

Add = Callable[..., str]
FIRST = 20_000  # a day


def check(day: int, *, days: int | None, slots: tuple[int, ...] = (), **more: object) -> Check:
    values: dict[str, object] = {
        "finished": f"{day}",
        "level": "digests",
        "version": 1,
        "rows": 9,
        "rows_checked": 1,
        "findings": 0,
        "seconds": 0.1,
    }
    return Check(day=day, days=days, slots=slots, **{**values, **more})  # type: ignore[arg-type]


class Runs:
    """Runs on some days, each told of those before."""

    def __init__(self, days: int) -> None:
        self.days = days
        self.done: list[Check] = []

    def run(self, today: int, level: str = "digests", days: int | None = None) -> Rotation:
        turn = due(self.done[::-1], today=today, days=days or self.days, level=level)  # type: ignore[arg-type]
        self.done.append(check(today, days=turn.days, slots=tuple(turn.slots), level=level))
        return turn


@given(st.text(min_size=1), st.integers(1, 400))
def test_a_key_has_one_slot_for_ever(key: str, days: int) -> None:
    assert 0 <= slot_of(key, days) < days
    assert slot_of(key, days) == slot_of(key, days)


def test_slots_are_those_of_the_archives_that_exist() -> None:
    assert [slot_of(key, 30) for key in ("a", "2024/beach.jpg", "ü/\U0001f600.png")] == [14, 15, 8]


def test_slots_are_even() -> None:
    counts = Counter(slot_of(f"photos/{number:05d}.jpg", 30) for number in range(30_000))
    assert len(counts) == 30
    assert 850 < min(counts.values()) <= max(counts.values()) < 1150


@given(st.integers(1, 60), st.integers(0, 10**5))
def test_daily_runs_check_every_slot_once_in_so_many_days(days: int, start: int) -> None:
    runs = Runs(days)
    turns = [runs.run(start + day) for day in range(3 * days)]
    for first in range(2 * days):
        counts = Counter(slot for turn in turns[first : first + days] for slot in turn.slots)
        assert counts == Counter(range(days))
    assert [turn.is_first for turn in turns] == [True] + [False] * (3 * days - 1)
    assert not any(turn.missed or turn.lost for turn in turns)


@given(st.integers(1, 40), st.lists(st.integers(0, 90), min_size=1, max_size=25))
@example(7, [0, 3, 0, 8, 100, 1])
def test_whatever_days_are_missed_every_days_slot_is_checked_on_it_or_by_the_next_run(
    days: int, gaps: list[int]
) -> None:
    runs, today = Runs(days), FIRST
    seen: dict[int, list[int]] = {slot: [] for slot in range(days)}  # slot: the days of its checks
    for gap in gaps:
        today += gap
        turn = runs.run(today)
        assert today % days in turn.slots
        assert len(turn.slots) == min(turn.missed + 1, days)
        for slot in turn.slots:
            seen[slot].append(today)
    run_days = sorted({check.day for check in runs.done})
    for day in range(run_days[0], run_days[-1] + 1):
        next_run = next(run for run in run_days if run >= day)
        assert any(day <= checked <= next_run for checked in seen[day % days]) or next_run - day >= days


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 15), st.sampled_from(LEVELS[1:])), min_size=2, max_size=25),
)
def test_a_deeper_run_serves_a_shallower_rotation_and_never_the_other_way(
    days: int, plan: list[tuple[int, str]]
) -> None:
    runs, today = Runs(days), FIRST
    seen = {(level, slot): -1 for level in LEVELS[1:] for slot in range(days)}
    began = {}
    for gap, level in plan:
        today += gap
        turn = runs.run(today, level)
        for served in LEVELS[1 : LEVELS.index(level) + 1]:  # type: ignore[arg-type]
            began.setdefault(served, today)
            for slot in turn.slots:
                seen[served, slot] = today
        for day in range(max(began[level], today - days + 1), today + 1):
            assert seen[level, day % days] >= day  # of this level nothing is overdue after its own run


def test_a_whole_verification_counts_as_a_run_of_every_slot() -> None:
    whole = check(FIRST, days=None)
    turn = due([whole], today=FIRST + 3, days=30, level="digests")
    assert (turn.slots, turn.missed) == ({(FIRST + day) % 30 for day in (1, 2, 3)}, 2)
    for partial in (
        replace(whole, sample=0.1),
        replace(whole, where="width > 9"),
        replace(whole, level="structure"),
    ):
        assert due([partial], today=FIRST + 3, days=30, level="digests").is_first


def test_another_number_of_days_and_a_record_of_the_future_count_for_nothing() -> None:
    other = check(FIRST, days=7, slots=(1,))
    later = check(FIRST + 50, days=30, slots=(5,))
    chosen = check(FIRST, days=30, slots=(4,), where="width > 9")
    assert due([later, other, chosen], today=FIRST + 3, days=30, level="digests").is_first


def test_more_days_without_a_run_than_there_are_slots_are_said() -> None:
    runs = Runs(5)
    runs.run(FIRST)
    turn = runs.run(FIRST + 12)
    assert (turn.slots, turn.missed, turn.lost) == (frozenset(range(5)), 4, 7)


def test_a_day_begins_at_midnight_in_utc() -> None:
    zone = dt.timezone(dt.timedelta(hours=-8))
    assert day_of(dt.datetime(1970, 1, 1, 23, tzinfo=dt.UTC)) == 0
    assert day_of(dt.datetime(1970, 1, 1, 23, tzinfo=zone)) == 1


# --- with a real archive


def rotate(archive: Archive, today: int, days: int, **options: object) -> set[str]:
    """The keys that a run of that day looks at; it leaves its record."""
    looked: set[str] = set()

    def decoder(record: Record) -> Finding | None:
        looked.add(record.key)
        return None

    turn = due(checks(archive), today=today, days=days, level="pixels")
    report = verify(archive, level="pixels", rotation=turn, decoder=decoder, **options)  # type: ignore[arg-type]
    assert report.ok
    assert report.rows_checked == len(looked)
    record = replace(report.record(), day=today, finished=f"2026-01-01T{len(list(checks(archive))):06d}")
    record_check(archive, record)
    return looked


def test_rows_that_come_and_change_meanwhile_have_their_turn_as_well(archive: Archive, add: Add) -> None:
    add(*(image(f"{number:02d}") for number in range(20)))
    since = {f"{number:02d}": FIRST for number in range(20)}
    looked: dict[str, list[int]] = {}
    for day in range(FIRST, FIRST + 12):
        if day == FIRST + 3:
            add(*(image(f"new {number}") for number in range(6)))
            since |= {f"new {number}": day for number in range(6)}
        if day == FIRST + 5:
            add(image("03", state="new"), image("04", state="new"))
        if day == FIRST + 7:
            continue  # nothing ran
        for key in rotate(archive, day, 4):
            looked.setdefault(key, []).append(day)
    for key, first in since.items():
        days = looked[key]
        assert days[0] - first < 4 + (days[0] == FIRST + 8)
        assert all(later - earlier in (3, 4, 5) for earlier, later in itertools.pairwise(days))


def test_an_empty_slot_is_no_finding_and_the_structure_is_always_checked(archive: Archive, add: Add) -> None:
    add(image("a"), quarantined("q"))
    turn = Rotation(days=1000, slots=frozenset({slot_of("a", 1000) + 1}))
    report = verify(archive, rotation=turn)
    assert (report.ok, report.rows_checked, report.files_checked) == (True, 0, 1)
    assert json.loads(json.dumps(report.to_dict()))["rotate_days"] == 1000


def test_a_sample_and_a_rotation_exclude_each_other(archive: Archive) -> None:
    with pytest.raises(ValueError, match="give one"):
        verify(archive, sample=0.5, rotation=Rotation(days=2, slots=frozenset({0})))


def test_where_limits_the_rows_whose_content_is_checked(archive: Archive, add: Add) -> None:
    add(image("a"), image("b"), quarantined("q"))
    report = verify(archive, where="key >= 'b' and status = 'ok'")
    assert (report.rows_checked, report.streams_checked, report.ok) == (1, 1, True)
    assert verify(archive, where="key = 'nobody'").ok
    assert not report.record().is_whole


def test_records_come_back_newest_first_and_others_files_are_passed_over(archive: Archive, add: Add) -> None:
    add(image("a"))
    whole = verify(archive).record()
    names = [record_check(archive, replace(whole, finished=f"2026-01-0{day}T00:00:00")) for day in (1, 3, 2)]
    names.append(record_check(archive, replace(whole, finished="2026-01-03T00:00:00", findings=2)))
    assert len(set(names)) == 4
    archive.put_object("verify/9999.json", b"{ torn")
    archive.put_object("verify/9998.json", b'{"level": "by eye"}')
    archive.put_object("verify/note.txt", b"hello")
    found = list(checks(archive))
    assert [check.finished[:10] for check in found] == [
        "2026-01-03",
        "2026-01-03",
        "2026-01-02",
        "2026-01-01",
    ]
    assert (found[0].level, found[0].is_whole, found[0].rows_checked) == ("digests", True, 1)
