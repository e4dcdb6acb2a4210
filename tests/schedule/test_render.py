"""A schedule in the words of cron, systemd and Kubernetes, checked by those who read them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest
import typer
import yaml
from cronsim import CronSim
from schedule_fakes import make_schedule

from recbatch.cli.app import app
from recbatch.engine.schedule.errors import UnrenderableSchedule
from recbatch.engine.schedule.fields import read_fields
from recbatch.engine.schedule.render import on_calendar, render
from recbatch.engine.schedule.ticks import ticks

TARGETS = ("cron", "systemd", "cronjob", "raycronjob")
EXPRESSIONS = (
    "0 3 * * *",
    "*/15 8-18 * * MON-FRI",
    "30 2 1,15 * *",
    "0 0 13 * FRI",  # the 13th, and Fridays
    "5 4 * * 7",
    "0 22 * 1-3,12 6,0",
    "7/20 5/6 * * *",
)


def manifest(target: str, cron: str = "0 3 * * *", **options: Any) -> dict[str, Any]:
    text = render(make_schedule(cron=cron, timezone="Europe/Berlin"), target, **options)
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def parsed_by_the_command_line(words: list[str]) -> dict[str, Any]:
    root = typer.main.get_command(app)
    with root.make_context("recbatch", list(words)) as context:
        name, group, rest = root.resolve_command(context, words)  # type: ignore[attr-defined]
        with group.make_context(name, rest, parent=context) as inner:
            name, command, rest = group.resolve_command(inner, rest)
            parameters: dict[str, Any] = command.make_context(name, rest, parent=inner).params
            return parameters


@pytest.mark.parametrize("submit", [None, "http://head:8265"])
def test_each_calls_the_command_line_in_words_that_it_knows(submit: str | None) -> None:
    schedule = make_schedule(archive="s3://archive/50%/it's", timezone="Europe/Berlin")
    shared = submit is not None
    cron = (
        render(schedule, "cron", submit=submit, shared_paths=shared)
        .splitlines()[-1]
        .split(maxsplit=5)[5]
        .replace("\\%", "%")
    )
    systemd = render(schedule, "systemd", submit=submit, shared_paths=shared)
    exec_line = next(line for line in systemd.splitlines() if line.startswith("ExecStart="))
    unit = exec_line.removeprefix("ExecStart=/usr/bin/env ").replace("%%", "%")
    pod = yaml.safe_load(render(schedule, "cronjob", submit=submit, shared_paths=shared))["spec"][
        "jobTemplate"
    ]["spec"]["template"]
    for words in (shlex.split(cron), shlex.split(unit), pod["spec"]["containers"][0]["command"][2:]):
        assert words[0] == "recbatch"
        parameters = parsed_by_the_command_line(words[1:])
        assert (parameters["archive"], parameters["name"]) == (schedule.archive, "nightly")
        assert (parameters["daemon"], parameters["submit"]) == (False, submit)
        assert parameters["shared_paths"] == shared


def test_a_crontab_line_says_the_zone_and_what_debian_does_with_it() -> None:
    text = render(make_schedule(cron="30 2 1,15 * *", timezone="Europe/Berlin"), "cron")
    assert "CRON_TZ=Europe/Berlin\n30 2 1,15 * * recbatch schedule run s3://archive nightly --once\n" in text
    assert "Debian" in text
    assert "*/10 * * * * recbatch" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("cron", EXPRESSIONS)
def test_systemd_reads_the_times_that_cron_means(cron: str) -> None:
    fields = read_fields(cron)
    assert fields is not None
    start, found = datetime(2027, 1, 1, tzinfo=UTC), set()
    for line in on_calendar(fields, "UTC"):
        done = subprocess.run(
            ["systemd-analyze", "calendar", "--iterations=30", "--base-time=2027-01-01 00:00:00 UTC", line],
            capture_output=True,
            text=True,
            env={"TZ": "UTC", "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )
        assert done.returncode == 0, done.stderr
        for row in done.stdout.splitlines():
            label, _, when = row.strip().partition(": ")
            if label.startswith(("Next elapse", "Iteration", "Iter.")):
                found.add(datetime.strptime(when.strip(), "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC))
    ours = list(islice(ticks(cron, "UTC", start), 20))
    assert sorted(found)[:20] == ours


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_takes_the_zone_too() -> None:
    text = render(make_schedule(timezone="America/New_York"), "systemd")
    line = next(line for line in text.splitlines() if line.startswith("OnCalendar="))
    assert line == "OnCalendar=*-*-* 03:00:00 America/New_York"
    command = ["systemd-analyze", "calendar", line.removeprefix("OnCalendar=")]
    assert subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("cron", EXPRESSIONS)
def test_the_words_that_every_cron_knows_mean_the_same(cron: str) -> None:
    fields = read_fields(cron)
    assert fields is not None
    start = datetime(2027, 1, 1, tzinfo=UTC)
    assert list(islice(CronSim(fields.standard, start), 40)) == list(islice(CronSim(cron, start), 40))
    assert "7" not in fields.standard.split()[4]


@pytest.mark.parametrize(
    ("target", "submit"), [("cronjob", None), ("cronjob", "http://head:8265"), ("raycronjob", None)]
)
def test_kubernetes_and_the_operator_take_the_manifests(target: str, submit: str | None) -> None:
    kube_schemas = pytest.importorskip("kube_schemas", exc_type=ImportError)
    document = manifest(target, submit=submit)
    assert kube_schemas.problems(document) == []
    document["spec"]["jobTemplat"] = document["spec"].pop("jobTemplate")
    assert kube_schemas.problems(document) != []


def test_the_manifests_say_when_where_and_how() -> None:
    document = manifest("cronjob", "5 4 * * 7", image="registry/recbatch:1")
    spec = document["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == (
        "5 4 * * 0",
        "Europe/Berlin",
        "Forbid",
    )
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/recbatch:1"
    assert document["metadata"]["name"] == "recbatch-nightly"
    text = render(make_schedule(), "raycronjob")
    assert "ALPHA" in text
    assert yaml.safe_load(text)["spec"]["jobTemplate"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize(
    ("target", "cron", "archive", "words"),
    [
        ("cronjob", "0 0 L * *", "s3://archive", "'L'"),
        ("systemd", "0 0 * * FRI#2", "s3://archive", "'#'"),
        ("cronjob", "0 0 */2 * MON", "s3://archive", "fits both"),
        ("cronjob", "0 0 * * *", "/home/archive", "a pod has no /home/archive"),
        ("raycronjob", "0 0 * * *", "/home/archive", "a pod has no /home/archive"),
    ],
)
def test_what_another_scheduler_can_not_do_is_refused(
    target: str, cron: str, archive: str, words: str
) -> None:
    with pytest.raises(UnrenderableSchedule, match=words):
        render(make_schedule(cron=cron, archive=archive), target)


def test_a_pod_hands_on_paths_that_the_nodes_of_a_cluster_see() -> None:
    schedule = make_schedule(archive="s3://archive", command=("compress", "/nfs/photos", "s3://archive"))
    with pytest.raises(UnrenderableSchedule, match="a pod has no /nfs/photos"):
        render(schedule, "cronjob", submit="http://head:8265")
    assert "--shared-paths" in render(schedule, "cronjob", submit="http://head:8265", shared_paths=True)


def test_days_that_have_to_fit_both_fields_reach_systemd_and_cron() -> None:
    fields = read_fields("0 0 */2 * MON")
    assert fields is not None
    assert [line.split()[0] for line in on_calendar(fields, "UTC")] == ["Mon"]
    assert "0 0 */2 * MON" in render(make_schedule(cron="0 0 */2 * MON"), "cron")


def test_targets_are_those_of_the_command_line() -> None:
    from recbatch.cli.schedule import Target

    assert tuple(target.value for target in Target) == TARGETS
