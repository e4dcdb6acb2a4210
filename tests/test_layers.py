"""The floors of the house: who may import whom, read from the source, and what an import really loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import recbatch

ROOT = Path(recbatch.__file__).parent
HEAVY = {"torch", "ray", "pyarrow", "numba", "deltalake"}
STORAGE = {"fsspec", "s3fs", "deltalake", "pyarrow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What the modules of one package may import; ``recbatch.errors`` is open to all."""

    inside: frozenset[str]  # parts of recbatch
    never: frozenset[str]  # other packages


def floor(inside: str, never: set[str]) -> Floor:
    return Floor(inside=frozenset(inside.split()), never=frozenset(never))


LOWER = "rec models stream images codec archive s3 health"
FLOORS = {
    "errors": floor("", HEAVY | STORAGE | {"PIL", "numpy", "typer", "rich"}),
    "health": floor("", HEAVY | STORAGE | {"PIL", "numpy", "typer", "rich"}),
    "stream": floor("", HEAVY | STORAGE | {"PIL", "typer", "rich"}),
    "images": floor("stream", HEAVY | STORAGE | {"typer", "rich"}),
    "rec": floor("", STORAGE | {"ray", "torch", "PIL", "typer", "rich"}),
    "models": floor("", STORAGE | {"ray", "numba", "typer", "rich"}),
    "codec": floor("rec models stream images", STORAGE | {"ray", "typer", "rich"}),
    "s3": floor("", HEAVY | {"PIL", "numpy", "typer", "rich", "fsspec", "s3fs"}),
    "archive": floor("s3 health", {"ray", "torch", "PIL", "numba", "typer", "rich"}),
    "engine": floor(f"{LOWER}", {"typer", "rich"}),
    "bench": floor(f"api engine {LOWER}", {"ray"}),
    "train": floor(f"{LOWER}", {"ray"}),
    "api": floor(f"engine {LOWER}", {"ray", "typer", "rich"}),
    "cli": floor(f"api engine bench train {LOWER}", {"ray"}),
    "__main__": floor("cli", HEAVY),
    "": floor("api", HEAVY | STORAGE | {"PIL", "typer", "rich"}),
}
EXCEPTIONS = {  # (start and end of a module's name, package): why
    ("recbatch.rec.kernels", ".gpu", "torch"): "a kernel for the GPU stands beside its reference",
    (
        "recbatch.models.lossless",
        ".geometry",
        "numba",
    ): "taps are gathered pixel by pixel, in a compiled kernel",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST, module: str) -> Iterator[tuple[str, int]]:
    """Absolute names of all that is imported, at the top or in functions, but not for the type checker alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide the floor; write them out"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        else:
            yield from imports(node, module)


def part(name: str) -> str:
    """The part of recbatch that a module belongs to: ``recbatch.rec.base`` is in ``rec``."""
    pieces = name.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def parts_of_recbatch() -> set[str]:
    return {
        path.stem if path.suffix else path.name for path in ROOT.iterdir() if not path.name.startswith("_")
    }


def problems() -> Iterator[str]:
    known = parts_of_recbatch()
    for module, tree in modules():
        rules = FLOORS.get(part(module))
        if rules is None:
            yield f"{module}: its part has no floor; add it to FLOORS"
            continue
        for imported, line in imports(tree, module):
            package = imported.split(".")[0]
            if package == "recbatch":
                target = part(imported)
                if target in known and target not in rules.inside | {"errors", part(module)}:
                    yield f"{module}:{line} imports recbatch.{target}"
            elif package in rules.never and not any(
                module.startswith(start) and module.endswith(end) and package == p
                for start, end, p in EXCEPTIONS
            ):
                yield f"{module}:{line} imports {package}"


def test_every_import_points_downwards() -> None:
    assert list(problems()) == []


def test_the_check_itself_sees_imports_at_the_top_and_in_functions() -> None:
    tree = ast.parse(
        "import torch\ndef f():\n    from ray import data\nif TYPE_CHECKING:\n    import numba\n"
    )
    assert [name for name, _ in imports(tree, "x")] == ["torch", "ray.data"]


def test_the_command_line_loads_nothing_heavy_at_module_top() -> None:
    for module, tree in modules():
        if part(module) in {"cli", "api"}:
            top = ast.Module(
                [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], []
            )
            loaded = {name.split(".")[0] for name, _ in imports(top, module)}
            assert not loaded & (HEAVY | {"numpy", "PIL", "rich"}), module


@pytest.mark.parametrize("package", ["recbatch", "recbatch.cli", "recbatch.rec", "recbatch.archive"])
def test_an_import_loads_no_forbidden_module(package: str) -> None:
    never = {
        "recbatch": HEAVY | {"numpy", "PIL"},
        "recbatch.cli": HEAVY | {"numpy", "PIL"},
        "recbatch.rec": {"torch", "ray", "pyarrow", "PIL"},
        "recbatch.archive": {"torch", "ray", "numba", "PIL"},
    }[package]
    script = f"import sys, {package}; print(*sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not never & set(done.stdout.split())
