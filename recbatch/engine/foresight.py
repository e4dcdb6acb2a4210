"""What a compress would do, cost and leave behind: foretold from a pilot on a sample, before it starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from recbatch.engine import events
from recbatch.engine.actor import DEFAULT_CODEC
from recbatch.engine.compress import check, models_of, open_if_there
from recbatch.engine.forecast import Forecast, Prices, told
from recbatch.engine.pilot import free_bytes, run_pilot
from recbatch.engine.resources import cpus_available
from recbatch.engine.sampling import Sample, draw
from recbatch.engine.spool import Row
from recbatch.engine.survey import survey
from recbatch.errors import StoreError, UsageError

if TYPE_CHECKING:
    from recbatch.codec import Settings

ROOM_BYTES = 64 << 20  # beside the sample itself


class NoRoomForPilot(StoreError):
    """The temporary folder has too little room for the pilot's archive."""

    code = "no-room-for-pilot"

    def __init__(self, folder: str, free: int, needed: int) -> None:
        super().__init__(folder, free, needed)
        self.folder, self.free, self.needed = folder, free, needed

    def __str__(self) -> str:
        return (
            f"The pilot needs up to {self.needed / 1e6:,.0f} MB in {self.folder}, "
            f"where {self.free / 1e6:,.0f} are free. "
            "Name a larger place by TMPDIR, or give a smaller --sample."
        )


def foresee(
    source: str,
    archive: str,
    *,
    settings: Settings,
    sample: int = 200,
    seconds: float = 60.0,
    workers: int | None = None,
    gpus_per_worker: float = 0,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    listing: str | None = None,
    retry_quarantined: bool = False,
    price_hour: float | None = None,
    price_gb_month: float | None = None,
    seed: int = 0,
    progress: events.Progress | None = None,
    executor: str = "processes",
    codec_factory: str = DEFAULT_CODEC,
) -> Forecast:
    """List the source, compare it with the archive, encode a sample, and tell of the rest. Neither is written to.

    Args:
        source, archive, settings, include, exclude, listing, retry_quarantined: as of ``compress``.
        sample: images to encode; a few more may be.
        seconds: of encoding, after which no further image is begun.
        workers: of the job to come; the pilot has as many, but no more than this machine has cores.
        gpus_per_worker: above 0 the pilot encodes on this machine's GPU.
        price_hour: of one worker.
        price_gb_month: of 10^9 bytes kept for a month.
        seed: of the draw.

    Raises UsageError, StoreError, CorruptData; KeyboardInterrupt on SIGINT and SIGTERM.
    """
    check(workers=workers, shard_bytes=None, executor=executor)
    prices = Prices(hour=price_hour, gb_month=price_gb_month)
    _check(sample=sample, seconds=seconds, prices=prices)
    cores = cpus_available()
    wanted = workers or cores
    with survey(source, include=include, exclude=exclude, archive=archive, listing=listing) as found:
        table = open_if_there(archive)
        fingerprint = json.dumps(asdict(settings), sort_keys=True, default=str)
        plan = found.plan(table, settings=fingerprint, workers=wanted, retry_quarantined=retry_quarantined)
        shards = plan.count_shards()
        basis = Forecast(
            source=source,
            archive=archive,
            images=plan.images,
            bytes=plan.bytes,
            known=plan.known,
            replaces=plan.replaces,
            skipped=found.skipped,
            problems=(*found.problems, *found.remarks),
            archive_bytes=sum(file.size for file in table.files()) if table is not None else 0,
            workers=wanted,
            shards=shards,
            device="cuda" if gpus_per_worker else "cpu",
        )
        models = models_of(settings)
        drawn = draw(plan.todo, lambda row: row[2], wanted=sample, seed=seed)
        if not plan.images:
            return basis
        progress = progress or events.ignore
        pilots = max(1, min(wanted, cores, len(drawn.drawn)))
        progress(
            events.Planned(
                images=len(drawn.drawn),
                bytes=sum(row[2] for _, row in drawn.drawn),
                shards=len(drawn.drawn),
                known=0,
                skipped=0,
                workers=pilots,
            )
        )
        scratch = found.folder / "pilot"
        scratch.mkdir()
        _check_room(scratch, drawn, models)
        pilot = run_pilot(
            drawn,
            scratch,
            settings=settings,
            models=models,
            workers=pilots,
            threads=max(1, cores // min(wanted, cores)),
            device=basis.device,
            seconds=seconds,
            executor=executor,
            codec_factory=codec_factory,
            progress=progress,
        )
        return told(
            basis,
            drawn.strata,
            pilot,
            is_new=table is None,
            present=table.models() if table is not None else (),
            largest=None if settings.keep_originals == "never" else 1.0,
            prices=prices,
        )


def _check(*, sample: int, seconds: float, prices: Prices) -> None:
    if sample < 1:
        raise UsageError(f"A sample of {sample} images tells nothing. Give at least 1, better 200.")
    if not seconds > 0:
        raise UsageError(f"A pilot of {seconds:g} seconds tells nothing. Give more than 0.")
    for price in (prices.hour, prices.gb_month):
        if price is not None and not price >= 0:
            raise UsageError(f"A price can't be {price:g}. Give 0 or more.")


def _check_room(scratch: Path, sample: Sample[Row], models: Sequence[tuple[bytes, bytes]]) -> None:
    needed = 2 * sum(row[2] for _, row in sample.drawn) + sum(len(data) for _, data in models) + ROOM_BYTES
    free = free_bytes(scratch)
    if free < needed:
        raise NoRoomForPilot(str(scratch.parent.parent), free, needed)
