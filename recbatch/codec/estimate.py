"""What an image is likely to become at a level, at a small part of what encoding it costs.

A sample of tiles stands for a large image, and a coder that searches nothing for the real one: its samples are drawn
from the exact posteriors, so later passes see what they would see, and its payload is as long as their relative
entropy says. The rest of the stream (header, alpha, metadata) is made as ever, so that tiny images are estimated too.

Shapes: N dimensions of one section of one image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from recbatch.codec import lossy
from recbatch.codec.quality import psnr
from recbatch.codec.rate import Point
from recbatch.images import Picture
from recbatch.models.photo import PhotoModel
from recbatch.rec.base import UNIT, Bits, Coder, Samples, Scales, Targets, Writer

# Payload over relative entropy, and PSNR below that of exact samples, about: the first real encode tells the rest.
OVERHEAD = 0.985
PSNR_LOSS_DB = 0.08
TILE = 192  # pixels to a side
PLACES = (0.25, 0.75)  # of tiles along a side


class Blank:
    """A writer whose payload has a length and no content."""

    def __init__(self, size_bytes: int = 0) -> None:
        self._payload = bytes(size_bytes)

    def finish(self) -> bytes:
        return self._payload

    @property
    def bits(self) -> Bits:
        return Bits(symbols=8 * len(self._payload))


class Bystander:
    """A sender that sends nothing: samples from the posteriors, by the same noise each time."""

    number: ClassVar[int] = 0
    name: ClassVar[str] = "estimate"
    parameters = b""

    def writer(self, *, seed: int = 0) -> Writer:
        return Blank()

    def encode(
        self, writers: Sequence[Writer], targets: Sequence[Targets], scales: Sequence[Scales]
    ) -> list[Samples]:
        return [_drawn(e_N, scale_N) for e_N, scale_N in zip(targets, scales, strict=True)]


def _drawn(e_N: Targets, scale_N: Scales) -> Samples:
    variance_N = lossy.VARIANCES[scale_N].astype(np.float32)
    a_N = variance_N / (1 + variance_N)
    noise_N = np.random.default_rng(e_N.size).standard_normal(e_N.size, np.float32)
    samples_N: Samples = np.rint(UNIT * (a_N * e_N + np.sqrt(a_N) * noise_N)).astype(np.int32)
    return samples_N


class Estimator:
    """Size and PSNR of the streams that ``coder`` would make of a picture."""

    def __init__(self, picture: Picture, model: PhotoModel, coder: Coder, *, with_psnr: bool) -> None:
        self._picture, self._model, self._coder, self._with_psnr = picture, model, coder, with_psnr
        self._tiles = _tiles(picture)
        pixels = sum(tile.width * tile.height for tile in self._tiles)
        self._scale = picture.width * picture.height / pixels

    def __call__(self, level: float) -> Point:
        jobs = lossy.encode_latents(self._tiles, self._model, Bystander(), level, calibrate=False)
        stand_in = jobs[0]
        stand_in_picture, stand_in.picture = stand_in.picture, self._picture
        stand_in.writer = Blank(round(OVERHEAD * self._scale * sum(job.kl_bits for job in jobs) / 8))
        size_bytes = len(lossy.packed(stand_in, self._model, self._coder, level))
        stand_in.picture = stand_in_picture
        if not self._with_psnr:
            return Point(size_bytes)
        errors = [10 ** (-psnr_of(job, self._model, level) / 10) for job in jobs]
        return Point(size_bytes, -10 * math.log10(sum(errors) / len(errors)) - PSNR_LOSS_DB)


def psnr_of(job: lossy.Job, model: PhotoModel, level: float) -> float:
    """PSNR in dB of what a decoder will make of a job's samples."""
    picture = job.picture
    pixels = model.synthesise(job.samples, level)[0, : picture.height, : picture.width]
    if picture.pixels.shape[2] == 1:
        pixels = pixels.mean(axis=2, keepdims=True, dtype=np.float32).round().astype(np.uint8)
    return psnr(picture.pixels, pixels)


def _tiles(picture: Picture) -> list[Picture]:
    """Tiles from all over a picture, or all of it where it is not much larger than they are."""
    height, width = picture.height, picture.width
    if height * width < 2 * (len(PLACES) * TILE) ** 2 or min(height, width) < TILE:
        return [picture]
    tops, lefts = ([int(at * (side - TILE)) for at in PLACES] for side in (height, width))
    return [
        Picture(pixels=np.ascontiguousarray(picture.pixels[top : top + TILE, left : left + TILE]))
        for top in tops
        for left in lefts
    ]
