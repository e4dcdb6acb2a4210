"""Text and JSON for people and programs: sizes, aligned columns, one JSON document."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import typer

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def bytes_text(size: int | float) -> str:
    """A size in units of 1000: 12,345 bytes is ``12.3 kB``."""
    size = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB", "EB"):
        if abs(size) < 999.5 or unit == "EB":
            break
        size /= 1000
    return f"{size:.0f} B" if unit == "B" else f"{size:#.3g} {unit}".replace(". ", " ")


def duration_text(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: float | None, places: int = 2) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:,.{places}f}"


def count(how_many: int, noun: str) -> str:
    return f"{how_many:,} {noun}" + ("" if how_many == 1 else "s")


def days_text(days: float) -> str:
    return f"{days:g} day" + ("" if days == 1 else "s")


def key_text(key: str) -> str:
    """A key in one line: as it is, or, where characters in it are none to print, as a word that bash and zsh read."""
    if not UNPRINTABLE.search(key) and not key.startswith("$'"):
        return key
    escaped = re.sub(r"[\\']", r"\\\g<0>", key)
    return "$'" + UNPRINTABLE.sub(_escape, escaped) + "'"


def one_line(text: str) -> str:
    """A sentence without line breaks and other characters that a terminal obeys; keys in it may hold any."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return {9: r"\t", 10: r"\n", 13: r"\r"}.get(code) or (
        f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"
    )


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Rows as aligned columns; ``right`` lists the columns that align right."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """What JSON can say: dataclasses as objects, digests in hex, longer bytes in base64, times as ISO 8601."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {
            "/".join(map(str, key)) if isinstance(key, tuple) else str(key): plain(v)
            for key, v in value.items()
        }
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 64 else base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no infinity: an identical image's PSNR
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    typer.echo(json.dumps(plain(value), ensure_ascii=False))
