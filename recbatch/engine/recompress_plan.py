"""Which rows are coded again, and where each one's source lies now. Reads the archive's light columns only.

A row written by a recompression says so in its column ``shard``: it begins with a digest of the settings. So whether a
row has the wanted settings shows in the row itself, for targets such as bits per pixel too, whoever stopped or killed
the run that wrote it. Rows of ``compress`` are judged by their columns, where these tell.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, unquote_to_bytes

from recbatch.engine import errors
from recbatch.engine.report import MAX_FAILURES_KEPT
from recbatch.engine.source import Item, Tally, file_uri, local_path
from recbatch.errors import ImageError, UsageError

if TYPE_CHECKING:
    from recbatch.archive import Archive, Record

COLUMNS = (
    *("status", "codec", "model", "quality", "level", "effort", "coder", "shard"),
    *(
        "stream_size",
        "preview_size",
        "source_uri",
        "source_size",
        "source_etag",
        "source_mtime",
        "source_sha256",
    ),
)
LOOKS_AT_ONCE = 16
FILE = "file://"
FROM_SOURCE = "recompress-"  # or from what equals it
FROM_LOSSY = "recompress-lossy-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedItem(Item):
    """A row that is to be coded again. As an Item it is the row's source, in the state that was archived."""

    sha256: bytes | None
    codec: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Sources that lay below one address lie below another one now."""

    old: str
    new: str

    def apply(self, uri: str) -> str | None:
        """The new address of a source; None where it did not lie below the old one."""
        if uri == self.old:
            return self.new
        if not uri.startswith(self.old + "/"):
            return None
        rest = uri[len(self.old) :]
        if self.old.startswith(FILE) != self.new.startswith(
            FILE
        ):  # only addresses of files are percent-encoded
            rest = unquote(rest) if self.old.startswith(FILE) else quote(rest)
        return self.new + rest

    def covers(self, uri: str) -> bool:
        """Lay the source below the old address, or lies it below the new one?"""
        return self.apply(uri) is not None or uri.startswith(self.new + "/")


class BadMove(UsageError):
    """``--sources-moved`` does not name two places."""

    code = "bad-move"

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"{self.text!r} does not say from where to where. Give FROM=TO, two folders or URLs."


def parse_move(text: str) -> Move:
    """``/old/photos=s3://bucket/photos``. Raises BadMove."""
    old, sign, new = text.partition("=")
    if not (old.strip("/") and sign and new.strip("/")):
        raise BadMove(text)
    return Move(old=_address(old), new=_address(new))


def _address(place: str) -> str:
    path = local_path(place)
    return place.rstrip("/") if path is None else file_uri(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The settings that rows are to have."""

    settings: Any  # codec.Settings; tests have others
    models: tuple[str, ...]  # hex digests, in the order of ``models_of``
    lossy_again: bool = False  # rows made of lossy pixels are good enough
    again: bool = False  # whatever rows have, as where they are damaged

    @property
    def mark(self) -> str:
        """What the column ``shard`` of rows with these settings begins with, behind FROM_SOURCE or FROM_LOSSY."""
        text = json.dumps([asdict(self.settings), self.models], sort_keys=True, default=str)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:12]}/"

    def has(self, row: Record) -> bool:
        """Would coding the row's source again by these settings change nothing?

        In doubt it is coded again, once: it has the mark then.
        """
        if self.again:
            return False
        s, shard = self.settings, row.shard or ""
        if shard.startswith(FROM_LOSSY) and not self.lossy_again:
            return False  # its source gives a better one
        if shard.startswith((FROM_SOURCE + self.mark, FROM_LOSSY + self.mark)):
            return True
        if s.mode == "original":
            return row.codec == "original"
        if s.keep_originals == "always":
            return False
        if row.codec == "jpeg":
            return bool(s.mode == "lossless" and s.keep_originals == "smaller")
        if row.codec != s.mode or row.model != self.models[0] or row.effort != s.effort:
            return False
        if s.mode == "lossless":
            same_preview = bool(row.preview_size) == s.preview
            return same_preview and not s.exact_files and (not s.preview or row.coder == s.coder)
        from recbatch.codec import quality_of_level

        same_level = row.quality is not None and row.quality == quality_of_level(s.level)
        return not s.has_target and not s.auto and same_level and row.coder == s.coder


@dataclass(slots=True, kw_only=True)
class RowCount:
    """What a look at all rows found."""

    todo: int = 0
    bytes: int = 0  # that will be read
    has: int = 0  # rows with the wanted settings
    quarantined: int = 0  # rows without an image
    of_moves: int = 0  # rows whose source lay, or lies, where ``--sources-moved`` says


class Rows:
    """The rows to code again, in the archive's order, as often as one asks; never all in memory."""

    def __init__(
        self,
        archive: Archive,
        wanted: Wanted,
        *,
        where: str | None,
        moves: Sequence[Move],
        from_archive: bool,
    ) -> None:
        self._archive, self._wanted, self._where = archive, wanted, where
        self._moves, self._from_archive = moves, from_archive
        self.count = RowCount()  # complete after each time through

    def __iter__(self) -> Iterator[ArchivedItem]:
        self.count = count = RowCount()
        for row in self._archive.records(COLUMNS, self._where):
            count.of_moves += any(move.covers(row.source_uri or "") for move in self._moves)
            if row.status != "ok":
                count.quarantined += 1
            elif self._wanted.has(row):
                count.has += 1
            else:
                item = self._item(row)
                count.todo += 1
                count.bytes += item.size
                yield item

    def _item(self, row: Record) -> ArchivedItem:
        uri = row.source_uri or ""
        places = (new for move in self._moves if (new := move.apply(uri)) is not None)
        moved = next(places, None)
        return ArchivedItem(
            key=row.key,
            uri=moved or uri,
            size=(row.stream_size if self._from_archive else row.source_size) or 0,
            mtime_ns=row.source_mtime or 0,
            etag="" if moved else row.source_etag or "",  # a copy has a tag of its own
            sha256=row.source_sha256,
            codec=row.codec or "",
        )


@dataclass(slots=True)
class Outlook:
    """Rows that would stay as they are, by a look that reads neither sources nor streams."""

    failures: list[tuple[str, str, str]] = field(
        default_factory=list
    )  # (key, code, sentence) of the first ones
    by_code: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    def add(self, item: ArchivedItem, error: ImageError) -> None:
        self.by_code[error.code] += 1
        self.bytes += item.size
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append((item.key, error.code, str(error)))

    def problems(self) -> tuple[str, ...]:
        return tuple(f"rows that would stay as they are [{code}]: {n:,}" for code, n in self.by_code.items())


def look_at_rows(items: Iterable[ArchivedItem], lossy_again: bool) -> Outlook:
    """Which rows can't be taken from the archive itself."""
    outlook = Outlook()
    for item in items:
        if item.codec == "lossy" and not lossy_again:
            outlook.add(item, errors.GenerationLoss(item.key))
    return outlook


def look_at_sources(items: Iterable[ArchivedItem], changed: str) -> Outlook:
    """Which sources are gone, or are another file by size or ETag; a run compares their SHA-256.

    Raises SourceUnreadable where a store fails.
    """
    outlook = Outlook()
    items = iter(items)
    with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="look") as threads:
        while batch := list(islice(items, 1000)):
            for item, error in zip(batch, threads.map(_look, batch), strict=True):
                if error is not None and not (changed == "take" and isinstance(error, errors.SourceDiffers)):
                    outlook.add(item, error)
    return outlook


def _look(item: ArchivedItem) -> ImageError | None:
    try:
        now = state_of(item)
    except ImageError as error:
        return error
    same = now.size == item.size and (now.etag == item.etag or not (item.etag and now.etag))
    return None if same else errors.SourceDiffers(item.key)


def state_of(item: Item) -> Item:
    """A source as it is now, unread. Raises SourceVanished, UnreadableFile, SourceUnreadable."""
    if not item.uri:
        raise errors.SourceVanished(item.key)
    if item.uri.startswith(FILE):
        try:
            found = os.stat(unquote_to_bytes(item.uri.removeprefix(FILE)))
        except (FileNotFoundError, NotADirectoryError):
            raise errors.SourceVanished(item.key) from None
        except OSError as error:
            raise errors.UnreadableFile(item.key, error.strerror or str(error)) from error
        return Item(key=item.key, uri=item.uri, size=found.st_size, mtime_ns=found.st_mtime_ns)
    from recbatch.engine.remote import find_remote

    try:
        return next(iter(find_remote(item.uri, lambda _: True, Tally())))
    except (errors.SourceNotFound, StopIteration):
        raise errors.SourceVanished(item.key) from None
