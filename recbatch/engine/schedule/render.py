"""A schedule in the words of other schedulers: crontab, systemd, and two kinds of Kubernetes objects.

Each of them only calls ``recbatch schedule run ARCHIVE NAME --once`` at the planned times. Which tick is due, and
that it runs once, is decided there; so a caller that is late, early, called twice or wrong about summer time does
no harm, and what it missed is made up for at its next call.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import recbatch
from recbatch.engine.schedule.errors import UnrenderableSchedule
from recbatch.engine.schedule.fields import CronFields, day_rule, ranges, read_fields
from recbatch.engine.schedule.spec import Schedule

IMAGE = "REGISTRY/recbatch:{version}-cpu"  # cluster/docker makes it
SECRET = "recbatch-s3"  # AWS_* variables, where no service account gives a role
SERVICE_ACCOUNT = "recbatch"
GRACE_S = 150  # for committing what is finished
_LABELS = {"app.kubernetes.io/name": "recbatch"}
_LOCKED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_USER = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


def render(
    schedule: Schedule,
    target: str,
    *,
    image: str | None = None,
    submit: str | None = None,
    shared_paths: bool = False,
) -> str:
    """The text of a crontab line, two unit files, or a manifest.

    Args:
        target: "cron", "systemd", "cronjob" or "raycronjob".
        image: of the container, for Kubernetes; by default the one of cluster/docker, in a registry yet to be named.
        submit: address of the Ray cluster that does the work, instead of the machine that calls.
        shared_paths: the nodes of that cluster see the paths that the command names.

    Raises UnrenderableSchedule.
    """
    calls = run_words(schedule, submit, shared_paths=shared_paths)
    image = image or IMAGE.format(version=recbatch.__version__)
    makers: Mapping[str, Callable[[], str]] = {
        "cron": lambda: _cron(schedule, calls),
        "systemd": lambda: _systemd(schedule, calls),
        "cronjob": lambda: _cronjob(schedule, calls, image, submit=submit, shared_paths=shared_paths),
        "raycronjob": lambda: _raycronjob(schedule, submit, image),
    }
    if target not in makers:
        raise UnrenderableSchedule(schedule.name, target, f"there are {', '.join(makers)}")
    return makers[target]()


def run_words(schedule: Schedule, submit: str | None, *, shared_paths: bool = False) -> list[str]:
    words = ["recbatch", "schedule", "run", schedule.archive, schedule.name, "--once"]
    if submit is not None:
        words += ["--submit", submit]
    return [*words, "--shared-paths"] if shared_paths else words


def _cron(schedule: Schedule, calls: Sequence[str]) -> str:
    fields = _fields(schedule, "cron")
    command = shlex.join(calls).replace("%", r"\%")  # cron takes % for a line break
    return f"""\
# recbatch schedule {schedule.name}: recbatch {shlex.join(schedule.command)}
# CRON_TZ is heeded by cronie (Fedora, RHEL, Arch) and ignored by Debian's and Ubuntu's cron, which go by the
# system's zone. There, call it every ten minutes instead; it runs only what is due in {schedule.timezone}:
#   */10 * * * * {command}
CRON_TZ={schedule.timezone}
{fields.standard} {command}
"""


def _systemd(schedule: Schedule, calls: Sequence[str]) -> str:
    fields = _fields(schedule, "systemd")
    calendar = "\n".join(f"OnCalendar={line}" for line in on_calendar(fields, schedule.timezone))
    words = " ".join(_unit_word(word) for word in calls)
    unit = f"recbatch-{schedule.name}"
    return f"""\
# {unit}.service
[Unit]
Description=recbatch schedule {schedule.name}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
# Credentials belong here, readable by root alone: AWS_* variables, one a line.
EnvironmentFile=-/etc/recbatch/{schedule.name}.env
ExecStart=/usr/bin/env {words}
# SIGTERM commits what is finished
TimeoutStopSec=150
KillMode=mixed

# {unit}.timer
[Unit]
Description=Times of the recbatch schedule {schedule.name}

[Timer]
{calendar}
Persistent=true
AccuracySec=1s
Unit={unit}.service

[Install]
WantedBy=timers.target
"""


def on_calendar(fields: CronFields, timezone: str) -> list[str]:
    """The OnCalendar expressions that together are a cron expression."""
    time = f"{ranges(fields.hours, 23, width=2)}:{ranges(fields.minutes, 59, width=2)}:00 {timezone}"
    date = f"*-{ranges(fields.months, 12, width=2)}-"
    day = ranges(fields.days, 31, width=2)
    week = ",".join(_WEEKDAYS[number] for number in sorted(fields.weekdays))
    every_week = len(fields.weekdays) == 7
    if every_week:
        return [f"{date}{day} {time}"]
    if day == "*" or day_rule(fields) == "and":
        return [f"{week} {date}{day} {time}"]
    return [f"{date}{day} {time}", f"{week} {date}* {time}"]  # cron takes a day that fits one or the other


def _unit_word(word: str) -> str:
    """Quoted for ExecStart, where % and $ have meanings of their own."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or not word or " " in word or "'" in word else word


def _cronjob(
    schedule: Schedule, calls: Sequence[str], image: str, *, submit: str | None, shared_paths: bool
) -> str:
    cron = _kubernetes_cron(schedule, "cronjob", sees_paths=submit is not None and shared_paths)
    needs = {"cpu": "250m", "memory": "1Gi"} if submit else {"cpu": "4", "memory": "16Gi"}
    container: dict[str, Any] = {
        "name": "recbatch",
        "image": image,
        "command": ["python", "-m", *calls],
        "envFrom": [{"secretRef": {"name": SECRET, "optional": True}}],
        "securityContext": _LOCKED,
        "resources": {"requests": needs, "limits": {"memory": needs["memory"]}},
    }
    if submit:
        token = {"secretKeyRef": {"name": "recbatch", "key": "auth_token"}}
        container["env"] = [
            {"name": "RAY_AUTH_MODE", "value": "token"},
            {"name": "RAY_AUTH_TOKEN", "valueFrom": token},
        ]
    pod = {
        "serviceAccountName": SERVICE_ACCOUNT,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": _USER,
        "containers": [container],
    }
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": _metadata(schedule),
        "spec": {
            "schedule": cron,
            "timeZone": schedule.timezone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 7,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 1,
                    "template": {"metadata": {"labels": dict(_LABELS)}, "spec": pod},
                }
            },
        },
    }
    head = [
        f"recbatch schedule {schedule.name}: recbatch {shlex.join(schedule.command)}",
        f"Needs the service account {SERVICE_ACCOUNT}; AWS_* variables come from the secret {SECRET} if it is there.",
        "A pod that fails is tried once more: it takes up what the first one left, and does nothing if that was all.",
    ]
    return _yaml(manifest, head)


def _raycronjob(schedule: Schedule, submit: str | None, image: str) -> str:
    cron = _kubernetes_cron(schedule, "raycronjob")
    if submit is not None:
        raise UnrenderableSchedule(schedule.name, "raycronjob", "it makes a cluster of its own for each run")
    cluster = {
        "rayVersion": _ray_version(),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},
            "template": _ray_pod("ray-head", image, {"cpu": "2", "memory": "8Gi"}),
        },
        "workerGroupSpecs": [
            {
                "groupName": "cpu",
                "replicas": 1,
                "minReplicas": 0,
                "maxReplicas": 4,
                "rayStartParams": {},
                "template": _ray_pod("ray-worker", image, {"cpu": "8", "memory": "24Gi"}),
            }
        ],
    }
    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": _metadata(schedule),
        "spec": {
            "schedule": cron,
            "timeZone": schedule.timezone,
            "jobTemplate": {
                "entrypoint": shlex.join(["python", "-m", *run_words(schedule, None)]),
                "runtimeEnvYAML": 'env_vars:\n  RAY_JOB_STOP_WAIT_TIME_S: "60"\n',
                "shutdownAfterJobFinishes": True,
                "ttlSecondsAfterFinished": 600,
                "preRunningDeadlineSeconds": 1800,
                "backoffLimit": 1,
                "rayClusterSpec": cluster,
            },
        },
    }
    head = [
        f"recbatch schedule {schedule.name}: recbatch {shlex.join(schedule.command)}",
        "ALPHA. RayCronJob came with KubeRay 1.7.0; its feature gate is off by default, and it may go. It has",
        "no concurrency policy: the lease in the archive keeps runs apart. A plain CronJob ('--as cronjob') is safer.",
    ]
    return _yaml(manifest, head)


def _ray_pod(name: str, image: str, needs: Mapping[str, str]) -> dict[str, Any]:
    container = {
        "name": name,
        "image": image,
        "envFrom": [{"secretRef": {"name": SECRET, "optional": True}}],
        "securityContext": _LOCKED,
        "resources": {"requests": dict(needs), "limits": dict(needs)},
    }
    return {
        "spec": {
            "serviceAccountName": SERVICE_ACCOUNT,
            "terminationGracePeriodSeconds": GRACE_S,
            "securityContext": _USER,
            "containers": [container],
        }
    }


def _metadata(schedule: Schedule) -> dict[str, Any]:
    return {"name": f"recbatch-{schedule.name}", "labels": dict(_LABELS)}


def _ray_version() -> str:
    from importlib.metadata import version

    return version("ray")


def _kubernetes_cron(schedule: Schedule, target: str, *, sees_paths: bool = False) -> str:
    """``sees_paths``: those that do the work; the pod still reads the archive."""
    fields = _fields(schedule, target)
    if fields.starred_steps and day_rule(fields) == "and":
        raise UnrenderableSchedule(
            schedule.name,
            target,
            "of '*/n' days and weekdays Kubernetes takes a day that fits one, cron a day that fits both",
        )
    words = (schedule.archive,) if sees_paths else (schedule.archive, *schedule.command)
    local = [word for word in words if word.startswith("/")]
    if local:
        raise UnrenderableSchedule(schedule.name, target, f"a pod has no {local[0]}; use a URL")
    return fields.standard


def _fields(schedule: Schedule, target: str) -> CronFields:
    fields = read_fields(schedule.cron)
    if fields is None:
        problem = "it has no words for the 'L' and '#' of days"
        raise UnrenderableSchedule(schedule.name, target, problem)
    return fields


def _yaml(manifest: Mapping[str, Any], head: Sequence[str]) -> str:
    import yaml

    class Plain(yaml.SafeDumper):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True  # what two containers share is written twice: some readers know no anchors

    text: str = yaml.dump(manifest, Dumper=Plain, sort_keys=False, width=110, default_flow_style=False)
    return "".join(f"# {line}\n" for line in head) + text
