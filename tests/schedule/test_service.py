"""``schedule run`` once, and as a daemon: early calls, signals, damaged schedules, a store that is away."""

from __future__ import annotations

import signal

import pytest
from schedule_fakes import Desk, Launches, LeapingClock, at, crash, make_schedule

from recbatch.engine import lease as leases
from recbatch.engine.schedule import service
from recbatch.engine.schedule.errors import DamagedSchedule


def service_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.Book, "open", classmethod(lambda cls, archive: desk.book))


def test_once_waits_for_a_tick_whose_caller_was_a_little_early(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, launches = Desk(make_schedule(), now=at("01-01T02:59:58")), Launches()
    service_over(desk, monkeypatch)
    service.run_once("memory", say=desk.lines.append, launch=launches, clock=desk.clock)
    assert desk.clock.waits == [2.0]
    assert launches.ids == ["nightly/20270101T030000Z"]
    desk.clock.time = at("01-02T02:50:00")
    service.run_once("memory", say=desk.lines.append, launch=launches, clock=desk.clock)
    assert len(launches.ids) == len(desk.clock.waits) == 1


def test_once_runs_the_others_though_one_schedule_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, launches = Desk(make_schedule("b"), now=at("01-01T03:00:00")), Launches()
    desk.memory.put_if("schedules/a.json", b"{", etag=None)
    service_over(desk, monkeypatch)
    with pytest.raises(DamagedSchedule):
        service.run_once("memory", say=desk.lines.append, launch=launches, clock=desk.clock)
    assert launches.ids == ["b/20270101T030000Z"]


def test_a_call_that_is_stopped_before_it_ran_anything_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, launches = Desk(make_schedule(), now=at("01-01T02:59:58")), Launches()
    service_over(desk, monkeypatch)

    class Signalled(LeapingClock):
        def wait(self, seconds: float) -> None:
            super().wait(seconds)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        service.run_once("memory", say=desk.lines.append, launch=launches, clock=Signalled(desk.clock.time))
    assert launches.ids == []


class Ended(Exception):
    """Ends a daemon from within its clock."""


def test_the_daemon_runs_each_tick_sees_new_schedules_and_outlives_its_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, launches = Desk(make_schedule(cron="*/30 * * * *")), Launches()
    service_over(desk, monkeypatch)

    class Eventful(LeapingClock):
        def wait(self, seconds: float) -> None:
            super().wait(seconds)
            desk.memory.down = at("01-01T00:40:00") < self.time < at("01-01T00:50:00")
            if self.time >= at("01-01T01:10:00") and "b" not in desk.memory.names("schedules"):
                desk.memory.put_if(
                    "schedules/b.json",
                    make_schedule("b", cron="15 * * * *", created=at("01-01T01:00:00")).to_json(),
                    etag=None,
                )
            if self.time >= at("01-01T02:00:00"):
                raise Ended

    clock = Eventful()
    desk.clock = clock
    with pytest.raises(Ended):
        service.run_daemon("memory", say=desk.lines.append, launch=launches, clock=clock)
    names = [f"{tick.schedule}@{tick.tick:%H:%M}" for tick in launches.ticks]
    assert names == ["nightly@00:30", "nightly@01:00", "b@01:15", "nightly@01:30"]
    assert max(clock.waits) <= service.LONGEST_WAIT_S
    assert any("Trying again" in line for line in desk.lines)


def test_the_status_says_what_a_run_would_do() -> None:
    desk = Desk(make_schedule(), now=at("01-03T12:00:00"))
    schedule = desk.book.schedule("nightly")
    before = service.status(desk.book, schedule, desk.clock.now())
    assert (before.due, before.missed, before.next) == (at("01-03T03:00:00"), 2, at("01-04T03:00:00"))
    crash(desk)
    during = service.status(desk.book, schedule, desk.clock.now())
    assert (during.due, during.running) == (None, "nightly/20270103T030000Z")
    desk.memory.now_s += leases.DURATION_S + 1
    after = service.status(desk.book, schedule, desk.clock.now())
    assert (after.due, after.again, after.running) == (at("01-03T03:00:00"), True, "")
