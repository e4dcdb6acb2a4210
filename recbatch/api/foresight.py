"""What a compress would do and cost, before it starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from recbatch.api.common import KeepOriginals, Location, make_settings

if TYPE_CHECKING:
    from recbatch.engine.forecast import Forecast


def plan(
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
    retry_quarantined: bool = False,
    sample: int = 200,
    seconds: float = 60,
    price_hour: float | None = None,
    price_gb_month: float | None = None,
    seed: int = 0,
    progress: Callable[[Any], None] | None = None,
) -> Forecast:
    """Foretell what ``compress`` with the same arguments would archive, and what it would take. Writes nothing.

    The source is listed and compared with the archive; a sample of what is missing is encoded into a temporary
    folder by the workers of a real job, on this machine. Give as ``workers`` those of the job to come.

    Args:
        sample: images to encode; a few more may be.
        seconds: of encoding, after which no further image is begun. The start of the workers comes on top.
        workers: of the job; by default as many as this machine has cores.
        price_hour: of one worker, in any currency.
        price_gb_month: of 10^9 bytes kept for a month, in the same.
        seed: of the draw; the same one draws the same images.

    Returns:
        Estimates with 95 % intervals, of bytes and seconds; ``None`` for what is not known.

    Raises UsageError, StoreError, CorruptData as ``compress`` does; NoRoomForPilot.
    """
    from recbatch.engine.foresight import foresee

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
    return foresee(
        os.fspath(source),
        os.fspath(archive),
        settings=settings,
        sample=sample,
        seconds=seconds,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        include=tuple(include),
        exclude=tuple(exclude),
        listing=None if listing is None else os.fspath(listing),
        retry_quarantined=retry_quarantined,
        price_hour=price_hour,
        price_gb_month=price_gb_month,
        seed=seed,
        progress=progress,
    )
