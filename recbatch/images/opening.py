"""A file's bytes as a Pillow image whose header is read and whose pixels are not.

Not ``Image.open``: its guard against large images is a module global and a warning, it tries formats that we
don't want, and it says nothing about why a file was refused.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from recbatch.images.errors import EmptyFile, ImageTooLarge, KeepOriginal, NotAnImage, TruncatedImage

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# Pillow's name, its module, whether its first bytes are proof enough that a failure means damage
_READ = (
    ("JPEG", "JpegImagePlugin", True),
    ("PNG", "PngImagePlugin", True),
    ("WEBP", "WebPImagePlugin", True),
    ("TIFF", "TiffImagePlugin", True),
    ("GIF", "GifImagePlugin", True),
    ("BMP", "BmpImagePlugin", False),
    ("PPM", "PpmImagePlugin", False),
    ("JPEG2000", "Jpeg2KImagePlugin", True),
    ("AVIF", "AvifImagePlugin", True),
    ("QOI", "QoiImagePlugin", True),
)

# images that we know and do not decode: (offset, bytes, name)
_KEPT = (
    (0, b"\xff\x0a", "jxl"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
    (4, b"ftyphei", "heif"),
    (4, b"ftyphev", "heif"),
    (4, b"ftypmif1", "heif"),
    (4, b"ftypmsf1", "heif"),
    (0, b"8BPS", "psd"),
    (0, b"v/1\x01", "exr"),
    (0, b"DDS ", "dds"),
)

_quiet_lock = threading.Lock()
_quiet_count = 0
_saved_filters: warnings.catch_warnings | None = None  # type: ignore[type-arg]


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings raised inside Pillow: what they warn of is noted or refused here.

    ``catch_warnings`` swaps a process-wide list, so threads that decode at the same time share one swap.
    """
    global _quiet_count, _saved_filters
    with _quiet_lock:
        _quiet_count += 1
        if _quiet_count == 1:
            _saved_filters = warnings.catch_warnings()
            _saved_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_count -= 1
            if _quiet_count == 0 and _saved_filters is not None:
                _saved_filters.__exit__(None, None, None)
                _saved_filters = None


def open_image(data: bytes, *, max_pixels: int) -> ImageFile:
    """The image with its header read, its size checked, no pixel decoded.

    Raises EmptyFile, NotAnImage, TruncatedImage, ImageTooLarge; KeepOriginal for formats that Pillow lacks.
    """
    from PIL import Image

    if not data:
        raise EmptyFile
    problem: Exception | None = None
    for name, module, certain in _READ:
        import_module(f"PIL.{module}")
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(data[:16])
        if isinstance(accepted, str):
            raise KeepOriginal(f"{name.lower()} can't be decoded by this Pillow", source_format=name.lower())
        if not accepted:
            continue
        try:
            image = factory(io.BytesIO(data), "")
        except Image.DecompressionBombError:
            raise ImageTooLarge(0, 0, max_pixels) from None
        except Exception as error:  # Pillow raises what it stumbles over
            if certain:
                problem = TruncatedImage(f"its {name} header can't be read ({_said(error)})")
            continue
        if image.width < 1 or image.height < 1:
            problem = TruncatedImage(f"its {name} header says {image.width} x {image.height} pixels")
            continue
        if image.width * image.height > max_pixels:
            raise ImageTooLarge(image.width, image.height, max_pixels)
        return image
    for offset, mark, name in _KEPT:
        if data[offset : offset + len(mark)] == mark:
            raise KeepOriginal(f"{name} is not decoded here", source_format=name)
    raise problem or NotAnImage("no format that is read here begins like it")


def load_pixels(image: ImageFile, data: bytes, *, max_pixels: int) -> None:
    """Decode. Raises TruncatedImage, with the decoder's reason, or ImageTooLarge."""
    from PIL import Image

    if (image.format == "PNG" and not _png_ends(data)) or (
        image.format == "JPEG2000" and not _jpeg_2000_ends(data)
    ):
        raise TruncatedImage(f"{len(data)} bytes hold no end mark")  # these decode without a word otherwise
    try:
        image.load()
    except Image.DecompressionBombError:
        raise ImageTooLarge(image.width, image.height, max_pixels) from None
    except Exception as error:  # Pillow raises what it stumbles over
        raise TruncatedImage(_said(error)) from None


def _png_ends(data: bytes) -> bool:
    """Whether the chunks lead to IEND: what follows the pixels may hold metadata."""
    offset = 8
    while offset + 12 <= len(data):
        if data[offset + 4 : offset + 8] == b"IEND":
            return True
        offset += 12 + int.from_bytes(data[offset : offset + 4], "big")
    return False


def _jpeg_2000_ends(data: bytes) -> bool:
    """Whether the codestream, in boxes or bare, reaches its end mark."""
    if data.startswith(b"\xff\x4f"):
        return data.rstrip(b"\0").endswith(b"\xff\xd9")
    offset = 0
    while offset + 8 <= len(data):
        size, start = int.from_bytes(data[offset : offset + 4], "big"), offset + 8
        if size == 1:
            size, start = int.from_bytes(data[offset + 8 : offset + 16], "big"), offset + 16
        end = len(data) if size == 0 else offset + size
        if data[offset + 4 : offset + 8] == b"jp2c":
            return end <= len(data) and data[start:end].endswith(b"\xff\xd9")
        if end <= offset:
            return False
        offset = end
    return False


def _said(error: Exception) -> str:
    """An exception's message without a full stop, or its class where it says nothing."""
    return str(error).strip().rstrip(".").splitlines()[0] if str(error).strip() else type(error).__name__
