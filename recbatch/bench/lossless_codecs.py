"""Who runs in ``recbatch bench lossless``: our codec with and without its preview, PNG, WebP and JPEG XL.

Each takes pixels and gives the bytes of a complete file without metadata, and back, in this process.

Shape letters: H height, W width, C channels (grey, grey and alpha, RGB, RGB and alpha).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from typing import Any

import numba
import numpy as np
import PIL
import torch
from PIL import Image, features
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from recbatch.bench.extras import need
from recbatch.bench.lossless_inputs import Pixels
from recbatch.codec import Decoder, Settings, models_of
from recbatch.codec.coding import LosslessCoding
from recbatch.errors import UsageError
from recbatch.images import Picture

PNG = "png"  # the one that others are given as a share of


@dataclass(frozen=True, slots=True)
class Coded:
    """One image as a file."""

    data: bytes
    ideal_bits: float | None = (
        None  # what the codec's own model asks for: -log2 p of the symbols, plus the KL
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One codec with its setting."""

    name: str
    label: str
    settings: str
    encode: Callable[[Pixels], Coded]
    decode: Callable[[bytes], Pixels]  # grey may come back as RGB, and a missing alpha as an opaque one
    threads: int = 1  # that it may use


def contestants(chosen: Sequence[str | Contestant] | None = None, *, threads: int = 1) -> list[Contestant]:
    """These codecs, or all; on so many threads where a codec of a name can use them.

    Raises:
        UsageError (an unknown name), MissingExtra.
    """
    out = []
    for one in dict.fromkeys(chosen or available()):
        if isinstance(one, str) and one not in BUILDERS:
            raise UsageError(f"There is no codec {one!r} to compare. Choose from {', '.join(BUILDERS)}.")
        out.append(BUILDERS[one](threads) if isinstance(one, str) else one)
    return out


def available() -> list[str]:
    """All codecs."""
    return list(BUILDERS)


# --- ours ---


def ours(threads: int, *, preview: bool) -> Contestant:
    """Our codec, with the lossy preview in the file's first bytes or without."""
    return Contestant(
        name="recbatch" if preview else "recbatch-no-preview",
        label="recbatch" if preview else "recbatch, no preview",
        settings=f"lossless, {'with' if preview else 'without'} preview",
        encode=partial(encode_ours, preview=preview),
        decode=decode_ours,
        threads=threads,
    )


@cache
def coding(*, preview: bool) -> LosslessCoding:
    """The encoder alone: neither a file to read nor the proof, which are not the others' either."""
    settings = Settings(mode="lossless", preview=preview)
    return LosslessCoding(settings, [data for _, data in models_of(settings)], device="cpu")


@cache
def decoder() -> Decoder:
    return Decoder()


def encode_ours(pixels_HWC: Pixels, *, preview: bool) -> Coded:
    alpha = pixels_HWC.shape[2] in (2, 4)
    colours = pixels_HWC[:, :, :-1] if alpha else pixels_HWC
    picture = Picture(
        pixels=np.ascontiguousarray(colours),
        alpha=np.ascontiguousarray(pixels_HWC[:, :, -1]) if alpha else None,
    )
    (encoded,) = coding(preview=preview).encode([picture], [b""])
    return Coded(encoded.stream, None if alpha or not encoded.model else encoded.ideal_bits)


def decode_ours(data: bytes) -> Pixels:
    picture = decoder().decode(data)
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


# --- the others ---


def png(_: int) -> Contestant:
    """Pillow's strongest: every filter by its heuristic, zlib level 9."""
    flavour = "zlib_ng" if features.version("zlib_ng") else "zlib"
    return Contestant(
        name=PNG,
        label="PNG",
        settings=f"Pillow {PIL.__version__}, optimize ({flavour} {features.version(flavour)})",
        encode=partial(save, format="PNG", optimize=True),
        decode=partial(load, reader=PngImageFile),
    )


def webp(_: int, *, method: int, quality: int) -> Contestant:
    """Pixels under zero alpha are kept (``exact``). Quality is the effort of the search here."""
    return Contestant(
        name=f"webp-m{method}",
        label=f"WebP, method {method}",
        settings=f"libwebp {features.version('webp')}, lossless, method {method}, quality {quality}",
        encode=partial(
            save, format="WEBP", colour=True, lossless=True, exact=True, method=method, quality=quality
        ),
        decode=partial(load, reader=WebPImageFile),
    )


def jxl(threads: int, *, effort: int) -> Contestant:
    need("pillow_jxl")
    import pillow_jxl  # noqa: F401  (registers the format)

    workers = 0 if threads == 1 else threads  # 0: the calling thread does the work
    return Contestant(
        name=f"jxl-e{effort}",
        label=f"JPEG XL, effort {effort}",
        settings=f"pillow-jxl-plugin {metadata.version('pillow-jxl-plugin')}, lossless, effort {effort}",
        encode=partial(save, format="JXL", lossless=True, effort=effort, num_threads=workers),
        decode=partial(load_jxl, workers=workers),
        threads=threads,
    )


BUILDERS: Mapping[str, Callable[[int], Contestant]] = {
    "recbatch": partial(ours, preview=True),
    "recbatch-no-preview": partial(ours, preview=False),
    PNG: png,
    "webp-m4": partial(webp, method=4, quality=80),  # Pillow's defaults
    "webp-m6": partial(webp, method=6, quality=100),
    "jxl-e7": partial(jxl, effort=7),
    "jxl-e9": partial(jxl, effort=9),
}


def save(pixels_HWC: Pixels, *, format: str, colour: bool = False, **options: Any) -> Coded:
    """A file by Pillow; ``colour``: the format has no grey."""
    image = to_image(pixels_HWC)
    if colour and image.mode in ("L", "LA"):
        image = image.convert("RGB" if image.mode == "L" else "RGBA")
    out = io.BytesIO()
    image.save(out, format=format, **options)
    return Coded(out.getvalue())


def load(data: bytes, *, reader: Callable[[io.BytesIO], Image.Image]) -> Pixels:
    """By the format's own reader: ``Image.open`` guesses, and refuses large images."""
    return to_pixels(reader(io.BytesIO(data)))


def load_jxl(data: bytes, *, workers: int) -> Pixels:
    """Not through Pillow's reader, which takes every core there is."""
    from pillow_jxl import Decoder

    _, info, raw, _, _ = Decoder(num_threads=workers)(data)
    return np.frombuffer(raw, np.uint8).reshape(info.height, info.width, -1)


# --- pixels ---


def to_image(pixels_HWC: Pixels) -> Image.Image:
    return Image.fromarray(pixels_HWC[:, :, 0] if pixels_HWC.shape[2] == 1 else pixels_HWC)


def to_pixels(image: Image.Image) -> Pixels:
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def same(one_HWC: Pixels, other_HWC: Pixels) -> bool:
    """Whether two show the same: grey is RGB with equal channels, no alpha an opaque one."""
    if one_HWC.shape != other_HWC.shape:
        if one_HWC.shape[:2] != other_HWC.shape[:2]:
            return False
        one_HWC, other_HWC = _rgba(one_HWC), _rgba(other_HWC)
    return bool(np.array_equal(one_HWC, other_HWC))


def _rgba(pixels_HWC: Pixels) -> Pixels:
    channels = pixels_HWC.shape[2]
    colour = pixels_HWC[:, :, :3] if channels >= 3 else np.repeat(pixels_HWC[:, :, :1], 3, axis=2)
    alpha = np.full_like(colour[:, :, :1], 255) if channels in (1, 3) else pixels_HWC[:, :, -1:]
    return np.concatenate([colour, alpha], axis=2)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Kernels and networks of this process use so many threads inside."""
    before = numba.get_num_threads(), torch.get_num_threads()
    numba.set_num_threads(min(count, vars(numba.config)["NUMBA_NUM_THREADS"]))
    torch.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before[0])
        torch.set_num_threads(before[1])
