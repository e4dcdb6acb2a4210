"""The Kubernetes manifests are what the API server and KubeRay take, and what recbatch understands."""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_files import (
    CLUSTER,
    DOCKERFILES,
    FOR_PLACEHOLDERS,
    LAUNCHER_FILES,
    MANIFESTS,
    installed,
    known_variable,
    load,
)
from command_lines import parse_submitted
from kube_schemas import pods, problems, specs

KUBERAY = CLUSTER / "kuberay"
IMAGE = re.compile(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+:[A-Za-z0-9_.-]+")  # with a registry and a tag
RAY_KINDS = ("rayjob", "rayjob-cpu", "raycluster", "raycronjob")


def manifest(name: str) -> dict[str, Any]:
    return load(KUBERAY / f"{name}.yaml")


def commands(document: dict[str, Any]) -> list[Any]:
    """Command lines of ours in a manifest: a job's text for a shell, or a container's words."""
    lines: list[Any] = [job["entrypoint"] for job in specs(document, "RayJob")]
    for pod in pods(document):
        lines += [container["command"] for container in pod["containers"] if "command" in container]
    return lines


def environment(document: dict[str, Any]) -> list[str]:
    names = [item["name"] for pod in pods(document) for c in pod["containers"] for item in c.get("env", [])]
    for job in specs(document, "RayJob"):
        names += yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    return names


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_every_manifest_is_taken(path: Path) -> None:
    assert problems(load(path)) == []


def put(*way: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for step in way[:-1]:
            document = document[step]
        document[way[-1]] = value

    return change


def drop(*way: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for step in way[:-1]:
            document = document[step]
        del document[way[-1]]

    return change


WORKER = ("spec", "rayClusterSpec", "workerGroupSpecs", 0)
MISTAKES = {
    "a misspelt field": ("rayjob", put("spec", "backoffLimt", value=1)),
    "a misspelt field, deep": ("rayjob", put(*WORKER, "template", "spec", "tolerationz", value=[])),
    "a misspelt limit of a container": (
        "rayjob",
        put(*WORKER, "template", "spec", "containers", 0, "resources", "limit", value={}),
    ),
    "a wrong type": ("rayjob", put("spec", "backoffLimit", value="one")),
    "a wrong type, deep": (
        "raycronjob",
        put("spec", "jobTemplate", "rayClusterSpec", "rayVersion", value=2.6),
    ),
    "a word that is none of those allowed": (
        "raycluster",
        put("spec", "authOptions", "mode", value="tokens"),
    ),
    "no entrypoint": ("rayjob-cpu", drop("spec", "entrypoint")),
    "no group name": ("raycluster", drop("spec", "workerGroupSpecs", 0, "groupName")),
    "two groups of one name": ("raycluster", put("spec", "workerGroupSpecs", 1, "groupName", value="cpu")),
    "a name too long": ("rayjob", put("metadata", "name", value="r" * 48)),
    "rules that are not checked": ("rayjob", put("spec", "rayClusterSpec", "managedBy", value="me")),
    "no schedule": ("raycronjob", drop("spec", "schedule")),
    "no schedule of a CronJob": ("cronjob", drop("spec", "schedule")),
    "a misspelt field of a CronJob": ("cronjob", put("spec", "concurencyPolicy", value="Forbid")),
    "a misspelt reference": (
        "cronjob",
        put(
            *("spec", "jobTemplate", "spec", "template", "spec", "containers", 0, "env", 1, "valueFrom"),
            value={"secretKeyRf": {"name": "a", "key": "b"}},
        ),
    ),
    "a number where text belongs": ("secret", put("data", "AWS_ACCESS_KEY_ID", value=1)),
    "a misspelt kind": ("serviceaccount", put("kind", value="ServiceAcount")),
    "a generator that is not checked": ("kustomization", put("secretGenerator", value=[])),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_check_sees(mistake: str) -> None:
    name, change = MISTAKES[mistake]
    document = copy.deepcopy(manifest(name))
    change(document)
    assert problems(document) != []


def test_defaults_are_filled_in_before_fields_are_required() -> None:
    document = manifest("rayjob")
    drop(*WORKER, "minReplicas")(document)  # required, and with a default
    assert problems(document) == []


@pytest.mark.parametrize("name", [*RAY_KINDS, "cronjob"])
def test_command_lines_are_read_by_the_real_parser(name: str) -> None:
    document = manifest(name)
    lines = commands(document)
    assert lines or name == "raycluster"
    for line in lines:
        command, parameters = parse_submitted(line)
        assert command == "compress"
        assert parameters["source"].startswith("s3://our-photos/")
        assert parameters["archive"].startswith("s3://our-archive/")
        # two shells read an entrypoint, in two pods: it must mean the same without any
        assert isinstance(line, list) or not set(line) & set("$*?'\"\\;&|<>()`~#")


@pytest.mark.parametrize("name", ["rayjob", "rayjob-cpu", "raycronjob"])
def test_a_job_asks_for_as_many_workers_as_its_nodes_hold(name: str) -> None:
    document = manifest(name)
    _, parameters = parse_submitted(commands(document)[0])
    [cluster] = specs(document, "RayCluster")
    [group] = cluster["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    share = parameters["gpus_per_worker"]
    on_a_node = int(limits["cpu"])
    if share:
        on_a_node = min(on_a_node, int(int(limits["nvidia.com/gpu"]) / share))
    assert ("nvidia.com/gpu" in limits) == bool(share)
    assert parameters["workers"] == group["maxReplicas"] * on_a_node
    assert group["minReplicas"] == 0  # what waits is sent away


@pytest.mark.parametrize("name", [*RAY_KINDS, "cronjob"])
def test_every_variable_is_one_that_somebody_reads(name: str) -> None:
    assert [variable for variable in environment(manifest(name)) if not known_variable(variable)] == []


def test_a_misspelt_variable_is_seen() -> None:
    assert not any(
        map(known_variable, ("RAY_JOB_STOP_WAIT_TIME", "AWS_REGIO", "NUMBA_CACHE_DIRR", "SOMETHING"))
    )
    assert all(map(known_variable, ("RAY_AUTH_TOKEN_PATH", "AWS_WEB_IDENTITY_TOKEN_FILE", "NUMBA_CACHE_DIR")))


@pytest.mark.parametrize("name", RAY_KINDS)
def test_the_ray_named_is_the_one_installed(name: str) -> None:
    [cluster] = specs(manifest(name), "RayCluster")
    assert cluster["rayVersion"].split(".")[:2] == installed("ray").split(".")[:2]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True


@pytest.mark.parametrize("name", ["rayjob", "rayjob-cpu", "raycronjob"])
def test_a_job_ends_its_cluster_and_is_not_retried_for_ever(name: str) -> None:
    [job] = specs(manifest(name), "RayJob")
    assert job["shutdownAfterJobFinishes"] is True
    assert 0 < job["backoffLimit"] <= 2
    assert job["activeDeadlineSeconds"] > job["preRunningDeadlineSeconds"] > 0
    stop_s = int(yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"])
    head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert head["terminationGracePeriodSeconds"] > stop_s


@pytest.mark.parametrize("name", [*RAY_KINDS, "cronjob"])
def test_pods_are_locked_down_and_bounded(name: str) -> None:
    for pod in pods(manifest(name)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000  # as the images have it
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", [*RAY_KINDS, "cronjob"])
def test_no_secret_stands_in_a_manifest(name: str) -> None:
    document = manifest(name)
    for pod in pods(document):
        for container in pod["containers"]:
            for item in container.get("env", []):
                if re.search("TOKEN|SECRET|KEY|PASSWORD", item["name"]):
                    assert "value" not in item
                    assert item["valueFrom"]["secretKeyRef"]
    for job in specs(document, "RayJob"):  # everybody who may look at the job sees these
        assert not re.search("TOKEN|SECRET|KEY|PASSWORD", job["runtimeEnvYAML"])


def test_the_template_of_a_secret_is_refused_until_it_is_filled_in() -> None:
    for name, value in manifest("secret")["data"].items():
        assert known_variable(name)
        with pytest.raises(ValueError):
            base64.b64decode(value, validate=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_images_are_named_alike_and_none_can_be_pulled_before_its_registry_is_filled_in(path: Path) -> None:
    raw = [c["image"] for pod in pods(load(path, filled=False)) for c in pod["containers"]]
    filled = [c["image"] for pod in pods(load(path)) for c in pod["containers"]]
    assert not any(map(IMAGE.fullmatch, raw))
    assert all(map(IMAGE.fullmatch, filled))
    assert {image.rpartition("-")[2] for image in filled} <= {"cpu", "gpu"}


def test_gpus_go_to_the_image_that_has_cuda_and_to_no_head() -> None:
    for name in RAY_KINDS:
        for pod in pods(manifest(name)):
            container = pod["containers"][0]
            assert ("nvidia.com/gpu" in container["resources"]["limits"]) == container["image"].endswith(
                "-gpu"
            )
        [cluster] = specs(manifest(name), "RayCluster")
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_nightly_job_finds_the_cluster_that_stands_and_its_token() -> None:
    cluster = manifest("raycluster")["metadata"]["name"]
    job = manifest("cronjob")["spec"]
    container = job["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert f"http://{cluster}-head-svc:8265" in container["command"]
    token = next(item for item in container["env"] if item["name"] == "RAY_AUTH_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": cluster, "key": "auth_token"}
    assert job["concurrencyPolicy"] == "Forbid"
    assert "timeZone" in job


def test_the_alpha_kind_says_so_in_its_first_line() -> None:
    assert (KUBERAY / "raycronjob.yaml").read_text(encoding="utf-8").startswith("# ALPHA.")


def test_kustomize_is_given_files_that_exist_and_no_secret() -> None:
    listed = manifest("kustomization")["resources"]
    assert all((KUBERAY / name).is_file() for name in listed)
    assert "secret.yaml" not in listed
    assert manifest("kustomization")["namespace"] == manifest("namespace")["metadata"]["name"]
    account = manifest("serviceaccount")["metadata"]["name"]
    for name in RAY_KINDS:
        assert {pod["serviceAccountName"] for pod in pods(manifest(name))} == {account}


def test_placeholders_are_the_ones_that_the_readme_lists() -> None:
    readme = (CLUSTER / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([A-Z-]+)` \|", readme, re.MULTILINE))
    assert listed == set(FOR_PLACEHOLDERS)
    used = "".join(
        path.read_text(encoding="utf-8") for path in CLUSTER.rglob("*") if path.suffix in (".yaml", ".json")
    )
    assert all(name in used for name in listed)


def test_no_file_escapes_the_checks() -> None:
    assert {path.stem for path in MANIFESTS} == {
        *RAY_KINDS,
        *("cronjob", "kustomization", "namespace", "secret", "serviceaccount"),
    }
    assert [path.stem for path in LAUNCHER_FILES] == ["cpu", "gpu-spot"]
    assert [path.name for path in DOCKERFILES] == ["Dockerfile.cpu", "Dockerfile.gpu"]
