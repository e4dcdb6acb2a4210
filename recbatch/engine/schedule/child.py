"""``python child.py RUNNER WORDS...``: becomes ``recbatch WORDS...``, and is asked to stop when its runner dies.

Exit status 127, as shells have it, says that there was no such program to become.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import sys

NOT_STARTED = 127
_PR_SET_PDEATHSIG = 1


def main() -> None:
    runner, words = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":  # elsewhere an orphan ends by itself, and the table's epoch keeps it harmless
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != runner:  # it died before it was listened to
            sys.exit(128 + signal.SIGTERM)
    if (
        importlib.util.find_spec("recbatch") is None
    ):  # Python would end with status 1, as a run with quarantined images
        print("recbatch is not installed here any more", file=sys.stderr)
        sys.exit(NOT_STARTED)
    try:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "recbatch", *words])
    except OSError as error:
        print(f"{sys.executable}: {error.strerror}", file=sys.stderr)
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
