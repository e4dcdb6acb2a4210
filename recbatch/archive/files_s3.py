"""An archive's files in a bucket: each put is atomic, and an upload that was cut off is never seen."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError

PART_BYTES = 8 * 2**20  # of a large upload; each part has a request's time to arrive
IN_MEMORY_BYTES = 64 * 2**20  # a larger file waits for its upload on disk
AT_ONCE = 4
CREATE_ATTEMPTS = 3
PIECE_BYTES = 16 * 2**20  # of a long read, so that each request ends in its time
GAP_BYTES = 64 * 2**10  # between two ranges that are got in one request
_WRITER = "recbatch-writer"  # metadata that tells whose put it was


class S3Files:
    """Objects by names relative to a prefix of an obstore store."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def size(self, name: str) -> int:
        return int(obstore.head(self.store, name)["size"])

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[RangeFile]:
        with RangeFile(self.store, name, self.size(name)) as file:
            yield file

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Any]:
        # Nothing is sent until all is there: a failed block leaves no trace, not even a pending upload.
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as file:
            yield file
            size = file.tell()
            file.seek(0)
            obstore.put(
                self.store,
                name,
                file,
                use_multipart=size > PART_BYTES,
                chunk_size=PART_BYTES,
                max_concurrency=AT_ONCE,
            )

    def put(self, name: str, data: bytes) -> None:
        obstore.put(self.store, name, data, use_multipart=len(data) > PART_BYTES, chunk_size=PART_BYTES)

    def put_once(self, name: str, data: bytes) -> bool:
        """A refusal may be the echo of our own put whose answer was lost, so the object is asked whose it is.

        obstore repeats no conditional put whose connection broke, for that reason: here we may.
        """
        writer = uuid.uuid4().hex
        for attempt in range(CREATE_ATTEMPTS):
            time.sleep(0.5 * attempt)
            try:
                obstore.put(
                    self.store, name, data, mode="create", attributes={_WRITER: writer}, use_multipart=False
                )
                return True
            except AlreadyExistsError:
                return self._written_by(name) == writer
            except Exception:
                with contextlib.suppress(FileNotFoundError):
                    return self._written_by(name) == writer
                if attempt == CREATE_ATTEMPTS - 1:
                    raise
        return False

    def _written_by(self, name: str) -> str | None:
        found = obstore.get(self.store, name, options={"head": True}).attributes.get(_WRITER)
        return None if found is None else str(found)

    def names(self, folder: str) -> list[str]:
        found = obstore.list_with_delimiter(self.store, folder)["objects"]
        paths = (str(entry["path"]) for entry in found)
        # some stores list an emptied folder as an object of its own name
        return sorted(path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/"))

    def top(self) -> list[str]:
        """Names of what stands directly under the root, folders with a slash at their end."""
        found = obstore.list_with_delimiter(self.store)
        folders = [f"{prefix}/" for prefix in found["common_prefixes"]]
        return sorted([str(entry["path"]) for entry in found["objects"]] + folders)

    def delete(self, name: str) -> None:
        obstore.delete(self.store, name)


class RangeFile(io.RawIOBase):
    """A seekable file whose every read asks for just those bytes: Parquet knows what it needs."""

    def __init__(self, store: Any, name: str, size: int) -> None:
        super().__init__()
        self._store, self._name, self._size = store, name, size
        self._place = 0
        self._ready: dict[int, Any] = {}  # by their first byte, what ``fetch`` got

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Get ranges ahead of their reading, neighbours in one request; the next call forgets those left over."""
        short = [(start, stop) for start, stop in ranges if 0 < stop - start <= PIECE_BYTES]
        starts, stops = [start for start, _ in short], [stop for _, stop in short]
        self._ready = {}
        if short:
            found = obstore.get_ranges(self._store, self._name, starts=starts, ends=stops, coalesce=GAP_BYTES)
            self._ready = dict(zip(starts, found, strict=True))

    def read(self, size: int | None = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._size, self._place + size)
        ready = self._ready.get(self._place)
        if ready is not None and len(ready) == stop - self._place:
            self._place = stop
            return bytes(ready)
        pieces = []
        while self._place < stop:
            end = min(stop, self._place + PIECE_BYTES)
            pieces.append(obstore.get_range(self._store, self._name, start=self._place, end=end))
            self._place = end
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
