"""Files in, verified rows out: the one class that the engine's workers hold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from recbatch import rec
from recbatch.codec import lossy
from recbatch.codec.decoder import Decoder
from recbatch.codec.original import keep
from recbatch.codec.quality import ms_ssim, psnr
from recbatch.codec.refine import STEPS_OF_EFFORT
from recbatch.codec.types import Encoded, Settings, Source
from recbatch.errors import ImageError, RecbatchError
from recbatch.images import KeepOriginal, Metadata, Picture, read_picture
from recbatch.models import weights
from recbatch.models.photo import PhotoModel

WARM_UP_SIDE = 256
BATCH_PIXELS = 8_000_000  # pictures in one index search; bounds memory, never changes a stream


class VerificationFailed(ImageError):
    """A fresh stream did not decode to what was encoded. A bug of ours: the image is not archived."""

    code = "verification-failed"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"The fresh stream failed its check: {self.problem}. Report it; '--coder irec' may get around it."
        )


class ImageCodec:
    """Encodes files by fixed settings; every stream is decoded from its bytes and measured before it is returned.

    Args:
        settings: see Settings.
        weights_data: the model's safetensors bytes; None: the model of that name that comes with the package.
        device: a torch device for the float networks.

    Raises:
        UnknownModel, BadWeights, UnknownCoder.
    """

    def __init__(self, settings: Settings, *, weights: bytes | None = None, device: str = "cpu") -> None:
        self.settings = settings
        if settings.mode == "original":
            return
        data = weights if weights is not None else model_weights(settings.model)[1]
        self._model = PhotoModel.from_bytes(data, device=device)
        self._coder = rec.coder(
            settings.coder, effort=settings.effort, tables=lossy.tables_of(self._model), device=device
        )
        self._steps = STEPS_OF_EFFORT.get(settings.effort, 0)
        self._decoder = Decoder(lambda head: data, device=device)

    def warm_up(self) -> None:
        """Compile and load what the first image would wait for: seconds, or with a cold cache half a minute."""
        if self.settings.mode == "original":
            return
        ramp = np.linspace(0, 255, WARM_UP_SIDE, dtype=np.uint8)
        noise = np.random.default_rng(0).integers(0, 64, (WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)
        picture = Picture(
            pixels=ramp[:, None, None] // 2 + noise,
            alpha=None,
            metadata=Metadata(),
            notes=(),
            source_format="",
        )
        (coded,) = lossy.encode([picture], self._model, self._coder, self.settings.level)
        ms_ssim(picture.pixels, self._decoder.decode(coded.data).pixels)

    def encode(self, sources: Sequence[Source]) -> list[Encoded | RecbatchError]:
        """One result per source, in order; an image's error is returned, not raised."""
        results: dict[int, Encoded | RecbatchError] = {}
        batch: list[tuple[int, Picture]] = []
        pixels = 0
        for i, source in enumerate(sources):
            picture = self._read(source)
            if not isinstance(picture, Picture):
                results[i] = picture
                continue
            if batch and pixels + picture.width * picture.height > BATCH_PIXELS:
                results.update(self._encode_batch(sources, batch))
                batch, pixels = [], 0
            batch.append((i, picture))
            pixels += picture.width * picture.height
        results.update(self._encode_batch(sources, batch))
        return [results[i] for i in range(len(sources))]

    def _read(self, source: Source) -> Picture | Encoded | RecbatchError:
        """A picture to encode, or what becomes of the source instead."""
        s = self.settings
        try:
            picture = read_picture(source.data, max_pixels=s.max_pixels, convert=s.keep_originals == "never")
        except KeepOriginal as e:
            return keep(source, e.reason, picture=e)
        except ImageError as e:
            return e
        if s.mode == "original" or s.keep_originals == "always":
            return keep(source, "as asked", picture=picture)
        return picture

    def _encode_batch(
        self, sources: Sequence[Source], batch: Sequence[tuple[int, Picture]]
    ) -> dict[int, Encoded | RecbatchError]:
        if not batch:
            return {}
        try:
            coded = lossy.encode(
                [p for _, p in batch], self._model, self._coder, self.settings.level, steps=self._steps
            )
        except RecbatchError as e:
            if len(batch) == 1:
                return {batch[0][0]: e}
            half = len(batch) // 2  # find whose error it is; the others go on
            return self._encode_batch(sources, batch[:half]) | self._encode_batch(sources, batch[half:])
        return {i: self._finish(sources[i], p, c) for (i, p), c in zip(batch, coded, strict=True)}

    def _finish(self, source: Source, picture: Picture, coded: lossy.Coded) -> Encoded | RecbatchError:
        """Never bigger than the source; decoded again; measured."""
        s = self.settings
        if s.keep_originals == "smaller" and len(coded.data) >= len(source.data):
            return keep(source, "smaller than its stream", picture=picture)
        try:
            restored = self._decoder.decode(coded.data, max_pixels=s.max_pixels)
        except RecbatchError as e:
            return VerificationFailed(str(e))
        problem = _difference(picture, restored)
        if problem:
            return VerificationFailed(problem)
        bits = coded.bits
        return Encoded(
            codec="lossy",
            stream=coded.data,
            stream_sha256=hashlib.sha256(coded.data).digest(),
            width=picture.width,
            height=picture.height,
            mode=picture.mode,
            source_format=picture.source_format,
            notes=picture.notes,
            model=self._model.digest.hex(),
            level=s.level,
            effort=s.effort,
            coder=self._coder.name,
            kl_bits=coded.kl_bits,
            index_bits=bits.index,
            symbol_bits=bits.symbols,
            side_bits=8 * len(coded.data) - bits.index - bits.symbols,
            psnr=psnr(picture.pixels, restored.pixels),
            ms_ssim=ms_ssim(picture.pixels, restored.pixels),
        )


def _difference(source: Picture, restored: Picture) -> str:
    """What a restored picture must have in common with its source and has not; "" where all is well."""
    if restored.pixels.shape != source.pixels.shape:
        return f"it restores {restored.pixels.shape}, not {source.pixels.shape}"
    if restored.metadata != source.metadata:
        return "it restores other metadata"
    if (restored.alpha is None) != (source.alpha is None) or not np.array_equal(
        restored.alpha if restored.alpha is not None else 0, source.alpha if source.alpha is not None else 0
    ):
        return "it restores another alpha channel"
    return ""


def model_weights(name: str) -> tuple[bytes, bytes]:
    """Digest (32 bytes) and safetensors bytes of a model of the package. Raises UnknownModel."""
    data = weights.read(name)
    return weights.digest(data), data


__all__ = ["ImageCodec", "VerificationFailed", "model_weights"]
