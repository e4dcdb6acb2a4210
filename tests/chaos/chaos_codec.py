"""A codec with traps: at a certain image its worker is killed, freezes, lingers, or finds the disk full.

A trap is an empty file in a folder, named by what it does and the image that springs it. It is taken away as it
springs, so it springs once, in whichever process comes first; only a poison stays. Beside the traps the workers keep a
journal: who lived, and which shards were begun.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from engine_fakes import BadFake, FakeEncoded

from recbatch.archive.store import Store
from recbatch.engine.actor import EncodeWorker

CODEC = "chaos_codec:TrapCodec"
LINGERS_S = 600.0  # at most: what was forgotten must end by itself
AT_WRITE = ("killed-before-write", "killed-in-write", "killed-after-write", "frozen-in-write")
SPOILT_FILES = ("full-disk", "file-lost", "file-cut")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrapSettings:
    """``folder`` holds the traps and the journal."""

    mode: str = "original"
    folder: str = ""
    sleep_s: float = 0.0


class Traps:
    """The folder, as workers, drivers and tests see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = folder / "journal"

    def set(self, kind: str, key: str) -> None:
        self._path(kind, key).touch()

    def waits(self, kind: str, key: str) -> bool:
        return self._path(kind, key).exists()

    def springs(self, kind: str, key: str) -> bool:
        path = self._path(kind, key)
        if kind == "poison":
            return path.exists()
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / f"{kind}@{key.replace('/', '+')}"

    def note(self, what: str, **facts: Any) -> None:
        """One line, whole whatever dies: a single write to a file that is only appended to."""
        line = json.dumps({"what": what, "pid": os.getpid(), **facts}) + "\n"
        handle = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def notes(self, what: str) -> list[dict[str, Any]]:
        if not self._journal.exists():
            return []
        lines = [json.loads(line) for line in self._journal.read_text().splitlines()]
        return [line for line in lines if line["what"] == what]

    def release(self) -> None:
        """Let go on whoever lingers."""
        (self.folder / "go").touch()

    def linger(self) -> None:
        until = time.monotonic() + LINGERS_S
        while not (self.folder / "go").exists() and time.monotonic() < until:
            time.sleep(0.02)


class TrapCodec:
    def __init__(self, settings: TrapSettings, *, weights: list[bytes] | None, device: str) -> None:
        self._traps = Traps(Path(settings.folder))
        self._sleep_s = settings.sleep_s
        self._at_write: list[str] = []
        self._traps.note("hello", born=psutil.Process().create_time())
        self._watch()

    def warm_up(self) -> None:
        pass

    def encode(self, sources: Any) -> list[Any]:
        return [self._encode(source) for source in sources]

    def _encode(self, source: Any) -> Any:
        time.sleep(self._sleep_s)
        key, springs = source.name, self._traps.springs
        if springs("killed", key) or springs("poison", key):
            os.kill(os.getpid(), signal.SIGKILL)
        if springs("frozen", key):
            self._freeze()
        if springs("lingers", key):
            self._traps.note("lingers")
            self._traps.linger()
        self._at_write.extend(kind for kind in AT_WRITE + SPOILT_FILES if springs(kind, key))
        return BadFake(key) if "bad" in key else FakeEncoded(stream=source.data)

    def _freeze(self) -> None:
        self._traps.note("frozen")
        os.kill(os.getpid(), signal.SIGSTOP)

    def _watch(self) -> None:
        """From here on this process tells of its shards, and springs what its writes are to meet."""
        run, writing, traps, armed = EncodeWorker.run, Store.writing, self._traps, self._at_write

        def noted_run(worker: EncodeWorker, shard: Any, watch: Any) -> Any:
            armed.clear()
            if not watch.stopping:
                traps.note("begun", shard=shard.name)
            return run(worker, shard, watch)

        @contextlib.contextmanager
        def trapped_writing(store: Store, name: str) -> Any:
            if "killed-before-write" in armed:
                os.kill(os.getpid(), signal.SIGKILL)
            with writing(store, name) as sink:
                self._spoil(sink)
                yield sink
            if "killed-after-write" in armed:
                os.kill(os.getpid(), signal.SIGKILL)
            if "file-lost" in armed:
                os.unlink(Path(store.url) / name)
            if "file-cut" in armed:
                os.truncate(Path(store.url) / name, sink.size // 2)

        EncodeWorker.run = noted_run  # type: ignore[method-assign]
        Store.writing = trapped_writing  # type: ignore[method-assign]

    def _spoil(self, sink: Any) -> None:
        """A part of the file reaches the disk before its writer is stopped."""
        write, writes = sink.write, []

        def spoilt(data: Any) -> int:
            writes.append(data)
            if len(writes) == 3:
                if "full-disk" in self._at_write:
                    raise OSError(errno.ENOSPC, "No space left on device")
                if hasattr(sink._file, "flush"):
                    sink._file.flush()
                if "killed-in-write" in self._at_write:
                    os.kill(os.getpid(), signal.SIGKILL)
                if "frozen-in-write" in self._at_write:
                    self._freeze()
            return int(write(data))

        sink.write = spoilt
