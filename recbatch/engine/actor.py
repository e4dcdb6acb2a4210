"""The worker that encodes: shard in, one data file and a small account of it out.

It runs in a process of its own (a Ray actor, a subprocess) or in the caller's, and never talks to the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from recbatch import __version__
from recbatch.engine import errors
from recbatch.engine.allocation import keep_freed_memory
from recbatch.engine.compiling import warm_up
from recbatch.engine.feed import BATCH_PIXELS, CPU_BATCH_PIXELS, Feed, Outcome, Ready
from recbatch.engine.plan import Shard
from recbatch.engine.resources import cpus_available
from recbatch.engine.results import Clock, ShardResult, peak_rss_bytes
from recbatch.engine.source import Content, Item, notes_of
from recbatch.engine.watch import Watch
from recbatch.errors import ImageError, RecbatchError
from recbatch.stream import preview_size

if TYPE_CHECKING:
    from recbatch.archive import Archive, DataFile, Record
    from recbatch.codec import Encoded, Settings

DEFAULT_CODEC = "recbatch.codec:ImageCodec"


class Codec(Protocol):
    """What the engine needs of ``codec.ImageCodec``; importing that here would load torch in the driver.

    It may offer more, see ``Feed``. A source has at least a name.
    """

    def encode(self, sources: Sequence[Any]) -> list[Encoded | RecbatchError]: ...

    def warm_up(self) -> None: ...


class CodecFactory(Protocol):
    def __call__(self, settings: Settings, *, weights: Sequence[bytes] | None, device: str) -> Codec: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeJob:
    """All that a worker must know; ``build`` runs in the worker's process."""

    archive: str
    settings: Settings
    job: str
    model_digests: tuple[str, ...] = ()  # hex; the weights come out of the archive
    device: str = "cpu"
    threads: int = 1  # 0: all cores that the process may use
    codec_factory: str = DEFAULT_CODEC

    def build(self) -> EncodeWorker:
        return EncodeWorker(self)


class EncodeWorker:
    def __init__(self, job: EncodeJob) -> None:
        from recbatch.archive import Archive

        self._job = job
        self._archive: Archive = Archive.open(job.archive)
        weights = [self._archive.model(digest) for digest in job.model_digests] or None
        self._codec = make_codec(job, weights)
        self._feed = Feed(
            self._codec,
            threads=job.threads or cpus_available(),
            batch_pixels=BATCH_PIXELS if job.device.startswith("cuda") else CPU_BATCH_PIXELS,
        )
        use_threads(job.threads)
        keep_freed_memory()
        warm_up(self._codec, job.settings)  # compiling counts as start-up, not as the first image's time

    def run(self, shard: Shard[Item], watch: Watch) -> ShardResult:
        use_threads(self._job.threads)  # again: both libraries keep this count per thread
        clock = Clock()
        start = time.perf_counter()
        records: list[Record] = []
        with contextlib.closing(self._feed.batches(shard.items, clock)) as batches:
            while not watch.stopping and (batch := next(batches, None)) is not None:
                done = list(self._encode(batch, shard.name, clock))
                records += done
                watch.add(
                    images=len(done),
                    bytes_in=sum(record.source_size or 0 for record in done),
                    bytes_out=sum(len(record.stream or b"") for record in done),
                )
        records.sort(key=lambda record: record.key)
        file = None
        if records:
            with clock.stage("write"):
                file = self._archive.write_file(records, stem=stem(self._job.job, shard.name))
        return account(shard, records, file, clock, time.perf_counter() - start)

    def _encode(self, batch: list[Outcome], shard: str, clock: Clock) -> Iterator[Record]:
        good: list[Ready] = []
        for one in batch:
            if isinstance(one, Ready):
                good.append(one)
            else:
                item, problem = one
                yield quarantined(item, problem, shard=shard)
        if not good:
            return
        start = time.perf_counter()
        with clock.stage("encode"):
            results = encode_all(self._codec, [ready.source for ready in good])
        each_ms = 1000 * (time.perf_counter() - start) / len(good)
        for ready, result in zip(good, results, strict=True):
            item, content = ready.item, ready.content
            if isinstance(result, RecbatchError):
                yield quarantined(item, result, shard=shard, content=content)
            else:
                yield archived(item, content, result, shard=shard, encode_ms=each_ms)


def make_codec(job: EncodeJob, weights: Sequence[bytes] | None) -> Codec:
    """Raises WorkerSetupFailed where the job wants a GPU and this machine's PyTorch finds none."""
    factory: CodecFactory = load_name(job.codec_factory)
    try:
        return factory(job.settings, weights=weights, device=job.device)
    except Exception as error:
        problem = gpu_problem() if job.device.startswith("cuda") else ""
        if not problem or isinstance(error, RecbatchError):
            raise
        raise errors.WorkerSetupFailed(problem) from error


def gpu_problem() -> str:
    """Why PyTorch can't use a GPU in this process; "" where it can."""
    import torch

    if torch.cuda.is_available():
        return ""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    if torch.version.cuda is None:
        return f"its PyTorch {torch.__version__} is built for the CPU alone, and the job wants a GPU"
    return (
        f"PyTorch finds no GPU on {socket.gethostname()} (CUDA_VISIBLE_DEVICES is {given}); does nvidia-smi?"
    )


def encode_all(codec: Codec, sources: Sequence[Any]) -> list[Encoded | RecbatchError]:
    """Encode; an exception that the codec should have kept to one image is kept to it here."""
    try:
        return codec.encode(sources)
    except RecbatchError as error:
        if not isinstance(error, ImageError):
            raise
        problem: BaseException = error
    except Exception as error:  # a bug, or memory: whose image it is shows when they come one by one
        problem = error
    if len(sources) > 1:
        return [result for source in sources for result in encode_all(codec, [source])]
    if isinstance(problem, RecbatchError):
        return [problem]
    text = " ".join(str(problem).split())[:200]
    return [errors.InternalFailure(sources[0].name, f"{type(problem).__name__}: {text}")]


def archived(item: Item, content: Content, encoded: Encoded, *, shard: str, encode_ms: float) -> Record:
    from recbatch.archive import Record
    from recbatch.codec import quality_of_level

    return Record(
        **_of_source(item, content, shard),
        status="ok",
        codec=encoded.codec,
        stream=encoded.stream,
        preview=preview_part(encoded),
        stream_sha256=encoded.stream_sha256,
        source_format=encoded.source_format,
        width=encoded.width,
        height=encoded.height,
        mode=encoded.mode,
        notes=(*notes_of(item), *encoded.notes),
        model=encoded.model,
        quality=quality_of_level(encoded.level) if encoded.codec == "lossy" else None,
        level=math.floor(encoded.level + 0.5),  # an integer column; the quality has the eighths
        effort=encoded.effort,
        coder=encoded.coder,
        kl_bits=encoded.kl_bits,
        index_bits=encoded.index_bits,
        side_bits=encoded.side_bits,
        residual_bits=encoded.residual_bits,
        psnr=encoded.psnr,
        ms_ssim=encoded.ms_ssim,
        pixels_sha256=encoded.pixels_sha256,
        encode_ms=encode_ms,
    )


def preview_part(encoded: Encoded) -> bytes | None:
    """The leading bytes of a lossless stream that hold its preview, None where it has none."""
    if encoded.codec != "lossless":
        return None
    return encoded.stream[: preview_size(encoded.stream)] or None


def quarantined(item: Item, error: RecbatchError, *, shard: str, content: Content | None = None) -> Record:
    from recbatch.archive import Record

    return Record(
        **_of_source(item, content, shard),
        status="quarantined",
        notes=notes_of(item),
        error_code=error.code,
        error=str(error),
    )


def _of_source(item: Item, content: Content | None, shard: str) -> dict[str, Any]:
    """The columns that tell what was read; as listed, where nothing could be read."""
    return {
        "key": item.key,
        "source_uri": item.uri,
        "source_size": len(content.data) if content else item.size,
        "source_etag": content.etag if content else item.etag,
        "source_mtime": content.mtime_ns if content else item.mtime_ns,
        "source_sha256": hashlib.sha256(content.data).digest() if content else None,
        "shard": shard,
        "created_at": datetime.now(UTC),
        "recbatch_version": __version__,
    }


def account(
    shard: Shard[Item], records: Sequence[Record], file: DataFile | None, clock: Clock, seconds: float
) -> ShardResult:
    good = [record for record in records if record.status == "ok"]
    return ShardResult(
        shard=shard.name,
        images=len(good),
        bytes_in=sum(record.source_size or 0 for record in good),
        bytes_out=sum(len(record.stream or b"") for record in good),
        pixels=sum((record.width or 0) * (record.height or 0) for record in good),
        seconds=seconds,
        stages=dict(clock.seconds),
        peak_rss_bytes=peak_rss_bytes(),
        failures=tuple(
            (record.key, record.error_code or "", record.error or "")
            for record in records
            if record.status != "ok"
        ),
        file=file,
    )


def stem(job: str, shard: str) -> str:
    """The first part of a data file's name; the archive adds what makes it unique."""
    return f"{job}-{shard}"


def load_name(path: str) -> Callable[..., Any]:
    """What ``package.module:name`` names."""
    module, _, name = path.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return loaded


def use_threads(count: int) -> None:
    """Each worker its share of the cores: Ray sets OMP_NUM_THREADS to 1, and without Ray all take all.

    0: all that this process may use, see ``limit_cpus``.
    """
    count = count or cpus_available()
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)
    if (numba := sys.modules.get("numba")) is not None:
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
