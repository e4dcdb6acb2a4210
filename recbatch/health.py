"""A check of one thing that recbatch needs: what was found, whether it is well, and what to do where it is not.

Probes of all floors give these; ``recbatch doctor`` runs them. A probe that fails or hangs ends no other.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import Any

from recbatch.errors import RecbatchError

_SECRETS = ("SECRET", "TOKEN", "PASSWORD", "CREDENTIAL")
_NO_SECRETS = ("_PATH", "_FILE")  # they say where one lies
_SHORTEST_SECRET = 6  # shorter values would turn up in any text
_SENTENCES = re.compile(r"(?<=[.?!]) (?=[A-Z'])")


class State(StrEnum):
    ok = "ok"
    warning = "warning"  # works, but something will bite some day
    problem = "problem"  # something will fail


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of ``recbatch doctor``."""

    name: str
    state: State
    text: str  # what was found
    remedy: str = ""  # of warnings and problems

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def ok(name: str, text: str) -> Check:
    return Check(name=name, state=State.ok, text=text)


def warning(name: str, text: str, remedy: str) -> Check:
    return Check(name=name, state=State.warning, text=text, remedy=remedy)


def problem(name: str, text: str, remedy: str) -> Check:
    return Check(name=name, state=State.problem, text=text, remedy=remedy)


def of_error(name: str, error: BaseException, *, remedy: str = "") -> Check:
    """A problem; recbatch's own errors have their remedy as the last sentence."""
    if isinstance(error, RecbatchError):
        first, _, rest = _SENTENCES.sub("\n", str(error), count=1).partition("\n")
        return problem(name, first, remedy or rest)
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return problem(
        name, f"{type(error).__name__}: {text}", remedy or "Mend that and run 'recbatch doctor' again."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What looks at one thing, and how long it may take."""

    name: str
    look: Callable[[], Iterable[Check]]
    limit_s: float = 20.0
    late: str = "Check that it can be reached from here, and run 'recbatch doctor' again."  # the remedy then


def examine(probes: Iterable[Probe], *, secrets: Collection[str] = ()) -> Iterator[Check]:
    """The checks of all probes, each as soon as it is done; secrets of the environment, and these, are hidden."""
    hidden = [*secrets_of(os.environ.items()), *secrets]
    for probe in probes:
        for check in _within(probe):
            yield replace(check, text=redacted(check.text, hidden), remedy=redacted(check.remedy, hidden))


def _within(probe: Probe) -> Iterator[Check]:
    """What a probe finds in its time. One that hangs is left behind in its thread."""
    found: SimpleQueue[Check | None] = SimpleQueue()

    def look() -> None:
        try:
            for check in probe.look():
                found.put(check)
        except BaseException as error:  # whatever it is, the next probe has its turn
            found.put(of_error(probe.name, error))
        found.put(None)

    threading.Thread(target=look, name=f"doctor {probe.name}", daemon=True).start()
    while True:
        try:
            check = found.get(timeout=probe.limit_s)
        except Empty:
            yield problem(probe.name, f"no answer within {probe.limit_s:g} s", probe.late)
            return
        if check is None:
            return
        yield check


def secrets_of(variables: Iterable[tuple[str, str]]) -> list[str]:
    """The values of variables whose names say that they are secret."""
    return [
        value
        for name, value in variables
        if len(value) >= _SHORTEST_SECRET
        and any(mark in name.upper() for mark in _SECRETS)
        and not name.upper().endswith(_NO_SECRETS)
    ]


def redacted(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
