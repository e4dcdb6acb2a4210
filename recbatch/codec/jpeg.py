"""A JPEG file in fewer bytes, and the very same file back.

No pixel codec does that: decoding a JPEG to pixels multiplies what has to be coded. Here its coefficients are coded
anew, by JPEG XL's transcoding or, where the optional package is installed, by Lepton. Both come from libraries, and
libraries fail on files in the wild, so nothing is returned that was not decoded and compared first.

Damage to a recoded stream that still decodes is not seen here: whoever stores streams keeps a checksum beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recbatch.codec import jpeg_xl, lepton
from recbatch.codec.jpeg_header import Frame, is_jpeg, read_frame
from recbatch.errors import CorruptStream
from recbatch.stream import StreamTooLarge

MAX_PIXELS = 150_000_000  # Lepton takes up to 13 bytes a pixel: 2 GB; JPEG XL has a limit of its own
SAMPLES_PER_BYTE = 512  # a whole JPEG spends a bit at least on each block of 64 samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Recoded:
    """A JPEG file in other bytes that were seen to give it back."""

    data: bytes
    method: str  # "jxl" or "lepton"


def recode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Recoded | None:
    """The smallest proved form of a JPEG file; None where none is smaller than the file. Never raises on bytes."""
    frame = read_frame(data) if is_jpeg(data) else None
    if frame is None or frame.pixels > min(max_pixels, MAX_PIXELS):
        return None
    if frame.pixels * frame.components > SAMPLES_PER_BYTE * len(data):
        return None  # cut short, or made to exhaust memory
    best = None
    try:
        for candidate in _candidates(data, frame):
            smaller = len(candidate.data) < len(best.data if best else data)
            if smaller and _gives(candidate.data, data):
                best = candidate
    except MemoryError:
        pass  # what was proved before is still good
    return best


def restore(data: bytes, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """The JPEG file of a recoded stream.

    Raises:
        CorruptStream: the bytes are no recoded JPEG, or are damaged.
        StreamTooLarge: they claim more pixels than allowed; nothing was decoded.
        MissingRecoder: the package that reads them is not installed.
    """
    if data.startswith(jpeg_xl.MAGIC):
        rebuilt = jpeg_xl.decode(data, max_pixels=max_pixels)
    elif data.startswith(lepton.MAGIC):
        rebuilt = lepton.decode(data, max_pixels=max_pixels)
    else:
        raise CorruptStream("it does not begin as a recoded JPEG", 0)
    if rebuilt is None or not is_jpeg(rebuilt):
        raise CorruptStream("the JPEG file can't be rebuilt from it")
    return rebuilt


def is_recoded(data: bytes) -> bool:
    """Whether bytes look like a stream for ``restore``.

    Someone's own JPEG XL file that holds a JPEG looks the same: where both can occur, let the row say which it is.
    """
    return data.startswith(lepton.MAGIC) or jpeg_xl.holds_jpeg(data)


def _candidates(data: bytes, frame: Frame) -> Iterator[Recoded]:
    if frame.pixels <= jpeg_xl.MAX_PIXELS_ENCODED:
        recoded = jpeg_xl.encode(data)
        if recoded is not None:
            yield Recoded(data=recoded, method="jxl")
    recoded = lepton.encode(data, frame)
    if recoded is not None:
        yield Recoded(data=recoded, method="lepton")


def _gives(recoded: bytes, data: bytes) -> bool:
    """Whether a stream gives the file back, byte for byte."""
    try:
        return restore(recoded) == data
    except (CorruptStream, StreamTooLarge):
        return False


__all__ = ["MAX_PIXELS", "Recoded", "is_jpeg", "is_recoded", "recode", "restore"]
