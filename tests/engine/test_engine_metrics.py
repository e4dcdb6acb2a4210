"""Numbers of a job where Prometheus finds them: scraped from the endpoint of a real Ray."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
from engine_fakes import CODEC, fill

from recbatch.engine import Report, events, metrics

HERE = Path(__file__).parent
JOB = """
import re, sys, time, urllib.request
import ray
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
         object_store_memory=100 << 20, _system_config={"metrics_report_interval_ms": 500})
from engine_fakes import FakeSettings
from recbatch.engine import compress
from recbatch.engine.driver import Tuning
compress(sys.argv[1], sys.argv[2], settings=FakeSettings(), workers=1, codec_factory=sys.argv[3], shard_bytes=400,
         tuning=Tuning(poll_s=0.02, backoff_s=0.01))
node = ray.nodes()[0]
page = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    text = urllib.request.urlopen(page, timeout=10).read().decode()
    told = 'recbatch_images_total{[^}]*"ok"[^}]*} 9.0', 'recbatch_queue_depth{[^}]*} 0.0', 'commit_seconds_sum{'
    if all(re.search(pattern, text) for pattern in told):
        break
    time.sleep(0.2)
print(text)
ray.shutdown()
"""


def run_job(*arguments: object) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent)]),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, "-W", "ignore", "-c", JOB, *map(str, arguments)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        family: dict[int, psutil.Process] = {}
        try:
            while True:
                try:
                    out, err = job.communicate(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    for child in psutil.Process(job.pid).children(recursive=True):
                        family[child.pid] = child
        finally:
            for child in [job, *family.values()]:
                if isinstance(child, subprocess.Popen) or child.is_running():
                    child.kill()
    if job.returncode:
        raise RuntimeError(err)
    return out


def samples(page: str) -> dict[tuple[str, str], float]:
    """Name and the value of our own tag, to the number."""
    found = {}
    for name, labels, number in re.findall(r"^ray_(recbatch_\w+)\{([^}]*)\} (\S+)$", page, re.MULTILINE):
        tag = re.search(r'(?:^|,)(?:status|outcome|stage|code)="([^"]*)"', labels)
        found[name, tag[1] if tag else ""] = float(number)
    return found


def test_a_job_on_ray_is_counted_where_prometheus_scrapes(tmp_path):
    fill(tmp_path / "in", [f"{i}.png" for i in range(9)] + ["bad.png"])
    arguments = (tmp_path / "in", tmp_path / "archive", CODEC)
    try:
        page = run_job(*arguments)
    except RuntimeError:  # Ray's start has a limit of 30 s, which a loaded machine may pass once
        page = run_job(*arguments)
    found = samples(page)
    assert found["recbatch_images_total", "ok"] == 9
    assert found["recbatch_images_total", "quarantined"] == 1
    assert found["recbatch_quarantined_total", "bad-fake"] == 1
    assert found["recbatch_bytes_in_total", ""] == found["recbatch_bytes_out_total", ""] == 900
    assert found["recbatch_shards_total", "done"] == 3
    assert found["recbatch_stage_seconds_count", "encode"] == 3
    assert found["recbatch_stage_seconds_count", "read"] == 3
    assert found["recbatch_commit_seconds_count", ""] >= 1
    assert found["recbatch_queue_depth", ""] == 0
    assert "recbatch_actor_deaths_total" not in page
    assert re.search(
        r'ray_recbatch_images_total\{[^}]*SessionName="session_', page
    )  # the dashboard selects by it


class FakeMeter:
    made: ClassVar[dict] = {}

    def __init__(self, name, description="", tag_keys=(), boundaries=None):
        self.tag_keys, self.calls = tag_keys, []
        FakeMeter.made[name] = self

    def inc(self, value, tags=None):
        assert value > 0
        assert set(tags or {}) == set(self.tag_keys)
        self.calls.append((value, *(tags or {}).values()))

    def observe(self, value, tags=None):
        self.inc(value, tags)

    def set(self, value):
        self.calls.append(value)


@pytest.fixture
def meters(monkeypatch):
    import ray.util.metrics as library

    FakeMeter.made = {}
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(library, kind, FakeMeter)
    monkeypatch.setattr(metrics, "connected", lambda: True)
    return FakeMeter.made


def test_every_event_that_counts_is_counted(meters):
    count = metrics.Metrics()
    count(events.Planned(images=9, bytes=900, shards=4, known=0, skipped=0, workers=2))
    count(events.WorkersReady(workers=2, seconds=1.0))
    for action in ("retry", "split", "quarantine"):
        count(events.ActorDied(shard="0", attempt=1, reason="x", action=action))
    count(
        events.ShardDone(
            shard="0",
            images=3,
            quarantined=0,
            bytes_in=9,
            bytes_out=4,
            pixels=0,
            seconds=2.0,
            stages={"read": 0.0, "encode": 1.5},
        )
    )
    count(events.ImageQuarantined(key="<k>", code="poison-image", error="e"))
    count(events.Committed(version=1, shards=1, images=3, seconds=0.25))
    count(events.NodeLeft(node="n", reason="r"))
    count(events.Stopping(signal="SIGTERM"))
    count(events.Finished(report=Report()))
    calls = {name: meter.calls for name, meter in meters.items()}
    assert set(calls) == {meter.name for meter in metrics.METERS}
    assert calls["recbatch_images_total"] == [(3, "ok")]
    assert calls["recbatch_shards_total"] == [(1, "retry"), (1, "split"), (1, "quarantine"), (1, "done")]
    assert calls["recbatch_retries_total"] == [(1,), (1,)]
    assert calls["recbatch_actor_deaths_total"] == [(1,), (1,), (1,)]
    assert calls["recbatch_quarantined_total"] == [(1, "poison-image")]
    assert calls["recbatch_stage_seconds"][1] == (1.5, "encode")
    assert calls["recbatch_commit_seconds"] == [(0.25,)]
    assert calls["recbatch_queue_depth"][-3:] == [5, 4, 0]
    assert calls["recbatch_workers"][-1] == 0


def test_a_plan_made_before_ray_is_there_is_told_when_it_is(meters, monkeypatch):
    monkeypatch.setattr(metrics, "connected", lambda: False)
    count = metrics.Metrics()
    count(events.Planned(images=9, bytes=900, shards=4, known=0, skipped=0, workers=2))
    assert meters == {}
    monkeypatch.setattr(metrics, "connected", lambda: True)
    count(events.WorkersReady(workers=2, seconds=1.0))
    assert meters["recbatch_images_planned"].calls == [9]
    assert meters["recbatch_queue_depth"].calls[-1] == 4


def test_a_ray_that_goes_away_ends_no_job(meters, monkeypatch):
    def gone():
        raise ConnectionError("Ray is gone")

    monkeypatch.setattr(metrics, "connected", gone)
    metrics.Metrics()(events.Finished(report=Report()))


def test_other_executors_have_no_metrics():
    assert metrics.listener("inline") is events.ignore
    assert metrics.listener("processes") is events.ignore
    assert isinstance(metrics.listener("ray"), metrics.Metrics)


def test_asking_for_ray_does_not_load_it():
    script = (
        "import sys; from recbatch.engine import metrics; metrics.connected(); print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
