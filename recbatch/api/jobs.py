"""Long work: compress a source into an archive, restore an archive to files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from recbatch.api.common import Executor, KeepOriginals, Location, RestoreExecutor, make_settings

if TYPE_CHECKING:
    from recbatch.engine import Report


def compress(
    source: Location,
    archive: Location,
    *,
    quality: float | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
    max_bytes: int | None = None,
    min_psnr: float | None = None,
    auto: bool = False,
    lossless: bool = False,
    original: bool = False,
    preview: bool = True,
    exact_files: bool = False,
    model: str | None = None,
    coder: str = "trellis",
    effort: int = 5,
    keep_originals: KeepOriginals = "smaller",
    max_pixels: int = 200_000_000,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    listing: Location | None = None,
    workers: int | None = None,
    gpus_per_worker: float = 0,
    wait_s: float | None = None,
    retry_quarantined: bool = False,
    dry_run: bool = False,
    page: bool = False,
    executor: Executor = "ray",
    progress: Callable[[Any], None] | None = None,
) -> Report:
    """Archive what is new or changed under ``source``; run it again to go on after any interruption.

    Lossless unless ``quality`` (0..100), another lossy target, or ``original=True`` (the files' own bytes) is given.

    Args:
        bpp: bits of the stream for each pixel, of every image, in place of ``quality``.
        psnr: dB, of every image, in place of ``quality``.
        max_bytes: of every image's stream; the quality is lowered until it fits, the best one by default.
        min_psnr: dB; the quality of an image is raised until it has so much, from the lowest by default.
        auto: with a lossy target: an image that takes fewer bytes without loss, or few more where the lossy one is
            bad, is archived without loss.
        preview: lossless images carry a lossy preview in their first bytes, which are read alone.
        exact_files: lossless images give back their source files, not only their pixels; a file that can't be
            rebuilt from its pixels is kept as it is.
        model: by default ``exact-s`` for lossless coding, ``photo-s2`` for lossy.
        listing: a file that names the source's objects, in place of listing it: CSV with a header or Parquet with
            the columns ``key``, ``size`` and ``etag`` or ``last_modified``, or an S3 Inventory's ``manifest.json``.
        wait_s: seconds that a cluster may take to find the first worker a place.
        page: keep the run's page (``recbatch.report``) in the archive at the end, as jobs on a cluster do.
    """
    from recbatch import engine
    from recbatch.api.page import keep_page
    from recbatch.engine.journal import SUBMISSION_VARIABLE

    settings = make_settings(
        quality=quality,
        bpp=bpp,
        psnr=psnr,
        max_bytes=max_bytes,
        min_psnr=min_psnr,
        auto=auto,
        lossless=lossless,
        original=original,
        preview=preview,
        exact_files=exact_files,
        model=model,
        coder=coder,
        effort=effort,
        keep_originals=keep_originals,
        max_pixels=max_pixels,
    )
    report = engine.compress(
        os.fspath(source),
        os.fspath(archive),
        settings=settings,
        include=tuple(include),
        exclude=tuple(exclude),
        listing=None if listing is None else os.fspath(listing),
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        wait_s=wait_s,
        retry_quarantined=retry_quarantined,
        dry_run=dry_run,
        executor=executor,
        progress=progress,
    )
    if report.run and (page or SUBMISSION_VARIABLE in os.environ):
        keep_page(archive, report.run)
    return report


def restore(
    archive: Location,
    destination: Location,
    *,
    where: str | None = None,
    format: str = "original-or-png",
    workers: int | None = None,
    overwrite: bool = False,
    version: int | None = None,
    executor: RestoreExecutor = "auto",
    progress: Callable[[Any], None] | None = None,
) -> Report:
    """Write the archive's images, as they are now or in an earlier version, as files again, under the same keys.

    Args:
        executor: "auto" takes Ray for much to decode, and this process for little.
    """
    from recbatch import engine
    from recbatch.api.archives import check_version

    check_version(archive, version)
    return engine.restore(
        os.fspath(archive),
        os.fspath(destination),
        where=where,
        format=format,
        workers=workers,
        overwrite=overwrite,
        version=version,
        executor=executor,
        progress=progress,
    )
