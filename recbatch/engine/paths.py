"""From keys to file names under a folder, safely, and the writing of one file there."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Collection

from recbatch.engine.errors import DestinationUnwritable, NameTaken, UnsafeKey
from recbatch.engine.names import name_of
from recbatch.errors import UsageError

SUFFIXES = {
    "png": (b".png", b".apng"),
    "webp": (b".webp",),
    "jpeg": (b".jpg", b".jpeg", b".jpe", b".jfif"),
    "tiff": (b".tif", b".tiff"),
}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def safe_name(key: str) -> bytes:
    """The relative path of a key, with '/' between its parts. Raises UnsafeKey for one that leads elsewhere."""
    name = name_of(key)
    if b"\0" in name:
        raise UnsafeKey(key, "it holds a zero byte")
    if name.startswith(b"/"):
        raise UnsafeKey(key, "it begins with '/'")
    parts = name.split(b"/")
    if b".." in parts or b"." in parts:
        raise UnsafeKey(key, "it has '.' or '..' as a part")
    if b"" in parts:
        raise UnsafeKey(key, "it has an empty part")
    return name


def with_suffix(name: bytes, format: str, taken: Collection[bytes]) -> bytes:
    """The name for a file of this format: ``a.jpg`` is ``a.png`` then, or ``a.jpg.png`` where that is another's."""
    suffixes = SUFFIXES[format]
    if name.lower().endswith(suffixes):
        return name
    folder, slash, last = name.rpartition(b"/")
    trunk, dot, _ = last.rpartition(b".")
    candidate = folder + slash + (trunk if dot and trunk else last) + suffixes[0]
    while candidate in taken:
        name += suffixes[0]
        candidate = name
    return candidate


def write_file(root: bytes, name: bytes, data: bytes, *, key: str, mtime_ns: int | None) -> None:
    """Write one file whole or not at all. ``root`` must be a real path.

    Raises UnsafeKey where the path leads out of the root, DestinationUnwritable for what hits every file.
    """
    path = os.path.join(root, name)
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, b".recbatch-" + uuid.uuid4().hex[:8].encode() + b".part")
    try:
        os.makedirs(folder, exist_ok=True)
        if os.path.commonpath([os.path.realpath(folder), root]) != root:
            raise UnsafeKey(key, f"{os.fsdecode(folder)} is a link that leads out of the folder")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
            if mtime_ns is not None:
                os.utime(temporary, ns=(mtime_ns, mtime_ns))
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DestinationUnwritable(os.fsdecode(path), error.strerror or str(error)) from error
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise UnsafeKey(key, "another image's file stands where its folder has to be") from error
        if isinstance(error, IsADirectoryError):
            raise NameTaken(key, os.fsdecode(path)) from error
        raise UnsafeKey(key, error.strerror or str(error)) from error


def make_root(destination: str) -> bytes:
    """The folder as a real path, made where there is none."""
    path = os.fsencode(destination)
    try:
        os.makedirs(path, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        kind = "a link that leads nowhere" if os.path.islink(path) else "a file"
        raise UsageError(f"{os.fsdecode(path)} is {kind}, not a folder. Name another place.") from None
    except OSError as error:
        raise DestinationUnwritable(destination, error.strerror or str(error)) from error
    return os.path.realpath(path)
