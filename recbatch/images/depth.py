"""What an image file holds that 8-bit grey or RGB can't.

Pillow opens many such files as if they were plain: 16-bit RGB of PNG, TIFF, PPM and JPEG 2000, 10-bit AVIF,
the preview of a camera's raw file. So the file's own header is asked beside Pillow's mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_BITS_PER_SAMPLE, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 338, 339
_SUBFILE_TYPE, _SUB_DIRECTORIES, _DNG_VERSION = 254, 330, 50706
_UNSPECIFIED_SAMPLE, _PREMULTIPLIED = 0, 1
_PNG_DEPTH_AT = 24
_PNG_START = b"\x89PNG"

_MODES = {
    "CMYK": ("CMYK colours", "cmyk->rgb"),
    "YCbCr": ("YCbCr samples", "ycbcr->rgb"),
    "LAB": ("CIELAB colours", "lab->rgb"),
    "HSV": ("HSV colours", "hsv->rgb"),
    "F": ("float samples", "float->8-bit"),
    "I": ("32-bit samples", "32-bit->8-bit"),
    "RGBa": ("premultiplied alpha", "premultiplied alpha divided out"),
    "La": ("premultiplied alpha", "premultiplied alpha divided out"),
    "RGBX": ("a fourth channel", "extra channel dropped"),
}
_GAIN_MAP = re.compile(rb"hdrgm:Version|HDRGainMap")
_MOTION_PHOTO = re.compile(rb"(MotionPhoto|MicroVideo)\s*(=\s*[\"']|>)\s*1")
_JPEG_START, _FILM_START = b"\xff\xd8\xff", b"ftyp"


def what_would_be_lost(image: ImageFile, data: bytes) -> Iterator[tuple[str, str]]:
    """Each loss as (what the file holds, the note of its conversion). May raise what Pillow stumbles over."""
    frames = int(getattr(image, "n_frames", 1))
    if frames > 1:
        yield f"{frames} frames", f"first frame of {frames}"
    bits = sample_bits(image, data)
    if image.mode == "F":
        yield _MODES["F"]
    elif bits > 8:
        yield f"{bits}-bit samples", f"{bits}-bit->8-bit"
    if image.mode in _MODES and image.mode != "F" and not (image.mode == "I" and bits > 8):
        yield _MODES[image.mode]
    yield from _tiff_losses(image)
    if image.format == "PPM" and _more_in_ppm(image, data):
        yield "several images in one file", "first image only"
    xmp = image.info.get("xmp", b"")
    if isinstance(xmp, bytes) and image.format in ("JPEG", "MPO"):
        # Editors cut the second image or the film away and leave the XMP that speaks of it: so both are looked for.
        if _GAIN_MAP.search(xmp) and data.find(_JPEG_START, 1) > 0:
            yield "an HDR gain map", "gain map dropped"
        if _MOTION_PHOTO.search(xmp) and _FILM_START in data:
            yield "a motion photo's film", "film dropped"


def sample_bits(image: ImageFile, data: bytes) -> int:
    """Bits of the widest sample in the file, 8 where nothing says otherwise; of a palette's index, 8."""
    if image.mode in ("P", "PA", "1"):
        return 8
    if image.format == "PNG" and data.startswith(_PNG_START):
        return data[_PNG_DEPTH_AT]
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if image.format == "PPM" and image.tile and image.mode != "F":
        arguments = image.tile[0][3]
        if isinstance(arguments, tuple) and len(arguments) == 2:
            return max(8, int(arguments[1]).bit_length())
    if image.format == "JPEG2000":
        return _jpeg_2000_bits(data)
    if image.format == "AVIF":
        return _avif_bits(data)
    return 16 if image.mode.startswith("I;16") else 32 if image.mode in ("I", "F") else 8


def _more_in_ppm(image: ImageFile, data: bytes) -> bool:
    """Whether another image follows: netpbm files may hold several, and Pillow reads the first."""
    if not image.tile or image.tile[0][0] != "raw":
        return False
    row = -(-image.width // 8) if image.mode == "1" else image.width * len(image.getbands())
    after = data[image.tile[0][2] + row * image.height :].lstrip()
    return len(after) > 2 and after[:1] == b"P" and after[1:2].isdigit()


def _tiff_losses(image: ImageFile) -> Iterator[tuple[str, str]]:
    if image.format != "TIFF":
        return
    tags = getattr(image, "tag_v2", {})
    if _DNG_VERSION in tags or _SUB_DIRECTORIES in tags or int(tags.get(_SUBFILE_TYPE, 0)) & 1:
        yield "a raw file or sub-images beside a preview", "preview only"
    extra = tags.get(_EXTRA_SAMPLES, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    if _PREMULTIPLIED in extra and image.mode not in _MODES:
        yield _MODES["RGBa"]
    if _UNSPECIFIED_SAMPLE in extra or len(extra) > 1:
        yield "an extra channel", "extra channel dropped"
    formats = tags.get(_SAMPLE_FORMAT, (1,))
    if 2 in (formats if isinstance(formats, tuple) else (formats,)) and image.mode == "L":
        yield "signed samples", "signed samples taken as unsigned"


def _jpeg_2000_bits(data: bytes) -> int:
    """From the SIZ segment at the start of the codestream: one byte a component, sign and bits - 1."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or start + 42 > len(data):
        return 8
    components = int.from_bytes(data[start + 40 : start + 42], "big")
    depths = data[start + 42 : start + 42 + 3 * components : 3]
    return max((8, *(16 if depth & 0x80 else (depth & 0x7F) + 1 for depth in depths)))


def _avif_bits(data: bytes) -> int:
    """From the AV1 configuration box: third byte, high_bitdepth and twelve_bit."""
    start = data.find(b"av1C")
    if start < 0 or start + 7 > len(data):
        return 8
    flags = data[start + 6]
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
