"""The arrays that ship with the format, proven by their digests."""

import hashlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[2] / "recbatch" / "rec"
TRELLIS_SHA256 = "2e319e3febcc733e04f11385bf9d07df32302fc7d9e5a8d3459a9b127f6ad73d"
IREC_SHA256 = "67074732e396aaff648acc520f3e82d3de4baf8f8932f158cc91e80cf13899ad"
SCALES = 151
TRELLIS_FORM = {
    "rate": ("<u2", (SCALES,)),
    "kind": ("u1", (SCALES,)),
    "wide": ("u1", (SCALES,)),
    "shift": ("u1", (SCALES,)),
    "delta": ("<i4", (SCALES,)),
    "offsets": ("<i4", (SCALES, 256)),
    "inverse": ("<u4", (SCALES,)),
    "density": ("<u4", (SCALES, 513)),
    "mass": ("<u4", (SCALES, 9)),
    "centroid": ("<i4", (SCALES, 8)),
}
IREC_FORM = {
    "normal": ("<i2", (4096,)),
    "ratio": ("<u4", (8192,)),
    "sigma": ("<u4", (SCALES,)),
    "rate": ("<u2", (SCALES,)),
}

Tables = dict[str, np.ndarray]


def load(name: str, form: dict[str, tuple[str, tuple[int, ...]]]) -> Tables:
    """Arrays of a file in their declared types, order and shapes."""
    with np.load(FOLDER / name, allow_pickle=False) as arrays:
        tables = {key: arrays[key] for key in form}
    for key, (dtype, shape) in form.items():
        assert tables[key].dtype == np.dtype(dtype), key
        assert tables[key].shape == shape, key
    return tables


def trellis_tables() -> Tables:
    """Coder 1's tables by scale index, as int64 so that products fit."""
    tables = load("tables.npz", TRELLIS_FORM)
    digest = hashlib.sha256()
    for name, array in tables.items():
        digest.update(name.encode() + b"\0" + array.tobytes())
    assert digest.hexdigest() == TRELLIS_SHA256
    return widened(tables)


def irec_tables() -> Tables:
    """Coder 2's tables, as int64 so that products fit."""
    tables = load("irec_tables.npz", IREC_FORM)
    assert hashlib.sha256(b"".join(array.tobytes() for array in tables.values())).hexdigest() == IREC_SHA256
    return widened(tables)


def widened(tables: Tables) -> Tables:
    """The same values as int64."""
    return {name: array.astype(np.int64) for name, array in tables.items()}
