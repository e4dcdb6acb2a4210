"""What is to be done: the items that the archive lacks, cut into shards. Pure, but for its scratch files."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from recbatch.engine.source import Item
from recbatch.engine.spool import Row, Spool, item_of

if TYPE_CHECKING:
    from recbatch.archive import Known

MAX_SHARD_BYTES = 32 << 20  # of source files: minutes of work, so that a death costs minutes
MIN_SHARD_BYTES = 256 << 10
MAX_SHARD_ITEMS = 4096
SHARDS_PER_WORKER = 4  # of a small source, so that no worker idles at the end


class Sized(Protocol):
    """What a shard is made of: items to archive, rows to restore."""

    @property
    def key(self) -> str: ...
    @property
    def size(self) -> int: ...


T = TypeVar("T", bound=Sized)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard(Generic[T]):
    """What one call of a worker does, and what becomes visible in one commit or not at all."""

    name: str  # unique in the plan
    items: tuple[T, ...]

    @property
    def bytes(self) -> int:
        return sum(item.size for item in self.items)

    def split(self) -> tuple[Shard[T], Shard[T]]:
        """Two halves; the way to find an image that kills its process."""
        middle = len(self.items) // 2
        return (
            Shard(name=f"{self.name}.0", items=self.items[:middle]),
            Shard(name=f"{self.name}.1", items=self.items[middle:]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is missing, and how it is cut. Shards are made when their turn comes: there may be millions."""

    todo: Spool
    shard_bytes: int
    digest: str  # hex SHA-256; names the shards' application transactions
    known: int = 0  # items that are archived already
    known_bad: int = 0  # of these, quarantined
    replaces: int = 0  # items whose key has a row of another state, which will go

    @property
    def images(self) -> int:
        return self.todo.count

    @property
    def bytes(self) -> int:
        return self.todo.bytes

    def shards(self) -> Iterator[Shard[Item]]:
        return shards_of(map(item_of, self.todo), self.shard_bytes)

    def count_shards(self) -> int:
        return sum(1 for _ in runs((row[2] for row in self.todo), self.shard_bytes))

    def of_epoch(self, epoch: int) -> Plan:
        """The same work under a name of its own.

        Two runs never share a shard's transaction, even where they do the same again (``retry_quarantined``), so an
        old transaction can't hide a new result.
        """
        return replace(self, digest=hashlib.sha256(f"{self.digest} {epoch}".encode()).hexdigest())


def make_plan(
    rows: Iterable[Row],
    known: Iterable[tuple[str, Known]],
    folder: Path,
    *,
    settings: str,
    workers: int,
    shard_bytes: int | None = None,
    retry_quarantined: bool = False,
) -> Plan:
    """What the archive lacks, to be cut into shards of about ``shard_bytes`` of source, in the order of keys.

    Args:
        rows: the source's items; they and ``known`` come sorted by key, and are read once, side by side.
        known: the archive's rows.
        folder: for scratch files, to live as long as the plan.
    """
    compared = Comparison(rows, known, retry_quarantined=retry_quarantined)
    todo = Spool.of(compared, folder)
    if shard_bytes is None:
        share = todo.bytes // max(1, workers * SHARDS_PER_WORKER)
        shard_bytes = min(max(share, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
    digest = hashlib.sha256(json.dumps(["recbatch/plan/2", settings, shard_bytes]).encode())
    for row in todo:
        digest.update(repr(row).encode())
    return Plan(
        todo=todo,
        shard_bytes=shard_bytes,
        digest=digest.hexdigest(),
        known=compared.known,
        known_bad=compared.known_bad,
        replaces=compared.replaces,
    )


class Comparison:
    """The rows of a source that an archive lacks, and counts of the others, complete at the end."""

    def __init__(
        self, rows: Iterable[Row], known: Iterable[tuple[str, Known]], *, retry_quarantined: bool
    ) -> None:
        self._rows, self._known, self._retry = rows, iter(known), retry_quarantined
        self.known = self.known_bad = self.replaces = 0

    def __iter__(self) -> Iterator[Row]:
        nothing: tuple[str, None] = ("", None)
        there: tuple[str, Known | None] = next(self._known, nothing)
        for row in self._rows:
            while there[1] is not None and there[0] < row[0]:
                there = next(self._known, nothing)
            state = there[1] if there[0] == row[0] else None
            if not is_done(item_of(row), state, retry_quarantined=self._retry):
                self.replaces += state is not None
                yield row
            elif state is not None:
                self.known += 1
                self.known_bad += state.status == "quarantined"


def is_done(item: Item, known: Known | None, *, retry_quarantined: bool) -> bool:
    """Does the archive hold this very state of the item?"""
    if known is None or known.size != item.size:
        return False
    if known.etag and item.etag:
        if known.etag != item.etag:
            return False
    elif known.mtime != item.mtime_ns:
        return False
    return not (retry_quarantined and known.status == "quarantined")


def cut(items: Sequence[T], shard_bytes: int, *, max_items: int = MAX_SHARD_ITEMS) -> list[Shard[T]]:
    """Consecutive runs of items, each of at most ``shard_bytes`` unless one item alone is larger."""
    return list(shards_of(items, shard_bytes, max_items=max_items))


def shards_of(
    items: Iterable[T], shard_bytes: int, *, max_items: int = MAX_SHARD_ITEMS
) -> Iterator[Shard[T]]:
    """The same, each made when it is asked for."""
    ahead, sizes = itertools.tee(items)
    for number, count in enumerate(runs((item.size for item in sizes), shard_bytes, max_items=max_items)):
        yield Shard(name=f"{number:06d}", items=tuple(itertools.islice(ahead, count)))


def runs(sizes: Iterable[int], shard_bytes: int, *, max_items: int = MAX_SHARD_ITEMS) -> Iterator[int]:
    """How many of the items stand in each shard."""
    count, room = 0, 0
    for size in sizes:
        if count and (size > room or count >= max_items):
            yield count
            count = 0
        if not count:
            room = shard_bytes
        count += 1
        room -= size
    if count:
        yield count
