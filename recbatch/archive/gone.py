"""Versions that can't be read any more: a vacuum took their data files, or the log entries that lead to them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from recbatch.archive.store import LOG, Store

T = TypeVar("T")
LOOKS = 64  # at single files; for more of them the whole folder is listed
_ENTRY = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The data files that one log entry adds and removes; it leads to ``version`` from the one before."""

    version: int
    added: tuple[str, ...]
    removed: tuple[str, ...]


def changes(store: Store, *, after: int = -1, only: Collection[str] | None = None) -> Iterator[Change]:
    """The log's entries that lead to versions above ``after``, newest first; of their files these ``only``."""

    def read(name: str) -> Change:
        added: list[str] = []
        removed: list[str] = []
        for action, path in _files(store.read(f"{LOG}/{name}") or b""):
            if only is None or path in only:
                (added if action == "add" else removed).append(path)
        return Change(version=int(name[:20]), added=tuple(added), removed=tuple(removed))

    yield from in_threads(read, (name for name in _entries(store)[::-1] if int(name[:20]) > after))


def absent(store: Store, names: Collection[str]) -> set[str]:
    """Those of the data files that are not there."""
    names = sorted(names)
    if len(names) > LOOKS and not any("/" in name for name in names):  # ours lie in no folder
        return set(names) - set(store.top())
    sizes = in_threads(store.size, names)
    return {name for name, size in zip(names, sizes, strict=True) if size is None}


def versions_with(log: Iterable[Change], files: Collection[str]) -> set[int]:
    """The versions that need one of the files, none of which the newest one needs; ``log`` is newest first.

    Read backwards, a removal is where a file came to be needed.
    """
    found: set[int] = set()
    needed = 0
    for change in log:
        needed += sum(path in files for path in change.removed) - sum(path in files for path in change.added)
        if needed:
            found.add(change.version - 1)
    return found


def unreadable_versions(store: Store, *, oldest: int) -> set[int]:
    """Versions from ``oldest`` on that need a data file which is gone and which a later one does without."""
    log = list(changes(store, after=oldest))
    lost = absent(store, {path for change in log for path in change.removed})
    return versions_with(log, lost)


def is_forgotten(store: Store, version: int) -> bool:
    """Whether the log reaches back no more to a version that there was."""
    entries = _entries(store)
    return bool(entries) and 0 <= version < int(entries[0][:20])


def ranges(versions: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each run of numbers that follow one another."""
    found: list[tuple[int, int]] = []
    for version in sorted(versions):
        if found and version == found[-1][1] + 1:
            found[-1] = found[-1][0], version
        else:
            found.append((version, version))
    return found


def in_threads(work: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """On an object store most of the time is waiting."""
    with ThreadPoolExecutor(16, thread_name_prefix="upkeep") as threads:
        return list(threads.map(work, names))


def _entries(store: Store) -> list[str]:
    return sorted(name for name in store.names(LOG) if _ENTRY.fullmatch(name))


def _files(entry: bytes) -> Iterator[tuple[str, str]]:
    for line in entry.splitlines():
        if line.startswith((b'{"add"', b'{"remove"')):
            ((action, fields),) = json.loads(line).items()
            yield action, str(fields["path"])
