"""What long commands say on standard error: text for people, or one JSON object a line for a log collector.

A command line asks for one of them by ``--log-format`` or ``RECBATCH_LOG_FORMAT``. With neither, text goes without
times and a terminal gets a bar.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from recbatch.cli.text import one_line, plain

VARIABLE = "RECBATCH_LOG_FORMAT"


class LogFormat(StrEnum):
    text = "text"
    json = "json"


_chosen: ContextVar[LogFormat | None] = ContextVar("log format", default=None)


def use(chosen: LogFormat | None) -> None:
    """For all that this command line says from now on."""
    _chosen.set(chosen)


def chosen() -> LogFormat | None:
    return _chosen.get()


def asked(words: Sequence[str], environment: Mapping[str, str]) -> LogFormat | None:
    """What a command line asks for before it is parsed: a wrong option must be told in that format, too."""
    found = environment.get(VARIABLE, "")
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, _, value = word.partition("=")
        if name == "--log-format":
            found = value or following
    return LogFormat(found) if found in set(LogFormat) else None


def say(line: str, *, event: str = "message", level: str = "info", **fields: Any) -> None:
    """One line. JSON has ``fields`` in place of the sentence, where there are any."""
    now = datetime.now(UTC)
    if _chosen.get() is LogFormat.json:
        body = fields or {"message": line}
        text = json.dumps(
            {"time": now.isoformat(timespec="milliseconds"), "level": level, "event": event, **plain(body)},
            ensure_ascii=False,
        )
    else:
        line = one_line(line)
        text = f"{now:%Y-%m-%dT%H:%M:%SZ} {line}" if _chosen.get() is LogFormat.text else line
    sys.stderr.write(
        text.encode("utf-8", "backslashreplace").decode() + "\n"
    )  # one write: threads must not mix
    sys.stderr.flush()
