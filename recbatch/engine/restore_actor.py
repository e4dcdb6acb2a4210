"""The worker that restores: rows in, files out."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from recbatch.engine.actor import load_name, use_threads
from recbatch.engine.allocation import keep_freed_memory
from recbatch.engine.errors import InternalFailure, NoOriginal
from recbatch.engine.paths import write_file
from recbatch.engine.plan import Shard
from recbatch.engine.results import Clock, ShardResult, peak_rss_bytes
from recbatch.engine.rows import (
    CONTENT_COLUMNS,
    FILE_CODECS,
    PREVIEW_COLUMNS,
    Content,
    for_browsing,
    preview_stream,
)
from recbatch.engine.source import first_line
from recbatch.engine.targets import Failure, Target
from recbatch.engine.watch import Watch
from recbatch.errors import CorruptData, CorruptStream, RecbatchError, StoreError

if TYPE_CHECKING:
    from recbatch.archive import Archive, Record
    from recbatch.images import Picture

DEFAULT_DECODER = "recbatch.codec:Decoder"
CHUNK_PIXELS = 4_000_000  # decoded in one go
HELD_PIXELS = (
    16_000_000  # of decoded pictures in memory at once: those that are being written, and the next chunk's
)
CHUNK_BYTES = 32 << 20
WRITE_THREADS = 4

T = TypeVar("T")
Outcome: TypeAlias = "bytes | Picture | RecbatchError"  # a file, what to write as one, or what is wrong


class Decoder(Protocol):
    """What the engine needs of ``codec.Decoder``; importing that here would load torch."""

    def decode_batch(self, streams: list[bytes]) -> list[Picture | RecbatchError]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreJob:
    archive: str
    version: int
    root: bytes
    threads: int = 1
    decoder_factory: str = DEFAULT_DECODER

    def build(self) -> RestoreWorker:
        return RestoreWorker(self)


class RestoreWorker:
    def __init__(self, job: RestoreJob) -> None:
        from recbatch.archive import Archive

        self._job = job
        self._archive: Archive = Archive.open(job.archive, version=job.version)
        self._made: Decoder | None = None

    @property
    def _decoder(self) -> Decoder:
        """Made when the first stream comes: originals need neither torch nor weights."""
        if self._made is None:
            made: Decoder = load_name(self._job.decoder_factory)(
                lambda digest: self._archive.model(digest.hex())
            )
            use_threads(self._job.threads)
            keep_freed_memory()
            self._made = made
        return self._made

    def run(self, shard: Shard[Target], watch: Watch) -> ShardResult:
        from recbatch.archive import CorruptArchive

        use_threads(self._job.threads)  # again: both libraries keep this count per thread
        clock = Clock()
        start = time.perf_counter()
        targets = {target.key: target for target in shard.items}
        images, bytes_in, bytes_out, pixels = 0, 0, 0, 0
        failures: list[Failure] = []
        outcomes: list[tuple[Target, int | RecbatchError]] = []
        with ThreadPoolExecutor(WRITE_THREADS, thread_name_prefix="write") as threads:
            writing: deque[tuple[Target, Future[int | RecbatchError]]] = (
                deque()
            )  # while the next chunk is decoded
            for chunk in () if watch.stopping else self._chunks(targets, clock, failures):
                held = sum(targets[row.key].pixels for row in chunk)
                with clock.stage("write"):  # the time waited, not the time spent by the threads
                    while writing and held + sum(target.pixels for target, _ in writing) > HELD_PIXELS:
                        target, job = writing.popleft()
                        outcomes.append((target, job.result()))
                with clock.stage("decode"):
                    contents = self._contents([(targets[row.key], row) for row in chunk])
                for row in chunk:
                    target = targets[row.key]
                    writing.append((target, threads.submit(self._write, target, contents.pop(row.key))))
                watch.add(images=len(chunk), bytes_in=sum(targets[row.key].size for row in chunk))
                if watch.stopping:
                    break
            with clock.stage("write"):
                outcomes.extend((target, job.result()) for target, job in writing)
        for target, outcome in outcomes:
            del targets[target.key]
            if isinstance(outcome, RecbatchError):
                failures.append((target.key, outcome.code, str(outcome)))
                continue
            images += 1
            bytes_in += target.size
            bytes_out += outcome
            pixels += target.pixels
        left = () if watch.stopping else sorted(targets.keys() - {key for key, _, _ in failures})
        for key in left:
            missing = CorruptArchive(self._job.archive, f"the row of {key} is gone from its file")
            failures.append((key, missing.code, str(missing)))
        return ShardResult(
            shard=shard.name,
            images=images,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            pixels=pixels,
            seconds=time.perf_counter() - start,
            stages=dict(clock.seconds),
            peak_rss_bytes=peak_rss_bytes(),
            failures=tuple(failures),
        )

    def _chunks(
        self, targets: dict[str, Target], clock: Clock, failures: list[Failure]
    ) -> Iterator[list[Record]]:
        """Rows with their streams, as many at a time as memory should hold decoded."""
        apart = [key for key, target in targets.items() if target.apart]
        others = [key for key, target in targets.items() if not target.apart]
        rows = itertools.chain(
            self._rows(apart, PREVIEW_COLUMNS, failures), self._rows(others, CONTENT_COLUMNS, failures)
        )
        chunk: list[Record] = []
        pixels = size = 0
        while True:
            with clock.stage("read"):
                row = next(rows, None)
            if row is None:
                break
            target = targets[row.key]
            if chunk and (pixels + target.pixels > CHUNK_PIXELS or size + target.size > CHUNK_BYTES):
                yield chunk
                chunk, pixels, size = [], 0, 0
            chunk.append(row)
            pixels += target.pixels
            size += target.size
        if chunk:
            yield chunk

    def _rows(self, keys: list[str], columns: tuple[str, ...], failures: list[Failure]) -> Iterator[Record]:
        """The rows of these keys; where a file is damaged, those that can be read, and a failure for each other."""
        left = set(keys)
        checked = "stream" not in columns  # a stream's digest says more than the checksum of a page with many
        try:
            for row in self._archive.records(columns, keys=keys, checked=checked):
                if row.key in left:
                    left.discard(row.key)
                    yield row
        except CorruptData:
            for key in sorted(left):
                try:
                    yield from self._archive.records(columns, keys=[key], checked=checked)
                except CorruptData as error:
                    failures.append((key, error.code, str(error)))

    def _contents(self, chunk: list[tuple[Target, Record]]) -> dict[str, Outcome]:
        """For each key what becomes its file."""
        out: dict[str, Outcome] = {}
        coded: list[tuple[Target, Record, bytes]] = []
        for target, row in chunk:
            if not target.apart and hashlib.sha256(row.stream or b"").digest() != row.stream_sha256:
                out[target.key] = CorruptStream("its SHA-256 is not the one that the archive recorded")
            elif row.codec in FILE_CODECS:
                out[target.key] = kept_to_one(target.key, partial(_from_file, target, row))
            else:
                data = kept_to_one(target.key, partial(_to_decode, target, row))
                if isinstance(data, bytes):
                    coded.append((target, row, data))
                else:
                    out[target.key] = data
        if coded:
            pictures = self._decoder.decode_batch([data for _, _, data in coded])
            for (target, row, _), picture in zip(coded, pictures, strict=True):
                if not isinstance(picture, RecbatchError):
                    out[target.key] = kept_to_one(target.key, partial(_from_picture, target, row, picture))
                else:
                    out[target.key] = picture
        return out

    def _write(self, target: Target, content: Outcome) -> int | RecbatchError:
        """Bytes written. StoreErrors are raised: they hit every other file too."""
        if isinstance(content, RecbatchError):
            return content

        def write() -> int:
            if isinstance(content, bytes):
                data = content
            else:
                from recbatch.images import write_picture

                data = write_picture(content, target.format)
            write_file(self._job.root, target.name, data, key=target.key, mtime_ns=target.mtime_ns)
            return len(data)

        return kept_to_one(target.key, write)


def kept_to_one(key: str, work: Callable[[], T]) -> T | RecbatchError:
    """What the work gives, or its error as a value. StoreErrors are raised: they hit every other image too."""
    try:
        return work()
    except StoreError:
        raise
    except RecbatchError as error:
        return error
    except Exception as error:  # a bug, or memory: it must cost one image only
        return InternalFailure(key, f"{type(error).__name__}: {first_line(error)}")


def _from_file(target: Target, row: Record) -> bytes | Picture:
    """Of a row whose stream is a file."""
    content = Content(row, _no_stream)
    if not target.format:
        return content.file() or b""
    return for_browsing(content.picture, target.format) if target.preview else content.picture


def _to_decode(target: Target, row: Record) -> bytes:
    """The .rec stream that gives the picture to write."""
    return (preview_stream(row) if target.preview else b"") or row.stream or b""


def _from_picture(target: Target, row: Record, picture: Picture) -> bytes | Picture:
    """Of a row whose stream was decoded."""
    if target.preview:
        return for_browsing(picture, target.format)
    content = Content(row, lambda _: picture)
    checked = content.picture
    if target.exact or not target.format:
        file = content.file()
        if file is not None:
            return file
        if not target.format:
            raise NoOriginal(target.key)
    return checked


def _no_stream(data: bytes) -> Picture:
    raise CorruptStream("it is no .rec stream")
