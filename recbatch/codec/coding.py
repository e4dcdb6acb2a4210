"""Pictures to streams in one of the two modes that code pixels: what ``ImageCodec`` puts between reading and proof."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from recbatch import rec
from recbatch.codec import lossless, lossy, webp_pixels
from recbatch.codec.estimate import Estimator, psnr_of
from recbatch.codec.rate import Aim, Point, TargetOutOfReach, search
from recbatch.codec.refine import STEPS_OF_EFFORT
from recbatch.codec.types import Encoded, Settings
from recbatch.images import Picture
from recbatch.models.lossless.folded import LosslessModel
from recbatch.models.photo import PhotoModel

GROUP_PIXELS = (
    1 << 19
)  # small images of one size go through the lossless networks together, up to so many pixels


class Coding(Protocol):
    def encode(
        self, pictures: Sequence[Picture], recipes: Sequence[bytes]
    ) -> Sequence[Encoded | TargetOutOfReach]:
        """One stream per picture, not yet proved; ``recipes`` rebuild source files from pixels, b"" for none."""
        ...


class LossyCoding:
    """By a ``photo`` model, at one rate level or at the one that each picture's target asks for."""

    def __init__(self, settings: Settings, weights: bytes, *, device: str) -> None:
        self._settings = settings
        self._steps = STEPS_OF_EFFORT.get(settings.effort, 0)
        self._model = PhotoModel.from_bytes(weights, device=device)
        self._coder = rec.coder(
            settings.coder, effort=settings.effort, tables=lossy.tables_of(self._model), device=device
        )

    def encode(
        self, pictures: Sequence[Picture], recipes: Sequence[bytes]
    ) -> Sequence[Encoded | TargetOutOfReach]:
        s = self._settings
        if s.has_target:
            return [self._aimed(picture) for picture in pictures]
        coded = lossy.encode(pictures, self._model, self._coder, s.level, steps=self._steps)
        return [self._row(p, c, s.level) for p, c in zip(pictures, coded, strict=True)]

    def _aimed(self, picture: Picture) -> Encoded | TargetOutOfReach:
        """A picture alone: its stream depends on no other, and its level on nothing but itself."""
        aim = Aim.of(self._settings, picture.width * picture.height)
        coded: dict[float, lossy.Coded] = {}
        estimate = Estimator(picture, self._model, self._coder, with_psnr=aim.needs_psnr)

        def attempt(level: float) -> Point:
            model, coder = self._model, self._coder
            (job,) = lossy.encode_latents([picture], model, coder, level, steps=self._steps)
            data = lossy.packed(job, model, coder, level)
            coded[level] = lossy.Coded(data, job.kl_bits, job.writer.bits, job.tuning_s)
            return Point(len(data), psnr_of(job, model, level) if aim.needs_psnr else 0.0)

        try:
            found = search(aim, estimate, attempt)
        except TargetOutOfReach as e:
            return e
        row = self._row(picture, coded[found.level], found.level)
        return replace(row, notes=(*row.notes, *found.notes))

    def _row(self, picture: Picture, c: lossy.Coded, level: float) -> Encoded:
        return replace(
            _row("lossy", picture, c.data),
            model=self._model.digest.hex(),
            level=level,
            effort=self._settings.effort,
            coder=self._coder.name,
            kl_bits=c.kl_bits,
            index_bits=c.bits.index,
            symbol_bits=c.bits.symbols,
            side_bits=8 * len(c.data) - c.bits.index - c.bits.symbols,
        )


class LosslessCoding:
    """By an ``exact`` model, with previews by the lossy model that it knows, if wanted; or as WebP, where that is less.

    Args:
        weights: of the exact model, then of the lossy one where previews are made.
    """

    def __init__(self, settings: Settings, weights: Sequence[bytes], *, device: str) -> None:
        self._effort = settings.effort
        self._model = LosslessModel.from_bytes(weights[0])
        self._previews: lossless.PreviewMaker | None = None
        if settings.preview and len(weights) > 1:
            photo = PhotoModel.from_bytes(weights[1], device=device)
            coder = rec.coder(
                settings.coder, effort=settings.effort, tables=lossy.tables_of(photo), device=device
            )
            self._previews = lossless.PreviewMaker(photo, coder)

    def encode(self, pictures: Sequence[Picture], recipes: Sequence[bytes]) -> list[Encoded]:
        webp = {i: webp_pixels.attempt(picture, recipes[i]) for i, picture in enumerate(pictures)}
        rows = {i: self._without_model(pictures[i], a.coded) for i, a in webp.items() if a is not None}
        for group in _groups(pictures, [i for i, a in webp.items() if a is None or not a.is_enough]):
            coded = lossless.encode(
                [pictures[i] for i in group], [recipes[i] for i in group], self._model, self._previews
            )
            for i, c in zip(group, coded, strict=True):
                if i not in rows or len(c.data) <= len(rows[i].stream):
                    rows[i] = self._encoded(pictures[i], c)
        return [rows[i] for i in range(len(pictures))]

    def _encoded(self, picture: Picture, c: lossless.Coded) -> Encoded:
        known = c.preview.index + c.preview.symbols + c.residual_bits
        return replace(
            _row("lossless", picture, c.data),
            model=self._model.digest.hex(),
            effort=self._effort,
            coder=self._previews.coder.name if self._previews and c.kl_bits else "",
            kl_bits=c.kl_bits,
            index_bits=c.preview.index,
            symbol_bits=c.preview.symbols,
            residual_bits=c.residual_bits,
            ideal_bits=c.ideal_bits,
            side_bits=8 * len(c.data) - known,
        )

    def _without_model(self, picture: Picture, c: lossless.Coded) -> Encoded:
        return replace(
            _row("lossless", picture, c.data),
            effort=self._effort,
            coder=webp_pixels.CODER,
            residual_bits=c.residual_bits,
            side_bits=8 * len(c.data) - c.residual_bits,
        )


def _groups(pictures: Sequence[Picture], places: Sequence[int]) -> list[list[int]]:
    """These places, by the shape of the pictures there, together while they are small."""
    groups: dict[tuple[int, ...], list[list[int]]] = {}
    for i in places:
        height, width, _ = pictures[i].pixels.shape
        runs = groups.setdefault(pictures[i].pixels.shape, [[]])
        if runs[-1] and (len(runs[-1]) + 1) * height * width > GROUP_PIXELS:
            runs.append([])
        runs[-1].append(i)
    return [run for runs in groups.values() for run in runs]


def _row(codec: str, picture: Picture, data: bytes) -> Encoded:
    return Encoded(
        codec=codec,
        stream=data,
        stream_sha256=hashlib.sha256(data).digest(),
        width=picture.width,
        height=picture.height,
        mode=picture.mode,
        source_format=picture.source_format,
        notes=picture.notes,
    )
