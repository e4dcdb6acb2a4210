"""Every error of the package: one code, two sentences, whole on the other side of a process border."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from recbatch.errors import CorruptData, ImageError, RecbatchError, StoreError, UsageError, catalogue, page

ENTRIES = catalogue()
FAMILIES = {RecbatchError, UsageError, StoreError, CorruptData, ImageError}
EXIT_STATUS = {UsageError: 2, StoreError: 3, CorruptData: 4, ImageError: 1}


def class_of(entry: tuple[Any, ...]) -> type[RecbatchError]:
    found = getattr(importlib.import_module(entry[1]), entry[2])
    assert issubclass(found, RecbatchError)
    return found


def argument_for(annotation: Any) -> Any:
    """Something of the annotated type; the first choice of a union."""
    for choice in typing.get_args(annotation) or (annotation,):
        if choice in (int, float, bytes, bool):
            return choice(7) if choice is not bytes else b"bytes"
    origin = typing.get_origin(annotation) or annotation
    if inspect.isclass(origin) and issubclass(origin, (list, tuple, dict, set, frozenset)):
        return origin()
    if origin in (typing.get_origin(typing.Sequence[str]), typing.get_origin(typing.Iterable[str])):
        return ("one", "two")
    return "something"


def instance_of(kind: type[RecbatchError]) -> RecbatchError:
    """An error made from its constructor's annotations."""
    if kind.__init__ is Exception.__init__:
        return kind()
    hints = typing.get_type_hints(kind.__init__)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return kind(*(argument_for(hints.get(p.name, str)) for p in positional))


LEAVES = [entry for entry in ENTRIES if entry[2] not in {family.__name__ for family in FAMILIES}]
each_leaf = pytest.mark.parametrize("entry", LEAVES, ids=[f"{entry[1]}.{entry[2]}" for entry in LEAVES])


def test_codes_are_given_and_unique() -> None:
    codes = [entry[0] for entry in ENTRIES]
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code) for code in codes), codes
    assert len(set(codes)) == len(codes), sorted(code for code in codes if codes.count(code) > 1)


@each_leaf
def test_the_catalogue_says_what_the_class_is(entry: tuple[Any, ...]) -> None:
    kind = class_of(entry)
    assert (kind.code, kind.exit_status, kind.retryable) == (entry[0], entry[3], entry[4])


def test_each_docstring_begins_with_a_sentence_for_the_page() -> None:
    assert [f"{entry[1]}.{entry[2]}" for entry in ENTRIES if not entry[5].endswith(".")] == []


def test_no_error_is_missing_from_the_catalogue() -> None:
    for entry in ENTRIES:
        class_of(entry)
    known, waiting = {entry[2] for entry in ENTRIES}, [RecbatchError]
    while waiting:
        kind = waiting.pop()
        if kind.__module__.startswith("recbatch"):
            assert kind.__name__ in known
        waiting += kind.__subclasses__()


@each_leaf
def test_an_error_crosses_to_another_process(entry: tuple[Any, ...]) -> None:
    error = instance_of(class_of(entry))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__


@each_leaf
def test_an_error_says_what_and_what_to_do(entry: tuple[Any, ...]) -> None:
    text = str(instance_of(class_of(entry)))
    assert "\n" not in text.strip()
    assert text.rstrip().endswith(".") or text.rstrip().endswith("'")
    assert len(re.split(r"(?<=[.!?;])\s+(?=\S)", text)) >= 2, text
    assert len(text) < 400


def test_families_have_their_exit_status() -> None:
    for family, status in EXIT_STATUS.items():
        assert family.exit_status == status
        assert all(kind.exit_status == status for kind in family.__subclasses__())


def test_the_page_is_the_one_that_the_module_prints() -> None:
    written = (Path(__file__).parents[1] / "docs" / "errors.md").read_text()
    assert written == page(), "run: python -m recbatch.errors > docs/errors.md"


def test_the_module_prints_the_page() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "recbatch.errors"], capture_output=True, text=True, check=True
    )
    assert printed.stdout == page()
