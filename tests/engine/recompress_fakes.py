"""A codec whose streams tell its settings. Named apart, so that workers can import it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from engine_fakes import BadFake, FakeEncoded

STAMP = "recompress_fakes:StampCodec"


@dataclass(frozen=True, slots=True, kw_only=True)
class StampSettings:
    """``mode`` is one that needs no weights. ``bad`` and ``kill`` are parts of names that fare so."""

    stamp: str = "one"
    mode: str = "original"
    bad: str = "\0"
    kill: str = "\0"
    sleep_s: float = 0.0
    keep_originals: str = "smaller"


class StampCodec:
    def __init__(self, settings: StampSettings, *, weights: list[bytes] | None, device: str) -> None:
        self.settings = settings

    def warm_up(self):
        pass

    def encode(self, sources):
        return [self._encode(source) for source in sources]

    def _encode(self, source):
        time.sleep(self.settings.sleep_s)
        if self.settings.bad in source.name:
            return BadFake(source.name)
        if self.settings.kill in source.name:
            os.kill(os.getpid(), signal.SIGKILL)
        return FakeEncoded(stream=stamped(self.settings.stamp, source.data), codec="lossy")


def stamped(stamp: str, data: bytes) -> bytes:
    return stamp.encode() + b" " + data
