"""The driver against a pool without processes, whose workers do as the test says."""

from collections import Counter
from dataclasses import dataclass, replace

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

    elastic = False
    patience_s = 60.0

    def __init__(self, behave, setup=lambda: Hello(pid=1, host="here"), nodes=("here",)):
        self.behave, self.setup = behave, setup
        self.nodes = list(nodes)  # workers find their places on them in turn; none: they wait
        self.places = 4
        self.where = {}
        self.unplaced = []
        self.left = []
        self.stopped = []
        self.calls = {}  # ticket: (worker, task), in the order of submission
        self.dead = set()
        self.started = 0
        self.tickets = 0
        self.most_in_flight = 0

    def start(self, job):
        self.started += 1
        self.unplaced.append(self.started)
        return self.started, self._ticket(self.started, None)

    def arrived(self):
        found = []
        while self.nodes and self.unplaced:
            worker = self.unplaced.pop(0)
            node = self.nodes[(worker - 1) % len(self.nodes)]
            self.where[worker] = node
            found.append((worker, node))
        return found

    def listen(self, listener):
        self.listener = listener

    def stop(self, handle):
        self.stopped.append(handle)

    def leave(self, node):
        self.left.append(node)
        self.nodes = [other for other in self.nodes if other != node]

    def shortage(self, workers):
        return errors.NotEnoughResources(f"{workers} workers", "0")

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
        return [ticket for ticket in tickets if self._answers(ticket)][:1]

    def _answers(self, ticket):
        worker, task = self.calls[ticket]
        if task is None:
            return bool(self.nodes) or worker in self.where
        return task.name not in self.behave.silent

    def result(self, ticket):
        self.asked, task = self.calls.pop(ticket)
        return self.setup() if task is None else self.behave(task)

    def kill(self, handle):
        self.dead.add(handle)
        if handle in self.unplaced:
            self.unplaced.remove(handle)

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


class OnNodes(ScriptedPool):
    """Workers die where ``dies(node, shard)`` says so; with their machine, where it says "node"."""

    def __init__(self, dies, nodes, **options):
        super().__init__(Behaviour(), nodes=nodes, **options)
        self.dies, self.on = dies, Counter()

    def result(self, ticket):
        value = super().result(ticket)
        if isinstance(value, Shard):
            node = self.where[self.asked]
            if how := self.dies(node, value):
                raise WorkerDied("as told", with_node=how == "node")
            self.on[node] += 1
        return value


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


def test_after_a_stop_workers_hand_in_what_they_have_and_the_silent_are_left():
    stop, behaviour = StopFlag(), Behaviour()
    behaviour.silent = ("s0", "s1")

    class Pool(ScriptedPool):
        def stop(self, handle):
            super().stop(handle)
            behaviour.silent = ("s1",)

    pool = Pool(behaviour)
    tuning = replace(TUNING, stop_s=0.2)
    driver, done, failed, _ = run(
        behaviour,
        things(2, 1),
        pool=pool,
        tuning=tuning,
        stop=stop,
        on_tick=lambda: stop.set("SIGTERM") if len(pool.calls) == 2 else None,
    )
    assert (done, failed, driver.deaths) == (["000"], [], 0)
    assert sorted(pool.stopped) == sorted(pool.dead) == [1, 2]


def test_a_shard_whose_machine_goes_is_done_again_as_if_nothing_had_been():
    losses = iter(["node"] * 3)
    pool = OnNodes(lambda node, shard: shard.name == "s0" and next(losses, ""), ["a", "b"])
    driver, done, failed, told = run(None, things(8, 4), pool=pool)
    assert (len(done), failed) == (8, [])
    assert {(event.attempt, event.action) for event in told if isinstance(event, events.ActorDied)} == {
        (1, "retry")
    }
    assert (driver.deaths, driver.retries) == (3, 3)
    assert not pool.left


def test_an_image_that_brings_machines_down_is_found_all_the_same():
    pool = OnNodes(lambda node, shard: "node" * any(thing.key == "002" for thing in shard.items), ["a", "b"])
    _, done, failed, _ = run(None, things(8, 4), pool=pool, tuning=Tuning(poll_s=0, backoff_s=0, failures=99))
    assert len(done) == 7
    assert [(key, type(error)) for key, error in failed] == [("002", errors.PoisonImage)]


def test_many_workers_lost_with_one_machine_are_one_failure():
    lost = {f"s{number}" for number in range(40)}

    def dies(node, shard):
        return "node" if node == "a" and shard.name in lost and not lost.discard(shard.name) else ""

    tuning = Tuning(poll_s=0, backoff_s=0, failures=1)
    driver, done, failed, _ = run(None, things(80, 1), pool=OnNodes(dies, "ab"), workers=2, tuning=tuning)
    assert (len(done), failed) == (80, [])
    assert driver.deaths >= 2


def test_a_node_where_workers_die_and_nowhere_else_is_left_and_no_image_suffers():
    pool = OnNodes(lambda node, shard: node == "bad", ["good", "bad", "fine"])
    driver, done, failed, told = run(None, things(60, 2), workers=6, pool=pool)
    assert (len(done), failed) == (60, [])
    assert pool.left == ["bad"]
    (left,) = [event for event in told if isinstance(event, events.NodeLeft)]
    assert (left.node, "as told" in left.reason) == ("bad", True)
    assert "split" not in {event.action for event in told if isinstance(event, events.ActorDied)}
    assert driver.deaths <= 6


def test_a_poison_image_is_not_held_against_the_nodes_it_killed_workers_on():
    pool = OnNodes(lambda node, shard: any(thing.key == "005" for thing in shard.items), ["a", "b"])
    _, done, failed, _ = run(None, things(64, 8), workers=4, pool=pool)
    assert (len(done), [key for key, _ in failed]) == (63, ["005"])
    assert pool.left == []


def test_the_only_node_is_never_left():
    dead = iter(range(6))
    pool = OnNodes(lambda node, shard: next(dead, None) is not None, ["a"])
    tuning = Tuning(poll_s=0, backoff_s=0, attempts=9)
    _, done, _, _ = run(None, things(30, 1), workers=4, pool=pool, tuning=tuning)
    assert len(done) == 30
    assert pool.left == []


def test_a_node_where_nothing_can_start_is_left_and_only_the_last_one_ends_the_job():
    def pool_where(fails):
        def setup():
            broken = pool.where[pool.asked] in fails
            return errors.WorkerSetupFailed("no CUDA") if broken else Hello(pid=1, host="x")

        pool = OnNodes(lambda node, shard: "", ["a", "b"], setup=setup)
        return pool

    pool = pool_where({"a"})
    _, done, _, _ = run(None, things(30, 1), workers=4, pool=pool)
    assert (len(done), pool.left, set(pool.on)) == (30, ["a"], {"b"})
    with pytest.raises(errors.WorkerSetupFailed, match="no CUDA"):
        run(None, things(30, 1), workers=4, pool=pool_where({"a", "b"}))


def test_a_retry_goes_to_another_node():
    seen = []

    def dies(node, shard):
        seen.append((shard.name, node))
        return len([name for name, _ in seen if name == "s3"]) == 1 and shard.name == "s3"

    run(None, things(20, 1), workers=2, pool=OnNodes(dies, ["a", "b"]))
    first, second = [node for name, node in seen if name == "s3"]
    assert first != second


def test_without_a_place_the_driver_waits_says_so_and_ends_with_the_reason(monkeypatch):
    monkeypatch.setattr("recbatch.engine.driver.TELL_EVERY_S", 0.02)
    pool = ScriptedPool(Behaviour(), nodes=())
    pool.patience_s = 0.1
    told = []
    driver = Driver(
        pool=pool,
        job=None,
        workers=3,
        tuning=Tuning(poll_s=0.005),
        on_result=None,
        on_failed=None,
        on_tick=lambda: None,
        progress=told.append,
        stop=StopFlag(),
    )
    with pytest.raises(errors.NotEnoughResources, match="3 workers"):
        driver.run(things(9, 1))
    assert {(type(event), event.wanted) for event in told} == {(events.WaitingForWorkers, 3)}
    assert pool.dead == {1, 2, 3}


def test_nodes_that_come_late_are_used_and_those_nobody_needs_are_not_asked_for():
    pool = ScriptedPool(Behaviour(), nodes=())

    def tick():
        if pool.started:
            pool.nodes = ["late"]

    _, done, _, _ = run(pool.behave, things(5, 1), workers=50, pool=pool, on_tick=tick)
    assert len(done) == 5
    assert pool.started == 5


def test_as_many_workers_as_find_a_place_where_nobody_said_how_many():
    pool = ScriptedPool(Behaviour(), nodes=["a"])
    pool.places = 1
    started = []

    def tick():
        started.append(pool.started)
        if len(started) == 10:
            pool.places = 3

    driver, done, _, _ = run(
        pool.behave,
        things(60, 1),
        workers=None,
        pool=pool,
        on_tick=tick,
        tuning=Tuning(poll_s=0, backoff_s=0, places_s=0),
    )
    assert len(done) == 60
    assert (started[5], pool.started, driver.most_workers) == (1, 3, 3)


def test_workers_that_hang_together_on_a_node_that_is_left_are_counted_once():
    """All deadlines are past at one look; the third death takes the others away while they are looked at."""
    pool = OnNodes(lambda node, shard: "", ["bad"])
    driver = Driver(
        pool=pool,
        job=None,
        workers=6,
        tuning=Tuning(poll_s=0, backoff_s=0),
        on_result=None,
        on_failed=None,
        on_tick=lambda: None,
        progress=lambda event: None,
        stop=StopFlag(),
    )
    driver._tasks.follow(things(12, 1))
    driver._tasks.look_ahead(12)
    driver._start_workers()
    pool.nodes = ["good"]
    driver._seats.add(*pool.start(None))
    driver._arrive()
    for seat in driver._seats:
        driver._seats.welcome(seat)
    driver._feed()
    for seat in driver._seats:
        seat.due = 0.0 if seat.node == "bad" else float("inf")
    driver._check()
    assert (driver.deaths, pool.left, len(driver._seats)) == (3, ["bad"], 1)
    assert driver._seats.busy == 1


def test_a_store_that_fails_while_workers_start_is_asked_again_and_at_last_said():
    answers = [errors.SourceUnreadable("s3://b", "it throttles")] * 3
    pool = ScriptedPool(Behaviour(), setup=lambda: answers.pop() if answers else Hello(pid=1, host="here"))
    _, done, _, _ = run(None, things(4, 1), workers=1, pool=pool)
    assert len(done) == 4
    answers += [errors.SourceUnreadable("s3://b", "it throttles")] * 9
    with pytest.raises(errors.SourceUnreadable, match="it throttles"):
        run(None, things(4, 1), workers=1, pool=pool)
    assert answers
