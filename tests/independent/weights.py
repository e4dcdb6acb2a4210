"""Weight files."""

import hashlib
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

PHOTO = ("photo/1", "photo/2")  # the second has groups of channels
TYPES = {"I8": "i1", "U8": "u1", "I16": "<i2", "I32": "<i4", "U32": "<u4", "F16": "<f2", "F32": "<f4"}


@dataclass(frozen=True)
class Weights:
    """A weight file: its digest, sizes and exact tensors; where all groups of channels but the last end."""

    digest: bytes
    latent: int
    hyper: int
    tensors: dict[str, np.ndarray]
    group_ends: tuple[int, ...] = ()

    @property
    def groups(self) -> list[slice]:
        """The latent channels of each group."""
        edges = (0, *self.group_ends, self.latent)
        assert all(first < end for first, end in pairwise(edges))
        return [slice(first, end) for first, end in pairwise(edges)]


def read_file(data: bytes, start: str = "") -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and those tensors whose names begin so: 8 bytes of header length, a JSON header, the values."""
    header_end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:header_end])
    metadata = header.pop("__metadata__")
    tensors = {
        name: np.frombuffer(
            data[header_end + entry["data_offsets"][0] : header_end + entry["data_offsets"][1]],
            TYPES[entry["dtype"]],
        ).reshape(entry["shape"])
        for name, entry in header.items()
        if name.startswith(start)
    }
    return metadata, tensors


def load_weights(path: Path) -> Weights:
    """The exact tensors of a lossy model."""
    data = path.read_bytes()
    metadata, tensors = read_file(data, "exact.")
    assert metadata["architecture"] in PHOTO
    config = json.loads(metadata["config"])
    ends = tuple(config.get("groups", ())) if metadata["architecture"] == "photo/2" else ()
    return Weights(hashlib.sha256(data).digest(), config["latent"], config["hyper"], tensors, ends)
