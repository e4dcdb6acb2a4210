"""Rows coded again, version by version: no image is missing at any, whoever comes between; none is done twice."""

import os
import subprocess
import sys
import threading
import time

import psutil
import pytest
from engine_fakes import fill
from recompress_fakes import STAMP, StampSettings, stamped
from recompress_steps import again, all_stamped, streams

from recbatch import archive as archives
from recbatch.archive import Archive, verify, versions
from recbatch.engine import compress, events
from recbatch.engine.driver import Tuning


def test_of_two_runs_the_later_one_goes_on_alone(place):
    folder, _ = place
    inner = []

    def progress(event):
        if isinstance(event, events.ShardDone) and not inner:
            (folder / "in/0.png").write_bytes(b"a later state")
            source, archive = str(folder / "in"), str(folder / "archive")
            inner.append(
                compress(source, archive, settings=StampSettings(), executor="inline", codec_factory=STAMP)
            )

    with pytest.raises(archives.Superseded):
        again(folder, shard_bytes=100, progress=progress)
    assert inner[0].images == 1
    assert streams(folder)["0.png"] == stamped("one", b"a later state")  # not the older one, coded again


def watch(archive, seen, over):
    """Every version as it comes: how many rows, how many keys, how many of them coded again."""
    while True:
        last_look = over.is_set()
        opened = Archive.open(archive)
        if opened.version not in seen:
            rows = [(row.key, row.stream[:3]) for row in opened.records(["stream"])]
            again = sum(stamp == b"two" for _, stamp in rows)
            seen[opened.version] = (len(rows), len({key for key, _ in rows}), again)
        if last_look:
            return
        time.sleep(0.005)


def test_no_reader_ever_misses_an_image(tmp_path):
    fill(tmp_path / "in", [f"{number:03d}.png" for number in range(60)])
    source, archive = str(tmp_path / "in"), str(tmp_path / "archive")
    settings = StampSettings()
    compress(source, archive, settings=settings, executor="inline", codec_factory=STAMP, shard_bytes=1500)
    first = Archive.open(archive).version
    seen, over = {}, threading.Event()
    reader = threading.Thread(target=watch, args=(archive, seen, over))
    reader.start()
    try:
        tuning = Tuning(poll_s=0.02, commit_shards=1)
        report = again(tmp_path, shard_bytes=700, tuning=tuning)
    finally:
        over.set()
        reader.join()
    assert report.images == 60
    assert set(seen) >= {Archive.open(archive).version}
    for version in range(
        first, Archive.open(archive).version + 1
    ):  # and those that the reader was too slow for
        keys = [row.key for row in Archive.open(archive, version=version).records(["key"])]
        assert len(keys) == len(set(keys)) == 60
    assert {(rows, keys) for rows, keys, _ in seen.values()} == {(60, 60)}
    assert seen[Archive.open(archive).version][2] == 60


@pytest.mark.chaos
@pytest.mark.parametrize(
    "kills",
    [
        [("Committed", 2)],
        pytest.param([("Planned", 1), ("ShardDone", 4), ("Committed", 2)], marks=pytest.mark.long),
    ],
)
def test_killed_drivers_lose_no_image_and_do_none_twice(tmp_path, kills):
    written = fill(tmp_path / "in", [f"{number:03d}.png" for number in range(100)])
    source, archive = str(tmp_path / "in"), str(tmp_path / "archive")
    compress(
        source, archive, settings=StampSettings(), executor="inline", codec_factory=STAMP, shard_bytes=2500
    )
    first = Archive.open(archive).version
    for event, count in kills:
        run_until(archive, event, count)
    done = run_until(archive, "never", 1)
    assert done[-1].startswith("images ")
    newest = Archive.open(archive).version
    assert streams(tmp_path) == all_stamped(written, "two")
    for version in range(first, newest + 1):
        keys = [row.key for row in Archive.open(archive, version=version).records(["key"])]
        assert len(keys) == len(set(keys)) == 100
    later = [entry for entry in versions(Archive.open(archive)) if entry.version > first]
    assert sum(entry.rows for entry in later) == sum(entry.replaced for entry in later) == 100
    assert verify(Archive.open(archive)).ok


def run_until(archive, event, count):
    """A driver of its own, killed at the n-th such event; the lines that it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "recompress_driver", archive, "two", "0.004"]
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    family, lines = {}, []
    try:
        for line in driver.stdout:
            lines.append(line.strip())
            if event in lines[-1]:
                family |= {child.pid: child for child in psutil.Process(driver.pid).children(recursive=True)}
            if lines.count(event) == count:
                break
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()
        _, alive = psutil.wait_procs(list(family.values()), timeout=10)
        for process in alive:
            process.kill()
    assert not alive
    return lines
