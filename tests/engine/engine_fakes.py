"""A codec that is quick, and fails as its images' names tell it to. Named apart, so that workers can import it."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from recbatch.errors import CorruptData, ImageError

CODEC = "engine_fakes:FakeCodec"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSettings:
    """``once``: a folder in which a name's trouble leaves a mark, and does not happen again."""

    mode: str = "original"
    once: str = ""
    sleep_s: float = 0.0
    fail_setup: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeEncoded:
    stream: bytes
    codec: str = "original"
    width: int = 4
    height: int = 2
    mode: str = "RGB"
    source_format: str = "png"
    notes: tuple[str, ...] = ()
    model: str = ""
    level: int = 0
    effort: int = 0
    coder: str = ""
    kl_bits: float = 0.0
    index_bits: int = 0
    side_bits: int = 0
    residual_bits: int = 0
    psnr: float | None = None
    ms_ssim: float | None = None
    pixels_sha256: bytes | None = None
    stream_sha256: bytes = field(init=False, default=b"")

    def __post_init__(self) -> None:
        object.__setattr__(self, "stream_sha256", hashlib.sha256(self.stream).digest())


class BadFake(ImageError):
    code = "bad-fake"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name}: it is called bad. Call it something else."


class BrokenSetup(CorruptData):
    code = "broken-setup"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"The fake can't start: {self.what}. Ask for no failure."


class FakeCodec:
    """'bad' in a name is an image error, 'raise' a bug, 'kill' the end of the process, 'hang' no answer,
    'gate' none until there is a file 'open' in the folder ``once``."""

    def __init__(self, settings: FakeSettings, *, weights: list[bytes] | None, device: str) -> None:
        if settings.fail_setup == "ours":
            raise BrokenSetup("as asked")
        if settings.fail_setup == "import":
            import a_module_that_is_not_there  # noqa: F401
        if settings.fail_setup == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self.settings = settings

    def warm_up(self):
        pass

    def encode(self, sources):
        return [self._encode(source) for source in sources]

    def _encode(self, source):
        time.sleep(self.settings.sleep_s)
        name = source.name
        if "bad" in name:
            return BadFake(name)
        if "raise" in name:
            raise ValueError("a bug")
        if "kill" in name and self._first_time(name):
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in name and self._first_time(name):
            time.sleep(600)
        if "gate" in name and self.settings.once:
            while not Path(self.settings.once, "open").exists():
                time.sleep(0.01)
            time.sleep(0.5)  # whoever opened it may have said more to this process
        return FakeEncoded(stream=source.data)

    def _first_time(self, name: str) -> bool:
        if not self.settings.once:
            return True
        mark = Path(self.settings.once) / name.replace("/", "_")
        try:
            mark.open("x").close()
        except FileExistsError:
            return False
        return True


def fill(folder: Path, names, *, size: int = 100) -> dict[str, bytes]:
    """Files of distinct bytes; returns what was written, by name."""
    written = {}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = (hashlib.sha256(str(name).encode()).digest() * (size // 32 + 1))[:size]
        path.write_bytes(data)
        written[str(name)] = data
    return written
