"""Small real archives; streams are bytes that no decoder knows."""

from __future__ import annotations

import hashlib
from pathlib import Path

from recbatch.archive import Patience, Record

HASTY = Patience(turns=6, sleep=lambda _: None)


def noise(seed: str, size: int) -> bytes:
    """Bytes as incompressible as a stream, the same for the same seed."""
    return hashlib.shake_128(seed.encode()).digest(size)


def image(key: str, size: int = 500, *, state: str = "first") -> Record:
    return Record(
        key=key,
        codec="lossy",
        stream=noise(key + state, size),
        source_size=3 * size,
        source_etag=state,
        source_mtime=1_700_000_000_123_456_789,
        width=40,
        height=30,
        mode="RGB",
        model="",  # as if kept as it was: no weights need lie beside the table
        level=16,
    )


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def quarantined(key: str) -> Record:
    return Record(
        key=key, status="quarantined", source_size=9, error_code="not-an-image", error="It is text."
    )
