"""The code that a job takes along: this very recbatch, as one small archive, and nothing beside it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import recbatch
from recbatch.engine.cluster_errors import PackageTooLarge

LIMIT_BYTES = 100 << 20  # of a request to Ray's job server; it names another number in its warnings
RESERVE_BYTES = 64 << 10  # for what goes with it
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files make the same bytes, which Ray then knows already


def write_package(target: Path, *, root: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> int:
    """Write the package's files as a zip; returns its size in bytes. Raises PackageTooLarge.

    Tests, caches and whatever else lies beside the package's folder stay here.
    """
    root = root or Path(recbatch.__file__).parent
    files = list(package_files(root))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for file in files:
            entry = zipfile.ZipInfo(f"{root.name}/{file.relative_to(root).as_posix()}", EPOCH)
            entry.external_attr = 0o644 << 16
            # weights are noise: packing them would take a second and save nothing
            entry.compress_type = (
                zipfile.ZIP_STORED if file.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
            )
            archive.writestr(entry, file.read_bytes())
    size = target.stat().st_size
    if size > limit_bytes - RESERVE_BYTES:
        largest = max(files, key=lambda file: file.stat().st_size)
        raise PackageTooLarge(size, limit_bytes, largest.relative_to(root).as_posix())
    return size


def package_files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root).parts
        if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in inside):
            yield path
