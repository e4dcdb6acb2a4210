"""Coders by number and name. A number is part of the format: a new meaning takes a new number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from recbatch.errors import UsageError
from recbatch.rec.base import Coder

if TYPE_CHECKING:
    from recbatch.rec.tables import Tables

NUMBERS: Mapping[str, int] = {"trellis": 1, "irec": 2}


class UnknownCoder(UsageError):
    """No coder has this number or name."""

    code = "unknown-coder"

    def __init__(self, wanted: str) -> None:
        super().__init__(wanted)
        self.wanted = wanted

    def __str__(self) -> str:
        known = ", ".join(f"{name} ({number})" for name, number in NUMBERS.items())
        return f"There is no coder {self.wanted}. Choose one of: {known}; a newer stream may need a newer recbatch."


def coder(
    name_or_number: str | int,
    parameters: bytes | None = None,
    *,
    effort: int = 5,
    tables: Tables | None = None,
    device: str = "cpu",
) -> Coder:
    """A coder for new streams (``effort`` 1..9), or with ``parameters`` the one that a stream's header names.

    ``tables`` are those of the stream's model, ``device`` is where the search runs; coders that use none ignore them.
    Raises UnknownCoder, CorruptStream (parameters that no encoder writes) and BadEffort.
    """
    number = NUMBERS.get(name_or_number, 0) if isinstance(name_or_number, str) else name_or_number
    if number == 1:
        from recbatch.rec.coders.trellis import Trellis

        return Trellis.from_parameters(parameters, effort=effort, tables=tables, device=device)
    if number == 2:
        from recbatch.rec.coders.irec import IrecCoder

        return IrecCoder.from_parameters(parameters, effort=effort)
    raise UnknownCoder(str(name_or_number))
