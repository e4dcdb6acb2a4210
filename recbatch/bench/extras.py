"""Packages that only benchmarks need."""

from __future__ import annotations

from importlib.util import find_spec

from recbatch.errors import UsageError


class MissingExtra(UsageError):
    """A package of the extra ``bench`` is not installed."""

    code = "missing-extra"

    def __init__(self, module: str) -> None:
        super().__init__(module)
        self.module = module

    def __str__(self) -> str:
        return f"The package {self.module} is missing. Install what benchmarks need: pip install 'recbatch[bench]'."


def need(module: str) -> None:
    """Raises MissingExtra unless the module can be imported."""
    if find_spec(module) is None:
        raise MissingExtra(module)
