"""Which rows become files, and what those are called. Reads the archive's light columns only."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recbatch.engine.errors import NameTaken, NoOriginal
from recbatch.engine.paths import safe_name, with_suffix
from recbatch.engine.rows import FILE_CODECS
from recbatch.errors import ImageError

if TYPE_CHECKING:
    from recbatch.archive import Archive, Record

_LIGHT = (
    *("status", "codec", "source_format", "source_mtime", "stream_size", "preview_size"),
    *("width", "height"),
)
PREVIEW_LATER_NS = 10**9  # than the source: a preview must never pass for the image that was restored before
Failure = tuple[str, str, str]  # key, code, sentence


@dataclass(slots=True)
class Choice:
    """What becomes of an archive's rows."""

    targets: list[Target] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: int = 0  # rows that hold no image
    unnamed: int = 0  # rows of data files whose keys can't be read
    files_unnamed: int = 0  # such files, each of them one of ``failures``


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One row, and the file it becomes."""

    key: str
    name: bytes  # relative to the destination
    size: int  # of the bytes to read
    pixels: int
    format: str  # "" for the source's own file, and nothing else
    mtime_ns: int | None
    codec: str = ""
    exact: bool = False  # the source's own file if the row holds it, else ``format``
    preview: bool = False  # the preview instead of the image
    apart: bool = False  # the preview stands in a column of its own, which is all to read


def choose(archive: Archive, *, where: str | None, format: str, previews: bool = False) -> Choice:
    """What each row becomes.

    Names depend on all rows of the archive, so that ``where`` never changes what a file is called.
    """
    choice = Choice()
    failures, targets = choice.failures, choice.targets
    rows = sorted(_readable(archive, choice), key=lambda row: row.key)
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
    for row in rows:
        wanted = chosen is None or row.key in chosen
        if row.status != "ok":
            choice.skipped += wanted
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
        exact = row.codec == "lossless" and format == "original-or-png" and row.source_format == "png"
        if as_format and not exact:  # a PNG's own file, or its pixels in another PNG: the same name
            name = with_suffix(name, as_format, taken)
            taken.add(name)
        if wanted:
            targets.append(target_of(row, name, as_format, exact=exact, preview=previews))
    return choice


def target_of(row: Record, name: bytes, format: str, *, exact: bool, preview: bool) -> Target:
    shown = preview and bool(format)  # else it is the file itself
    apart = shown and bool(row.preview_size)
    mtime_ns = row.source_mtime
    return Target(
        key=row.key,
        name=name,
        size=(row.preview_size if apart else row.stream_size) or 0,
        pixels=(row.width or 0) * (row.height or 0),
        format=format,
        mtime_ns=mtime_ns + PREVIEW_LATER_NS if shown and mtime_ns is not None else mtime_ns,
        codec=row.codec or "",
        exact=exact,
        preview=shown,
        apart=apart,
    )


def _readable(archive: Archive, choice: Choice) -> list[Record]:
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
                alone = file.min_key == file.max_key
                name = file.min_key if alone else f"{file.min_key} .. {file.max_key}"
                choice.failures.append((name, error.code, str(error)))
                if not alone:
                    choice.unnamed += file.rows
                    choice.files_unnamed += 1
        return rows


def format_of(row: Record, format: str) -> str | None:
    """The format to write a row in; "" for the source's file, None where it has none and nothing else will do."""
    if row.codec in FILE_CODECS:
        if format in ("original", "original-or-png") or format == row.source_format:
            return ""
        return format
    if format == "original":  # whether a lossless row of a PNG can rebuild that shows in its stream
        return "" if row.codec == "lossless" and row.source_format == "png" else None
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
