"""The worker that codes rows again: from their sources, or from what the archive itself holds without loss.

A row that can't be coded again as asked is told as a failure and gets no new row: the old one stands.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from recbatch.engine import errors
from recbatch.engine.actor import (
    Codec,
    EncodeJob,
    archived,
    encode_all,
    load_name,
    make_codec,
    stem,
    use_threads,
)
from recbatch.engine.allocation import keep_freed_memory
from recbatch.engine.compiling import warm_up
from recbatch.engine.feed import BATCH_PIXELS, CPU_BATCH_PIXELS, Feed, Outcome, Ready, slices_of
from recbatch.engine.plan import Shard
from recbatch.engine.recompress_plan import FROM_LOSSY, FROM_SOURCE, ArchivedItem
from recbatch.engine.resources import cpus_available
from recbatch.engine.restore_actor import DEFAULT_DECODER, Decoder, kept_to_one
from recbatch.engine.results import Clock, ShardResult, peak_rss_bytes
from recbatch.engine.rows import FILE_CODECS
from recbatch.engine.rows import Content as RowContent
from recbatch.engine.source import Content, Item
from recbatch.engine.watch import Watch
from recbatch.errors import RecbatchError

if TYPE_CHECKING:
    from recbatch.archive import Archive, Record
    from recbatch.images import Picture

CHANGED = ("leave", "take")
SOURCE_COLUMNS = (
    *("source_uri", "source_size", "source_etag", "source_mtime", "source_sha256", "source_format"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecompressJob(EncodeJob):
    """All that a worker must know."""

    version: int  # of the archive, whose rows are read
    mark: str  # see ``Wanted.mark``
    changed: str = "leave"  # what becomes of a row whose source is another file now; or "take"
    from_archive: bool = False
    lossy_again: bool = False
    decoder_factory: str = DEFAULT_DECODER

    def build(self) -> RecompressWorker:  # type: ignore[override]
        return RecompressWorker(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What is to be coded, and where it comes from."""

    content: Content
    source: Any  # what the codec is given: the content, or what it made of it beforehand
    row: Record | None = None  # the archive's, where it comes from there
    pixels_only: bool = False  # not the source's file, but a PNG of its pixels


Read: TypeAlias = "Taken | RecbatchError"


class RecompressWorker:
    def __init__(self, job: RecompressJob) -> None:
        from recbatch.archive import Archive

        self._job = job
        self._archive: Archive = Archive.open(job.archive, version=job.version)
        self._weights = [self._archive.model(digest) for digest in job.model_digests] or None
        self._codec = self._make_codec(keep_files=True)
        self._feed = Feed(
            self._codec,
            threads=job.threads or cpus_available(),
            batch_pixels=BATCH_PIXELS if job.device.startswith("cuda") else CPU_BATCH_PIXELS,
        )
        self._strict: Codec | None = None
        self._decoder: Decoder | None = None
        use_threads(job.threads)
        keep_freed_memory()
        warm_up(self._codec, job.settings)

    def run(self, shard: Shard[Item], watch: Watch) -> ShardResult:
        use_threads(self._job.threads)
        clock, start = Clock(), time.perf_counter()
        items = [item for item in shard.items if isinstance(item, ArchivedItem)]
        result = ShardResult(shard=shard.name)
        records: list[Record] = []
        for batch in () if watch.stopping else self._slices(items, clock):
            for item, coded in self._encode(batch, shard.name, clock):
                if isinstance(coded, RecbatchError):
                    result = result.failed(item.key, coded)
                else:
                    records.append(coded)
            watch.add(images=len(batch))
            if watch.stopping:
                break
        records.sort(key=lambda record: record.key)
        file = None
        if records:
            with clock.stage("write"):
                file = self._archive.write_file(records, stem=stem("recompress", shard.name))
        return replace(
            result,
            images=len(records),
            bytes_in=sum(record.source_size or 0 for record in records),
            bytes_out=sum(len(record.stream or b"") for record in records),
            pixels=sum((record.width or 0) * (record.height or 0) for record in records),
            seconds=time.perf_counter() - start,
            stages=dict(clock.seconds),
            peak_rss_bytes=peak_rss_bytes(),
            file=file,
        )

    # --- reading

    def _slices(
        self, items: Sequence[ArchivedItem], clock: Clock
    ) -> Iterator[list[tuple[ArchivedItem, Read]]]:
        """Items with what is to be coded."""
        if self._job.from_archive:
            for some in slices_of(items):
                with clock.stage("read"):
                    yield self._from_archive([item for item in some if isinstance(item, ArchivedItem)])
            return
        known = [item for item in items if item.uri]
        if len(known) < len(items):
            yield [(item, errors.SourceVanished(item.key)) for item in items if not item.uri]
        with contextlib.closing(self._feed.batches(known, clock)) as batches:
            for batch in batches:
                yield [self._compared(one) for one in batch]

    def _compared(self, one: Outcome) -> tuple[ArchivedItem, Read]:
        """What was read of a source, if it is what was archived, or may be another file."""
        if not isinstance(one, Ready):
            item, problem = one
            assert isinstance(item, ArchivedItem)  # as all that the feed was given; for the type checker
            return item, problem
        item, content = one.item, one.content
        assert isinstance(item, ArchivedItem)
        if self._job.changed == "leave":
            if item.sha256 is not None:
                same = hashlib.sha256(content.data).digest() == item.sha256
            else:
                same = len(content.data) == item.size
            if not same:
                return item, errors.SourceDiffers(item.key)
        return item, Taken(content=content, source=one.source)

    def _from_archive(self, batch: Sequence[ArchivedItem]) -> list[tuple[ArchivedItem, Read]]:
        from recbatch.archive import KeyNotFound

        rows = {row.key: row for row in self._archive.records(keys=[item.key for item in batch])}
        read: list[tuple[ArchivedItem, Read]] = []
        for item in batch:
            row = rows.get(item.key)
            if row is None:
                read.append((item, KeyNotFound(self._archive.url, item.key)))
            else:
                read.append((item, kept_to_one(item.key, lambda row=row: self._of_row(row))))  # type: ignore[misc]
        return read

    def _of_row(self, row: Record) -> Taken:
        from recbatch.images import write_picture

        if row.codec == "lossy" and not self._job.lossy_again:
            raise errors.GenerationLoss(row.key)
        held = RowContent(row, self._decode)
        file = held.file()
        if file is None and self._job.settings.mode == "original":
            raise errors.FileNotHeld(row.key)
        data = file if file is not None else write_picture(held.picture, "png")
        content = Content(name=row.key, data=data, mtime_ns=row.source_mtime or 0, etag=row.source_etag or "")
        return Taken(content=content, source=content, row=row, pixels_only=file is None)

    def _decode(self, data: bytes) -> Picture:
        if self._decoder is None:
            self._decoder = load_name(self._job.decoder_factory)(
                lambda digest: self._archive.model(digest.hex())
            )
        (picture,) = self._decoder.decode_batch([data])  # type: ignore[union-attr]
        if isinstance(picture, RecbatchError):
            raise picture
        return picture

    # --- coding

    def _make_codec(self, *, keep_files: bool) -> Codec:
        """Without ``keep_files`` it makes streams only: the PNG of a row's pixels is no source's file to keep."""
        job = self._job
        if not keep_files:
            job = replace(job, settings=replace(job.settings, keep_originals="never", exact_files=False))
        return make_codec(job, self._weights)

    def _encode(
        self, batch: list[tuple[ArchivedItem, Read]], shard: str, clock: Clock
    ) -> Iterator[tuple[ArchivedItem, Record | RecbatchError]]:
        for pixels_only in (False, True):
            good = [
                (item, taken)
                for item, taken in batch
                if isinstance(taken, Taken) and taken.pixels_only is pixels_only
            ]
            if not good:
                continue
            codec = self._codec
            if pixels_only:
                codec = self._strict = self._strict or self._make_codec(keep_files=False)
            start = time.perf_counter()
            with clock.stage("encode"):
                results = encode_all(codec, [taken.source for _, taken in good])
            each_ms = 1000 * (time.perf_counter() - start) / len(good)
            for (item, taken), result in zip(good, results, strict=True):
                if isinstance(result, RecbatchError):
                    yield item, result
                else:
                    lossy = taken.row is not None and taken.row.codec == "lossy"
                    name = f"{FROM_LOSSY if lossy else FROM_SOURCE}{self._job.mark}{shard}"
                    record = archived(item, taken.content, result, shard=name, encode_ms=each_ms)
                    yield item, record if taken.row is None else of_archive(record, taken.row)
        for item, read in batch:
            if isinstance(read, RecbatchError):
                yield item, read


def of_archive(record: Record, row: Record) -> Record:
    """The new row of an image that was taken from the archive: what it tells of the source is what the old one told."""
    kept = {name: getattr(row, name) for name in SOURCE_COLUMNS}
    if row.codec in FILE_CODECS:
        return replace(record, **kept)
    before = tuple(
        note for note in row.notes if not note.startswith(f"{row.codec}: ")
    )  # why it had that codec
    now = tuple(note for note in record.notes if note not in before)
    if row.codec != "lossy":
        return replace(record, **kept, notes=before + now)
    note = f"coded again from lossy pixels of quality {row.quality:g}" if row.quality is not None else ""
    notes = (*before, note or "coded again from lossy pixels", *now)
    # what was measured is beside the lossy pixels, not the source's
    return replace(record, **kept, notes=notes, psnr=None, ms_ssim=None)
