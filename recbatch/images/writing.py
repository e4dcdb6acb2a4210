"""A picture as a Pillow image, or as a file's bytes with its metadata."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from recbatch.images.errors import CannotWrite
from recbatch.images.picture import Picture
from recbatch.images.png_file import with_chunks
from recbatch.images.png_metadata import XMP_KEYWORD

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("png", "webp", "jpeg", "tiff")
_ALIASES = {"jpg": "jpeg", "tif": "tiff"}
PNG_LEVEL = 2  # zlib's own 6 takes up to three times as long for one to four percent of the bytes
_MAX_SIDE = {"webp": 16383, "jpeg": 65500}
_JPEG_SEGMENT_BYTES = 65500  # EXIF and XMP must each fit one segment, with its mark
_EXIF_MARK = b"Exif\0\0"
_XMP_TAG = 700


def to_pil(picture: Picture) -> Image.Image:
    """The picture as Pillow holds it, metadata in ``info`` as Pillow's own readers leave it there."""
    from PIL import Image

    planes = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    image = Image.fromarray(planes[:, :, 0] if planes.shape[2] == 1 else np.ascontiguousarray(planes))
    metadata = picture.metadata
    if metadata.icc:
        image.info["icc_profile"] = metadata.icc
    if metadata.exif:
        image.info["exif"] = _EXIF_MARK + metadata.exif
    if metadata.xmp:
        image.info["xmp"] = metadata.xmp
    return image


def write_picture(picture: Picture, format: str) -> bytes:
    """A file: png and tiff exact, webp lossless (grey becomes RGB), jpeg at quality 95 without subsampling.

    All hold colour profile, EXIF and XMP; chunks that came from a PNG go into a PNG alone.

    Raises:
        CannotWrite: an unknown format, or one that can't hold the picture: alpha or more than 64 KiB of EXIF
            in a JPEG, too many pixels a side.
    """
    name = _ALIASES.get(format.lower().lstrip("."), format.lower().lstrip("."))
    if name not in FORMATS:
        raise CannotWrite(format, f"the formats are {', '.join(FORMATS)}")
    limit = _MAX_SIDE.get(name)
    if limit and max(picture.width, picture.height) > limit:
        raise CannotWrite(name, f"{picture.width} x {picture.height} pixels are more than {limit} a side")
    if name == "jpeg" and picture.alpha is not None:
        raise CannotWrite(name, "it has an alpha plane, JPEG has none")
    image = to_pil(picture)
    image.info.clear()  # some writers add what they find there
    options = {"png": _png, "webp": _webp, "jpeg": _jpeg, "tiff": _tiff}[name](picture)
    file = io.BytesIO()
    try:
        image.save(file, format=name.upper(), **options)
    except (OSError, ValueError) as error:
        raise CannotWrite(name, str(error)) from error
    data = file.getvalue()
    # by hand: Pillow leaves out some types, and all that would stand behind the image data
    return with_chunks(data, picture.metadata.png_chunks) if name == "png" else data


def _common(picture: Picture, **options: Any) -> dict[str, Any]:
    metadata = picture.metadata
    if metadata.icc:
        options["icc_profile"] = metadata.icc
    if metadata.exif:
        options["exif"] = _EXIF_MARK + metadata.exif
    return options


def _png(picture: Picture) -> dict[str, Any]:
    from PIL.PngImagePlugin import PngInfo

    options = _common(picture, compress_level=PNG_LEVEL)
    if picture.metadata.xmp:
        chunks = PngInfo()
        # by hand: add_itxt takes text, and XMP is bytes that need not be UTF-8
        chunks.add(b"iTXt", XMP_KEYWORD + bytes(5) + picture.metadata.xmp)
        options["pnginfo"] = chunks
    return options


def _webp(picture: Picture) -> dict[str, Any]:
    # exact: without it the colours under full transparency are thrown away
    options = _common(picture, lossless=True, exact=True, quality=75, method=4)
    if picture.metadata.xmp:
        options["xmp"] = picture.metadata.xmp
    return options


def _jpeg(picture: Picture) -> dict[str, Any]:
    for name, value in (("EXIF", picture.metadata.exif), ("XMP", picture.metadata.xmp)):
        if value and len(value) > _JPEG_SEGMENT_BYTES:
            raise CannotWrite("jpeg", f"its {name} of {len(value)} bytes is more than a JPEG can hold")
    options = _common(picture, quality=95, subsampling=0, optimize=True)
    if picture.metadata.xmp:
        options["xmp"] = picture.metadata.xmp
    return options


def _tiff(picture: Picture) -> dict[str, Any]:
    from PIL.Image import Exif

    options = _common(picture, compression="tiff_adobe_deflate")
    tags = Exif()
    if picture.metadata.exif:
        try:
            tags.load(picture.metadata.exif)
        except Exception as error:  # Pillow raises what it stumbles over
            raise CannotWrite("tiff", f"its EXIF can't be read ({error})") from error
    if picture.metadata.xmp:
        tags[_XMP_TAG] = picture.metadata.xmp
    options["exif"] = tags
    return options
