"""A tile as WebP: the file that a section stands for, read by Pillow."""

import io

import numpy as np
from PIL import Image

from .errors import Corrupt, require


def decode_tile(code: bytes, height: int, width: int) -> np.ndarray:
    """Pixels [H, W, 3]."""
    try:
        with Image.open(io.BytesIO(webp_file(code, height, width)), formats=["WEBP"]) as image:
            require(image.size == (width, height), "WebP of another size")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise Corrupt(f"WebP: {error}") from error


def webp_file(code: bytes, height: int, width: int) -> bytes:
    """Signature, 14 bits of width - 1, 14 of height - 1, four zero bits; the chunk; the file."""
    chunk = b"\x2f" + (width - 1 + ((height - 1) << 14)).to_bytes(4, "little") + code
    body = b"WEBPVP8L" + len(chunk).to_bytes(4, "little") + chunk + bytes(len(chunk) % 2)
    return b"RIFF" + len(body).to_bytes(4, "little") + body
