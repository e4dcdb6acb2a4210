"""A cluster's head for the tests that submit jobs; it starts when the first of them asks for it."""

import os
import sys
from pathlib import Path

import pytest
from cli.conftest import run  # noqa: F401  (a fixture)

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "engine"))  # the fake codec
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before Ray is imported: the loopback only
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(scope="module")
def head():
    from head import Head

    head = Head()
    yield head
    head.close()


@pytest.fixture
def cluster_env(head, monkeypatch):
    """As a user would have it who works with this cluster; returns its address."""
    from head import TOKEN

    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", head.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    yield head.address
    head.note_family()
