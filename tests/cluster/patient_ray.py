"""``ray`` with patience: it gives a start 30 s by a number in its code, which a busy machine may need five times."""

import time

from ray._private import services
from ray.scripts.scripts import main

PATIENCE_S = 240.0
ask = services.get_node


def get_node(*arguments, **options):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask(*arguments, **options)
        except RuntimeError:  # not there yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    services.get_node = get_node
    main()
