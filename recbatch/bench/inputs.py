"""What a benchmark runs on: the images of a folder, and the weights of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from recbatch.errors import UsageError
from recbatch.images import Metadata, Picture, read_picture, write_picture
from recbatch.models import weights

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})


class NoImages(UsageError):
    """There is nothing to measure on."""

    code = "no-images"

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"No images lie in {self.folder}. Give a folder of image files, for example the Kodak set."


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One file of the folder: its pixels, also as a PNG file without metadata."""

    name: str
    data: bytes
    picture: Picture

    @property
    def pixels(self) -> int:
        return self.picture.width * self.picture.height


def load_images(folder: str | Path, limit: int | None = None) -> list[Image]:
    """The images of a folder by name, evenly spread over it where ``limit`` is smaller. Raises NoImages."""
    root = Path(folder)
    if not root.is_dir():
        raise NoImages(str(folder))
    paths = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise NoImages(str(folder))
    if limit is not None and limit < len(paths):
        paths = [paths[i * len(paths) // limit] for i in range(max(1, limit))]
    out = []
    for path in paths:
        # pixels alone: the curves of other codecs have no metadata in them either
        picture = replace(read_picture(path.read_bytes(), convert=True), metadata=Metadata())
        out.append(Image(name=path.name, data=write_picture(picture, "png"), picture=picture))
    return out


def load_weights(model: str) -> bytes:
    """Safetensors bytes of a model of the package, or of a file. Raises UnknownModel."""
    if model.endswith(".safetensors"):
        return Path(model).read_bytes()
    return weights.read(model)
