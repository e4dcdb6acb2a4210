"""Streams to pictures, by whatever models they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from recbatch import rec, stream
from recbatch.codec import lossy
from recbatch.errors import RecbatchError
from recbatch.images import Picture, read_picture
from recbatch.models import exact, weights
from recbatch.models.photo import PhotoModel
from recbatch.rec.base import Coder
from recbatch.rec.coders.registry import UnknownCoder

MODELS_HELD = 4


class Decoder:
    """Decodes .rec streams; loads each model once.

    Args:
        models: head of a model's digest (8 bytes) to its safetensors bytes, for example an archive's; None: the
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
                if head not in weights.zoo():
                    raise
                return weights.find(head)

        @lru_cache(maxsize=MODELS_HELD)
        def model(head: bytes) -> PhotoModel:
            loaded = PhotoModel.from_bytes(fetch(head), device=device)
            if loaded.digest[: weights.DIGEST_HEAD] != head:
                raise weights.BadWeights(
                    loaded.name, f"they are {loaded.digest.hex()[:16]}, not {head.hex()}"
                )
            return loaded

        self._model = model

    def decode(self, data: bytes, *, max_pixels: int = 10**9) -> Picture:
        """The picture of one stream. Raises CorruptStream, UnsupportedFormat, UnknownModel, OtherArithmetic."""
        parsed = stream.parse(data, max_pixels=max_pixels)
        if parsed.codec != lossy.CODEC_LOSSY:
            raise stream.UnsupportedFormat(f"codec {parsed.codec}")
        model = self._model(parsed.model)
        try:
            return lossy.decode(parsed, model, self.coder(parsed, model))
        except lossy.OtherArithmetic:  # the checksum held, so it is this machine: take the slow, safe path
            with exact.at_least("float64"):
                return lossy.decode(parsed, model, self.coder(parsed, model))

    def decode_batch(self, streams: Sequence[bytes]) -> list[Picture | RecbatchError]:
        """One picture or one error per stream."""
        out: list[Picture | RecbatchError] = []
        for data in streams:
            try:
                out.append(self.decode(data))
            except RecbatchError as e:
                out.append(e)
        return out

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
