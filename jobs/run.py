"""Run the job of a TOML file: ``python jobs/run.py JOB.toml``, the same as ``recbatch run JOB.toml``.

For the entry point of a cluster's job whose image has recbatch but not its command on the path.
"""

from __future__ import annotations

import sys

from recbatch.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
