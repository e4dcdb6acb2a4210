"""The alpha plane of a checked PNG file of 8-bit grey."""

import zlib

import numpy as np

from .errors import Corrupt, require


def read_alpha(png: bytes, width: int, height: int) -> np.ndarray:
    """Alpha [H, W]; the chunks were checked before."""
    try:
        raw = zlib.decompress(image_data(png))
    except zlib.error as error:
        raise Corrupt(f"alpha: {error}") from error
    require(len(raw) == height * (width + 1), "alpha: size")
    rows, above = [], [0] * width
    for start in range(0, len(raw), width + 1):
        above = unfiltered(raw[start], raw[start + 1 : start + 1 + width], above)
        rows.append(above)
    return np.array(rows, np.uint8)


def image_data(png: bytes) -> bytes:
    """What all IDAT chunks hold."""
    at, parts = 8, []
    while at < len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            parts.append(png[at + 8 : at + 8 + size])
        at += 12 + size
    return b"".join(parts)


def unfiltered(number: int, line: bytes, above: list[int]) -> list[int]:
    """A row from its filtered bytes and the row above it."""
    require(number < 5, "alpha: filter")
    row: list[int] = []
    for at, byte in enumerate(line):
        left, up = (row[at - 1], above[at - 1]) if at else (0, 0)
        guess = (0, left, above[at], (left + above[at]) >> 1, paeth(left, above[at], up))[number]
        row.append((byte + guess) & 255)
    return row


def paeth(left: int, above: int, corner: int) -> int:
    """The neighbour nearest to left + above - corner."""
    target = left + above - corner
    return min((left, above, corner), key=lambda value: abs(target - value))
