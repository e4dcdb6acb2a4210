"""An archive's files in a folder: written whole and durably, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class LocalFiles:
    """Files by names relative to a folder. What goes wrong is an OSError, as the system says it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Any]:
        with open(self.folder / name, "rb") as file:
            yield file

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Any]:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb", buffering=1 << 20) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    path.unlink()
                with contextlib.suppress(OSError):
                    file.close()  # flushes; on a full disk it fails once more
                raise
        fsync(path.parent)

    def put(self, name: str, data: bytes) -> None:
        temporary = self._temporary(name, data)
        os.replace(temporary, self.folder / name)
        fsync((self.folder / name).parent)

    def put_once(self, name: str, data: bytes) -> bool:
        temporary, path = self._temporary(name, data), self.folder / name
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links here: nearly as good
            if path.exists():
                return False
            shutil.copyfile(temporary, path)
            fsync(path)
        finally:
            os.unlink(temporary)
        fsync(path.parent)
        return True

    def _temporary(self, name: str, data: bytes) -> Path:
        temporary = f"{name}.{uuid.uuid4().hex[:8]}.tmp"
        with self.writing(temporary) as file:
            file.write(data)
        return self.folder / temporary

    def names(self, folder: str) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self.folder / folder) if entry.is_file())

    def delete(self, name: str) -> None:
        (self.folder / name).unlink()


def fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
