"""Image files to streams and back: a model, a coder and the .rec container put together.

The codec takes bytes and gives bytes: it never sees a path, an archive or Ray. Whatever it returns has been decoded
again from its own bytes and measured; an image that can't be coded is an error value, not an exception. A file whose
stream would be larger, or whose pixels the codec can't represent, keeps its own bytes (codec ``original``).

A caller needs ``Settings``, ``ImageCodec`` (files to verified rows) and ``Decoder`` (streams to pictures). Importing
this package imports torch; everything above it does so inside functions.
"""

from recbatch.codec.decoder import Decoder, is_stream, read_any
from recbatch.codec.image_codec import ImageCodec, VerificationFailed, model_weights
from recbatch.codec.types import (
    BadSetting,
    Encoded,
    Settings,
    Source,
    level_of_quality,
    quality_of_level,
)

__all__ = [
    "BadSetting",
    "Decoder",
    "Encoded",
    "ImageCodec",
    "Settings",
    "Source",
    "VerificationFailed",
    "is_stream",
    "level_of_quality",
    "model_weights",
    "quality_of_level",
    "read_any",
]
