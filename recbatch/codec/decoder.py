"""Streams to pictures, by whatever models they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from recbatch import rec, stream
from recbatch.codec import lossless, lossy, webp_pixels
from recbatch.errors import CorruptStream, RecbatchError
from recbatch.images import Picture, read_picture
from recbatch.images.png import rebuild
from recbatch.models import exact, weights
from recbatch.models.lossless.folded import LosslessModel
from recbatch.models.photo import PhotoModel
from recbatch.rec.base import Coder
from recbatch.rec.coders.registry import UnknownCoder

MODELS_HELD = 4


class Decoder:
    """Decodes .rec streams; loads each model once.

    Args:
        models: head of a model's digest (4 or 8 bytes) to its safetensors bytes, for example an archive's; None: the
            models that come with the package.
        device: a torch device for synthesis; the entropy-coded part does not depend on it.
    """

    def __init__(self, models: Callable[[bytes], bytes] | None = None, *, device: str = "cpu") -> None:
        def fetch(head: bytes) -> bytes:
            if models is None:
                return weights.find(head)
            try:
                return models(head)
            except RecbatchError:  # gone or damaged: the package may have the very same
                if not any(known.startswith(head) for known in weights.zoo()):
                    raise
                return weights.find(head)

        def checked(digest: bytes, head: bytes, name: str) -> None:
            if not digest.startswith(head):
                raise weights.BadWeights(name, f"they are {digest.hex()[:16]}, not {head.hex()}")

        @lru_cache(maxsize=MODELS_HELD)
        def photo(head: bytes) -> PhotoModel:
            loaded = PhotoModel.from_bytes(fetch(head), device=device)
            checked(loaded.digest, head, loaded.name)
            return loaded

        @lru_cache(maxsize=MODELS_HELD)
        def exact_model(head: bytes) -> LosslessModel:
            loaded = LosslessModel.from_bytes(fetch(head))
            checked(loaded.digest, head, loaded.name)
            return loaded

        self._photo, self._exact = photo, exact_model

    def decode(self, data: bytes, *, max_pixels: int = 10**9) -> Picture:
        """The picture of one stream. Raises CorruptStream, UnsupportedFormat, UnknownModel, OtherArithmetic."""
        parsed = stream.parse(data, max_pixels=max_pixels)
        if stream.SECTION_PIXELS in parsed.sections:
            return webp_pixels.decode(parsed)
        lossless = parsed.codec == stream.CODEC_LOSSLESS
        decode = self._lossless if lossless else self._lossy
        # the checksum held, so it is this machine: take the slow, safe path. A lossless decoder that gets out of step
        # seldom comes to its end, where the digest would tell
        suspect = (lossy.OtherArithmetic, CorruptStream) if lossless else (lossy.OtherArithmetic,)
        try:
            return decode(parsed)
        except suspect:
            with exact.at_least("float64"):
                return decode(parsed)

    def preview(self, data: bytes, *, max_pixels: int = 10**9) -> Picture:
        """The preview of a lossless stream, of which ``stream.preview_size`` bytes are enough, or the picture itself.

        Raises as ``decode``.
        """
        inner = stream.preview(data)
        return self.decode(inner or data, max_pixels=max_pixels)

    def file(self, data: bytes, picture: Picture) -> bytes | None:
        """The source file itself, rebuilt from a stream and its picture; None where the stream can't.

        Raises CorruptStream, OtherZlib.
        """
        recipe = stream.parse(data).sections.get(stream.SECTION_FILE)
        return None if recipe is None else rebuild(recipe, picture.pixels, picture.alpha)

    def decode_batch(self, streams: Sequence[bytes]) -> list[Picture | RecbatchError]:
        """One picture or one error per stream."""
        out: list[Picture | RecbatchError] = []
        for data in streams:
            try:
                out.append(self.decode(data))
            except RecbatchError as e:
                out.append(e)
        return out

    def _lossy(self, parsed: stream.Stream) -> Picture:
        model = self._photo(parsed.model)
        return lossy.decode(parsed, model, self.coder(parsed, model))

    def _lossless(self, parsed: stream.Stream) -> Picture:
        model = self._exact(parsed.model)
        return lossless.decode(parsed, model, self._preview_samples(parsed, model))

    def _preview_samples(self, parsed: stream.Stream, exact_model: LosslessModel) -> NDArray[np.int32] | None:
        """Latents [M, h, w] of a lossless stream's preview, None where it has none."""
        data = parsed.sections.get(stream.SECTION_LATENTS)
        if data is None:
            return None
        inner = stream.parse(data, max_pixels=parsed.width * parsed.height)
        if inner.codec != stream.CODEC_LOSSY or (inner.width, inner.height) != (parsed.width, parsed.height):
            raise CorruptStream("its preview is of another image")
        if exact_model.preview is None or inner.model != exact_model.preview.latents_of:
            raise CorruptStream("its preview is of a model that its networks do not know")
        model = self._photo(inner.model)
        samples: NDArray[np.int32] = lossy.decode_latents(inner, model, self.coder(inner, model))[0].numpy()
        return samples

    @staticmethod
    def coder(parsed: stream.Stream, model: PhotoModel) -> Coder:
        """The coder that a stream's header names, with its model's tables. Raises UnsupportedFormat, CorruptStream."""
        try:
            return rec.coder(parsed.coder, parsed.coder_parameters, tables=lossy.tables_of(model))
        except UnknownCoder as e:
            raise stream.UnsupportedFormat(f"its coder has the number {parsed.coder}") from e


def is_stream(data: bytes) -> bool:
    """Whether bytes begin as a .rec stream does."""
    return data.startswith(stream.MAGIC)


def read_any(data: bytes, decoder: Decoder) -> Picture:
    """The picture of a row's bytes, whatever its codec: a .rec stream or an ordinary image file."""
    return decoder.decode(data) if is_stream(data) else read_picture(data, convert=True)
