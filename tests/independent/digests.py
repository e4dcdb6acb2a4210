"""Short digests."""

import numpy as np
import xxhash


def short_digest(data: bytes) -> bytes:
    """The lower 32 bits of XXH3-64, little-endian."""
    return (xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF).to_bytes(4, "little")


def array_bytes(array: np.ndarray, dtype: str) -> bytes:
    """Values in C order in the given little-endian type; what does not fit is an error, not a wrap."""
    converted = array.astype(dtype)
    assert np.array_equal(converted, array)
    return converted.tobytes()
