"""Streams of real form whose pixels anyone can read, and the decoder that does."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

from recbatch import stream
from recbatch.archive import Record
from recbatch.errors import CorruptStream
from recbatch.images import Picture, pixels_sha256

DECODER = "lossless_fakes:PixelDecoder"
GREY = 90  # of every preview


def picture(seed: int, *, height: int = 12, width: int = 16, alpha: bool = False) -> Picture:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    return Picture(pixels=pixels, alpha=rng.integers(0, 256, (height, width), np.uint8) if alpha else None)


def png_of(image: Picture, **options: int) -> bytes:
    planes = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
    out = io.BytesIO()
    Image.fromarray(planes).save(out, "PNG", **options)
    return out.getvalue()


def lossless_stream(image: Picture, *, preview: bytes = bytes([GREY]), recipe: bytes = b"") -> bytes:
    sections = {stream.SECTION_RESIDUAL: image.pixels.tobytes()}
    if preview:
        sections[stream.SECTION_LATENTS] = preview
    if image.alpha is not None:
        sections[stream.SECTION_ALPHA] = image.alpha.tobytes()
    if recipe:
        sections[stream.SECTION_FILE] = recipe
    return stream.pack(
        stream.Stream(
            codec=stream.CODEC_LOSSLESS,
            mode=image.mode,
            width=image.width,
            height=image.height,
            model=b"fake",
            level=0,
            pixels_digest=b"1234",
            sections=sections,
        )
    )


def lossless_row(key: str, image: Picture, file: bytes, *, recipe: bytes = b"", **columns: object) -> Record:
    data = lossless_stream(image, recipe=recipe)
    return Record(
        **{
            "key": key,
            "codec": "lossless",
            "stream": data,
            "preview": data[: stream.preview_size(data)],
            "source_format": "png",
            "source_size": len(file),
            "source_sha256": hashlib.sha256(file).digest(),
            "source_mtime": 10**18,
            "pixels_sha256": pixels_sha256(image),
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            **columns,
        }
    )


class PixelDecoder:
    def __init__(self, models: object = None) -> None:
        pass

    def decode(self, data: bytes) -> Picture:
        if not data.startswith(stream.MAGIC):
            return Picture(pixels=np.full((12, 16, 3), data[0], np.uint8))
        parsed = stream.parse(data)
        size = (parsed.height, parsed.width)
        alpha = parsed.sections.get(stream.SECTION_ALPHA)
        return Picture(
            pixels=np.frombuffer(parsed.sections[stream.SECTION_RESIDUAL], np.uint8).reshape(*size, 3),
            alpha=None if alpha is None else np.frombuffer(alpha, np.uint8).reshape(size),
            source_format="rec",
        )

    def decode_batch(self, streams: list[bytes]) -> list[Picture | CorruptStream]:
        return [self.decode(data) for data in streams]
