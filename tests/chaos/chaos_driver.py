"""One run of compress as a process of its own, to be killed. Events go to standard output, a JSON line each.

It may kill itself at a commit, lose the store's answer, meet a rival there, or have a clock that is wrong.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import importlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos_codec import CODEC, Traps, TrapSettings

from recbatch.archive.store import Store
from recbatch.engine import compress, events
from recbatch.engine.driver import Tuning
from recbatch.engine.processes import ProcessPool
from recbatch.errors import RecbatchError

PATIENT_S = 600.0  # no machine is so busy that an honest shard takes longer
SHORT_S = 6.0  # of a shard whose worker is going to freeze


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a run is told, as JSON."""

    source: str
    archive: str
    traps: str
    executor: str = "processes"
    workers: int = 2
    sleep_s: float = 0.002
    commit_shards: int = 3
    at_commit: str = ""  # "killed-before", "killed-in", "killed-after", "answer-lost", "rival", "full"
    commit: int = 0  # at which one, from 1
    short: tuple[tuple[str, str], ...] = ()  # traps before which a shard's deadline is short
    spares_lingerers: bool = False  # a kill does not reach them, as on a node that is cut off
    clock_s: float = 0.0  # how wrong the clock is


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience(Tuning):
    """Deadlines that an honest worker can't miss, except before a trap that is there to be missed by one."""

    traps: str = ""
    short: tuple[tuple[str, str], ...] = ()

    def deadline(self, shard: Any) -> float:
        keys = {item.key for item in shard.items}
        traps = Traps(Path(self.traps))
        return (
            SHORT_S if any(key in keys and traps.waits(kind, key) for kind, key in self.short) else PATIENT_S
        )


class Mischief:
    """What goes wrong in this process."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._traps = Traps(Path(orders.traps))
        self._commits = self._told = 0
        self._spared: set[str] = set()  # shards of workers that linger

    def install(self) -> None:
        commit: Any = importlib.import_module("recbatch.archive.commit")
        commit.transact = functools.partial(
            self._transact, commit.transact, commit.claim_epoch, commit.Patience
        )
        if self._orders.spares_lingerers:
            ProcessPool.kill = self._spare(ProcessPool.kill)  # type: ignore[method-assign]
        if self._orders.clock_s:
            now = time.time
            time.time = lambda: now() + self._orders.clock_s

    def _transact(
        self, original: Any, claim: Any, patience: Any, store: Store, table: Any, actions: Any, *rest: Any
    ) -> Any:
        if not actions:
            return original(store, table, actions, *rest)
        self._commits += 1
        what = self._orders.at_commit if self._commits == self._orders.commit else ""
        if what == "killed-before":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "killed-in":  # the entry stands in the log, and nobody was told
            Store.settle = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        if what == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if what == "rival":
            claim(store, "a-job-of-others", patience=patience())
        version = original(store, table, actions, *rest)
        if what == "answer-lost":
            raise OSError("Generic S3 error: connection reset before the answer")
        return version

    def _spare(self, kill: Any) -> Any:
        def spare(pool: Any, handle: Any) -> None:
            if handle.pid not in {note["pid"] for note in self._traps.notes("lingers")}:
                return kill(pool, handle)
            if handle in pool._processes:
                pool._processes.remove(handle)
                handle.connection.close()
                begun = [note for note in self._traps.notes("begun") if note["pid"] == handle.pid]
                self._spared.add(begun[-1]["shard"])

        return spare

    def watch(self, event: events.Event) -> None:
        facts = {"event": type(event).__name__}
        for name in ("shard", "attempt", "reason", "action", "shards", "images", "version"):
            if hasattr(event, name):
                facts[name] = getattr(event, name)
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
        if isinstance(event, events.ShardDone) and event.shard in self._spared:
            self._traps.release()  # it is done by another now
        if isinstance(event, events.Committed):
            self._told += 1
            if self._orders.at_commit == "killed-after" and self._told == self._orders.commit:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    facts = json.loads(sys.argv[1])
    orders = Orders(**{**facts, "short": tuple(tuple(pair) for pair in facts["short"])})
    mischief = Mischief(orders)
    mischief.install()
    try:
        report = compress(
            orders.source,
            orders.archive,
            settings=TrapSettings(folder=orders.traps, sleep_s=orders.sleep_s),  # type: ignore[arg-type]
            workers=orders.workers,
            executor=orders.executor,
            shard_bytes=500,
            codec_factory=CODEC,
            tuning=Patience(
                poll_s=0.05,
                backoff_s=0.01,
                commit_shards=orders.commit_shards,
                commit_rest=0.0,  # else how many wait for a commit would depend on how long the last one took
                traps=orders.traps,
                short=orders.short,
            ),
            progress=mischief.watch,
        )
    except RecbatchError as error:
        sys.stdout.write(json.dumps({"event": "failed", "code": error.code, "reason": str(error)}) + "\n")
        return error.exit_status
    done = {"event": "report", **{f.name: getattr(report, f.name) for f in dataclasses.fields(report)}}
    sys.stdout.write(json.dumps(done, default=dict) + "\n")
    return report.exit_status


if __name__ == "__main__":
    sys.exit(main())
