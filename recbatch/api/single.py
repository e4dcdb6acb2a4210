"""Single images: encode, decode, and what a stream says of itself."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from recbatch.api.common import Location, make_settings
from recbatch.errors import RecbatchError, UsageError

if TYPE_CHECKING:
    from PIL import Image

    from recbatch.codec import Decoder, Encoded, ImageCodec, Settings

PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
SUFFIXES = {
    ".png": "png",
    ".webp": "webp",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
}


class UnknownFormat(UsageError):
    """A file's name does not say which format it is to have."""

    code = "unknown-format"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"The name {self.name} does not say which format to write. End it in .png, .webp, .jpg or .tiff."
        )


def encode(
    image: Image.Image | bytes | Location,
    *,
    quality: float | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
    max_bytes: int | None = None,
    min_psnr: float | None = None,
    auto: bool = False,
    lossless: bool = False,
    preview: bool = True,
    model: str | None = None,
    coder: str = "trellis",
    effort: int = 5,
    max_pixels: int = 200_000_000,
) -> bytes:
    """One image as a .rec stream, decoded again and measured before it is returned.

    Args:
        image: a Pillow image, the bytes of an image file, or the path of one.
        quality: 0 (smallest) to 100 (nearest to the source); without it and the next four every pixel comes back.
        bpp, psnr: in place of a quality: bits of the stream for each pixel, or dB.
        max_bytes, min_psnr: the quality is lowered until the stream fits, or raised until it has so many dB.
        auto: with one of these: without loss where that takes fewer bytes, or few more and the lossy picture is bad.
        lossless: the same as no quality, said aloud.
        preview: a lossless stream begins with a lossy preview.

    With a quality, what a stream can't hold (16 bits, CMYK, animation) is converted, as ``encode_measured`` notes;
    without one it is refused.

    Raises:
        ImageError: the image is broken, too large, can't be held without loss, or can't be what was asked for.
    """
    return encode_measured(
        image,
        quality=quality,
        bpp=bpp,
        psnr=psnr,
        max_bytes=max_bytes,
        min_psnr=min_psnr,
        auto=auto,
        lossless=lossless,
        preview=preview,
        model=model,
        coder=coder,
        effort=effort,
        max_pixels=max_pixels,
    ).stream


def encode_measured(
    image: Image.Image | bytes | Location,
    *,
    quality: float | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
    max_bytes: int | None = None,
    min_psnr: float | None = None,
    auto: bool = False,
    lossless: bool = False,
    preview: bool = True,
    model: str | None = None,
    coder: str = "trellis",
    effort: int = 5,
    max_pixels: int = 200_000_000,
) -> Encoded:
    """As ``encode``, with all that the codec found out: bits by kind, PSNR, MS-SSIM, notes."""
    from recbatch.codec import Source

    settings = make_settings(
        quality=quality,
        bpp=bpp,
        psnr=psnr,
        max_bytes=max_bytes,
        min_psnr=min_psnr,
        auto=auto,
        lossless=lossless,
        preview=preview,
        model=model,
        coder=coder,
        effort=effort,
        keep_originals="never",
        max_pixels=max_pixels,
    )
    (result,) = _codec(settings).encode([Source(name="image", data=image_bytes(image))])
    if isinstance(result, RecbatchError):
        raise result
    return result


@lru_cache(maxsize=2)  # a model takes longer to load than a small image to code
def _codec(settings: Settings) -> ImageCodec:
    from recbatch.codec import ImageCodec

    return ImageCodec(settings)


@lru_cache(maxsize=1)
def _decoder() -> Decoder:
    from recbatch.codec import Decoder

    return Decoder()


def image_bytes(image: Image.Image | bytes | Location) -> bytes:
    """The bytes of an image file that holds just this image."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    out = io.BytesIO()
    extras = {key: image.info[key] for key in ("icc_profile", "exif") if image.info.get(key)}
    if image.mode in PNG_MODES:
        image.save(out, format="PNG", compress_level=1, **extras)
    else:
        image.save(out, format="TIFF", **extras)
    return out.getvalue()


def read_image(data: bytes) -> Image.Image:
    """An image file as the codec sees it: upright, 8 bits, RGB or grey. Raises ImageError."""
    from recbatch.images import read_picture, to_pil

    return to_pil(read_picture(data, convert=True))


def decode(stream: bytes, *, max_pixels: int = 10**9) -> Image.Image:
    """The image of a .rec stream, with its metadata in ``.info``.

    Raises CorruptStream, UnsupportedFormat, StreamTooLarge, UnknownModel.
    """
    from recbatch.images import to_pil

    return to_pil(_decoder().decode(stream, max_pixels=max_pixels))


def decode_file(stream: bytes, format: str = "png", *, max_pixels: int = 10**9) -> bytes:
    """A .rec stream as the bytes of an image file: png, webp, jpeg or tiff. Raises CannotWrite too."""
    from recbatch.images import write_picture

    return write_picture(_decoder().decode(stream, max_pixels=max_pixels), format)


def file_format(name: str) -> str:
    """The format that a file's name asks for. Raises UnknownFormat."""
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise UnknownFormat(name)
    return SUFFIXES[suffix]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """The header of a .rec stream, and where its bytes go; digests are hexadecimal."""

    format: str
    codec: str
    width: int
    height: int
    mode: str
    size_bytes: int
    bpp: float
    model: str
    model_name: str | None
    level: float
    quality: float
    coder: str
    coder_number: int
    coder_parameters: str
    parameters_digest: str
    latents_digest: str
    pixels_digest: str
    bytes: Mapping[str, int]


def stream_info(data: bytes) -> StreamInfo:
    """What a .rec stream says of itself, its checksum included. Raises CorruptStream, UnsupportedFormat."""
    from recbatch import stream
    from recbatch.codec import quality_of_level

    parsed, head = stream.parse(data), stream.header(data)
    lossless, no_model = parsed.codec == stream.CODEC_LOSSLESS, stream.SECTION_PIXELS in parsed.sections
    names = {
        stream.SECTION_LATENTS: "preview" if lossless else "latents",
        stream.SECTION_ALPHA: "alpha",
        stream.SECTION_METADATA: "metadata",
        stream.SECTION_RESIDUAL: "residual",
        stream.SECTION_CALIBRATION: "calibration",
        stream.SECTION_PIXELS: "pixels",
        stream.SECTION_FILE: "file recipe",
    }
    sections = {names.get(kind, f"section {kind}"): len(part) for kind, part in parsed.sections.items()}
    return StreamInfo(
        format=f"{stream.MAJOR}.{head.minor}",
        codec={stream.CODEC_LOSSY: "lossy", stream.CODEC_LOSSLESS: "lossless"}.get(
            parsed.codec, str(parsed.codec)
        ),
        width=parsed.width,
        height=parsed.height,
        mode=parsed.mode,
        size_bytes=len(data),
        bpp=8 * len(data) / (parsed.width * parsed.height),
        model="" if no_model else parsed.model.hex(),
        model_name=None if no_model else _zoo_name(parsed.model),
        level=parsed.level,
        quality=100 if lossless else quality_of_level(parsed.level),
        coder=("webp" if no_model else "")
        if lossless
        else _coder_name(parsed.coder, parsed.coder_parameters),
        coder_number=parsed.coder,
        coder_parameters=parsed.coder_parameters.hex(),
        parameters_digest=parsed.parameters_digest.hex(),
        latents_digest=parsed.latents_digest.hex(),
        pixels_digest=parsed.pixels_digest.hex(),
        bytes={"header and checksum": len(data) - sum(sections.values()), **sections},
    )


def _zoo_name(head: bytes) -> str | None:
    from recbatch.models import weights

    return next((name for known, name in weights.zoo().items() if known.startswith(head)), None)


def _coder_name(number: int, parameters: bytes) -> str:
    from recbatch import rec

    try:
        return rec.coder(number, parameters).name
    except RecbatchError:
        return "unknown"
