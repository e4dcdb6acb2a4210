"""Archives to read from: a mapping from key to record, the images themselves, and the check of it all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from recbatch.api.common import Location, RestoreExecutor, VerifyLevel
from recbatch.errors import RecbatchError, StoreError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from recbatch import archive as table
    from recbatch.archive import Finding, Record, Stats, VerifyReport
    from recbatch.archive.rotation import Check
    from recbatch.codec import Decoder
    from recbatch.engine import Report
    from recbatch.engine.rows import Content
    from recbatch.images import Picture


class Archive(Mapping[str, "Record"]):
    """An archive, opened for reading: a mapping from key to record, and the images themselves.

    What is decoded is compared with what its row promises: pixels or files that come back exactly, by SHA-256.
    """

    def __init__(self, table: table.Archive) -> None:
        self._table = table

    def __repr__(self) -> str:
        return f"Archive({self.url!r}, version={self.version})"

    @property
    def url(self) -> str:
        return self._table.url

    @property
    def version(self) -> int:
        return self._table.version

    @property
    def properties(self) -> Mapping[str, str]:
        return self._table.properties

    def __getitem__(self, key: str) -> Record:
        return self._table[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def records(self, columns: Sequence[str] | None = None, where: str | None = None) -> Iterator[Record]:
        """Records by key; ``where`` is a condition in SQL on the table's columns. Raises InvalidFilter."""
        return self._table.records(columns=columns, where=where)

    def record(self, key: str, columns: Sequence[str] | None = None) -> Record:
        """One record, or these columns of it, which is all that is read. Raises KeyNotFound."""
        return self._table.record(key, columns)

    def to_arrow(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """The table's own columns; a whole stream is ``preview``, where that is not null, and ``stream``."""
        return self._table.to_arrow(columns=columns, where=where)

    def stats(self) -> Stats:
        return self._table.stats()

    @property
    def light_columns(self) -> tuple[str, ...]:
        """All columns but the streams themselves and their previews."""
        from recbatch.archive import LIGHT_COLUMNS

        return LIGHT_COLUMNS

    def describe(self) -> dict[str, Any]:
        """The archive as a whole: where it lies, its version and size, the models within."""
        stats = self.stats()
        return {
            "url": self.url,
            "version": self.version,
            "format": self.properties.get("recbatch.format", ""),
            "rows": stats.rows,
            "quarantined": stats.quarantined,
            "files": stats.files,
            "file_bytes": stats.file_bytes,
            "bytes_in": stats.total.bytes_in,
            "bytes_out": stats.total.bytes_out,
            "previews": stats.total.previews,
            "preview_bytes": stats.total.preview_bytes,
            "models": ", ".join(self._table.models()),
        }

    def image(self, key: str) -> Image.Image:
        """One image, decoded. Raises KeyNotFound, QuarantinedImage, CorruptStream, WrongRestoration."""
        return next(self.images([key]))

    def images(self, keys: Iterable[str]) -> Iterator[Image.Image]:
        """Images, decoded one by one in the order of ``keys``."""
        from recbatch.images import to_pil

        for key in keys:
            yield to_pil(self._content(self[key]).picture)

    def preview(self, key: str) -> Image.Image:
        """A small-bytes look at one image, in its full size. Raises as ``image``.

        Of a lossless image with a preview only that is read, 2 to 3 % of its bytes; it has no alpha. A lossy image is
        its own preview; so is any other without one.
        """
        return next(self.previews([key]))

    def previews(self, keys: Iterable[str]) -> Iterator[Image.Image]:
        """Previews, one by one in the order of ``keys``."""
        from recbatch.images import to_pil

        for key in keys:
            yield to_pil(self._preview(key))

    def preview_file(self, key: str, format: str = "jpeg") -> bytes:
        """One preview as a file: jpeg, png, webp or tiff; in a JPEG white takes the place of transparency."""
        from recbatch.engine.rows import for_browsing
        from recbatch.images import write_picture

        return write_picture(for_browsing(self._preview(key), format), format)

    def file(self, key: str, format: str | None = None) -> tuple[str, bytes]:
        """One image as a file: its format and bytes. Without ``format``: the source's own file where the archive
        holds it or what gives it back byte for byte, else a PNG."""
        from recbatch.images import write_picture

        record = self[key]
        content = self._content(record)
        if format is None and (own := content.file()) is not None:
            return record.source_format or "", own
        return format or "png", write_picture(content.picture, format or "png")

    def stored(self, key: str) -> bytes:
        """What the archive holds for a key: a .rec stream, a recoded JPEG, or the original file."""
        return stored(self[key])

    def restore_previews(
        self,
        destination: Location,
        *,
        where: str | None = None,
        format: str = "jpeg",
        workers: int | None = None,
        overwrite: bool = False,
        executor: RestoreExecutor = "auto",
        progress: Callable[[Any], None] | None = None,
    ) -> Report:
        """Write the archive's previews as files under their keys, for browsing; only previews are read where there
        are any. Sources' own files of this format are written as they are."""
        from recbatch import engine

        return engine.restore(
            self.url,
            os.fspath(destination),
            where=where,
            format=format,
            workers=workers,
            overwrite=overwrite,
            previews=True,
            version=self.version,
            executor=executor,
            progress=progress,
        )

    def _content(self, record: Record) -> Content:
        from recbatch.engine.rows import Content

        stored(record)
        return Content(record, lambda data: self._decoder.decode(data))

    def _preview(self, key: str) -> Picture:
        from recbatch.engine.rows import CONTENT_COLUMNS, PREVIEW_COLUMNS, preview

        record = self.record(key, PREVIEW_COLUMNS)
        if record.preview is None:
            record = self.record(key, CONTENT_COLUMNS)
            stored(record)
        return preview(record, lambda data: self._decoder.decode(data))

    @cached_property
    def _decoder(self) -> Decoder:
        return archive_decoder(self._table)


class QuarantinedImage(UsageError):
    """The row asked for holds an error, not an image."""

    code = "quarantined-image"

    def __init__(self, key: str, error_code: str, error: str) -> None:
        super().__init__(key, error_code, error)
        self.key, self.error_code, self.error = key, error_code, error

    def __str__(self) -> str:
        return (
            f"{self.key} is quarantined ({self.error_code}: {self.error.rstrip('.')}). "
            "Mend the source and run compress with --retry-quarantined."
        )


class VersionNotFound(UsageError):
    """The archive has no such version."""

    code = "version-not-found"

    def __init__(self, url: str, version: int, newest: int) -> None:
        super().__init__(url, version, newest)
        self.url, self.version, self.newest = url, version, newest

    def __str__(self) -> str:
        return (
            f"{self.url} has no version {self.version}; the newest is {self.newest}. "
            "'recbatch versions' lists them."
        )


class BadRotation(UsageError):
    """A verification that is to be spread over days is asked for in a way that can't be."""

    code = "bad-rotation"

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(what, problem)
        self.what, self.problem = what, problem

    def __str__(self) -> str:
        return (
            f"A verification can't be spread so: {self.what} {self.problem}. "
            "Give --rotate 30d with --level digests or pixels, and no --sample."
        )


def stored(record: Record) -> bytes:
    if record.status != "ok" or record.stream is None:
        raise QuarantinedImage(record.key, record.error_code or "", record.error or "")
    return record.stream


def archive_decoder(archive: table.Archive) -> Decoder:
    """A decoder that takes its weights from the archive itself."""
    from recbatch.codec import Decoder

    return Decoder(lambda digest: archive.model(digest.hex()))


def open(url: Location, version: int | None = None) -> Archive:
    """Open an archive for reading, as it is now or as a version left it.

    Raises ArchiveNotFound, NotAnArchive, ArchiveTooNew, VersionNotFound.
    """
    from recbatch import archive

    check_version(url, version)
    return Archive(archive.Archive.open(os.fspath(url), version=version))


def check_version(url: Location, version: int | None) -> None:
    """Refuse a version that there never was, which deltalake would look for, for ever or as damage."""
    if version is None:
        return
    from recbatch import archive

    newest = archive.Archive.open(os.fspath(url)).version
    if not 0 <= version <= newest:
        raise VersionNotFound(os.fspath(url), version, newest)


def verify(
    archive: Location,
    *,
    level: VerifyLevel = "digests",
    sample: float = 1.0,
    rotate_days: int | None = None,
    where: str | None = None,
    record: bool = True,
    progress: Callable[[Any], None] | None = None,
) -> VerifyReport:
    """Check an archive against its own log, digests, or (level "pixels") its decoded images. No image changes.

    Args:
        sample: the share of the images whose content is checked, the same ones each time.
        rotate_days: instead, the slices that are due today, so that every image has its turn within so many days.
        where: a condition in SQL on the table's columns; only such images' content is checked.
        record: keep the result in the archive's ledger, by which a rotation knows of days without a run. Where the
            store refuses to be written it is left out, and the report's ``recorded`` is false.

    Raises BadRotation, InvalidFilter, StoreError, CorruptData.
    """
    from recbatch import archive as table
    from recbatch.archive import rotation

    if rotate_days is not None:
        if not 1 <= rotate_days <= rotation.MOST_DAYS:
            raise BadRotation(f"{rotate_days} days", f"can't be; 1 to {rotation.MOST_DAYS} can")
        if sample < 1:
            raise BadRotation("a rotation", "and a sample exclude each other")
        if level == "structure":
            raise BadRotation(
                "a rotation", "means nothing at level 'structure', which reads no image's content"
            )
    opened = table.Archive.open(os.fspath(archive))
    turn = None
    if rotate_days is not None:
        today = rotation.day_of(datetime.now(UTC))
        turn = rotation.due(rotation.checks(opened), today=today, days=rotate_days, level=level)
    report = table.verify(
        opened,
        level=level,
        sample=sample,
        rotation=turn,
        where=where,
        decoder=pixel_check(archive_decoder(opened)) if level == "pixels" else None,
        progress=progress,
    )
    if not record:
        return report
    try:
        rotation.record_check(opened, report.record())
    except StoreError:  # read-only credentials are good enough to verify
        return report
    return replace(report, recorded=True)


def checks(archive: Location) -> Iterator[Check]:
    """The archive's records of its verifications, newest first: when was it looked at, how deep, what was found?"""
    from recbatch import archive as table
    from recbatch.archive import rotation

    return rotation.checks(table.Archive.open(os.fspath(archive)))


def pixel_check(decoder: Decoder) -> Callable[[Record], Finding | None]:
    """Whether a row's bytes decode, to the size and mode that the row promises, and to what it promised by SHA-256:
    the pixels of a lossless row, and the source's file of one that gives it back.

    A stream carries digests of its entropy-coded integers, so a decoder with other weights or other arithmetic is
    found here, before pixels are compared with anything. A lossless row's preview is decoded as well.
    """
    from recbatch.archive import Finding
    from recbatch.engine.rows import Content, preview_stream

    def check(record: Record) -> Finding | None:
        content = Content(record, decoder.decode)
        try:
            stored(record)
            if record.codec == "jpeg" and record.source_sha256 is not None:
                content.file()
                return None
            picture = content.picture
            content.file()
            if preview_part := preview_stream(record):
                decoder.decode(preview_part)
        except RecbatchError as error:
            return Finding(code=error.code, problem=str(error), key=record.key)
        found, want = (
            (picture.width, picture.height, picture.mode),
            (record.width, record.height, record.mode),
        )
        if record.codec not in ("original", "jpeg") and found != want:
            return Finding(
                key=record.key, code="wrong-size", problem=f"it decodes to {found}, its row says {want}"
            )
        return None

    return check
