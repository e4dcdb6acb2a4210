"""The command line: parse, one call of the Python API, print, exit. No command holds logic of its own.

Nothing here imports torch, Ray, pyarrow or numba at module top: ``--help`` must answer at once.
"""

from recbatch.cli.app import main

__all__ = ["main"]
