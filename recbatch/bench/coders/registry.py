"""Baselines by name.

``BASELINES`` maps a name to the maker of its coder, which takes the tables that came with the model;
``baseline("tcq8", tables)`` makes one, and None means the shipped tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from recbatch import rec
from recbatch.errors import UsageError
from recbatch.rec.base import Coder

Maker = Callable[[rec.Tables], Coder]


def _ecsq(tables: rec.Tables) -> Coder:
    from recbatch.bench.coders.ecsq import Ecsq

    return Ecsq(tables=tables)


def _dithered(tables: rec.Tables) -> Coder:
    from recbatch.bench.coders.dithered import Dithered

    return Dithered(tables=tables)


def _tcq8(tables: rec.Tables) -> Coder:
    from recbatch.bench.coders.tcq import Tcq8

    return Tcq8(tables=tables)


def _tcq64(tables: rec.Tables) -> Coder:
    from recbatch.bench.coders.tcq import Tcq64

    return Tcq64(tables=tables)


def _tcq256(tables: rec.Tables) -> Coder:
    from recbatch.bench.coders.tcq import Tcq256

    return Tcq256(tables=tables)


def _importance(tables: rec.Tables) -> Coder:
    from recbatch.bench.coders.importance import Importance

    return Importance(tables=tables)


def _pfr(tables: rec.Tables) -> Coder:
    from recbatch.bench.coders.pfr import Pfr

    return Pfr(tables=tables)


def _fixed_trellis(tables: rec.Tables) -> Coder:
    from recbatch.bench.coders.fixed_trellis import FixedTrellis

    return FixedTrellis(tables=tables)


BASELINES: Final[Mapping[str, Maker]] = {
    "ecsq": _ecsq,
    "dithered": _dithered,
    "tcq8": _tcq8,
    "tcq64": _tcq64,
    "tcq256": _tcq256,
    "importance": _importance,
    "pfr": _pfr,
    "fixed-trellis": _fixed_trellis,
}


def baseline(name: str, tables: rec.Tables | None) -> Coder:
    """The baseline of this name. Raises UsageError for a name that is not in BASELINES."""
    if name not in BASELINES:
        raise UsageError(f"There is no baseline coder {name!r}. Take one of {', '.join(BASELINES)}.")
    return BASELINES[name](tables or rec.Tables.default())
