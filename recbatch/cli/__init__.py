"""The command line: parse, one call of the Python API, print, exit. No command holds logic of its own.

Nothing here imports torch, Ray, pyarrow or numba at module top: ``--help`` must answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status and never raises what a user could meet."""
    try:
        from recbatch.cli.app import main as run
    except KeyboardInterrupt:  # within the first half second
        print("Error: Interrupted before anything was done.", file=sys.stderr)
        return 130
    return run(arguments)
