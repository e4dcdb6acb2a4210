"""HTML as values: what is not marked as HTML is text, and text is escaped. Nothing else writes a page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


class Html(str):
    """Markup. Made by ``tag`` and ``join`` alone, so no text of a user becomes one."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Child] | None"


def text(value: object) -> Html:
    """Escaped. Characters that can't be seen, or turn the line around, are spelled out: keys may hold any."""
    if isinstance(value, Html):
        return value
    shown = UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", str(value))
    return Html(html.escape(shown, quote=True))


def join(*children: Child) -> Html:
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str | int | float):
            parts.append(text(child))
        else:
            parts.append(join(*child))
    return Html("".join(parts))


def tag(name: str, /, *children: Child, **attributes: str | int | float | None) -> Html:
    """An element; ``class_`` is the attribute class, and ``_`` in a name is ``-``."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("img", "meta", "br"):
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(*children)}</{name}>")


def table(
    head: Iterable[str], rows: Iterable[Iterable[Child]], *, numbers: Iterable[int] = (), caption: str = ""
) -> Html:
    """A table that scrolls by itself where the window is narrow; columns in ``numbers`` align right."""
    right = set(numbers)

    def cells(kind: str, row: Iterable[Child]) -> list[Html]:
        scope = "col" if kind == "th" else None
        return [
            tag(kind, cell, class_="n" if place in right else None, scope=scope)
            for place, cell in enumerate(row)
        ]

    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption) if caption else None,
            tag("thead", tag("tr", cells("th", head))),
            tag("tbody", [tag("tr", cells("td", row)) for row in rows]),
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=caption or None,
    )


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Names and values."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs], class_="facts")
