"""What to do about the damage that a verification found, as commands to type."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from recbatch.errors import RecbatchError

if TYPE_CHECKING:
    from recbatch.archive import Record, VerifyReport

KEYS_SHOWN = 5  # of each command
LOOKED_AT = 100  # rows whose settings are read, at most
_COLUMNS = ("status", "codec", "quality", "effort")


def mending_commands(report: VerifyReport) -> list[str]:
    """How images with damaged streams are coded anew from their sources: a command for each of their settings.

    Rows do not tell every setting; those of targets such as bits per pixel show as the quality that they led to.
    """
    from recbatch import archive as table

    keys: dict[str, list[str]] = {}
    try:
        opened = table.Archive.open(report.url, version=report.version)
        for key in report.damaged_streams[:LOOKED_AT]:
            keys.setdefault(settings_of(opened.record(key, _COLUMNS)), []).append(key)
    except RecbatchError:  # then the findings alone have to do
        return []
    return [command(report.url, settings, chosen) for settings, chosen in keys.items()]


def settings_of(row: Record) -> str:
    """The options that a row was made with, each with a space before it."""
    words = ""
    if row.codec == "original":
        words = " --original"
    elif row.codec == "lossy" and row.quality is not None:
        words = f" --quality {row.quality:g}"
    from recbatch.codec import Settings

    return f"{words} --effort {row.effort}" if row.effort and row.effort != Settings().effort else words


def command(url: str, settings: str, keys: list[str]) -> str:
    texts = ("'" + key.replace("'", "''") + "'" for key in keys[:KEYS_SHOWN])
    where = f"key in ({', '.join(texts)})"
    quoted = shlex.quote(where) if re.search(r'["$`\\!]', where) else f'"{where}"'
    line = f"recbatch recompress {shlex.quote(url)} --again{settings} --where {quoted}"
    more = len(keys) - KEYS_SHOWN
    return f"{line}  # and {more:,} more keys; --json names all" if more > 0 else line
