"""Codec ``original``: the source file's own bytes."""

from __future__ import annotations

import hashlib

from recbatch.codec.types import Encoded, Source
from recbatch.images import KeepOriginal, Picture


def keep(source: Source, reason: str, *, picture: Picture | KeepOriginal | None = None) -> Encoded:
    """The row of a file that is kept as it is; ``reason`` becomes a note."""
    return Encoded(
        codec="original",
        stream=source.data,
        stream_sha256=hashlib.sha256(source.data).digest(),
        width=picture.width if picture else 0,
        height=picture.height if picture else 0,
        mode=picture.mode if isinstance(picture, Picture) else "",
        source_format=picture.source_format if picture else "",
        notes=(f"kept as original: {reason}",),
    )
