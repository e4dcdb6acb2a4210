"""The driver against a pool without processes, whose workers do as the test says."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.engine import errors, events
from recbatch.engine.driver import Driver, Tuning
from recbatch.engine.plan import Shard
from recbatch.engine.pools import Hello, WorkerDied, WorkerRaised
from recbatch.engine.signals import StopFlag
from recbatch.errors import CorruptStream

TUNING = Tuning(poll_s=0.0, backoff_s=0.0)


@dataclass(frozen=True)
class Thing:
    key: str
    size: int = 1


class ScriptedPool:
    """``behave(task)`` returns a value or raises WorkerDied, WorkerRaised; None means that no answer ever comes."""

    def __init__(self, behave, setup=lambda: Hello(pid=1, host="here")):
        self.behave, self.setup = behave, setup
        self.calls = {}  # ticket: (worker, task), in the order of submission
        self.dead = set()
        self.started = 0
        self.tickets = 0
        self.most_in_flight = 0

    def start(self, job):
        self.started += 1
        return self.started, self._ticket(self.started, None)

    def submit(self, handle, task):
        assert handle not in self.dead
        ticket = self._ticket(handle, task)
        in_flight = Counter(worker for worker, task in self.calls.values() if task is not None)
        self.most_in_flight = max(self.most_in_flight, *in_flight.values())
        return ticket

    def _ticket(self, handle, task):
        self.tickets += 1
        self.calls[self.tickets] = (handle, task)
        return self.tickets

    def wait(self, tickets, timeout_s):
        return [ticket for ticket in tickets if self.calls[ticket][1] is None or self._answers(ticket)][:1]

    def _answers(self, ticket):
        return getattr(self.calls[ticket][1], "name", "") not in self.behave.silent

    def result(self, ticket):
        _, task = self.calls.pop(ticket)
        return self.setup() if task is None else self.behave(task)

    def kill(self, handle):
        self.dead.add(handle)

    def close(self):
        pass


class Behaviour:
    silent = ()

    def __init__(self, poison=(), once=(), error=None):
        self.poison, self.once = set(poison), set(once)
        self.error = error or WorkerDied("signal 9")
        self.seen = []

    def __call__(self, shard):
        self.seen.append(shard.name)
        hit = [thing.key for thing in shard.items if thing.key in self.poison | self.once]
        if hit:
            self.once -= set(hit)
            if isinstance(self.error, WorkerDied | WorkerRaised):
                raise self.error
            return self.error
        return shard


def run(behaviour, shards, *, workers=2, tuning=TUNING, pool=None, on_tick=lambda: None, stop=None):
    done, failed, told = [], [], []
    driver = Driver(
        pool=pool or ScriptedPool(behaviour),
        job=None,
        workers=workers,
        tuning=tuning,
        on_result=lambda value, shard: done.extend(thing.key for thing in value.items),
        on_failed=lambda thing, error, name: failed.append((thing.key, error)),
        on_tick=on_tick,
        progress=told.append,
        stop=stop or StopFlag(),
    )
    for shard in shards:
        driver.add(shard)
    driver.run()
    return driver, done, failed, told


def things(count, per_shard):
    keys = [f"{number:03d}" for number in range(count)]
    runs = [keys[start : start + per_shard] for start in range(0, count, per_shard)]
    return [Shard(name=f"s{number}", items=tuple(map(Thing, run))) for number, run in enumerate(runs)]


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 40), st.integers(1, 20), st.integers(1, 4), st.booleans())
def test_every_item_ends_once_done_or_failed_whoever_dies(data, count, per_shard, workers, raises):
    shards = things(count, per_shard)
    keys = [thing.key for shard in shards for thing in shard.items]
    poison = data.draw(st.sets(st.sampled_from(keys), max_size=3))
    once = data.draw(st.sets(st.sampled_from(keys), max_size=3))
    error = WorkerRaised("ValueError: x") if raises else WorkerDied("signal 9")
    _, done, failed, _ = run(
        Behaviour(poison, once, error),
        shards,
        workers=workers,
        tuning=Tuning(poll_s=0, backoff_s=0, failures=99),
    )
    assert sorted(done + [key for key, _ in failed]) == keys
    assert {key for key, _ in failed} == poison
    want = errors.InternalFailure if raises else errors.PoisonImage
    assert {type(error) for _, error in failed} <= {want}


def test_no_worker_has_more_than_two_calls_and_each_has_one_at_the_end():
    behaviour = Behaviour()
    pool = ScriptedPool(behaviour)
    run(behaviour, things(40, 1), workers=3, pool=pool)
    assert pool.most_in_flight == 2
    assert pool.started == 3
    pool = ScriptedPool(behaviour)
    run(behaviour, things(3, 1), workers=3, pool=pool)
    assert pool.most_in_flight == 1


def test_only_the_running_shard_is_suspected():
    behaviour = Behaviour(poison={"000"})
    driver, done, _, told = run(behaviour, things(6, 1), workers=1)
    assert [event.shard for event in told if isinstance(event, events.ActorDied)] == ["s0", "s0"]
    assert sorted(done) == ["001", "002", "003", "004", "005"]
    assert driver.deaths == 2


def test_one_death_costs_a_retry_and_no_image():
    driver, done, failed, told = run(Behaviour(once={"001"}), things(4, 4), workers=1)
    assert (sorted(done), failed) == (["000", "001", "002", "003"], [])
    assert (driver.deaths, driver.retries) == (1, 1)
    assert [event.action for event in told if isinstance(event, events.ActorDied)] == ["retry"]


def test_a_silent_worker_is_killed_at_the_deadline():
    behaviour = Behaviour()
    behaviour.silent = {"s0"}
    pool = ScriptedPool(behaviour)

    def tick():
        if pool.dead:
            behaviour.silent = ()

    tuning = Tuning(poll_s=0.01, deadline_s=0.05, deadline_image_s=0.0)
    driver, done, _, told = run(behaviour, things(3, 1), workers=1, pool=pool, tuning=tuning, on_tick=tick)
    assert sorted(done) == ["000", "001", "002"]
    assert "no answer within" in next(event.reason for event in told if isinstance(event, events.ActorDied))
    assert driver.deaths == 1


def test_a_deadline_grows_with_the_shard():
    tuning = Tuning(deadline_s=10, deadline_image_s=2, deadline_bytes_s=100)
    shard = Shard(name="s", items=(Thing("a", 500), Thing("b", 500)))
    assert tuning.deadline(shard) == 10 + 4 + 10


def test_an_error_of_ours_ends_the_job_as_itself():
    with pytest.raises(CorruptStream, match="torn"):
        run(Behaviour(poison={"002"}, error=CorruptStream("torn")), things(5, 1))


def test_a_failing_source_is_tried_again_and_given_up_alone():
    error = errors.SourceUnreadable("s3://bucket/x", "503")
    _, done, failed, _ = run(Behaviour(poison={"002"}, error=error), things(8, 4))
    assert len(done) == 7
    assert [(key, type(error)) for key, error in failed] == [("002", errors.UnreadableFile)]


def test_a_source_that_fails_for_all_ends_the_job_with_its_own_error():
    error = errors.SourceUnreadable("s3://bucket/x", "503")
    keys = [f"{number:03d}" for number in range(64)]
    with pytest.raises(errors.SourceUnreadable, match="503"):
        run(Behaviour(poison=keys, error=error), things(64, 4))


def test_workers_that_all_die_end_the_job():
    keys = [f"{number:03d}" for number in range(64)]
    with pytest.raises(errors.WorkersKeepFailing, match="signal 9"):
        run(Behaviour(poison=keys), things(64, 8))


@pytest.mark.parametrize("answer", [CorruptStream("no weights"), errors.WorkerSetupFailed("ImportError: x")])
def test_a_worker_that_cant_start_ends_the_job_at_once(answer):
    pool = ScriptedPool(Behaviour(), setup=lambda: answer)
    with pytest.raises(type(answer)):
        run(None, things(8, 1), pool=pool)
    assert pool.started == 2
    assert pool.dead == {1, 2}


def test_a_worker_that_dies_while_it_starts_is_replaced_a_few_times():
    answers = iter([WorkerDied("signal 9"), Hello(pid=1, host="x")])

    def setup():
        answer = next(answers, Hello(pid=1, host="x"))
        if isinstance(answer, WorkerDied):
            raise answer
        return answer

    driver, done, _, _ = run(None, things(4, 1), pool=ScriptedPool(Behaviour(), setup=setup))
    assert (len(done), driver.deaths) == (4, 1)

    def never():
        raise WorkerDied("signal 9")

    with pytest.raises(errors.WorkerSetupFailed, match="signal 9"):
        run(None, things(4, 1), pool=ScriptedPool(Behaviour(), setup=never))


def test_a_stop_takes_no_new_shard():
    stop = StopFlag()
    behaviour = Behaviour()
    _, done, _, _ = run(behaviour, things(20, 1), stop=stop, on_tick=lambda: stop.set("SIGTERM"))
    assert len(behaviour.seen) <= 4
    assert sorted(done) == [name.replace("s", "00") for name in sorted(behaviour.seen)]
