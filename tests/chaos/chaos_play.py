"""A scenario, played: its faults strike one job, the job is run again to its end, and all that must hold is checked."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from chaos_codec import Traps
from chaos_driver import Orders
from chaos_invariants import (
    Row,
    check_rows,
    check_swept,
    check_whole,
    finish,
    redone,
    rows_of,
)
from chaos_runs import Run
from chaos_scenarios import KEYS, SIGNALS, Scenario
from engine_fakes import fill

from recbatch.archive.store import LOG, Store

SHORT = ("frozen", "frozen-in-write", "lingers")


WELL = (0, 1)  # the bad image gives 1, unless an earlier run has archived that it is bad


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """For the table."""

    fault: str
    seed: int
    statuses: tuple[int, ...]  # of the drivers that were disturbed
    redone: int
    bound: int
    orphans: int
    images: int


class Play:
    def __init__(self, scenario: Scenario, folder: Path, archive: str = "") -> None:
        self._scenario = scenario
        self._source, self._archive = folder / "source", archive or str(folder / "archive")
        self._local = not archive
        (folder / "traps").mkdir()
        self._traps = Traps(folder / "traps")
        self.runs: list[Run] = []
        self._ends: list[int | None] = []
        self._killed = 0  # workers, from here

    def play(self, undisturbed: dict[str, Row]) -> Outcome:
        scenario = self._scenario
        fill(self._source, KEYS)
        for kind, key in scenario.traps:
            self._traps.set(kind, key)
        statuses = self._disturb()
        self._traps.release()
        left = [name for run in self.runs for name in run.sweep()]
        assert not left, left
        bound = self._bound()
        cost = redone(self._traps, self._archive) if self._log_stands() else len(self._traps.notes("begun"))
        assert cost <= bound, (cost, bound, [run.story() for run in self.runs])
        finish(str(self._source), self._archive)
        check_rows(self._archive, self._wanted(undisturbed))
        check_whole(str(self._source), self._archive)
        orphans = check_swept(self._archive) if self._local else 0
        return Outcome(
            fault=scenario.fault,
            seed=scenario.seed,
            statuses=tuple(statuses),
            redone=cost,
            bound=bound,
            orphans=orphans,
            images=len(rows_of(self._archive)),
        )

    def close(self) -> None:
        self._traps.release()
        for run in self.runs:
            if run.popen.stdout is not None and not run.popen.stdout.closed:
                run.sweep()

    def _bound(self) -> int:
        return self._scenario.bound(self._ends, killed=self._killed)

    # --- what happens

    def _disturb(self) -> list[int]:
        fault = self._scenario.fault
        if fault.startswith("driver SIG"):
            return [self._signalled(SIGNALS[fault.split()[1]])]
        named = {
            "worker killed at random": self._worker_killed,
            "driver frozen, overtaken, thawed": self._overtaken,
            "zombies write after their driver died": self._zombies,
            "log entry torn": self._torn,
            "source files changed midway": self._source_spoilt,
            "source files deleted midway": self._source_spoilt,
        }
        if fault in named:
            return named[fault]()
        if self._scenario.drivers > 1:
            return self._rivals()
        run = self._start()
        status = self._end(run)
        expected = {
            "driver killed before a commit": (-signal.SIGKILL, ""),
            "driver killed inside a commit": (-signal.SIGKILL, ""),
            "driver killed after a commit": (-signal.SIGKILL, ""),
            "disk full at a commit": (3, "store-full"),
            "disk full at a worker's write": (3, "store-full"),
        }
        assert (status, run.code) == expected.get(fault, (1, "")), run.story()
        if self._scenario.poisons:
            given_up = {
                event["reason"] for event in run.events("ActorDied") if event["action"] == "quarantine"
            }
            assert given_up == {"worker died: signal 9"}, run.story()
        if "lingers" in dict(self._scenario.traps):
            self._after_death()
        return [status]

    def _signalled(self, number: signal.Signals) -> int:
        run = self._start()
        self._at_moment(run)
        if run.running:
            if number == signal.SIGINT:
                os.killpg(run.popen.pid, number)  # as a terminal does
            else:
                run.popen.send_signal(number)
        status = self._end(run)
        # Before the workers are wanted, nobody has asked for a word before the end.
        assert status in (-number, 130, *WELL), run.story()
        if number == signal.SIGKILL:
            assert status in (-number, *WELL), run.story()
        elif run.events("WorkersReady"):
            assert status in (130, *WELL) or run.events("Finished"), run.story()
        return status

    def _worker_killed(self) -> list[int]:
        run = self._start()
        self._at_moment(run)
        workers = sorted(run.workers(), key=lambda process: process.pid)
        if workers and run.running:
            self._killed += 1
            workers[self._scenario.pick % len(workers)].kill()
        status = self._end(run)
        assert status == 1, run.story()
        return [status]

    def _rivals(self) -> list[int]:
        runs = [self._start() for _ in range(self._scenario.drivers)]
        statuses = [self._end(run) for run in runs]
        assert set(statuses) & set(WELL), [run.story() for run in runs]
        for run, status in zip(runs, statuses, strict=True):
            assert status in WELL or (status, run.code) == (3, "superseded"), run.story()
        return statuses

    def _overtaken(self) -> list[int]:
        """A driver sleeps, as a laptop does; another does its work; it wakes, and must not spoil anything."""
        first = self._start()
        self._at_moment(first)
        if first.running:
            first.popen.send_signal(signal.SIGSTOP)
        second = self._start()
        status = self._end(second)
        assert status in WELL, second.story()
        before = rows_of(self._archive)
        if first.running:
            first.popen.send_signal(signal.SIGCONT)
        status_of_first = self._end(first)
        assert status_of_first in WELL or (status_of_first, first.code) == (3, "superseded"), first.story()
        assert rows_of(self._archive) == before
        return [status_of_first, status]

    def _zombies(self) -> list[int]:
        """A worker is about to write as its driver dies; all is done by the next one when it does write."""
        first = self._start()
        first.wait_for(lambda: self._traps.notes("lingers"))
        (note,) = self._traps.notes("lingers")
        zombie = psutil.Process(note["pid"])
        first.popen.kill()
        statuses = [self._end(first)]
        second = self._start()
        statuses.append(self._end(second))
        assert statuses[0] == -signal.SIGKILL, first.story()
        assert statuses[1] in WELL, second.story()
        before, files = rows_of(self._archive), self._files()
        assert zombie.is_running()
        self._after_death()
        assert len(self._files() - files) == 1  # it has written
        assert rows_of(self._archive) == before  # and nobody sees it
        return statuses

    def _after_death(self) -> None:
        """Whoever lingers writes, finds nobody who wants to know, and ends."""
        self._traps.release()
        for note in self._traps.notes("lingers"):
            if psutil.pid_exists(note["pid"]):
                psutil.wait_procs([psutil.Process(note["pid"])], timeout=60)

    def _torn(self) -> list[int]:
        """The power goes while a log entry is written, on a disk that had said it was done."""
        statuses = [self._signalled(signal.SIGKILL)]
        log = Path(self._archive) / LOG
        entries = sorted(log.glob("*.json"))
        if not entries:
            return statuses
        torn = log / f"{int(entries[-1].stem) + 1:020d}.json"
        torn.write_bytes(entries[-1].read_bytes()[:-40])
        run = self._start()
        statuses.append(self._end(run))
        assert (statuses[-1], run.code) == (4, "torn-log"), run.story()
        assert torn.name in run.events("failed")[0]["reason"]
        torn.unlink()
        return statuses

    def _source_spoilt(self) -> list[int]:
        run = self._start()
        run.until("Planned")
        for key in self._scenario.victims:
            path = self._source / key
            if self._scenario.fault.startswith("source files deleted"):
                path.unlink()
            else:
                path.write_bytes(b"changed " + path.read_bytes())
        status = self._end(run)
        assert status == 1, run.story()
        return [status]

    # --- helpers

    def _start(self) -> Run:
        scenario = self._scenario
        orders = Orders(
            source=str(self._source),
            archive=self._archive,
            traps=str(self._traps.folder),
            workers=scenario.workers,
            commit_shards=scenario.commit_shards,
            at_commit=scenario.at_commit,
            commit=scenario.commit,
            short=tuple(trap for trap in scenario.traps if trap[0] in SHORT) if not self._zombie else (),
            spares_lingerers=not self._zombie and "lingers" in dict(scenario.traps),
            clock_s=scenario.clock_s,
        )
        self.runs.append(Run(orders))
        return self.runs[-1]

    @property
    def _zombie(self) -> bool:
        return self._scenario.fault.startswith("zombies")

    def _at_moment(self, run: Run) -> None:
        moment = self._scenario.moment
        run.until(moment.event, moment.count)
        time.sleep(moment.later_s)

    def _end(self, run: Run) -> int:
        status = run.wait()
        good = status in WELL
        assert not good or run.events("report"), run.story()  # Python, too, says 1 where a program breaks off
        self._ends.append(None if good else self._scenario.workers)
        return status

    def _files(self) -> set[str]:
        return {path.name for path in Path(self._archive).glob("*.parquet")}

    def _log_stands(self) -> bool:
        return bool(Store(self._archive).names(LOG))

    def _wanted(self, undisturbed: dict[str, Row]) -> dict[str, Any]:
        want: dict[str, Any] = dict(undisturbed)
        for key in self._scenario.poisons:
            want[key] = {("quarantined", None, None, "poison-image")}
        for key in self._scenario.victims:
            if self._scenario.fault.startswith("source files deleted"):
                want[key] = {None, undisturbed[key], ("quarantined", None, None, "source-vanished")}
            elif self._scenario.fault.startswith("source files changed"):
                data = (self._source / key).read_bytes()
                want[key] = _archived(data)
        return want


def _archived(data: bytes) -> Row:
    import hashlib

    return ("ok", data, hashlib.sha256(data).digest(), None)
