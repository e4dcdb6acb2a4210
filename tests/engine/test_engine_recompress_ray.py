"""Rows coded again by workers of a real Ray."""

import os
from pathlib import Path

import pytest
from recompress_steps import again, all_stamped, streams

from recbatch.engine import ray_local


@pytest.fixture
def local_ray(monkeypatch):
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    owned = ray_local.connect(2)
    yield
    if owned:
        ray_local.disconnect()


@pytest.mark.long
def test_workers_of_ray_code_rows_again_and_keep_those_that_fail(place, local_ray):
    folder, written = place
    (folder / "in/4.png").unlink()
    report = again(folder, executor="ray", workers=2, bad="3", kill="5", shard_bytes=200)
    assert (report.images, report.known) == (3, 0)
    assert {key: code for key, code, _ in report.failures} == {
        "3.png": "bad-fake",
        "4.png": "source-vanished",
        "5.png": "poison-image",
    }
    assert report.deaths >= 2
    assert streams(folder) == all_stamped(written, "two", **dict.fromkeys("345", "one"))
