"""A process that runs what is due, for tests of several at once: ``racer.py ARCHIVE FOLDER NAME...``.

It looks again and again until nothing is due. Each job puts a line into ``FOLDER/runs``, and notes when another one
was at work on the archive at the same time.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from recbatch.engine.schedule.book import Book
from recbatch.engine.schedule.job import Job, Outcome
from recbatch.engine.schedule.runner import Runner
from recbatch.engine.schedule.service import SystemClock, status
from recbatch.engine.schedule.spec import Schedule, Tick

ARCHIVE, FOLDER, NAMES = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]


class Line:
    def __init__(self, tick: Tick) -> None:
        self.tick = tick

    def wait(self) -> Outcome:
        alone = FOLDER / "at-work"
        os.close(os.open(alone, os.O_CREAT | os.O_EXCL))  # fails where another one is at work
        with open(FOLDER / "runs", "a") as file:
            file.write(f"{self.tick.id} {self.tick.attempt}\n")
        alone.unlink()
        return Outcome(exit_status=0)

    def stop(self) -> None:
        pass


def launch(schedule: Schedule, tick: Tick) -> Job:
    return Line(tick)


def main() -> None:
    book = Book.open(ARCHIVE)
    runner = Runner(book, clock=SystemClock(), launch=launch, say=lambda line: None)
    (FOLDER / f"ready-{os.getpid()}").touch()
    while not (FOLDER / "go").exists():
        time.sleep(0.001)
    while any(status(book, book.schedule(name), datetime.now(UTC)).due for name in NAMES):
        runner.run_due(NAMES)


if __name__ == "__main__":
    main()
