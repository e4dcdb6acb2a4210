"""The Python API behind ``import recbatch``; the command line calls these functions and nothing else.

Heavy modules (torch, Ray, pyarrow) are imported by the function that needs them, never here.
"""

from recbatch.api.archives import Archive, QuarantinedImage, open, pixel_check, verify
from recbatch.api.common import ModesConflict, make_settings
from recbatch.api.jobs import compress, restore
from recbatch.api.single import (
    StreamInfo,
    UnknownFormat,
    decode,
    decode_file,
    encode,
    encode_measured,
    file_format,
    image_bytes,
    read_image,
    stream_info,
)
from recbatch.api.zoo import ModelCheck, ModelInfo, model, model_names, verify_model

__all__ = [
    "Archive",
    "ModelCheck",
    "ModelInfo",
    "ModesConflict",
    "QuarantinedImage",
    "StreamInfo",
    "UnknownFormat",
    "compress",
    "decode",
    "decode_file",
    "encode",
    "encode_measured",
    "file_format",
    "image_bytes",
    "make_settings",
    "model",
    "model_names",
    "open",
    "pixel_check",
    "read_image",
    "restore",
    "stream_info",
    "verify",
    "verify_model",
]
