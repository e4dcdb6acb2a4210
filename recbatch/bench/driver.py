"""What the driver itself costs: its own code over simulated workers, from one to thousands.

The workers take as long as real ones on a clock that is only counted, so nothing is waited for: all seconds are the
processor's. The same number of calls is made to the bare simulation, whose seconds are taken off.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recbatch.engine.driver import Driver, Tuning
from recbatch.engine.plan import Shard
from recbatch.engine.pools import HERE, Hello, OneMachine
from recbatch.engine.signals import StopFlag
from recbatch.engine.source import Item

WORKERS = (1, 10, 100, 1000)
SHARDS = 100_000
ITEMS = 32  # of a shard; as many objects as a real one carries to its worker
SHARD_S = 60.0  # of one shard on a worker, for the share of time that the driver would be busy


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverCost:
    workers: int
    shards: int
    cpu_s: float  # of the driver alone
    simulation_s: float  # of the simulated workers, not in the above
    turns: int  # of the driver's loop

    @property
    def us_per_shard(self) -> float:
        return 1e6 * self.cpu_s / self.shards

    @property
    def busy(self) -> float:
        """Share of one core, where a shard takes ``SHARD_S`` seconds on a worker."""
        return self.cpu_s / self.shards * self.workers / SHARD_S


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverCosts:
    rows: tuple[DriverCost, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [{**asdict(row), "us_per_shard": row.us_per_shard, "busy": row.busy} for row in self.rows]
        return {"rows": rows, "shard_s": SHARD_S}


class SimulatedPool(OneMachine):
    """Calls end in the order of a counted clock, each worker's own one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._random = random.Random(1)
        self._free_at: dict[int, float] = {}
        self._ends: list[tuple[float, int]] = []
        self._setups: set[int] = set()
        self._next = 0

    def start(self, job: Any) -> tuple[int, int]:
        handle = len(self._free_at)
        self._free_at[handle] = 0.0
        self._arrived.append((handle, HERE))
        ticket = self.submit(handle, None)
        self._setups.add(ticket)
        return handle, ticket

    def submit(self, handle: int, task: Any) -> int:
        self._next += 1
        start = max(self._free_at[handle], self._ends[0][0] if self._ends else 0.0)
        self._free_at[handle] = start + SHARD_S * self._random.uniform(0.5, 1.5)
        heapq.heappush(self._ends, (self._free_at[handle], self._next))
        return self._next

    def wait(self, tickets: Sequence[Any], timeout_s: float) -> list[Any]:
        return [heapq.heappop(self._ends)[1]]

    def result(self, ticket: Any) -> Any:
        return SET_UP if ticket in self._setups else ticket

    def kill(self, handle: Any) -> None:
        pass

    def close(self) -> None:
        pass


SET_UP = Hello(pid=0, host="simulated")


def driver_benchmark(
    *,
    workers: Sequence[int] = WORKERS,
    shards: int = SHARDS,
    progress: Callable[[str], None] | None = None,
) -> DriverCosts:
    """Processor seconds of the driver for each of these numbers of workers."""
    rows = []
    for count in workers:
        if progress is not None:
            progress(f"{count:,} workers ...")
        rows.append(driver_cost(count, shards))
    return DriverCosts(rows=tuple(rows))


def driver_cost(workers: int, shards: int) -> DriverCost:
    turns = done = 0

    def on_tick() -> None:
        nonlocal turns
        turns += 1

    def on_result(value: Any, shard: Shard[Item]) -> None:
        nonlocal done
        done += 1

    driver: Driver[Item] = Driver(
        pool=SimulatedPool(),
        job=None,  # type: ignore[arg-type]  # nothing is built from it
        workers=workers,
        tuning=Tuning(),
        on_result=on_result,
        on_failed=lambda item, error, name: None,
        on_tick=on_tick,
        progress=lambda event: None,
        stop=StopFlag(),
    )
    begin = time.process_time()
    driver.run(some_shards(shards))
    total_s = time.process_time() - begin
    bare_s = simulation_s(workers, shards)
    if done != shards:
        raise RuntimeError(f"{done} of {shards} shards came back")
    return DriverCost(
        workers=workers, shards=shards, cpu_s=total_s - bare_s, simulation_s=bare_s, turns=turns
    )


def simulation_s(workers: int, shards: int) -> float:
    """Of making the shards and simulating the workers."""
    begin = time.process_time()
    pool = SimulatedPool()
    for _ in range(workers):
        pool.start(None)
    pool.arrived()
    for number, shard in enumerate(some_shards(shards)):
        pool.submit(number % workers, shard)
        pool.result(*pool.wait([], 0.0))
    return time.process_time() - begin


def some_shards(count: int) -> Iterator[Shard[Item]]:
    items = tuple(
        Item(
            key=f"photos/{number:04d}.jpg",
            uri=f"s3://corpus/photos/{number:04d}.jpg",
            size=1_000_000,
            mtime_ns=0,
        )
        for number in range(ITEMS)
    )
    for number in range(count):
        yield Shard(name=f"{number:06d}", items=items)
