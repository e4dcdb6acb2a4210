"""What is due is run, once: late, overlapping, interrupted, by several runners, under clocks that leap."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedule_fakes import START, Desk, Died, FakeJob, Launches, at, crash, die, make_schedule

from recbatch.archive.errors import StoreUnreachable
from recbatch.engine import lease as leases
from recbatch.engine.schedule.book import Book
from recbatch.engine.schedule.errors import (
    DamagedSchedule,
    RunNotStarted,
    ScheduleExists,
    UnconditionalStore,
    UnknownSchedule,
    WrongClock,
)
from recbatch.engine.schedule.spec import Schedule, Tick

DAY = timedelta(days=1)


def test_a_tick_runs_once_and_its_outcome_is_on_record() -> None:
    desk, launches = Desk(make_schedule()), Launches()
    runner = desk.runner(launches)
    assert [step.tick for step in runner.run_due(["nightly"])] == [None]
    desk.clock.time = at("01-01T03:00:20")
    for _ in range(3):
        runner.run_due(["nightly"])
    assert launches.ids == ["nightly/20270101T030000Z"]
    (tick,) = desk.ticks()
    assert (tick.state, tick.exit_status, tick.attempt, tick.report) == ("done", 0, 1, {"images": 3})
    assert "recbatch compress -- s3://photos s3://archive" in desk.lines[0]
    assert desk.book.holder(desk.book.schedule("nightly")) is None


def test_of_missed_ticks_only_the_latest_is_run_and_the_number_of_the_others_is_said() -> None:
    desk, launches = Desk(make_schedule()), Launches()
    desk.clock.time = at("01-10T12:00:00")
    desk.runner(launches).run_due(["nightly"])
    assert launches.ids == ["nightly/20270110T030000Z"]
    assert desk.ticks()[0].passed_over == 9
    assert "9 earlier ones missed" in desk.lines[0]


def test_with_skip_a_missed_tick_is_noted_and_not_run_but_a_late_call_is_forgiven() -> None:
    desk, launches = Desk(make_schedule(missed="skip")), Launches()
    runner = desk.runner(launches)
    desk.clock.time = at("01-10T12:00:00")
    runner.run_due(["nightly"])
    assert launches.ids == []
    (tick,) = desk.ticks()
    assert (tick.state, tick.reason, tick.passed_over) == ("skipped", "missed", 9)
    desk.clock.time = at("01-11T03:09:00")
    runner.run_due(["nightly"])
    assert launches.ids == ["nightly/20270111T030000Z"]


@pytest.mark.parametrize(
    ("status", "state"), [(0, "done"), (1, "done"), (2, "failed"), (3, "failed"), (70, "failed")]
)
def test_a_run_that_ended_is_not_run_again_however_it_ended(status: int, state: str) -> None:
    desk, launches = Desk(make_schedule(), now=at("01-01T03:00:00")), Launches(lambda: FakeJob(status))
    runner = desk.runner(launches)
    runner.run_due(["nightly"])
    runner.run_due(["nightly"])
    assert len(launches.ids) == 1
    assert (desk.ticks()[0].state, desk.ticks()[0].exit_status) == (state, status)


@pytest.mark.parametrize("status", [130, 137, 143])
def test_an_interrupted_run_goes_on_once_with_the_next_call(status: int) -> None:
    desk, launches = Desk(make_schedule(), now=at("01-01T03:00:00")), Launches(lambda: FakeJob(status))
    runner = desk.runner(launches)
    for _ in range(4):
        runner.run_due(["nightly"])
    assert [tick.attempt for tick in launches.ticks] == [1, 2]
    assert (desk.ticks()[0].state, desk.ticks()[0].attempt) == ("interrupted", 2)


@pytest.mark.parametrize("status", [130, 137])
def test_a_run_that_was_asked_to_stop_is_taken_up_however_often(status: int) -> None:
    desk, attempts = Desk(make_schedule(), now=at("01-01T03:00:00")), []
    for _ in range(4):
        job = FakeJob(status)
        launches = Launches(lambda job=job: job)
        runner = desk.runner(launches)
        job.during = runner.stop
        runner.run_due(["nightly"])
        attempts += [tick.attempt for tick in launches.ticks]
    assert attempts == [1, 2, 3, 4]
    assert (desk.ticks()[0].state, desk.ticks()[0].spared) == ("interrupted", 4)


def test_a_second_signal_leaves_the_tick_interrupted_and_free_to_be_taken_up() -> None:
    desk = Desk(make_schedule(), now=at("01-01T03:00:00"))

    def signals() -> None:
        runner.stop()
        raise KeyboardInterrupt

    job = FakeJob(during=signals)
    runner = desk.runner(Launches(lambda: job))
    with pytest.raises(KeyboardInterrupt):
        runner.run_due(["nightly"])
    assert job.stopped == 2
    (tick,) = desk.ticks()
    assert (tick.state, tick.exit_status, tick.reason) == ("interrupted", 130, "it was told twice to stop")
    launches = Launches(lambda: FakeJob(137))
    for _ in range(3):
        desk.runner(launches).run_due(["nightly"])
    assert [tick.attempt for tick in launches.ticks] == [2, 3]


def test_a_run_that_could_not_be_started_stays_due() -> None:
    desk, launches = Desk(make_schedule(), now=at("01-01T03:00:00")), Launches()

    def refuse() -> FakeJob:
        raise RunNotStarted("nightly", "no such file")

    for _ in range(3):
        with pytest.raises(RunNotStarted):
            desk.runner(Launches(refuse)).run_due(["nightly"])
        assert desk.ticks()[0].state == "interrupted"
        assert desk.ticks()[0].reason == "it could not be started: no such file"
    desk.runner(launches).run_due(["nightly"])
    assert [tick.attempt for tick in launches.ticks] == [4]
    assert desk.ticks()[0].state == "done"


def test_a_tick_whose_runner_died_is_run_again_once_when_its_lease_is_over() -> None:
    desk, launches = Desk(make_schedule(), now=at("01-01T03:00:00")), Launches()
    crash(desk)
    assert desk.ticks()[0].state == "running"
    other = desk.runner(launches)
    other.run_due(["nightly"])
    assert launches.ids == []  # for all that anybody knows, it lives
    desk.memory.now_s += leases.DURATION_S + 1
    other.run_due(["nightly"])
    other.run_due(["nightly"])
    assert [tick.attempt for tick in launches.ticks] == [2]
    assert desk.ticks()[0].state == "done"


def test_a_tick_whose_runners_died_twice_is_left_alone() -> None:
    desk, launches = Desk(make_schedule(), now=at("01-01T03:00:00")), Launches()
    for _ in range(2):
        crash(desk)
        desk.memory.now_s += leases.DURATION_S + 1
    desk.runner(launches).run_due(["nightly"])
    assert launches.ids == []
    desk.clock.time += DAY
    desk.runner(launches).run_due(["nightly"])
    assert launches.ids == ["nightly/20270102T030000Z"]
    assert [tick.state for tick in desk.ticks()] == ["lost", "done"]


def test_ticks_that_fall_due_during_a_run_are_skipped_with_a_note() -> None:
    desk = Desk(make_schedule(cron="0 * * * *"), now=at("01-01T03:00:00"))

    def during() -> None:
        desk.clock.time = at("01-01T06:10:00")
        desk.runner(Launches()).run_due(["nightly"])  # called by cron, meanwhile
        desk.clock.time = at("01-01T08:10:00")

    launches = Launches(lambda: FakeJob(during=during))
    runner = desk.runner(launches)
    runner.run_due(["nightly"])
    runner.run_due(["nightly"])
    assert launches.ids == ["nightly/20270101T030000Z"]
    assert [(tick.id[-7:], tick.state, tick.passed_over) for tick in desk.ticks()] == [
        ("030000Z", "done", 2),
        ("060000Z", "skipped", 2),
        ("080000Z", "skipped", 4),
    ]
    assert "the run of nightly/20270101T030000Z was still going" in desk.ticks()[1].reason


@pytest.mark.parametrize("waited", [timedelta(0), timedelta(hours=1)])
def test_another_runner_that_looks_between_lease_and_record_takes_nothing_away(waited: timedelta) -> None:
    desk = Desk(make_schedule(cron="0 * * * *"), now=at("01-01T03:00:00"))
    launches, others, put = Launches(), Launches(), desk.memory.put_if

    def meanwhile(name: str, data: bytes, *, etag: str | None) -> str | None:
        tag = put(name, data, etag=etag)
        desk.memory.put_if = put  # type: ignore[method-assign]
        desk.clock.time += waited
        desk.runner(others).run_due(["nightly"])
        return tag

    desk.memory.put_if = meanwhile  # type: ignore[method-assign]
    desk.runner(launches).run_due(["nightly"])
    assert (launches.ids, others.ids) == (["nightly/20270101T030000Z"], [])
    assert [tick.state for tick in desk.ticks()] == ["done", *(["skipped"] if waited else [])]


def test_a_runner_that_was_slow_to_take_the_lease_runs_nothing_older_than_what_was_run() -> None:
    desk = Desk(make_schedule(cron="0 * * * *"), now=at("01-01T03:00:00"))
    launches, others, read = Launches(), Launches(), desk.memory.read

    def meanwhile(name: str) -> object:
        if name.startswith("leases/"):
            desk.memory.read = read  # type: ignore[method-assign]
            desk.clock.time += timedelta(hours=1)
            desk.runner(others).run_due(["nightly"])
        return read(name)

    desk.memory.read = meanwhile  # type: ignore[method-assign, assignment]
    desk.runner(launches).run_due(["nightly"])
    assert (launches.ids, others.ids) == ([], ["nightly/20270101T040000Z"])


def test_a_run_that_died_is_found_behind_ticks_that_were_skipped_for_it() -> None:
    desk, launches = Desk(make_schedule(), now=at("01-01T03:00:00")), Launches()

    def during() -> None:
        desk.clock.time += DAY
        desk.runner(Launches()).run_due(["nightly"])
        die(desk)

    with pytest.raises(Died):
        desk.runner(Launches(lambda: FakeJob(during=during))).run_due(["nightly"])
    desk.memory.down = False
    assert [tick.state for tick in desk.ticks()] == ["running", "skipped"]
    desk.memory.now_s += leases.DURATION_S + 1
    desk.runner(launches).run_due(["nightly"])
    assert [(tick.id, tick.attempt) for tick in launches.ticks] == [("nightly/20270101T030000Z", 2)]


def test_two_schedules_that_write_do_not_run_at_once_and_the_second_stays_due() -> None:
    writing, other = make_schedule("a"), make_schedule("b", command=("recompress", "--", "s3://archive"))
    desk, launches = Desk(writing, other, now=at("01-01T03:00:00")), Launches()

    def during() -> None:
        steps = desk.runner(launches).run_due(["b"])
        assert (steps[0].tick, steps[0].waits_for) == (None, "a/20270101T030000Z")

    desk.runner(Launches(lambda: FakeJob(during=during))).run_due(["a"])
    assert launches.ids == []
    desk.runner(launches).run_due(["a", "b"])
    assert launches.ids == ["b/20270101T030000Z"]


def test_a_schedule_that_only_reads_runs_beside_one_that_writes() -> None:
    reading = make_schedule("b", command=("verify", "--", "s3://archive"))
    desk, launches = Desk(make_schedule("a"), reading, now=at("01-01T03:00:00")), Launches()
    during = Launches(lambda: FakeJob(during=lambda: desk.runner(launches).run_due(["b"]) and None))
    desk.runner(during).run_due(["a"])
    assert launches.ids == ["b/20270101T030000Z"]


def test_a_run_that_loses_its_lease_is_asked_to_stop_and_does_not_write_over_its_successor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(make_schedule(), now=at("01-01T03:00:00"))
    successor, asked = Launches(), threading.Event()
    keeping = leases.keeping
    monkeypatch.setattr(
        "recbatch.engine.schedule.runner.keeping", lambda lease, lost: keeping(lease, lost, renew_s=0.01)
    )

    class Frozen(FakeJob):
        """While this machine stood still, another one took over."""

        def wait(self) -> object:  # type: ignore[override]
            desk.memory.now_s += leases.DURATION_S + 1
            monkeypatch.setattr("recbatch.engine.schedule.runner.keeping", keeping)
            desk.runner(successor).run_due(["nightly"])
            assert asked.wait(30)
            return self.outcome

        def stop(self) -> None:
            asked.set()

    # its renewals wait until the successor is done, as those of a frozen process would
    gate, put = threading.Event(), desk.memory.put_if

    def slow(name: str, data: bytes, *, etag: str | None) -> str | None:
        if threading.current_thread().name == "lease":
            assert gate.wait(30)
        return put(name, data, etag=etag)

    desk.memory.put_if = slow  # type: ignore[method-assign]
    successor.make = lambda: FakeJob(during=gate.set)
    desk.runner(Launches(lambda: Frozen(130))).run_due(["nightly"])
    assert successor.ids == ["nightly/20270101T030000Z"]
    (tick,) = desk.ticks()
    assert (tick.state, tick.attempt) == ("done", 2)
    assert any("another runner has taken this tick over" in line for line in desk.lines)


def test_nothing_begins_after_the_runner_was_asked_to_stop() -> None:
    desk, launches = Desk(make_schedule("a"), make_schedule("b"), now=at("01-01T03:00:00")), Launches()
    job = FakeJob(130)
    runner = desk.runner(Launches(lambda: job))
    job.during = runner.stop
    runner.run_due(["a", "b"])
    assert job.stopped == 1
    assert desk.ticks("a")[0].state == "interrupted"
    assert desk.ticks("b") == []
    assert launches.ids == []


def test_a_schedule_that_is_added_again_under_its_name_begins_anew() -> None:
    desk, launches = Desk(make_schedule(), now=at("01-01T03:00:00")), Launches(lambda: FakeJob(130))
    desk.runner(launches).run_due(["nightly"])
    desk.book.remove("nightly")
    desk.clock.time = at("01-05T12:00:00")
    desk.book.add(make_schedule(created=desk.clock.time))
    desk.runner(launches).run_due(["nightly"])
    assert len(launches.ids) == 1  # neither the interrupted tick nor those since
    desk.clock.time = at("01-06T03:00:00")
    desk.runner(launches).run_due(["nightly"])
    assert launches.ids[1] == "nightly/20270106T030000Z"


def test_a_machine_whose_clock_is_far_ahead_of_the_stores_runs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, launches = Desk(make_schedule(), now=at("03-01T03:00:00")), Launches()
    real = Book.schedule_at

    def store_says(book: Book, name: str) -> tuple[Schedule, datetime | None]:
        return real(book, name)[0], at("01-01T12:00:00")

    monkeypatch.setattr(Book, "schedule_at", store_says)
    with pytest.raises(WrongClock):
        desk.runner(launches).run_due(["nightly"])
    assert (launches.ids, desk.ticks()) == ([], [])


def test_old_ticks_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbatch.engine.schedule.book.KEPT", 5)
    desk, launches = Desk(make_schedule(cron="* * * * *")), Launches()
    runner = desk.runner(launches)
    for _ in range(20):
        desk.clock.time += timedelta(minutes=1)
        runner.run_due(["nightly"])
    assert len(launches.ids) == len(set(launches.ids)) == 20
    assert len(desk.memory.names("ticks/nightly")) == 5


# --- the book


def test_a_name_is_given_once() -> None:
    desk = Desk(make_schedule())
    with pytest.raises(ScheduleExists):
        desk.book.add(make_schedule())
    with pytest.raises(UnknownSchedule):
        desk.book.schedule("weekly")
    desk.book.remove("nightly")
    with pytest.raises(UnknownSchedule):
        desk.book.remove("nightly")


def test_a_store_that_lets_a_second_writer_through_is_refused() -> None:
    desk = Desk()
    put = desk.memory.put_if
    desk.memory.put_if = lambda name, data, *, etag: put(  # type: ignore[method-assign]
        name, data, etag=desk.memory.objects.get(name, (b"", None, 0.0))[1]
    )
    with pytest.raises(UnconditionalStore):
        desk.book.add(make_schedule())
    assert desk.book.names() == []


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"name": "nightly"}', b"\xff", b'{"command": 3}'])
def test_an_object_that_is_no_schedule_is_named(data: bytes) -> None:
    desk = Desk()
    desk.memory.put_if("schedules/nightly.json", data, etag=None)
    with pytest.raises(DamagedSchedule, match=r"schedules/nightly\.json"):
        desk.book.schedule("nightly")


def test_schedules_and_ticks_come_back_as_they_were_and_a_later_version_may_say_more() -> None:
    schedule = make_schedule(timezone="Europe/Berlin", missed="skip")
    assert Schedule.from_json("x", schedule.to_json()) == schedule
    tick = Tick(
        schedule="nightly", tick=START, state="done", started=START, report={"images": 1}, exit_status=0
    )
    assert Tick.from_json("x", tick.to_json()) == tick
    assert Tick.from_json("x", tick.to_json().replace(b"{", b'{"new": 1, ', 1)) == tick


# --- whatever the clock does

JUMPS = st.lists(
    st.one_of(st.integers(-3 * 86400, 3 * 86400), st.integers(-90, 4000)).map(lambda s: timedelta(seconds=s)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(
    cron=st.sampled_from(
        [
            "* * * * *",
            "*/7 * * * *",
            "30 2 * * *",
            "0,30 1-3 * * *",
            "0 */5 * * SUN",
            "15 3 1 * *",
            "0 0 */2 * 1",
        ]
    ),
    timezone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    missed=st.sampled_from(["latest", "skip"]),
    start=st.sampled_from([START, at("03-27T20:00:00"), at("10-30T22:00:00"), at("11-07T03:00:00")]),
    jumps=JUMPS,
    status=st.sampled_from([0, 3]),
)
def test_no_tick_is_run_twice_and_ticks_strictly_increase(
    cron: str, timezone: str, missed: str, start: datetime, jumps: list[timedelta], status: int
) -> None:
    schedule = make_schedule(cron=cron, timezone=timezone, missed=missed, created=start)
    desk = Desk(schedule, now=start)
    launches = Launches(lambda: FakeJob(status, during=lambda: move(desk, jumps)))
    runners = [desk.runner(launches), desk.runner(launches)]
    turn = 0
    while jumps:
        move(desk, jumps)
        runners[turn % 2].run_due(["nightly"])
        turn += 1
    ran = [tick.tick for tick in launches.ticks]
    assert all(one < other for one, other in pairwise(ran))
    assert all(tick.attempt == 1 and tick.started is not None for tick in launches.ticks)
    assert all(tick.tick <= tick.started for tick in launches.ticks if tick.started)
    on_record = [tick.tick for tick in desk.ticks()]
    assert on_record == sorted(set(on_record))
    assert all(tick.tzinfo is UTC or tick.utcoffset() == timedelta(0) for tick in on_record)


def move(desk: Desk, jumps: list[timedelta]) -> None:
    if jumps:
        desk.clock.time += jumps.pop()


def test_a_store_that_is_down_ends_a_single_call_with_its_error() -> None:
    desk = Desk(make_schedule(), now=at("01-01T03:00:00"))
    desk.memory.down = True
    with pytest.raises(StoreUnreachable):
        desk.runner(Launches()).run_due(["nightly"])
