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


class ModesConflict(UsageError):
    """More than one mode was asked for, or an option of another mode."""

    code = "modes-conflict"

    def __init__(self, given: str, problem: str) -> None:
        super().__init__(given, problem)
        self.given, self.problem = given, problem

    def __str__(self) -> str:
        return (
            f"{self.given} {self.problem}. Give one of --lossless (the default), --quality 0..100 and --original; "
            "--no-preview and --exact-files belong to --lossless."
        )


def make_settings(
    *,
    quality: float | None = None,
    lossless: bool = False,
    original: bool = False,
    preview: bool = True,
    exact_files: bool = False,
    model: str | None = None,
    coder: str = "trellis",
    effort: int = 5,
    keep_originals: KeepOriginals = "smaller",
    max_pixels: int = 200_000_000,
) -> Settings:
    """Codec settings, checked before any work begins; lossless where no mode is given.

    Raises ModesConflict, BadSetting, UnknownModel, UnknownCoder.
    """
    chosen = {"--lossless": lossless, "--quality": quality is not None, "--original": original}
    given = [name for name, is_given in chosen.items() if is_given]
    if len(given) > 1:
        raise ModesConflict(" and ".join(given), "exclude each other")
    mode = {"--quality": "lossy", "--original": "original"}.get(given[0] if given else "", "lossless")
    if mode != "lossless" and (exact_files or not preview):
        raise ModesConflict(
            "--exact-files" if exact_files else "--no-preview", f"means nothing with {given[0]}"
        )
    from recbatch.codec import Settings, level_of_quality

    if mode != "original":
        from recbatch.codec.types import DEFAULT_MODELS
        from recbatch.models import weights
        from recbatch.rec.coders.registry import NUMBERS, UnknownCoder

        weights.read(model or DEFAULT_MODELS[mode])
        if coder not in NUMBERS:
            raise UnknownCoder(coder)
    return Settings(
        mode=mode,
        model=model or "",
        preview=preview,
        exact_files=exact_files,
        level=0 if quality is None else level_of_quality(quality),
        coder=coder,
        effort=effort,
        keep_originals=keep_originals,
        max_pixels=max_pixels,
    )
