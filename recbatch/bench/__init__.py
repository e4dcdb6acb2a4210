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

from recbatch.bench import extras

extras.need("scipy")

from recbatch.bench.lossless import LosslessResult, lossless_benchmark  # noqa: E402
from recbatch.bench.lossy import LossyResult, lossy_benchmark  # noqa: E402
from recbatch.bench.rec import rec_benchmark  # noqa: E402
from recbatch.bench.rec_rows import RecResult  # noqa: E402
from recbatch.bench.speed import SpeedResult, speed_benchmark  # noqa: E402

BENCHMARKS = {
    "lossless": lossless_benchmark,
    "lossy": lossy_benchmark,
    "rec": rec_benchmark,
    "speed": speed_benchmark,
}

__all__ = [
    "BENCHMARKS",
    "LosslessResult",
    "LossyResult",
    "RecResult",
    "SpeedResult",
    "lossless_benchmark",
    "lossy_benchmark",
    "rec_benchmark",
    "speed_benchmark",
]
