"""Pictures to streams in one of the two modes that code pixels: what ``ImageCodec`` puts between reading and proof."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from recbatch import rec
from recbatch.codec import lossless, lossy
from recbatch.codec.refine import STEPS_OF_EFFORT
from recbatch.codec.types import Encoded, Settings
from recbatch.images import Picture
from recbatch.models.lossless.folded import LosslessModel
from recbatch.models.photo import PhotoModel

GROUP_PIXELS = (
    1 << 19
)  # small images of one size go through the lossless networks together, up to so many pixels


class Coding(Protocol):
    def encode(self, pictures: Sequence[Picture], recipes: Sequence[bytes]) -> list[Encoded]:
        """One stream per picture, not yet proved; ``recipes`` rebuild source files from pixels, b"" for none."""
        ...


class LossyCoding:
    """By a ``photo`` model at one rate level."""

    def __init__(self, settings: Settings, weights: bytes, *, device: str) -> None:
        self._level, self._effort = settings.level, settings.effort
        self._model = PhotoModel.from_bytes(weights, device=device)
        self._coder = rec.coder(
            settings.coder, effort=settings.effort, tables=lossy.tables_of(self._model), device=device
        )

    def encode(self, pictures: Sequence[Picture], recipes: Sequence[bytes]) -> list[Encoded]:
        steps = STEPS_OF_EFFORT.get(self._effort, 0)
        coded = lossy.encode(pictures, self._model, self._coder, self._level, steps=steps)
        return [
            replace(
                _row("lossy", p, c.data),
                model=self._model.digest.hex(),
                level=self._level,
                effort=self._effort,
                coder=self._coder.name,
                kl_bits=c.kl_bits,
                index_bits=c.bits.index,
                symbol_bits=c.bits.symbols,
                side_bits=8 * len(c.data) - c.bits.index - c.bits.symbols,
            )
            for p, c in zip(pictures, coded, strict=True)
        ]


class LosslessCoding:
    """By an ``exact`` model, with previews by the lossy model that it knows, if wanted.

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
        rows: dict[int, Encoded] = {}
        for group in _groups(pictures):
            coded = lossless.encode(
                [pictures[i] for i in group], [recipes[i] for i in group], self._model, self._previews
            )
            rows.update({i: self._encoded(pictures[i], c) for i, c in zip(group, coded, strict=True)})
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


def _groups(pictures: Sequence[Picture]) -> list[list[int]]:
    """Places of pictures of one shape, together while they are small."""
    groups: dict[tuple[int, ...], list[list[int]]] = {}
    for i, picture in enumerate(pictures):
        height, width, _ = picture.pixels.shape
        runs = groups.setdefault(picture.pixels.shape, [[]])
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
