"""What an archive of these images takes on disk: every file of it, by kind."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from recbatch import __version__
from recbatch.archive import Archive, Record
from recbatch.bench.inputs import Image
from recbatch.codec import Encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveBytes:
    """Bytes of an archive's files. ``streams`` are inside ``data``."""

    images: int
    streams: int
    data: int  # Parquet files: streams, the other columns, footers
    log: int  # Delta log and the ledger
    weights: int  # the decoder's weights, once per archive; not in ``total``

    @property
    def total(self) -> int:
        return self.data + self.log


def archive_bytes(images: Sequence[Image], encoded: Sequence[Encoded], weights: bytes) -> ArchiveBytes:
    """Write the rows as a job would, in one data file and one commit, and count every file."""
    with tempfile.TemporaryDirectory(prefix="recbatch-bench-") as folder:
        root = Path(folder) / "bench.rba"
        archive = Archive.create(root)
        records = [_record(image, one) for image, one in zip(images, encoded, strict=True)]
        epoch = archive.claim_epoch("bench")
        file = archive.write_file(records, stem="bench-0")
        archive.commit([("0", file)], job="bench", epoch=epoch)
        sizes = {
            path.relative_to(root).as_posix(): path.stat().st_size
            for path in root.rglob("*")
            if path.is_file()
        }
    data = sum(size for name, size in sizes.items() if name.endswith(".parquet") and not name.startswith("_"))
    return ArchiveBytes(
        images=len(images),
        streams=sum(len(one.stream) for one in encoded),
        data=data,
        log=sum(sizes.values()) - data,
        weights=len(weights),
    )


def _record(image: Image, one: Encoded) -> Record:
    """The columns that a job fills in."""
    return Record(
        key=image.name,
        status="ok",
        codec=one.codec,
        stream=one.stream,
        stream_sha256=one.stream_sha256,
        source_uri=f"file:///images/{image.name}",
        source_size=len(image.data),
        source_etag=hashlib.sha256(image.data).hexdigest()[:32],
        source_mtime=1_700_000_000_000_000_000,
        source_sha256=hashlib.sha256(image.data).digest(),
        source_format=one.source_format,
        width=one.width,
        height=one.height,
        mode=one.mode,
        notes=one.notes,
        model=one.model,
        level=int(one.level),
        effort=one.effort,
        coder=one.coder,
        kl_bits=one.kl_bits,
        index_bits=one.index_bits,
        side_bits=one.side_bits,
        residual_bits=one.residual_bits,
        psnr=one.psnr,
        ms_ssim=one.ms_ssim,
        encode_ms=1000.0,
        shard="bench-0",
        created_at=datetime.now(UTC),
        recbatch_version=__version__,
    )
