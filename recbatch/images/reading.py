"""``read_picture``: the policy for everything a file can hold.

8-bit grey, RGB, with or without alpha     as they are
1, 2, 4 bits a sample; palette; colour key exact as grey or RGB, with alpha where needed; noted
EXIF orientation                           applied, the tag set to 1; noted
colour profile, EXIF, XMP                  carried
PNG: texts, gamma, time and the like       carried where they still hold; the others are dropped; noted
comments, IPTC                             dropped; noted
16 bits, float, CMYK, Lab, YCbCr TIFF,     KeepOriginal, or converted where the caller allows it; noted
  several frames, gain maps, raw files
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import ImageError
from recbatch.images.depth import sample_bits, what_would_be_lost
from recbatch.images.errors import KeepOriginal, TruncatedImage
from recbatch.images.opening import load_pixels, open_image, quiet_pillow
from recbatch.images.orientation import exif_orientation, upright, upright_xmp
from recbatch.images.picture import Metadata, Picture
from recbatch.images.png_file import MAX_CHUNKS, take_apart
from recbatch.images.png_metadata import metadata_size, png_metadata, upright_chunks
from recbatch.images.sections import MAX_METADATA_BYTES

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

_EXIF_MARK = b"Exif\0\0"
# of a TIFF's own directory: what describes the picture and not how the file stores it
_TIFF_DESCRIPTIVE = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)
_TIFF_DIRECTORIES = (34665, 34853)  # EXIF, GPS
_TIFF_ORIENTATION = 274


def picture_size(data: bytes, *, max_pixels: int = 200_000_000) -> tuple[int, ...]:
    """Width and height by the header, before any orientation; empty where it tells none, or too many pixels."""
    with quiet_pillow():
        try:
            image = open_image(data, max_pixels=max_pixels)
        except ImageError:
            return ()
        return image.width, image.height


def read_picture(data: bytes, *, max_pixels: int = 200_000_000, convert: bool = False) -> Picture:
    """Decode an image file.

    Args:
        data: the whole file.
        max_pixels: refused from the header, before anything is decoded.
        convert: also convert what 8-bit grey or RGB can't hold, and note it, instead of raising KeepOriginal.

    Raises:
        EmptyFile, NotAnImage, TruncatedImage, ImageTooLarge: the file is no use.
        KeepOriginal: the file is good and should be kept as it is.
    """
    png = take_apart(data)
    if png is not None:
        data = png.pixels
    dropped: set[bytes] = set()
    with quiet_pillow():
        image = open_image(data, max_pixels=max_pixels)
        source_format = (image.format or "").lower()
        notes: list[str] = []
        try:
            for loss, note in what_would_be_lost(image, data):
                if not convert:
                    raise KeepOriginal(loss, image.width, image.height, source_format)
                notes.append(note)
            bits = sample_bits(image, data)
            tiff_orientation = _tiff_orientation(image)
        except KeepOriginal:
            raise
        except Exception as error:  # lazy parsing inside Pillow: frame counts, tags
            raise TruncatedImage(str(error) or type(error).__name__) from None
        load_pixels(image, data, max_pixels=max_pixels)
        try:
            pixels, alpha = _planes(image, bits, notes)
            if png is None:
                metadata = _metadata(image, source_format, notes)
            else:
                channels = pixels.shape[2] + (alpha is not None)
                metadata, dropped = png_metadata(png, channels=channels, max_size=MAX_METADATA_BYTES)
        except Exception as error:
            raise TruncatedImage(f"{str(error) or type(error).__name__}") from None
        size = metadata_size(metadata)
        if size > MAX_METADATA_BYTES - 1024:  # what is packed must be read again
            raise KeepOriginal(f"{size} bytes of metadata", image.width, image.height, source_format)
        if png is not None and len(png.chunks) > MAX_CHUNKS:
            raise KeepOriginal(
                f"more than {MAX_CHUNKS} chunks of metadata", image.width, image.height, source_format
            )

    orientation, exif = exif_orientation(metadata.exif or b"")
    if tiff_orientation == 1 and orientation != 1:  # that of a TIFF is applied by Pillow, on reading
        pixels = upright(pixels, orientation)
        alpha = None if alpha is None else upright(alpha, orientation)
    if (tiff_orientation, orientation) != (1, 1):
        notes.append("orientation applied")
        xmp = None if metadata.xmp is None else upright_xmp(metadata.xmp)
        chunks, gone = upright_chunks(metadata.png_chunks, orientation)
        metadata = replace(metadata, exif=exif or None, xmp=xmp, png_chunks=chunks)
        dropped |= gone
    if dropped:
        notes.append(f"chunks dropped: {', '.join(kind.decode() for kind in sorted(dropped))}")
    return Picture(
        pixels=pixels, alpha=alpha, metadata=metadata, notes=tuple(notes), source_format=source_format
    )


def _planes(
    image: Image.Image, bits: int, notes: list[str]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Pixels [H, W, C] and alpha [H, W] of a loaded image; appends to the notes."""
    key = image.info.get("transparency")
    mode = image.mode
    if mode in ("P", "PA"):
        wide = "RGBA" if image.has_transparency_data else "RGB"
        if not isinstance(key, (int, bytes)):
            image.info.pop("transparency", None)
        notes.append(f"palette->{wide.lower()}")
        image, key = image.convert(wide), None
    elif mode == "1":
        notes.append("1-bit->l")
        image, key = _without_key(image).convert("L"), (key if key in (0, 255) else None)
    elif mode not in ("L", "LA", "RGB", "RGBA"):
        image, key = _converted(_without_key(image), notes), None
    elif bits < 8:
        notes.append(f"{bits}-bit->8-bit")
        if isinstance(key, int):
            key = key * 255 // ((1 << bits) - 1)

    planes = np.array(image, dtype=np.uint8)
    if planes.ndim == 2:
        planes = planes[:, :, np.newaxis]
    if planes.shape[2] in (2, 4):
        return np.ascontiguousarray(planes[:, :, :-1]), np.ascontiguousarray(planes[:, :, -1])
    wanted = (key,) if isinstance(key, int) else key
    if isinstance(wanted, tuple) and len(wanted) == planes.shape[2]:
        notes.append("colour key->alpha")
        is_key_HW = (planes == np.array([part & 255 for part in wanted], dtype=np.uint8)).all(axis=2)
        return planes, np.where(is_key_HW, 0, 255).astype(np.uint8)
    return planes, None


def _without_key(image: Image.Image) -> Image.Image:
    image.info.pop("transparency", None)
    return image


def _converted(image: Image.Image, notes: list[str]) -> Image.Image:
    """What convert=True allows: everything that is not 8-bit grey or RGB. Its loss is noted already."""
    from PIL.Image import fromarray

    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        finite = np.where(np.isfinite(values), values, 0.0)
        if image.mode.startswith("I;16") or (finite.min() >= 0 and 255 < finite.max() <= 65535):
            scaled = finite / 257.0
        else:
            low, high = float(finite.min()), float(finite.max())
            low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
            scaled = (finite - low) * (255.0 / (high - low)) if high > low else finite * 0
        return fromarray(np.clip(np.floor(scaled + 0.5), 0, 255).astype(np.uint8))
    if image.info.pop("icc_profile", None):
        notes.append("colour profile dropped")  # it described the colour space that is gone
    return image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, "RGB"))


def _metadata(image: ImageFile, source_format: str, notes: list[str]) -> Metadata:
    """That of any format but PNG."""
    info = image.info
    icc = info.get("icc_profile")
    xmp = info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    exif = _tiff_exif(image, notes) if source_format == "tiff" else info.get("exif")
    if isinstance(exif, bytes) and exif.startswith(_EXIF_MARK):
        exif = exif[len(_EXIF_MARK) :]
    dropped = (
        ("comment" in info and source_format in ("jpeg", "mpo", "gif"), "comment dropped"),
        (bool(info.get("photoshop")) and source_format in ("jpeg", "mpo"), "iptc dropped"),
    )
    notes.extend(note for is_dropped, note in dropped if is_dropped)
    return Metadata(
        icc=icc if isinstance(icc, bytes) and icc else None,
        exif=exif if isinstance(exif, bytes) and exif else None,
        xmp=xmp if isinstance(xmp, bytes) and xmp else None,
    )


def _tiff_orientation(image: ImageFile) -> int:
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    value = tags.get(_TIFF_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _tiff_exif(image: ImageFile, notes: list[str]) -> bytes | None:
    """EXIF of the tags that describe the picture; a TIFF has them among those that describe the file."""
    from PIL.Image import Exif

    try:
        source = image.getexif()
        kept = Exif()
        for tag in _TIFF_DESCRIPTIVE:
            if tag in source:
                kept[tag] = source[tag]
        for tag in _TIFF_DIRECTORIES:
            directory = source.get_ifd(tag)
            if directory:
                kept.get_ifd(tag).update(directory)
                kept[tag] = 0  # the writer puts the directory's place here
        return kept.tobytes() if len(kept) else None
    except Exception:  # odd tags are common, and not worth the image
        notes.append("exif dropped")
        return None
