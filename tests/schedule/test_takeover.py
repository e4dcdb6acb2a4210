"""The whole time of a lease, by real clocks: minutes, so only where it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from schedule_fakes import Launches, make_schedule

from recbatch.engine.lease import DURATION_S
from recbatch.engine.schedule.book import Book
from recbatch.engine.schedule.runner import Runner
from recbatch.engine.schedule.service import SystemClock

HANGING = """
import sys, threading
from recbatch.engine.schedule.book import Book
from recbatch.engine.schedule.runner import Runner
from recbatch.engine.schedule.service import SystemClock

class Job:
    def wait(self):
        print("at work", flush=True)
        threading.Event().wait()
    def stop(self):
        pass

book = Book.open(sys.argv[1])
Runner(book, clock=SystemClock(), launch=lambda schedule, tick: Job(), say=lambda line: None).run_due(["nightly"])
"""


@pytest.mark.long
@pytest.mark.parametrize("place", ["folder", "s3"])
def test_the_tick_of_a_killed_runner_is_taken_over_when_the_lease_is_over(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = str(tmp_path / "a") if place == "folder" else f"s3://{request.getfixturevalue('bucket')}/a"
    book = Book.open_or_create(url)
    book.add(make_schedule(archive=url, created=datetime.now(UTC) - timedelta(days=2)))
    runner = subprocess.Popen(
        [sys.executable, "-c", HANGING, url], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "at work\n"
        time.sleep(25)  # one renewal
    finally:
        runner.kill()
        runner.communicate()
    killed_s, launches = time.monotonic(), Launches()
    other = Runner(book, clock=SystemClock(), launch=launches, say=lambda line: None)
    while not launches.ticks:
        assert time.monotonic() - killed_s < 3 * DURATION_S
        other.run_due(["nightly"])
        time.sleep(0.5)
    waited_s = time.monotonic() - killed_s
    assert (
        waited_s > DURATION_S - 20 - 10
    )  # counted from its last renewal, at most 20 s and a slow machine before
    assert [tick.attempt for tick in launches.ticks] == [2]
    print(f"taken over {waited_s:.1f} s after the kill")
