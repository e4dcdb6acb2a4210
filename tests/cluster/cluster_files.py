"""The files under cluster/, and the words in them that stand for what only their user knows."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

import recbatch

ROOT = Path(recbatch.__file__).parent.parent
CLUSTER = ROOT / "cluster"
MANIFESTS = sorted((CLUSTER / "kuberay").glob("*.yaml"))
LAUNCHER_FILES = sorted((CLUSTER / "aws").glob("*.yaml"))
DOCKERFILES = sorted((CLUSTER / "docker").glob("Dockerfile.*"))

FOR_PLACEHOLDERS = {  # each stands where capitals are refused by whoever reads them
    "REGISTRY": "registry.example.org/team",
    "SOURCE-BUCKET": "our-photos",
    "ARCHIVE-BUCKET": "our-archive",
    "ACCOUNT-ID": "123456789012",
    "AMI-WITH-DOCKER": "ami-0123456789abcdef0",
    "AMI-WITH-NVIDIA": "ami-0123456789abcdef1",
}
PLACEHOLDER = re.compile("|".join(sorted(FOR_PLACEHOLDERS, key=len, reverse=True)))


def load(path: Path, *, filled: bool = True) -> dict[str, Any]:
    """A file of one YAML document, by default with its placeholders replaced."""
    text = path.read_text(encoding="utf-8")
    document = yaml.safe_load(fill(text) if filled else text)
    assert isinstance(document, dict), f"{path.name} is no mapping"
    return document


def fill(text: str) -> str:
    return PLACEHOLDER.sub(lambda found: FOR_PLACEHOLDERS[found[0]], text)


def known_variable(name: str) -> bool:
    """Whether an environment variable is read by somebody: by the package that its name belongs to."""
    if name.startswith("RAY_"):
        return name in source_of("ray", ("_common", "_private", "dashboard"))
    if name.startswith("AWS_"):
        return name in source_of(
            "botocore", ("configprovider.py", "credentials.py", "utils.py", "session.py")
        )
    if name.startswith("NUMBA_"):
        return name.removeprefix("NUMBA_") in source_of("numba", ("core",))
    return name in (
        "HOME",
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
    )  # of the container runtime


@cache
def source_of(package: str, parts: tuple[str, ...]) -> frozenset[str]:
    """All names in capitals in some of a package's modules."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    names: set[str] = set()
    for part in parts:
        place = Path(spec.submodule_search_locations[0]) / part
        for path in place.rglob("*.py") if place.is_dir() else [place] if place.exists() else []:
            names.update(re.findall(r"\b[A-Z][A-Z0-9_]{3,}\b", path.read_text(encoding="utf-8")))
    return frozenset(names)


def installed(package: str) -> str:
    return str(import_module("importlib.metadata").version(package)).partition("+")[0]
