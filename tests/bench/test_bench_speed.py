from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from recbatch.bench.memory import ProcessorTime, processor_seconds
from recbatch.bench.others_decode import clocked, decode_file
from recbatch.bench.speed import _Watch

BUSY = "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True)\ninput()"


class WorkersReady:
    """Stands for the engine's event of this name."""


def test_processor_time_counts_children_also_when_they_have_ended() -> None:
    watch = ProcessorTime()
    before = watch.look()
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        seen = watch.look()
        assert seen - before > 0.4
        child.communicate("\n")
    assert watch.look() >= seen


def test_a_process_that_is_gone_has_used_no_time() -> None:
    assert processor_seconds(2**22 + 1) == 0
    assert processor_seconds(os.getpid()) > 0


def test_a_job_is_watched_from_the_first_worker_on() -> None:
    watch = _Watch()
    while time.process_time() < watch._before + 0.1:
        pass
    watch("another event")
    assert watch.cpu_seconds > 0
    watch(WorkersReady())
    assert watch.cpu_seconds == 0
    first = watch.startup_seconds
    watch(WorkersReady())
    assert watch.startup_seconds == first > 0


def test_other_codecs_files_become_png_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True)
    target, seconds = clocked(decode_file, tmp_path / "a.webp")
    assert target.name == "a.webp.png"
    assert seconds >= 0
    assert np.array_equal(np.asarray(Image.open(target)), pixels)
