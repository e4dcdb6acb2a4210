"""``python -m recbatch``."""

import sys

from recbatch.cli import main

sys.exit(main())
