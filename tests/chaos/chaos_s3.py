"""Scenarios with the archive in a bucket: its server answers badly, loses answers, or is killed and comes again."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaos_play import Play
from chaos_scenarios import Scenario, draw
from proxy import Proxy, Request, Seeded, Times
from seaweed import Seaweed

FAULTS = (
    "S3 answers 500, 503, cuts, resets, or loses answers",
    "S3 loses the answers to commits",
    "S3 server killed and started again",
    "S3 server killed, then the driver",
)
PASSING = ("slow_down", "internal", "reset", "cut", "lost")


def draw_s3(seed: int) -> Scenario:
    """Workers' traps and moments as elsewhere, but for those that spoil local files."""
    drawn = draw(seed)
    return replace(
        drawn,
        fault=FAULTS[seed % len(FAULTS)],
        traps=tuple(trap for trap in drawn.traps if trap[0].startswith("killed")),
        moment=replace(drawn.moment, event="ShardDone"),
        victims=(),
        at_commit="",
        workers=2,
        clock_s=0.0,
        drivers=1,
    )


class PlayOnS3(Play):
    """``go_direct`` names the server itself to this process.

    Drivers go through the proxy. This process can't: the proxy runs in it, and deltalake reads a table's history
    without letting other threads run.
    """

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        *,
        bucket: str,
        server: Seaweed,
        proxy: Proxy,
        go_direct: Callable[[], None],
    ) -> None:
        super().__init__(scenario, folder, f"s3://{bucket}/archive")
        self._bucket, self._server, self._proxy, self._go_direct = bucket, server, proxy, go_direct

    def _disturb(self) -> list[int]:
        rng = random.Random(self._scenario.seed)
        run: Any = None
        if "server killed" in self._scenario.fault:
            run = self._start()
            self._at_moment(run)
            self._server.stop()
            time.sleep(rng.uniform(0.0, 3.0))
            if "driver" in self._scenario.fault:
                run.popen.kill()
            self._server.start()
        elif "commits" in self._scenario.fault:
            self._proxy.plan = Times("lost", rng.randint(1, 4), _is_commit)
            run = self._start()
        else:
            seeded = Seeded(seed=self._scenario.seed, share=rng.uniform(0.03, 0.12), kinds=PASSING)
            self._proxy.plan = lambda request: seeded(replace(request, path=self._nameless(request.path)))
            run = self._start()
        status = self._end(run)
        self._proxy.plan = None
        self._go_direct()

        if status == -signal.SIGKILL:
            assert "driver" in self._scenario.fault, run.story()
        else:
            assert status == 1 or (status == 3 and run.code == "store-unreachable"), run.story()
        if "server" not in self._scenario.fault:
            assert self._proxy.spoilt() > 0
        return [status]

    def _nameless(self, path: str) -> str:
        """The bucket has another name each time, and the seed is to draw the same faults."""
        return path.replace(self._bucket, "bucket")

    def _bound(self) -> int:
        """Each failure that the driver saw cost a shard at most; there were no more than the store explains."""
        seen = sum(len(run.events("ActorDied")) for run in self.runs)
        if "server" not in self._scenario.fault:
            assert seen <= len(self._scenario.traps) + self._proxy.spoilt()
        return max(seen, super()._bound()) + (
            2 * self._scenario.workers if "server" in self._scenario.fault else 0
        )


def _is_commit(request: Request) -> bool:
    return request.method == "PUT" and "/_delta_log/" in request.path and request.path.endswith(".json")
