"""For all tests: the long ones run where they are asked for, by ``-m long``.

Properties are tried on the same examples each time, so that a commit passes or fails, and not now and then.
``HYPOTHESIS_PROFILE=search`` looks for new ones: what it finds becomes an ``@example`` or a test of its own.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, database=None)
settings.register_profile("search", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "long" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
