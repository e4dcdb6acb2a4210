"""Every exception a user can meet.

    RecbatchError                      code, exit_status, retryable; str() is two sentences: the thing, the remedy
    +-- UsageError            exit 2   the call is wrong
    +-- StoreError            exit 3   a source, an archive or a store can't be reached, or refuses
    +-- CorruptData           exit 4   an archive or a stream is damaged, or not what it claims
    +-- ImageError            exit 1   one image can't be archived; its row is quarantined, the rest goes on

A class is one code; codes are stable (rows, --json and docs/errors.md carry them).
Arguments go to ``super().__init__`` all and in order: an error must unpickle on another Ray worker.
"""

from __future__ import annotations

from typing import ClassVar


class RecbatchError(Exception):
    """Base of all errors that recbatch raises on purpose."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1
    retryable: ClassVar[bool] = False  # the engine redoes a shard only on errors that say so


class UsageError(RecbatchError):
    """The call itself is wrong."""

    code = "usage"
    exit_status = 2


class StoreError(RecbatchError):
    """A source, an archive or a store can't be reached, or refuses."""

    code = "store"
    exit_status = 3


class CorruptData(RecbatchError):
    """An archive or a stream is damaged, or is not what it claims to be."""

    code = "corrupt"
    exit_status = 4


class ImageError(RecbatchError):
    """One image can't be archived; it becomes a quarantined row."""

    code = "image"
    exit_status = 1


class InvalidPosterior(UsageError):
    """Latents handed to a coder are not finite or have the wrong shape or type."""

    code = "invalid-posterior"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"The latents can't be coded: {self.problem}. Check the model's outputs for NaN or overflow."


class CorruptStream(CorruptData):
    """A stream's bytes contradict its format, at a stated offset."""

    code = "corrupt-stream"

    def __init__(self, problem: str, offset: int = -1) -> None:
        super().__init__(problem, offset)
        self.problem, self.offset = problem, offset

    def __str__(self) -> str:
        where = f" at byte {self.offset}" if self.offset >= 0 else ""
        return f"The stream is damaged{where}: {self.problem}. Restore it from another copy or the source."


def catalogue() -> list[tuple[str, str, str, int, bool, str]]:
    """Every error class as (code, module, class, exit status, retryable, meaning), by code.

    Read from the sources, not by import: most floors are heavy, and none may be missed.
    """
    import ast
    from pathlib import Path

    root = Path(__file__).parent
    found: dict[str, tuple[str, list[str], dict[str, object], str]] = {}
    for file in sorted(root.rglob("*.py")):
        module = ".".join(("recbatch", *file.relative_to(root).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for node in ast.walk(ast.parse(file.read_bytes())):
            if not isinstance(node, ast.ClassDef):
                continue
            bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
            own: dict[str, object] = {
                ast.unparse(
                    part.targets[0] if isinstance(part, ast.Assign) else part.target
                ): part.value.value
                for part in node.body
                if isinstance(part, (ast.Assign, ast.AnnAssign)) and isinstance(part.value, ast.Constant)
            }
            meaning = (ast.get_docstring(node) or "").partition("\n")[0]
            found[node.name] = module, bases, own, meaning

    def inherited(name: str, attribute: str) -> object:
        """The attribute's value, None where the class is no RecbatchError."""
        if name not in found:
            return None
        _, bases, own, _ = found[name]
        of_bases = next((value for base in bases if (value := inherited(base, attribute)) is not None), None)
        is_error = name == "RecbatchError" or of_bases is not None
        return own.get(attribute, of_bases) if is_error else None

    rows = []
    for name, (module, _, own, meaning) in found.items():
        status = inherited(name, "exit_status")
        if isinstance(status, int):
            code = str(own.get("code", ""))
            rows.append((code, module, name, status, bool(inherited(name, "retryable")), meaning))
    return sorted(rows)


def page() -> str:
    """The text of docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "Made by `python -m recbatch.errors`; a test compares. A code never changes its meaning: rows of quarantined",
        "images (`error_code`), `--json` output and this page carry it. Exit statuses: 1 some images or checks failed,",
        "2 wrong usage, 3 a source, an archive or a store can't be reached or refuses, 4 corrupt archive or stream.",
        "",
        "| code | exit status | tried again | meaning | class |",
        "| --- | --- | --- | --- | --- |",
    ]
    for code, module, name, status, retryable, meaning in catalogue():
        lines.append(
            f"| `{code}` | {status} | {'yes' if retryable else 'no'} | {meaning} | `{module}.{name}` |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
