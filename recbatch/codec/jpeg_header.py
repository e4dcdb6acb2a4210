"""How large a JPEG says it is, read from its markers before any library allocates for it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

START = b"\xff\xd8\xff"
MAX_SEGMENTS = 10_000  # before the frame; 64 KB each, so 600 MB of metadata
_NOT_FRAMES = frozenset({0xC4, 0xC8, 0xCC})  # tables and a reserved code, in the midst of the frame markers
_SCAN, _END = 0xDA, 0xD9
_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # markers without a length
_FRAME_BYTES = 8  # length 2, bits 1, height 2, width 2, components 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The size in a JPEG's frame header, in pixels."""

    width: int
    height: int
    components: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def is_jpeg(data: bytes) -> bool:
    """Whether bytes begin as a JPEG file does."""
    return data.startswith(START)


def read_frame(data: bytes) -> Frame | None:
    """The frame header of a JPEG file; None unless there is one, with a size, before the first scan.

    Source: ITU-T T.81, annex B.
    """
    at, frame = 2, None
    for _ in range(MAX_SEGMENTS):
        at = data.find(b"\xff", at)  # libraries skip what lies between segments, so it is skipped here too
        marker = data[at + 1] if 0 <= at < len(data) - 1 else _END
        if marker == _SCAN:
            return frame
        if marker == _END:
            return None
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            if frame:
                return None
            frame = _frame(data[at + 2 : at + 2 + _FRAME_BYTES])
            if not frame:
                return None
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _BARE:
            at += 2
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return None


def _frame(segment: bytes) -> Frame | None:
    if len(segment) < _FRAME_BYTES:
        return None
    height, width, components = struct.unpack_from(">HHB", segment, 3)
    if not (width and height and components):  # height 0: it follows after the first scan; too rare to try
        return None
    return Frame(width=width, height=height, components=components)
