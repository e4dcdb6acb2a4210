"""Other codecs' files back to PNG files as a batch job, and the processor time of both ways."""

from __future__ import annotations

import io
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from recbatch.bench.inputs import Image
from recbatch.bench.others import SETTINGS, encode_file
from recbatch.images import Picture, write_picture


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherDecoder:
    """One codec's way back."""

    name: str
    megapixels_per_second: float
    seconds: float
    cpu_s_per_mp: float  # of all processes: read, decode, write a PNG file as ``restore`` does
    encode_cpu_s_per_mp: float  # of all processes: read, decode the source, encode, write


def decode_others(folder: str | Path, images: Sequence[Image], workers: int) -> list[OtherDecoder]:
    """Time every codec of ``others`` on the folder's images, both ways."""
    return [_one(name, folder, images, workers) for name in SETTINGS]


def _one(name: str, folder: str | Path, images: Sequence[Image], workers: int) -> OtherDecoder:
    kind, options = SETTINGS[name]
    paths = [Path(folder) / image.name for image in images]
    megapixels = sum(image.pixels for image in images) / 1e6
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="recbatch-bench-") as out,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_load) as pool,
    ):
        encode = partial(encode_file, kind=kind, options=dict(options), out=out)
        list(pool.map(encode, paths[:workers]))  # the processes stand before the clock starts
        encoded = list(pool.map(partial(clocked, encode), paths))
        start = time.perf_counter()
        decoded = list(pool.map(partial(clocked, decode_file), [path for path, _ in encoded]))
        seconds = time.perf_counter() - start
    return OtherDecoder(
        name=name,
        megapixels_per_second=megapixels / seconds,
        seconds=seconds,
        cpu_s_per_mp=sum(cpu_s for _, cpu_s in decoded) / megapixels,
        encode_cpu_s_per_mp=sum(cpu_s for _, cpu_s in encoded) / megapixels,
    )


def clocked(work: Callable[[Path], Path], path: Path) -> tuple[Path, float]:
    """What the work gives, and the processor seconds of this process that it took."""
    start = time.process_time()
    return work(path), time.process_time() - start


def decode_file(path: Path) -> Path:
    """One file back to PNG, in a worker process."""
    from PIL import Image as Pillow

    with Pillow.open(io.BytesIO(path.read_bytes())) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    target = path.with_suffix(path.suffix + ".png")
    target.write_bytes(write_picture(Picture(pixels=pixels), "png"))
    return target


def _load() -> None:
    import pillow_jxl  # noqa: F401  (registers the format)
