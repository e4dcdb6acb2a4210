"""One holder at a time, by the store's clock; who can't renew lets go before anybody else may take over."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from schedule_fakes import Memory

from recbatch.archive.errors import StoreUnreachable
from recbatch.engine.lease import DURATION_S, MARGIN_S, Holder, Lease, keeping, new_owner

NAME = "leases/archive.json"


class Watch:
    """A clock of one machine, in seconds."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def lease(memory: Memory, owner: str, watch: Callable[[], float] | None = None) -> Lease:
    return Lease(memory, "archive", owner=owner, purpose=f"{owner}'s work", clock=watch or Watch())


def test_the_second_is_told_who_has_it_and_gets_it_once_it_was_given_back() -> None:
    memory = Memory()
    first, second = lease(memory, "first"), lease(memory, "second")
    assert first.take()
    assert not second.take()
    assert second.holder.purpose == "first's work"
    assert second.look() == first.holder
    first.release()
    assert second.look() is None
    assert second.take()
    assert second.epoch == first.epoch + 1


def test_it_expires_by_the_clock_of_the_store_and_no_other() -> None:
    memory, watch = Memory(), Watch()
    first, second = lease(memory, "first"), lease(memory, "second", watch)
    assert first.take()
    watch.now_s = 10 * DURATION_S  # a machine whose clock runs ahead
    assert not second.take()
    memory.now_s = DURATION_S
    assert not second.take()
    memory.now_s = DURATION_S + 1
    assert second.take()


def test_a_holder_that_does_not_renew_lets_go_before_others_may_take_over() -> None:
    memory, watch = Memory(), Watch()
    first = lease(memory, "first", watch)
    assert first.take()
    watch.now_s = DURATION_S - MARGIN_S - 0.1
    assert first.is_held
    assert first.renew()
    watch.now_s += DURATION_S - MARGIN_S
    assert not first.is_held


def test_a_renewal_after_a_takeover_fails_for_good() -> None:
    memory = Memory()
    first, second = lease(memory, "first"), lease(memory, "second")
    assert first.take()
    memory.now_s = DURATION_S + 1
    assert second.take()
    assert not first.renew()
    assert not first.is_held
    first.release()  # has nothing to give back
    assert second.renew()
    assert Holder.from_json(memory.objects[NAME][0]).owner == "second"


def test_renewals_keep_it() -> None:
    memory, watch = Memory(), Watch()
    first, second = lease(memory, "first", watch), lease(memory, "second")
    assert first.take()
    for _ in range(10):
        memory.now_s += 20
        watch.now_s += 20
        assert first.renew()
        assert not second.take()


def test_a_store_that_is_down_says_nothing_about_the_lease() -> None:
    memory = Memory()
    first = lease(memory, "first")
    assert first.take()
    memory.down = True
    with pytest.raises(StoreUnreachable):
        first.renew()
    memory.down = False
    assert first.renew()


def test_an_object_that_nobody_can_read_holds_it_until_it_expires() -> None:
    memory = Memory()
    memory.put_if(NAME, b"{torn", etag=None)
    assert not lease(memory, "first").take()
    memory.now_s = DURATION_S + 1
    assert lease(memory, "first").take()


def test_the_holder_hears_of_a_takeover() -> None:
    memory = Memory()
    first, heard = lease(memory, "first"), threading.Event()
    assert first.take()
    with keeping(first, heard.set, renew_s=0.01):
        data, _, at_s = memory.objects[NAME]
        memory.objects[NAME] = (data, "tag of another", at_s)
        assert heard.wait(30)
    assert not first.is_held


def test_the_holder_hears_when_its_time_is_up_though_a_renewal_hangs() -> None:
    memory, watch = Memory(), Watch()
    first, heard, hangs = lease(memory, "first", watch), threading.Event(), threading.Event()
    assert first.take()
    put, answered = memory.put_if, threading.Event()

    def hang(name: str, data: bytes, *, etag: str | None) -> str | None:
        hangs.set()
        assert answered.wait(30)
        return put(name, data, etag=etag)

    memory.put_if = hang  # type: ignore[method-assign]
    with keeping(first, heard.set, renew_s=0.01):
        assert hangs.wait(30)
        watch.now_s = DURATION_S
        assert heard.wait(30)
        answered.set()


def test_a_store_that_comes_back_in_time_does_no_harm() -> None:
    memory, renewed = Memory(), threading.Event()
    first = lease(memory, "first")
    assert first.take()
    put, calls = memory.put_if, iter([True, True, False])

    def flaky(name: str, data: bytes, *, etag: str | None) -> str | None:
        if next(calls, False):
            raise StoreUnreachable("memory", "it is down")
        tag = put(name, data, etag=etag)
        renewed.set()
        return tag

    memory.put_if = flaky  # type: ignore[method-assign]
    lost: list[bool] = []
    with keeping(first, lambda: lost.append(True), renew_s=0.01):
        assert renewed.wait(30)
    assert lost == []


def test_no_two_owners_are_the_same() -> None:
    assert len({new_owner() for _ in range(100)}) == 100
