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
RestoreExecutor: TypeAlias = Literal["auto", "ray", "processes", "inline"]  # by what there is to decode
KeepOriginals: TypeAlias = Literal["never", "smaller", "always"]


class ModesConflict(UsageError):
    """More than one mode was asked for, or an option of another mode."""

    code = "modes-conflict"

    def __init__(self, given: str, problem: str) -> None:
        super().__init__(given, problem)
        self.given, self.problem = given, problem

    def __str__(self) -> str:
        return (
            f"{self.given} {self.problem}. Give one of --lossless (the default), --quality 0..100, --bpp, --psnr and "
            "--original; --max-bytes and --min-psnr may bound the lossy ones; "
            "--no-preview and --exact-files belong to --lossless."
        )


def make_settings(
    *,
    quality: float | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
    max_bytes: int | None = None,
    min_psnr: float | None = None,
    auto: bool = False,
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

    ``quality``, ``bpp`` and ``psnr`` each make it lossy, and so do ``max_bytes`` and ``min_psnr``, which may bound
    them: without any of the three it is the best picture of ``max_bytes``, or the smallest of ``min_psnr``.

    Raises ModesConflict, BadSetting, UnknownModel, UnknownCoder.
    """
    wishes = {"--quality": quality, "--bpp": bpp, "--psnr": psnr}
    bounds = {"--max-bytes": max_bytes, "--min-psnr": min_psnr}
    chosen = {"--lossless": lossless, "--original": original}
    given = [name for name, value in wishes.items() if value is not None]
    given += [name for name, is_given in chosen.items() if is_given]
    if len(given) > 1:
        raise ModesConflict(" and ".join(given), "exclude each other")
    bounded = [name for name, value in bounds.items() if value is not None]
    if bounded and (lossless or original):
        raise ModesConflict(bounded[0], f"means nothing with {given[0]}")
    given += bounded
    mode = "lossless" if lossless or not given else "original" if original else "lossy"
    if auto and mode != "lossy":
        raise ModesConflict("--auto", "needs a lossy option, such as --quality")
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
        level=level_of_quality(quality if quality is not None else 100 if max_bytes is not None else 0),
        bpp=bpp,
        psnr=psnr,
        max_bytes=max_bytes,
        min_psnr=min_psnr,
        auto=auto,
        coder=coder,
        effort=effort,
        keep_originals=keep_originals,
        max_pixels=max_pixels,
    )
