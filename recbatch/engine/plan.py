"""What is to be done: the items that the archive lacks, cut into shards. Pure, but for storing the plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from recbatch.engine.source import Item

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
    shards: tuple[Shard[Item], ...]
    digest: str  # hex SHA-256; names the shards' application transactions
    known: int  # items that are archived already
    known_bad: int = 0  # of these, quarantined
    replaces: int = 0  # items whose key has a row of another state, which will go

    @property
    def images(self) -> int:
        return sum(len(shard.items) for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


def make_plan(
    items: Sequence[Item],
    known: Mapping[str, Known],
    *,
    settings: str,
    epoch: int,
    workers: int,
    shard_bytes: int | None = None,
    retry_quarantined: bool = False,
) -> Plan:
    """Cut what is missing into shards of about ``shard_bytes`` of source, in the order of keys.

    The epoch goes into the digest: two runs never share a shard's transaction, even where they do the same
    again (``retry_quarantined``), so an old transaction can't hide a new result.
    """
    missing = [
        item for item in items if not is_done(item, known.get(item.key), retry_quarantined=retry_quarantined)
    ]
    if shard_bytes is None:
        share = sum(item.size for item in missing) // max(1, workers * SHARDS_PER_WORKER)
        shard_bytes = min(max(share, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
    shards = cut(missing, shard_bytes)
    digest = hashlib.sha256(json.dumps(["recbatch/plan/1", settings, epoch]).encode())
    for shard in shards:
        for item in shard.items:
            entry = [shard.name, item.key, item.size, item.mtime_ns, item.etag]
            digest.update(json.dumps(entry).encode())
    todo = {item.key for item in missing}
    done = [known[item.key] for item in items if item.key not in todo]
    return Plan(
        shards=tuple(shards),
        digest=digest.hexdigest(),
        known=len(done),
        known_bad=sum(row.status == "quarantined" for row in done),
        replaces=sum(key in known for key in todo),
    )


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
    runs: list[list[T]] = []
    room = 0
    for item in items:
        if not runs or item.size > room or len(runs[-1]) >= max_items:
            runs.append([])
            room = shard_bytes
        runs[-1].append(item)
        room -= item.size
    return [Shard(name=f"{number:06d}", items=tuple(run)) for number, run in enumerate(runs)]
