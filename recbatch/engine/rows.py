"""What an archived row is worth: its picture, the source's very file where the row holds it, and its preview.

Everything that a row promises by a SHA-256 is compared with it here, so restore, get and verify agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from recbatch import stream
from recbatch.errors import CorruptData

if TYPE_CHECKING:
    from recbatch.archive import Record
    from recbatch.images import Picture

Decode: TypeAlias = "Callable[[bytes], Picture]"

FILE_CODECS = (
    "original",
    "jpeg",
)  # their streams are files in their own bytes or in fewer; the others hold pixels
MAX_PIXELS = 10**9  # what an archive holds was within its limit when it was written
PREVIEW_COLUMNS = ("status", "codec", "preview", "error_code", "error")
CONTENT_COLUMNS = (
    *("status", "codec", "stream", "stream_sha256", "source_format", "source_sha256", "pixels_sha256"),
    *("error_code", "error"),
)


class WrongRestoration(CorruptData):
    """What a row restores is not what was archived, though its stream is whole."""

    code = "wrong-restoration"

    def __init__(self, key: str, what: str, want: str, got: str) -> None:
        super().__init__(key, what, want, got)
        self.key, self.what, self.want, self.got = key, what, want, got

    def __str__(self) -> str:
        return (
            f"{self.key}: the {self.what} restored from it have the SHA-256 {self.got}, the row says {self.want}. "
            "Restore it where 'recbatch verify --level pixels' finds nothing wrong, or archive the source anew."
        )


class Content:
    """One row with its stream. ``decode`` gives the picture of a .rec stream; it is called once at most.

    Both ``picture`` and ``file`` raise CorruptStream, WrongRestoration, and what the decoders raise.
    """

    def __init__(self, row: Record, decode: Decode) -> None:
        self._row, self._decode = row, decode
        self._data = row.stream or b""

    @cached_property
    def picture(self) -> Picture:
        """Decoded, and compared with the row's digest of the pixels."""
        from recbatch.images import pixels_sha256, read_picture

        if self._row.codec in FILE_CODECS:
            return read_picture(self.file() or b"", max_pixels=MAX_PIXELS, convert=True)
        picture = self._decode(self._data)
        if self._row.pixels_sha256 is not None:
            self._compare("pixels", self._row.pixels_sha256, pixels_sha256(picture))
        return picture

    def file(self) -> bytes | None:
        """The source's very file; None where the row holds only its pixels. Raises OtherZlib, MissingRecoder too."""
        if self._row.codec == "original":
            return self._data
        if self._row.codec == "jpeg":
            from recbatch.codec import jpeg

            return self._as_source(jpeg.restore(self._data))
        recipe = recipe_of(self._data) if self._row.codec == "lossless" else None
        if recipe is None:
            return None
        from recbatch.images.png import rebuild

        return self._as_source(rebuild(recipe, self.picture.pixels, self.picture.alpha))

    def _as_source(self, data: bytes) -> bytes:
        if self._row.source_sha256 is not None:
            self._compare("bytes of the file", self._row.source_sha256, hashlib.sha256(data).digest())
        return data

    def _compare(self, what: str, want: bytes, got: bytes) -> None:
        if got != want:
            raise WrongRestoration(self._row.key, what, want.hex(), got.hex())


def recipe_of(data: bytes) -> bytes | None:
    """What rebuilds the source's file from the pixels of a lossless stream; None where it has no such section."""
    if stream.SECTION_FILE not in stream.header(data).sections:
        return None
    return stream.parse(data, max_pixels=MAX_PIXELS).sections[stream.SECTION_FILE]


def preview_stream(row: Record) -> bytes:
    """The lossy stream of a lossless row's preview, from its column ``preview`` or its whole stream; b"" without."""
    data = row.preview or (row.stream if row.codec == "lossless" else None)
    return stream.preview(data) if data else b""


def preview(row: Record, decode: Decode) -> Picture:
    """A row's preview: read from the column ``preview`` alone where it is filled, else the image itself, decoded."""
    data = preview_stream(row)
    return decode(data) if data else Content(row, decode).picture


def for_browsing(picture: Picture, format: str) -> Picture:
    """A picture that any format holds: no EXIF or XMP, which may be large, and for a JPEG no alpha but white."""
    import numpy as np

    from recbatch.images import Metadata, Picture

    pixels, alpha = picture.pixels, picture.alpha
    if alpha is not None and format == "jpeg":
        weight_HW1 = alpha[:, :, None].astype(np.uint16)
        mixed = (pixels * weight_HW1 + 255 * (255 - weight_HW1) + 127) // 255
        pixels, alpha = mixed.astype(np.uint8), None
    return Picture(
        pixels=pixels,
        alpha=alpha,
        metadata=Metadata(icc=picture.metadata.icc),
        notes=picture.notes,
        source_format=picture.source_format,
    )
