"""``python child.py RUNNER WORDS...``: becomes ``recbatch WORDS...``, and is asked to stop when its runner dies."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    runner, words = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":  # elsewhere an orphan ends by itself, and the table's epoch keeps it harmless
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != runner:  # it died before it was listened to
            sys.exit(128 + signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "recbatch", *words])


if __name__ == "__main__":
    main()
