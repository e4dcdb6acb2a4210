from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from recbatch.engine import allocation

FAULTS = """
import resource, sys
import numpy as np
from recbatch.engine.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    for _ in range(50):
        np.ones(20 << 20, np.uint8)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own setting")
def test_a_block_freed_and_taken_again_costs_no_pages(monkeypatch):
    for name in allocation._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    run = [sys.executable, "-c", FAULTS, "keep"]
    assert int(subprocess.run(run, capture_output=True, text=True, check=True).stdout) < 500


def test_what_the_environment_says_stands(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert not allocation.keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocation.sys, "platform", "darwin")
    assert not allocation.keep_freed_memory()
