"""Other codecs as a batch job over the same files, on as many processes: read, decode, encode, write."""

from __future__ import annotations

import io
import multiprocessing
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recbatch.bench.inputs import Image
from recbatch.codec.quality import psnr

# One thread each: the processes are as many as the cores. Qualities give about 35 dB on photographs.
SETTINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "JPEG XL effort 7, quality 80": ("JXL", {"quality": 80, "effort": 7, "num_threads": 1}),
    "AVIF speed 6, quality 60": ("AVIF", {"quality": 60, "speed": 6, "max_threads": 1}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherCodec:
    """One codec's job."""

    name: str
    megapixels_per_second: float
    seconds: float
    bpp: float
    psnr: float


def run_others(folder: str | Path, images: Sequence[Image], workers: int) -> list[OtherCodec]:
    """Time every codec on the folder's images."""
    return [run_one(name, folder, images, workers) for name in SETTINGS]


def run_one(name: str, folder: str | Path, images: Sequence[Image], workers: int) -> OtherCodec:
    """One codec. The processes stand, with their libraries loaded, before the clock starts."""
    kind, options = SETTINGS[name]
    paths = [Path(folder) / image.name for image in images]
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="recbatch-bench-") as out,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_load) as pool,
    ):
        work = partial(encode_file, kind=kind, options=dict(options), out=out)
        list(pool.map(work, paths[:workers]))
        start = time.perf_counter()
        written = list(pool.map(work, paths))
        seconds = time.perf_counter() - start
        _load()
        quality = [
            psnr(image.picture.pixels, _pixels(data, image))
            for image, data in zip(images, map(_read, written), strict=True)
        ]
        sizes = [path.stat().st_size for path in written]
    megapixels = sum(image.pixels for image in images) / 1e6
    return OtherCodec(
        name=name,
        megapixels_per_second=megapixels / seconds,
        seconds=seconds,
        bpp=float(np.mean([8 * size / image.pixels for size, image in zip(sizes, images, strict=True)])),
        psnr=float(np.mean(quality)),
    )


def encode_file(path: Path, *, kind: str, options: dict[str, Any], out: str) -> Path:
    """One file of the job, in a worker process."""
    from PIL import Image as Pillow

    target = Path(out) / f"{path.name}.{kind.lower()}"
    with Pillow.open(io.BytesIO(path.read_bytes())) as picture:
        picture.convert("RGB").save(target, format=kind, **options)
    return target


def _load() -> None:
    import pillow_jxl  # noqa: F401  (registers the format)


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _pixels(data: bytes, image: Image) -> Any:
    from PIL import Image as Pillow

    restored = np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"))
    return restored[..., : image.picture.pixels.shape[2]]
