"""Measurements: every figure in docs/benchmarks.md comes from one of these functions.

    lossy_benchmark     rate and quality of the whole codec, from files, beside other codecs' curves
    lossless_benchmark  bits per dimension and speed beside PNG, WebP and JPEG XL
    rec_benchmark       the index coders on a model's real latents and on synthetic ones, beside quantisation and exact
                        posterior samples
    speed_benchmark     the whole job beside JPEG XL and AVIF, peak memory, and where the time goes

Each takes a folder of images, returns a frozen result with ``to_dict()`` (the JSON of ``recbatch bench``), and
prints nothing; ``render``, ``rec_render`` and ``rec_plot`` make tables and plots of the results. Needs the extra
``recbatch[bench]``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recbatch.bench import extras

extras.need("scipy")

if TYPE_CHECKING:
    from recbatch.bench.lossless import LosslessResult, lossless_benchmark
    from recbatch.bench.lossy import LossyResult, lossy_benchmark
    from recbatch.bench.rec import rec_benchmark
    from recbatch.bench.rec_rows import RecResult
    from recbatch.bench.speed import SpeedResult, speed_benchmark

_HOMES = {  # imported when first used: those of a job's driver must not measure torch beside it
    "LosslessResult": "lossless",
    "LossyResult": "lossy",
    "RecResult": "rec_rows",
    "SpeedResult": "speed",
    "lossless_benchmark": "lossless",
    "lossy_benchmark": "lossy",
    "rec_benchmark": "rec",
    "speed_benchmark": "speed",
}

__all__ = [
    "LosslessResult",
    "LossyResult",
    "RecResult",
    "SpeedResult",
    "lossless_benchmark",
    "lossy_benchmark",
    "rec_benchmark",
    "speed_benchmark",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
