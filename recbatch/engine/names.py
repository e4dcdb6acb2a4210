"""Keys are text; file names are bytes. One key for every name, one name for every key.

A name in UTF-8 is its own key. Any other is percent-escaped: '%' and the bytes that are not UTF-8 become %XX.
So that no two names meet in one key, a name that would read as an escaped one (unescaping it ends in bytes that
are no UTF-8) is escaped too; which of both a key is can be told from the key alone.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def key_of(name: bytes) -> str:
    """The key of a file name; the same for every operating system and locale."""
    if not _reads_as_escaped(name):
        return name.decode("utf-8")
    text = name.replace(b"%", b"%25").decode("utf-8", "surrogateescape")
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)


def name_of(key: str) -> bytes:
    """The file name that ``key_of`` was given."""
    name = key.encode("utf-8", "surrogatepass")
    return _unescape(name) if _reads_as_escaped(name) else name


def is_escaped(key: str) -> bool:
    return _reads_as_escaped(key.encode("utf-8", "surrogatepass"))


def _unescape(name: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match.group(1), 16)]), name)


def _reads_as_escaped(name: bytes) -> bool:
    """Is the name, or what unescaping it again and again makes of it, no UTF-8?"""
    while True:
        try:
            name.decode("utf-8")
        except UnicodeDecodeError:
            return True
        shorter = _unescape(name)
        if shorter == name:
            return False
        name = shorter
