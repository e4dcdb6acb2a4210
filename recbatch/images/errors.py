"""What can be wrong with one image.

ImageError
+-- EmptyFile          no bytes
+-- NotAnImage         no format that we read
+-- TruncatedImage     begins as an image, but can't be decoded to its end
+-- ImageTooLarge      more pixels than allowed, by its own header
+-- KeepOriginal       a good image whose pixels 8-bit grey or RGB can't hold: its bytes are kept as they are
UsageError
+-- CannotWrite        the format asked for can't hold the picture
"""

from __future__ import annotations

from recbatch.errors import ImageError, UsageError


class EmptyFile(ImageError):
    """A source file has no bytes."""

    code = "empty-file"

    def __str__(self) -> str:
        return "The file is empty. Fetch it again or leave it out with --exclude."


class NotAnImage(ImageError):
    """A source file is in no image format that recbatch reads."""

    code = "not-an-image"

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        because = f": {self.reason}" if self.reason else ""
        return f"The file is no image that can be read{because}. Look at it, or leave it out with --exclude."


class TruncatedImage(ImageError):
    """A source file begins as an image, but is cut short or damaged."""

    code = "truncated-image"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"The image is cut short or damaged: {self.reason}. Fetch a whole copy and run again."


class ImageTooLarge(ImageError):
    """An image's header names more pixels than allowed; nothing was decoded."""

    code = "image-too-large"

    def __init__(self, width: int, height: int, max_pixels: int) -> None:
        super().__init__(width, height, max_pixels)
        self.width, self.height, self.max_pixels = width, height, max_pixels

    def __str__(self) -> str:
        size = f"{self.width} x {self.height} pixels" if self.width else "too many pixels"
        return f"The image says {size}, the limit is {self.max_pixels}. Raise --max-pixels if you trust it."


class KeepOriginal(ImageError):
    """A good image whose pixels would lose something; its file's bytes are kept instead.

    ``width``, ``height`` and ``source_format`` are 0 and "" where they are not known.
    """

    code = "keep-original"

    def __init__(self, reason: str, width: int = 0, height: int = 0, source_format: str = "") -> None:
        super().__init__(reason, width, height, source_format)
        self.reason, self.width, self.height, self.source_format = reason, width, height, source_format

    def __str__(self) -> str:
        return (
            f"The image can't become 8-bit grey or RGB without loss: {self.reason}. "
            f"Keep the file's own bytes (--keep-originals) or allow the conversion."
        )


class CannotWrite(UsageError):
    """The image format asked for can't hold the picture."""

    code = "cannot-write"

    def __init__(self, format: str, reason: str) -> None:
        super().__init__(format, reason)
        self.format, self.reason = format, reason

    def __str__(self) -> str:
        return f"The picture can't be written as {self.format}: {self.reason}. Choose another format: png."
