"""Weight files: safetensors bytes, named by their SHA-256."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from recbatch.errors import CorruptData, UsageError

if TYPE_CHECKING:
    from torch import Tensor  # the driver of a job reads weights, and needs no torch

ZOO = resources.files("recbatch.models") / "zoo"
DIGEST_HEAD = 8  # bytes of a digest that a stream carries


class UnknownModel(UsageError):
    """No model of this name or digest is at hand."""

    code = "unknown-model"

    def __init__(self, name: str, known: str) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        return (
            f"There is no model '{self.name}'. Known models: {self.known}; "
            "see 'recbatch models ls', or give a .safetensors file."
        )


class WrongModel(UsageError):
    """A model of another kind than the coding at hand needs."""

    code = "wrong-model"

    def __init__(self, name: str, needed: str, remedy: str) -> None:
        super().__init__(name, needed, remedy)
        self.name, self.needed, self.remedy = name, needed, remedy

    def __str__(self) -> str:
        return f"The model '{self.name}' is no model for {self.needed}. {self.remedy}."


class BadWeights(CorruptData):
    """A weight file is damaged or not a model."""

    code = "bad-weights"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"The weights of model '{self.name}' can't be used: {self.problem}. Fetch the file again."


def digest(data: bytes) -> bytes:
    """SHA-256 (32 bytes) of a weight file: what ``sha256sum`` says of the file in any archive."""
    return hashlib.sha256(data).digest()


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file's bytes: the same for the same tensors and metadata, in whatever order they come."""
    from safetensors.torch import save

    ordered = {k: tensors[k].contiguous() for k in sorted(tensors)}
    return _in_order(bytes(save(ordered, metadata=dict(metadata))))


def _in_order(data: bytes) -> bytes:
    """A safetensors file with the keys of its header sorted: safetensors writes metadata in the order of a hash.

    Offsets in the header count from its end, so that its length may change.
    """
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def parse(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file's bytes. Raises BadWeights."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        (length,) = struct.unpack_from("<Q", data)
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        return dict(load(data)), dict(metadata)
    except (SafetensorError, ValueError, struct.error, AttributeError) as e:
        raise BadWeights("?", str(e).splitlines()[0]) from e


def stored(data: bytes, name: str) -> bytes | None:
    """The bytes of one tensor as the file holds them; None where it holds none of this name. Raises BadWeights."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        found = json.loads(data[8 : 8 + length]).get(name)
        if found is None:
            return None
        begin, end = found["data_offsets"]
        return data[8 + length + begin : 8 + length + end]
    except (ValueError, TypeError, KeyError, struct.error, AttributeError) as e:
        raise BadWeights("?", str(e).splitlines()[0]) from e


def architecture(data: bytes) -> str:
    """What kind of model a weight file holds. Raises BadWeights."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        found = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get("architecture", "")
    except (ValueError, struct.error, AttributeError) as e:
        raise BadWeights("?", str(e).splitlines()[0]) from e
    return str(found)


def check_kind(data: bytes, kind: str, *, name: str) -> None:
    """Refuse a weight file but of ``photo`` (lossy) or ``exact`` (lossless) models. Raises WrongModel, BadWeights."""
    if architecture(data).partition("/")[0] == kind:
        return
    if kind == "photo":
        raise WrongModel(name, "lossy coding", "Name a lossy one, such as photo-s2, or leave --model out")
    raise WrongModel(name, "lossless coding", "Add --quality to code with loss, or leave --model out")


def names() -> list[str]:
    """Models that come with the package."""
    return sorted(
        f.name.removesuffix(".safetensors") for f in ZOO.iterdir() if f.name.endswith(".safetensors")
    )


@cache
def read(name: str) -> bytes:
    """The weight file of a model of the package's zoo, or of a path to a .safetensors file. Raises UnknownModel."""
    if name.endswith(".safetensors") and Path(name).is_file():
        return Path(name).read_bytes()
    if name not in names():
        raise UnknownModel(name, ", ".join(names()) or "none")
    return (ZOO / f"{name}.safetensors").read_bytes()


@cache
def zoo() -> dict[bytes, str]:
    """Digest head to name, for every model of the zoo."""
    return {digest(read(name))[:DIGEST_HEAD]: name for name in names()}


def find(head: bytes) -> bytes:
    """The zoo's weight file whose digest begins with ``head`` (4 or 8 bytes). Raises UnknownModel."""
    known = zoo()
    for whole, name in known.items():
        if whole.startswith(head):
            return read(name)
    raise UnknownModel(head.hex(), ", ".join(sorted(k.hex() for k in known)) or "none")
