"""A forecast, and how it follows from a pilot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from recbatch.engine.pilot import Look, Pilot
from recbatch.engine.sampling import Estimate, Sight, Stratum

GROUP_BYTES = 2 << 20  # of streams, at which a row group is closed; the image that does it comes on top
GB = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One codec's part of what would be archived. Shares are of all images, 0 to 1."""

    images: Estimate
    bytes_in: float  # of files, no interval
    bytes_out: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What ``compress`` would do. Bytes and seconds are estimates with their 95 % intervals.

    An interval tells of what a sample can't know of the other images. It knows nothing of a slower machine, or of a
    store that throttles.
    """

    source: str
    archive: str
    images: int  # to be archived
    bytes: int  # of their files
    known: int = 0  # archived already
    replaces: int = 0  # of the images: their key has a row of another file or state
    skipped: int = 0  # other files of the source
    problems: tuple[str, ...] = ()  # of the source: folders that can't be listed
    archive_bytes: int = 0  # of the archive as it is; 0 where there is none
    # the pilot
    sampled: int = 0  # images drawn
    seen: int = 0  # images encoded
    seen_bytes: int = 0
    out_of_time: bool = False
    pilot_s: float = 0.0
    device: str = "cpu"
    # the archive
    streams: Estimate | None = None  # bytes of images; None where no pilot ran, or it saw nothing
    rows_bytes: int = 0  # of the table beside them
    models_bytes: int = 0  # weights that the archive does not have yet
    log_bytes: int = 0  # of the log and the ledger
    added: Estimate | None = None  # all of it
    parts: Mapping[str, Part] = field(default_factory=dict)  # by codec; what is quarantined under ""
    quarantined: Estimate | None = None  # share of the images
    errors: Mapping[str, int] = field(default_factory=dict)  # quarantined images of the pilot by code
    bpp: Estimate | None = None  # of all pixels
    psnr: Estimate | None = None  # dB, mean over lossy images
    pixels: Estimate | None = None
    # the work
    workers: int = 0
    pilot_workers: int = 0
    shards: int = 0
    startup_s: float = 0.0  # of workers
    worker_s: Estimate | None = None  # of all workers together, without their start
    wall_s: Estimate | None = None  # from the first worker's being ready to the end
    # money, where prices were given, in their currency
    work_price: Estimate | None = None
    month_price: Estimate | None = None  # of keeping what is added, each month

    @property
    def after(self) -> Estimate | None:
        """Bytes of the archive afterwards."""
        return None if self.added is None else self.added.plus(self.archive_bytes)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not known is null."""
        after = None if self.after is None else asdict(self.after)
        found: dict[str, Any] = _finite({**asdict(self), "after": after})
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """In any one currency; None where they were not given."""

    hour: float | None = None  # of one worker
    gb_month: float | None = None  # of 10^9 bytes


def told(
    basis: Forecast,
    strata: Collection[Stratum],
    pilot: Pilot,
    *,
    is_new: bool,
    present: Collection[str],
    largest: float | None,
    prices: Prices,
) -> Forecast:
    """The forecast, from what is known beforehand and what the pilot showed.

    Args:
        is_new: there is no archive yet.
        present: digests of the weights that it has.
        largest: bytes of a stream by those of its file, at most.
    """
    costs, looks = pilot.costs, pilot.looks
    models_bytes = sum(size for digest, size in costs.models.items() if digest not in present)
    log = costs.report + (costs.new_log if is_new else 0)
    log_bytes = round(log + costs.log_file * basis.shards + costs.plan_row * basis.images)
    basis = replace(
        basis,
        sampled=pilot.wanted,
        seen=len(looks),
        seen_bytes=sum(look.size for look in looks),
        out_of_time=pilot.out_of_time,
        pilot_s=pilot.seconds,
        pilot_workers=pilot.workers,
        startup_s=pilot.startup_s,
        models_bytes=models_bytes,
        log_bytes=log_bytes,
    )
    if not looks:
        return basis
    sight = Sight(tuple(strata), looks)
    streams = sight.total(lambda look: look.bytes, most=largest)
    rows_bytes = round(costs.row * basis.images + costs.group * _groups(basis, streams))
    added = streams.plus(rows_bytes + models_bytes + log_bytes)
    worker_s = sight.total(lambda look: look.seconds).plus(basis.shards * pilot.write_s)
    paid_s = worker_s.plus(min(basis.workers, basis.shards) * pilot.startup_s)
    lossy = any(look.codec == "lossy" and look.psnr is not None for look in looks)
    return replace(
        basis,
        streams=streams,
        rows_bytes=rows_bytes,
        added=added,
        parts=_parts(sight, looks),
        quarantined=sight.share(lambda look: not look.codec),
        errors=dict(Counter(look.error_code for look in looks if look.error_code).most_common()),
        pixels=sight.total(lambda look: look.pixels),
        bpp=sight.ratio(lambda look: 8 * look.bytes, lambda look: look.pixels),
        psnr=sight.ratio(_db, lambda look: float(look.psnr is not None)) if lossy else None,
        worker_s=worker_s,
        wall_s=_wall(worker_s, basis),
        work_price=None if prices.hour is None else paid_s.scaled(prices.hour / 3600),
        month_price=None if prices.gb_month is None else added.scaled(prices.gb_month / GB),
    )


def _groups(basis: Forecast, streams: Estimate) -> float:
    """Row groups of all data files, one file of each shard."""
    if not math.isfinite(streams.value):
        return float(basis.shards)
    of_shard = streams.value / max(1, basis.shards)
    image = streams.value / max(1, basis.images)
    return basis.shards * float(math.ceil(of_shard / (GROUP_BYTES + image / 2)) or 1)


def _wall(worker_s: Estimate, basis: Forecast) -> Estimate:
    """Shards go to whoever is free; at the end all wait for the last one, for half a shard on average."""
    workers = max(1, min(basis.workers, basis.shards))
    waiting = (1 - 1 / workers) / 2 / max(1, basis.shards)
    return worker_s.scaled(1 / workers + waiting)


def _parts(sight: Sight[Look], looks: Collection[Look]) -> Mapping[str, Part]:
    def part(codec: str) -> Part:
        def mine(look: Look) -> bool:
            return look.codec == codec

        return Part(
            images=sight.share(mine),
            bytes_in=sight.total(lambda look: look.size * mine(look)).value,
            bytes_out=sight.total(lambda look: look.bytes * mine(look)).value,
        )

    return {codec: part(codec) for codec in sorted({look.codec for look in looks}, reverse=True)}


def _db(look: Look) -> float:
    """What comes back exactly has no number here, and is not counted."""
    return look.psnr or 0.0


def _finite(value: Any) -> Any:
    """JSON knows neither infinity nor nan."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
