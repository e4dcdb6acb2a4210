"""What the functions of the Python API share: locations, choices, checked settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, TypeAlias

from recbatch.errors import UsageError

if TYPE_CHECKING:
    from recbatch.codec import Settings

Location: TypeAlias = str | os.PathLike[str]
VerifyLevel: TypeAlias = Literal["structure", "digests", "pixels"]
Executor: TypeAlias = Literal["ray", "processes", "inline"]
KeepOriginals: TypeAlias = Literal["never", "smaller", "always"]


class NoMode(UsageError):
    """Neither a quality nor ``original`` was asked for, or both: pixels never change unasked."""

    code = "no-mode"

    def __str__(self) -> str:
        return (
            "Not exactly one mode was chosen, and pixels never change unasked. Give either --quality 0..100 for lossy "
            "coding or --original to keep the files' own bytes (--lossless does not exist yet)."
        )


def make_settings(
    *,
    quality: float | None,
    original: bool = False,
    model: str = "photo-s",
    coder: str = "trellis",
    effort: int = 5,
    keep_originals: KeepOriginals = "smaller",
    max_pixels: int = 200_000_000,
) -> Settings:
    """Codec settings, checked before any work begins. Raises NoMode, BadSetting, UnknownModel, UnknownCoder."""
    if (quality is None) == (not original):
        raise NoMode
    from recbatch.codec import Settings, level_of_quality

    if quality is not None:
        from recbatch.models import weights
        from recbatch.rec.coders.registry import NUMBERS, UnknownCoder

        weights.read(model)
        if coder not in NUMBERS:
            raise UnknownCoder(coder)
    return Settings(
        mode="original" if original else "lossy",
        model=model,
        level=0 if quality is None else level_of_quality(quality),
        coder=coder,
        effort=effort,
        keep_originals=keep_originals,
        max_pixels=max_pixels,
    )
