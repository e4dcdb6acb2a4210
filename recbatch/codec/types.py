"""What goes into the codec and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from recbatch.errors import UsageError
from recbatch.stream import LAST_LEVEL, LEVEL_PARTS

LEVELS = LAST_LEVEL + 1
MODES = ("lossless", "lossy", "original")
DEFAULT_MODELS = {"lossless": "exact-s", "lossy": "photo-s2", "original": ""}
TARGETS = ("bpp", "psnr", "max_bytes", "min_psnr")
TARGET_MODES = ("lossy",)
KEEP_ORIGINALS = ("never", "smaller", "always")


class BadSetting(UsageError):
    """A codec setting is out of range."""

    code = "bad-setting"

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(name, value, allowed)
        self.name, self.value, self.allowed = name, value, allowed

    def __str__(self) -> str:
        return f"The setting {self.name} can't be {self.value}. Give {self.allowed}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How images are to be encoded. Raises BadSetting."""

    mode: str = "lossy"
    model: str = ""  # by default that of the mode, see DEFAULT_MODELS
    preview: bool = True  # lossless: a lossy preview in the first bytes, of images that are large enough
    exact_files: bool = False  # lossless: give back source files, not only their pixels, or keep the files
    level: float = 16.0  # rate level 0..31, a multiple of 1/8, see level_of_quality
    bpp: float | None = None  # lossy, instead of the level: bits of the stream for each pixel of the image
    psnr: float | None = None  # lossy, instead of the level: dB
    max_bytes: int | None = None  # lossy: the level is lowered until the stream is no longer than this
    min_psnr: float | None = None  # lossy: the level is raised until the image is at least so good, dB
    auto: bool = False  # lossy: take a picture without loss where that is the better bargain, see codec.auto
    coder: str = "trellis"
    effort: int = 5  # of the index search, 1..9
    keep_originals: str = "smaller"  # keep a file's own bytes: never, where they are smaller, always
    max_pixels: int = 200_000_000

    def __post_init__(self) -> None:
        _check("mode", self.mode, self.mode in MODES, " or ".join(MODES))
        if not self.model:
            object.__setattr__(self, "model", DEFAULT_MODELS[self.mode])
        good = 0 <= self.level <= LEVELS - 1 and self.level * LEVEL_PARTS % 1 == 0
        _check("level", self.level, good, f"0 to {LEVELS - 1} in steps of 1/{LEVEL_PARTS}")
        self._check_targets()
        _check("auto", self.auto, not self.auto or self.mode == "lossy", "it in lossy mode only")
        _check("effort", self.effort, 1 <= self.effort <= 9, "1 to 9")
        _check(
            "keep_originals",
            self.keep_originals,
            self.keep_originals in KEEP_ORIGINALS,
            ", ".join(KEEP_ORIGINALS),
        )
        _check("max_pixels", self.max_pixels, self.max_pixels > 0, "a positive number")

    @property
    def has_target(self) -> bool:
        """Whether each image gets a level of its own."""
        return any(getattr(self, name) is not None for name in TARGETS)

    def _check_targets(self) -> None:
        for name in TARGETS:
            value = getattr(self, name)
            if value is not None:
                _check(name, value, value > 0 and value < float("inf"), "a positive number")
                _check(name, value, self.mode in TARGET_MODES, "a value in lossy mode only")
        _check("psnr", self.psnr, self.psnr is None or self.bpp is None, "psnr or bpp, not both")
        if self.psnr is not None and self.min_psnr is not None:
            floor = f"at least min_psnr, which is {self.min_psnr:g}"
            _check("psnr", self.psnr, self.psnr >= self.min_psnr, floor)


def _check(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise BadSetting(name, repr(value), allowed)


def level_of_quality(quality: float) -> float:
    """Rate level, a multiple of 1/8, of a quality 0..100, linear. Raises BadSetting."""
    _check("quality", quality, 0 <= quality <= 100, "a number from 0 to 100")
    return round(quality * (LEVELS - 1) * LEVEL_PARTS / 100) / LEVEL_PARTS


def quality_of_level(level: float) -> float:
    """The quality, 0..100 in tenths, that names a rate level."""
    return round(level * 100 / (LEVELS - 1), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file's bytes, and a name for messages."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One image, encoded, decoded again from these very bytes, and measured."""

    codec: str  # "lossless", "lossy", "jpeg" (a JPEG file recoded, all its bytes come back) or "original"
    stream: bytes
    stream_sha256: bytes
    width: int = 0
    height: int = 0
    mode: str = ""
    source_format: str = ""
    notes: tuple[str, ...] = ()
    model: str = ""  # hex digest of the weights
    level: float = 0.0
    effort: int = 0
    coder: str = ""
    kl_bits: float = 0.0  # of the exact posterior from the prior
    index_bits: int = 0
    symbol_bits: int = 0
    side_bits: int = 0  # everything else in the stream: header, digests, step counts, padding
    residual_bits: int = 0  # the code of a lossless image's pixels
    ideal_bits: float = 0.0  # lossless: -log2 p of the pixels, and kl_bits
    psnr: float | None = None
    ms_ssim: float | None = None
    pixels_sha256: bytes | None = None
