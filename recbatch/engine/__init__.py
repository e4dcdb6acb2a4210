"""The engine: a source goes in, an archive comes out, whatever dies on the way.

It lists and plans (pure), hands shards to worker processes (Ray actors; subprocesses behind the same seam),
retries, splits and quarantines, and commits finished shards many at a time. It is the only floor that imports
Ray, and imports it only when a job starts.

It never touches pixels in the driver, never lets a worker near the table's log, and never ends a job for one
image.

A caller needs ``compress``, ``restore`` and the ``Report`` that both return; ``events`` tell of progress.
"""

from recbatch.engine.compress import compress
from recbatch.engine.recompress import recompress
from recbatch.engine.report import Report
from recbatch.engine.restore import restore

__all__ = ["Report", "compress", "recompress", "restore"]
