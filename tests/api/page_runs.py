"""Runs of rows alone, and pictures to archive. Named apart, so that tests can import it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recbatch.archive import Archive, Record
from recbatch.engine import Report, events
from recbatch.engine.journal import Journal

EVIL = "<script>document.title='gone'</script>&\"'.png"
EVIL_FILE = EVIL.replace("/", "∕")  # no file's name holds a slash
TURNED = "a\u202egnp.exe\u0007.png"  # shows as another name, and rings a bell


class Ledger:
    """Writes runs of rows into an archive; every run's clock is an hour later than the one before."""

    def __init__(self, url: Path) -> None:
        self.archive = Archive.create(url)
        self.clock = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)

    def run(
        self, rows: list[dict[str, Any]], *, shards: int = 2, seconds: float = 100.0, **report: Any
    ) -> str:
        """One run, with what its rows have in place of the usual; returns the run's name."""
        self.clock += timedelta(hours=1)
        start = self.clock
        shards = max(1, min(shards, len(rows)))
        with Journal(
            self.archive,
            job="compress",
            plan=f"{len(self.archive.objects('jobs')):02d}" * 32,
            source="s3://photos/2026",
            settings={"mode": "lossy", "level": 12.5, "max_pixels": 200_000_000, "model": None},
            executor="ray",
            now=lambda: self.clock.timestamp(),
        ) as journal:
            epoch = self.archive.claim_epoch("compress")
            journal(events.Planned(images=len(rows), bytes=1, shards=shards, known=0, skipped=0, workers=4))
            journal(events.WorkersReady(workers=4, seconds=1.0))
            sums = Report(job="compress", workers=4, stages={"read": 1.0, "encode": 30.0, "write": 0.5})
            for number in range(shards):
                self.clock = start + timedelta(seconds=seconds * (number + 1) / shards)
                records = [self.record(values) for values in rows[number::shards]]
                records.sort(key=lambda record: record.key)
                file = self.archive.write_file(records, stem=f"compress-{number:06d}")
                done = self.archive.commit([(f"{epoch}/{number:06d}", file)], job="compress", epoch=epoch)
                good = [record for record in records if record.status == "ok"]
                shard = events.ShardDone(
                    shard=f"{number:06d}",
                    images=len(good),
                    quarantined=len(records) - len(good),
                    bytes_in=sum(record.source_size or 0 for record in good),
                    bytes_out=sum(record.stream_size or 0 for record in good),
                    pixels=sum((record.width or 0) * (record.height or 0) for record in good),
                    seconds=1.0,
                )
                journal(shard)
                journal(events.Committed(version=done.version, shards=1, images=len(good), seconds=0.1))
            status = journal.status
            names = ("quarantined", "bytes_in", "bytes_out", "pixels", "version")
            values = {name: getattr(status, name) for name in names} | {"images": status.archived}
            facts = {"seconds": seconds, "plan": status.plan, **values, **report}
            journal(events.Finished(report=Report(**{**vars_of(sums), **facts})))
        return journal.run

    def record(self, values: dict[str, Any]) -> Record:
        usual: dict[str, Any] = {"created_at": self.clock, "source_size": 1000, "shard": "000000"}
        if values.get("status") == "quarantined":
            return Record(**{**usual, "error_code": "truncated-image", "error": "It is cut short.", **values})
        image = {
            "codec": "lossy",
            "stream": b"s" * 100,
            "width": 40,
            "height": 30,
            "psnr": 30.0,
            "ms_ssim": 0.95,
        }
        return Record(**{**usual, **image, "model": "ab" * 32, **values})


def vars_of(report: Report) -> dict[str, Any]:
    return {name: getattr(report, name) for name in ("job", "workers", "stages")}


def picture(seed: int, noise: int, size: tuple[int, int] = (320, 288)) -> Image.Image:
    """Smooth, but for noise in its lower right quarter, which lossy coding takes away."""
    width, height = size
    y_HW, x_HW = np.mgrid[:height, :width]
    pixels_HWC = np.stack([255 * x_HW / width, 255 * y_HW / height, 128 + 0 * x_HW], axis=2)
    rough_HWC = np.random.default_rng(seed).integers(-noise, noise + 1, pixels_HWC.shape)
    rough_HWC[: height // 2] = 0
    rough_HWC[:, : width // 2] = 0
    return Image.fromarray(np.clip(pixels_HWC + rough_HWC, 0, 255).astype(np.uint8))
