"""Archive large image corpora compactly, verified and queryable, with relative entropy coding on Ray.

    stream = recbatch.encode(image, quality=50)      # one picture to bytes and back
    image = recbatch.decode(stream)

    report = recbatch.compress("photos/", "photos.rba", quality=50)
    archive = recbatch.open("photos.rba")            # a mapping from key to record
    archive["a/b.jpg"].psnr, archive.image("a/b.jpg")
    recbatch.verify("photos.rba", level="pixels")
    recbatch.restore("photos.rba", "restored/")

Importing this module loads neither torch nor Ray nor pyarrow; the first call that needs one does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbatch.errors import CorruptData, ImageError, RecbatchError, StoreError, UsageError

if TYPE_CHECKING:
    from recbatch.api import (
        Archive,
        compress,
        decode,
        doctor,
        encode,
        open,
        plan,
        recompress,
        report,
        restore,
        vacuum,
        verify,
        versions,
    )

__version__ = "0.1.0"

__all__ = [
    "Archive",
    "CorruptData",
    "ImageError",
    "RecbatchError",
    "StoreError",
    "UsageError",
    "__version__",
    "compress",
    "decode",
    "doctor",
    "encode",
    "open",
    "plan",
    "recompress",
    "report",
    "restore",
    "vacuum",
    "verify",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'recbatch' has no attribute {name!r}")
    from recbatch import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
