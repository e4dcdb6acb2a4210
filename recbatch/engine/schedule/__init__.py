"""Commands that an archive has run at the times of a cron expression, once each, whoever asks.

A schedule lies in the archive, and so do its ticks: one object for each planned time that was run or noted. Any
number of machines may call for what is due; a lease lets one of them work at a time, and a conditional write gives
each tick to one of them.

A caller needs ``Schedule``, ``Book`` (what the archive knows), ``run_once``, ``run_daemon``, ``status`` and ``render``.
"""

from recbatch.engine.schedule.book import Book
from recbatch.engine.schedule.render import render
from recbatch.engine.schedule.runner import Step
from recbatch.engine.schedule.service import Status, run_daemon, run_once, status
from recbatch.engine.schedule.spec import Schedule, Tick
from recbatch.engine.schedule.wording import written_out

__all__ = [
    "Book",
    "Schedule",
    "Status",
    "Step",
    "Tick",
    "render",
    "run_daemon",
    "run_once",
    "status",
    "written_out",
]
