"""When a schedule falls due: across the days on which clocks are changed, and whatever the expression."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.engine.schedule.errors import BadSchedule
from recbatch.engine.schedule.ticks import COUNTED, check, latest_tick, next_tick, ticks
from recbatch.engine.schedule.wording import NAMES, written_out

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")


def local(cron: str, timezone: str, day: tuple[int, int, int], count: int) -> list[str]:
    """The first ticks after midnight of a day, as the zone's clock and UTC show them."""
    start = datetime(*day, tzinfo=ZoneInfo(timezone)) - timedelta(seconds=1)
    return [
        f"{tick.astimezone(ZoneInfo(timezone)):%d %H:%M}={tick:%H:%M}Z"
        for tick in islice(ticks(cron, timezone, start), count)
    ]


BERLIN_LEAP, BERLIN_BACK = (2027, 3, 28), (2027, 10, 31)  # 02:00 -> 03:00, 03:00 -> 02:00
NEW_YORK_LEAP, NEW_YORK_BACK = (2027, 3, 14), (2027, 11, 7)  # 02:00 -> 03:00, 02:00 -> 01:00


@pytest.mark.parametrize(
    ("timezone", "day", "cron", "expected"),
    [
        ("Europe/Berlin", BERLIN_LEAP, "30 2 * * *", ["28 03:00=01:00Z", "29 02:30=00:30Z"]),
        (
            "Europe/Berlin",
            BERLIN_LEAP,
            "0,30 2,3 * * *",
            ["28 03:00=01:00Z", "28 03:30=01:30Z", "29 02:00=00:00Z"],
        ),
        ("America/New_York", NEW_YORK_LEAP, "30 2 * * *", ["14 03:00=07:00Z", "15 02:30=06:30Z"]),
        ("Europe/Berlin", BERLIN_BACK, "30 2 * * *", ["31 02:30=00:30Z", "01 02:30=01:30Z"]),
        ("America/New_York", NEW_YORK_BACK, "30 1 * * *", ["07 01:30=05:30Z", "08 01:30=06:30Z"]),
    ],
)
def test_a_fixed_time_runs_once_on_every_day(
    timezone: str, day: tuple[int, int, int], cron: str, expected: list[str]
) -> None:
    assert local(cron, timezone, day, len(expected)) == expected


@pytest.mark.parametrize(
    ("timezone", "day", "cron", "expected"),
    [
        (
            "Europe/Berlin",
            BERLIN_LEAP,
            "0 * * * *",
            ["28 00:00=23:00Z", "28 01:00=00:00Z", "28 03:00=01:00Z"],
        ),
        ("Europe/Berlin", BERLIN_LEAP, "*/30 2 * * *", ["29 02:00=00:00Z", "29 02:30=00:30Z"]),
        (
            "Europe/Berlin",
            BERLIN_BACK,
            "0 * * * *",
            ["31 00:00=22:00Z", "31 01:00=23:00Z", "31 02:00=00:00Z", "31 02:00=01:00Z", "31 03:00=02:00Z"],
        ),
        (
            "America/New_York",
            NEW_YORK_BACK,
            "*/30 1 * * *",
            ["07 01:00=05:00Z", "07 01:30=05:30Z", "07 01:00=06:00Z", "07 01:30=06:30Z", "08 01:00=06:00Z"],
        ),
    ],
)
def test_an_expression_with_a_star_goes_by_what_the_clock_shows(
    timezone: str, day: tuple[int, int, int], cron: str, expected: list[str]
) -> None:
    assert local(cron, timezone, day, len(expected)) == expected


@pytest.mark.parametrize("timezone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize(
    "cron", ["30 2 * * *", "0,30 1-3 * * *", "15 */2 * * *", "0 * * * *", "*/20 2 * * *"]
)
@pytest.mark.parametrize("day", [BERLIN_LEAP, BERLIN_BACK, NEW_YORK_LEAP, NEW_YORK_BACK, (2027, 6, 1)])
def test_the_library_alone_says_the_same_when_asked_from_an_ordinary_time(
    timezone: str, cron: str, day: tuple[int, int, int]
) -> None:
    start = datetime(*day, tzinfo=ZoneInfo(timezone)) - timedelta(hours=30)
    theirs = [tick.astimezone(UTC) for tick in islice(CronSim(cron, start), 60)]
    assert list(islice(ticks(cron, timezone, start), 60)) == theirs


def test_asked_within_the_hour_that_comes_twice_the_library_goes_back_and_we_do_not() -> None:
    """Why the instants are made here: a runner that asks at such a time would run its tick twice."""
    zone = ZoneInfo("Europe/Berlin")
    asked = datetime(2027, 10, 31, 2, 1, fold=1, tzinfo=zone)
    theirs = next(CronSim("30 2 * * *", asked)).astimezone(UTC)
    assert theirs == datetime(2027, 10, 31, 0, 30, tzinfo=UTC) < asked.astimezone(UTC)
    assert next_tick("30 2 * * *", "Europe/Berlin", asked) == datetime(2027, 11, 1, 1, 30, tzinfo=UTC)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.integers(1, high).map(lambda n: f"*/{n}")
    return st.one_of(
        st.just("*"),
        number.map(str),
        span,
        step,
        st.lists(number, min_size=2, max_size=3).map(lambda n: ",".join(map(str, n))),
    )


EXPRESSIONS = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7)).map(" ".join)
INSTANTS = st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))


@settings(max_examples=40, deadline=None)
@given(cron=EXPRESSIONS, timezone=st.sampled_from(ZONES), after=INSTANTS, minutes=st.integers(0, 3000))
def test_ticks_strictly_increase_and_do_not_depend_on_where_one_begins(
    cron: str, timezone: str, after: datetime, minutes: int
) -> None:
    found = list(islice(ticks(cron, timezone, after), 25))
    assert all(after < tick for tick in found)
    assert all(one < other for one, other in pairwise(found))
    later = after + timedelta(minutes=minutes)
    rest = [tick for tick in found if tick > later]
    assert list(islice(ticks(cron, timezone, later), len(rest))) == rest


@settings(max_examples=30, deadline=None)
@given(
    cron=st.sampled_from(["*/20 * * * *", "30 2 * * *", "15 1-3 * * *", "0 */2 * * *"]),
    timezone=st.sampled_from(ZONES),
    day=st.sampled_from(
        [BERLIN_LEAP, BERLIN_BACK, NEW_YORK_LEAP, NEW_YORK_BACK, (2027, 4, 4), (2027, 10, 3)]
    ),
    minutes=st.integers(0, 3 * 24 * 60),
)
def test_neither_do_they_around_changes_of_the_clock(
    cron: str, timezone: str, day: tuple[int, int, int], minutes: int
) -> None:
    start = datetime(*day, tzinfo=UTC) - timedelta(days=2)
    end, later = start + timedelta(days=4), start + timedelta(minutes=minutes)

    def until_end(after: datetime) -> list[datetime]:
        return list(takewhile(lambda tick: tick <= end, ticks(cron, timezone, after)))

    whole = until_end(start)
    assert all(one < other for one, other in pairwise(whole))
    assert until_end(later) == [tick for tick in whole if tick > later]


def test_the_latest_of_many_is_found_without_counting_them_all() -> None:
    since, until = datetime(2024, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, 0, 0, 30, tzinfo=UTC)
    assert latest_tick("* * * * *", "UTC", since, until) == (until.replace(second=0), COUNTED)
    assert latest_tick("0 3 * * *", "UTC", since, until) == (datetime(2026, 12, 31, 3, tzinfo=UTC), COUNTED)
    assert latest_tick("0 3 1 * *", "UTC", since, until) == (datetime(2026, 12, 1, 3, tzinfo=UTC), 36)
    assert latest_tick("0 3 * * *", "UTC", until, until) == (None, 0)
    assert latest_tick("0 3 * * *", "UTC", until, since) == (None, 0)


@pytest.mark.parametrize(
    ("cron", "timezone"),
    [
        ("0 3 * *", "UTC"),
        ("0 0 3 * * *", "UTC"),  # a field of seconds
        ("60 3 * * *", "UTC"),
        ("0 3 31 2 *", "UTC"),
        ("@reboot", "UTC"),
        ("", "UTC"),
        ("0 3 * * *", "Europe/Atlantis"),
        ("0 3 * * *", "../etc/passwd"),
        ("0 3 * * *", ""),
    ],
)
def test_what_is_no_time_is_refused(cron: str, timezone: str) -> None:
    with pytest.raises(BadSchedule):
        check(cron, timezone)


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("0 25 * * *", "'25' is no hour (0 to 23)"),
        ("0,61 3 * * *", "'61' is no minute (0 to 59)"),
        ("0 3 * FOO *", "'FOO' is no month (1 to 12, or JAN to DEC)"),
        ("0 3 * * 1-8", "'1-8' is no day of week (0 to 7"),
        ("0 3 0 * *", "'0' is no day of month (1 to 31"),
        ("0 3 31 2 *", "it is never due, since no month that it names has such a day"),
        ("@reboot", "or one of @hourly, @daily"),
    ],
)
def test_what_is_wrong_with_an_expression_is_said_by_its_part(cron: str, says: str) -> None:
    with pytest.raises(BadSchedule) as caught:
        check(cron, "UTC")
    assert says in str(caught.value)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_well_known_name_stands_for_its_five_fields(name: str) -> None:
    assert written_out(f" {name.upper()} ") == NAMES[name]
    check(written_out(name), "Europe/Berlin")
    assert written_out(" 0  3 * * * ") == "0 3 * * *"


@pytest.mark.parametrize(
    "cron", ["0 3 * * *", "*/5 8-18 * * MON-FRI", "0 0 L * *", "0 0 * * FRI#2", "0 0 29 2 *"]
)
def test_what_cron_and_the_library_know_is_taken(cron: str) -> None:
    check(cron, "Europe/Berlin")
