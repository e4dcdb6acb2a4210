from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from recbatch.models import freed

HEAP = """
import numpy as np
from recbatch.engine.allocation import keep_freed_memory
from recbatch.models.freed import return_freed_memory

def resident():
    fields = [line.split() for line in open("/proc/self/status")]
    return next(int(field[1]) << 10 for field in fields if field[0] == "VmRSS:")

keep_freed_memory()
blocks = [np.ones(1 << 20, np.uint8) for _ in range(200)]
last = np.ones(1 << 20, np.uint8)
del blocks
before = resident()
return_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own call")
def test_what_was_freed_below_a_block_in_use_goes_back():
    run = [sys.executable, "-c", HEAP]
    assert int(subprocess.run(run, capture_output=True, text=True, check=True).stdout) > 100 << 20


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(freed.sys, "platform", "darwin")
    freed._trim.cache_clear()
    freed.return_freed_memory()
    assert freed._trim() is None
    freed._trim.cache_clear()
