"""Which rows become files, and what those are called. Reads the archive's light columns only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recbatch.engine.errors import NameTaken, NoOriginal
from recbatch.engine.paths import safe_name, with_suffix
from recbatch.errors import ImageError

if TYPE_CHECKING:
    from recbatch.archive import Archive, Record

_LIGHT = ("status", "codec", "source_format", "source_mtime", "stream_size", "width", "height")
Failure = tuple[str, str, str]  # key, code, sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One row, and the file it becomes."""

    key: str
    name: bytes  # relative to the destination
    size: int  # of the stream
    pixels: int
    format: str  # "" where the row's own bytes are the file
    mtime_ns: int | None


def choose(archive: Archive, *, where: str | None, format: str) -> tuple[list[Target], list[Failure], int]:
    """What each row becomes: files, failures, and the number of rows that hold no image.

    Names depend on all rows of the archive, so that ``where`` never changes what a file is called.
    """
    failures: list[Failure] = []
    rows = sorted(_readable(archive, failures), key=lambda row: row.key)
    chosen = None if where is None else set(archive.to_arrow(["key"], where).column("key").to_pylist())
    taken: set[bytes] = set()
    names: dict[str, bytes] = {}
    for row in rows:
        try:
            names[row.key] = safe_name(row.key)
        except ImageError as error:
            if row.status == "ok" and (chosen is None or row.key in chosen):
                failures.append((row.key, error.code, str(error)))
        else:
            taken.add(names[row.key])
    targets: list[Target] = []
    skipped = 0
    for row in rows:
        wanted = chosen is None or row.key in chosen
        if row.status != "ok":
            skipped += wanted
            continue
        if row.key not in names:
            continue
        as_format = format_of(row, format)
        if as_format is None:
            if wanted:
                missing = NoOriginal(row.key)
                failures.append((row.key, missing.code, str(missing)))
            continue
        name = names[row.key]
        if as_format:
            name = with_suffix(name, as_format, taken)
            taken.add(name)
        if wanted:
            targets.append(
                Target(
                    key=row.key,
                    name=name,
                    size=row.stream_size or 0,
                    pixels=(row.width or 0) * (row.height or 0),
                    format=as_format,
                    mtime_ns=row.source_mtime,
                )
            )
    return targets, failures, skipped


def _readable(archive: Archive, failures: list[Failure]) -> list[Record]:
    """All rows; where a data file is gone or damaged, those of the others, and a failure that names its keys."""
    from recbatch.archive import CorruptArchive

    try:
        return list(archive.records(_LIGHT))
    except CorruptArchive:
        rows: list[Record] = []
        for file in archive.files():
            try:
                rows.extend(archive.records(_LIGHT, files=[file.path]))
            except CorruptArchive as error:
                failures.append((f"{file.min_key} .. {file.max_key}", error.code, str(error)))
        return rows


def format_of(row: Record, format: str) -> str | None:
    """The format to write a row in; "" for its own bytes, None where it has none and nothing else will do."""
    if row.codec == "original":
        if format in ("original", "original-or-png") or format == row.source_format:
            return ""
        return format
    if format == "original":
        return None
    return "png" if format == "original-or-png" else format


def sift(targets: list[Target], root: bytes, *, overwrite: bool) -> tuple[list[Target], int, list[Failure]]:
    """Leave out what is restored already (same name, same time), and what would replace another file."""
    if overwrite:
        return targets, 0, []
    left: list[Target] = []
    failures: list[Failure] = []
    known = 0
    for target in targets:
        path = os.path.join(root, target.name)
        try:
            state = os.lstat(path)
        except OSError:
            left.append(target)
            continue
        if target.mtime_ns is not None and state.st_mtime_ns == target.mtime_ns:
            known += 1
            continue
        error = NameTaken(target.key, os.fsdecode(path))
        failures.append((target.key, error.code, str(error)))
    return left, known, failures
