"""Is a Kubernetes manifest what the API server and the operator would take? Unknown fields count as mistakes."""

from __future__ import annotations

import copy
import gzip
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="the package kubernetes-validate is missing"
)

KUBERAY = Path(__file__).parent / "schemas" / "kuberay-1.7.0-raycronjob-v1.json.gz"
KUBERNETES = (
    "1.27",
    "1.37",
)  # the first with CronJob.timeZone for good, and the newest whose schemas we have
LONGEST_NAME = 47  # of what the operator derives pods' names from
NOT_CHECKED = (
    "deletionStrategy",
    "managedBy",
    "gcsFaultToleranceOptions",
)  # their rules are in CEL: we use none


@cache
def kuberay(kind: str) -> dict[str, Any]:
    """The strict schema of one of the operator's kinds."""
    whole = json.loads(gzip.decompress(KUBERAY.read_bytes()))["openAPIV3Schema"]
    spec = whole["properties"]["spec"]
    if kind in ("RayJob", "RayCluster"):
        spec = spec["properties"]["jobTemplate"]
    if kind == "RayCluster":
        spec = spec["properties"]["rayClusterSpec"]
    properties = {**whole["properties"], "spec": spec}
    result: dict[str, Any] = strict({**whole, "properties": properties, "required": ["metadata", "spec"]})
    return result


def strict(schema: Any) -> Any:
    """Kubernetes' dialect in that of jsonschema: unknown fields are refused, numbers may be texts where it says so."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: strict(part) for name, part in schema.items()}
    closed = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return result


def with_defaults(document: Any, schema: dict[str, Any]) -> Any:
    """What the API server makes of a document before it looks for fields that are required."""
    if isinstance(document, list):
        return [with_defaults(part, schema.get("items", {})) for part in document]
    if not isinstance(document, dict):
        return document
    known = schema.get("properties", {})
    defaults = {name: part["default"] for name, part in known.items() if "default" in part}
    given = {name: with_defaults(part, known.get(name, {})) for name, part in document.items()}
    return {**copy.deepcopy(defaults), **given}


def problems(document: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest; empty where nothing is."""
    version, kind = document.get("apiVersion", ""), document.get("kind", "")
    if version == "ray.io/v1" and kind in ("RayCluster", "RayJob", "RayCronJob"):
        return [*schema_problems(document, kuberay(kind)), *operator_problems(document)]
    if version.startswith("kustomize.config.k8s.io/"):
        return kustomize_problems(document)
    return core_problems(document)


def schema_problems(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    found = jsonschema.Draft4Validator(schema).iter_errors(with_defaults(document, schema))
    return [f"{'/'.join(map(str, error.path))}: {error.message[:200]}" for error in found]


def core_problems(document: dict[str, Any]) -> list[str]:
    found = []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except (
            kubernetes_validate.ValidationError,
            kubernetes_validate.SchemaNotFoundError,
            kubernetes_validate.InvalidSchemaError,
        ) as error:
            found.append(f"Kubernetes {version}: {str(error)[:200]}")
    return found


def kustomize_problems(document: dict[str, Any]) -> list[str]:
    known = {"apiVersion", "kind", "namespace", "resources"}
    return [f"{name}: kustomize has it, this check does not" for name in sorted(document.keys() - known)]


def operator_problems(document: dict[str, Any]) -> list[str]:
    """What the operator itself refuses and the schema does not."""
    found = []
    name = document.get("metadata", {}).get("name", "")
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) or len(name) > LONGEST_NAME:
        found.append(f"metadata/name: '{name}' is no name of at most {LONGEST_NAME} characters")
    for job in specs(document, "RayJob"):
        if not str(job.get("entrypoint", "")).strip():
            found.append("entrypoint: a job without a command")
        if not isinstance(yaml.safe_load(job.get("runtimeEnvYAML", "{}")), dict):
            found.append("runtimeEnvYAML: no mapping")
    for cluster in specs(document, "RayCluster"):
        groups = [group["groupName"] for group in cluster.get("workerGroupSpecs", []) if "groupName" in group]
        if len(set(groups)) < len(groups):
            found.append("workerGroupSpecs: two groups of one name")
        if cluster.get("authOptions", {}).get("mode") == "token" and not cluster.get("rayVersion"):
            found.append("authOptions: the token needs a rayVersion")
        found += [f"{name}: its rules are not checked here" for name in NOT_CHECKED if name in cluster]
    return found


def specs(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The spec of a kind inside a manifest, whichever manifest it is."""
    levels = {"RayCluster": 0, "RayJob": 1, "RayCronJob": 2}
    level, spec = levels.get(document.get("kind", ""), -1), document.get("spec", {})
    for step, name in ((2, "jobTemplate"), (1, "rayClusterSpec")):
        if level == levels[kind]:
            break
        if level == step:
            level, spec = level - 1, spec.get(name, {})
    return [spec] if level == levels[kind] else []


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The specs of all pods that a manifest describes."""
    if document.get("kind") == "CronJob":
        return [document["spec"]["jobTemplate"]["spec"]["template"]["spec"]]
    return [
        group["template"]["spec"]
        for cluster in specs(document, "RayCluster")
        for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", []))
    ]
