"""Image files to streams and back: a model, a coder and the .rec container put together.

The codec takes bytes and gives bytes: it never sees a path, an archive or Ray. Whatever it returns has been decoded
again from its own bytes and measured; an image that can't be coded is an error value, not an exception. A file whose
stream would be larger, or whose pixels the codec can't represent, keeps its own bytes (codec ``original``).

A caller needs ``Settings``, ``ImageCodec`` (files to verified rows) and ``Decoder`` (streams to pictures). The first
use of the last two imports torch; ``Settings`` alone does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recbatch.codec.types import (
    BadSetting,
    Encoded,
    Settings,
    Source,
    level_of_quality,
    quality_of_level,
)

if TYPE_CHECKING:
    from recbatch.codec.decoder import Decoder, is_stream, read_any
    from recbatch.codec.image_codec import ImageCodec, NotWithoutLoss, VerificationFailed
    from recbatch.codec.needed import models_of

_HOMES = {
    "Decoder": "decoder",
    "ImageCodec": "image_codec",
    "NotWithoutLoss": "image_codec",
    "VerificationFailed": "image_codec",
    "is_stream": "decoder",
    "models_of": "needed",
    "read_any": "decoder",
}

__all__ = [
    "BadSetting",
    "Decoder",
    "Encoded",
    "ImageCodec",
    "NotWithoutLoss",
    "Settings",
    "Source",
    "VerificationFailed",
    "is_stream",
    "level_of_quality",
    "models_of",
    "quality_of_level",
    "read_any",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
