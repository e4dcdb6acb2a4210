"""Bulk recompression: rows of an archive coded again with new settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from recbatch.api.common import Executor, KeepOriginals, Location, make_settings

if TYPE_CHECKING:
    from recbatch.engine import Report


def recompress(
    archive: Location,
    *,
    where: str | None = None,
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
    sources_moved: Sequence[str] = (),
    changed: Literal["leave", "take"] = "leave",
    from_archive: bool = False,
    lossy_again: bool = False,
    again: bool = False,
    workers: int | None = None,
    gpus_per_worker: float = 0,
    dry_run: bool = False,
    executor: Executor = "ray",
    progress: Callable[[Any], None] | None = None,
) -> Report:
    """Code the images of an archive again with new settings, from their sources; lossless unless told otherwise.

    Each new row takes its old one's place in one commit: an image is absent at no version, and versions before stay
    readable until ``vacuum``. What can't be coded again keeps its row, and is in the report's ``failures``. Rows that
    have the settings are left alone, so the same call goes on after any interruption.

    Args:
        where: a condition in SQL on the table's columns; only such rows.
        quality .. max_pixels: how images are coded, as of ``compress``.
        sources_moved: ``FROM=TO``, for sources that lie elsewhere now than when they were archived.
        changed: a source that is another file now: "leave" its row as it is, or "take" the new file.
        from_archive: take images from the archive itself: files that it gives back, and exact pixels.
        lossy_again: with ``from_archive``: lossy rows as well, whose decoded pixels lose more each time.
        again: rows that have these settings already, too, such as damaged ones; each call codes all of them.
        dry_run: count, and look which sources are gone or changed; nothing is written.
    """
    from recbatch import engine

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
    return engine.recompress(
        os.fspath(archive),
        settings=settings,
        where=where,
        sources_moved=tuple(sources_moved),
        changed=changed,
        from_archive=from_archive,
        lossy_again=lossy_again,
        again=again,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        dry_run=dry_run,
        executor=executor,
        progress=progress,
    )
