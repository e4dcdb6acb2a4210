"""Files in, verified rows out: the one class that the engine's workers hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recbatch.codec import jpeg
from recbatch.codec.auto import Auto, exact_settings
from recbatch.codec.coding import Coding, LosslessCoding, LossyCoding
from recbatch.codec.decoder import Decoder
from recbatch.codec.needed import models_of
from recbatch.codec.original import keep
from recbatch.codec.quality import ms_ssim, psnr
from recbatch.codec.rate import TargetOutOfReach
from recbatch.codec.types import Encoded, Settings, Source
from recbatch.errors import ImageError, RecbatchError
from recbatch.images import KeepOriginal, Picture, picture_size, pixels_sha256, read_picture
from recbatch.images.png import recipe
from recbatch.models import weights

WARM_UP_SIDE = 256
BATCH_PIXELS = 8_000_000  # pictures in one call of a coding; bounds memory, never changes a stream


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


class NotWithoutLoss(ImageError):
    """An image that 8-bit pixels can't hold was to become a lossless stream."""

    code = "not-without-loss"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"No stream can hold this image without loss: {self.reason}. "
            "Keep the file itself, or give --quality to have it converted."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Source):
    """A source, read: a picture to encode, or what becomes of the file instead."""

    found: Picture | Encoded | RecbatchError


class ImageCodec:
    """Encodes files by fixed settings; every stream is decoded from its bytes and measured before it is returned.

    Args:
        settings: see Settings.
        weights: safetensors bytes of the models in the order of ``models_of``; None: those that come with the
            package.
        device: a torch device for the float networks.

    Raises:
        UnknownModel, BadWeights, UnknownCoder.
    """

    def __init__(
        self, settings: Settings, *, weights: Sequence[bytes] | None = None, device: str = "cpu"
    ) -> None:
        self.settings = settings
        if settings.mode == "original":
            return
        files = list(weights) if weights else [data for _, data in models_of(settings)]
        self._coding: Coding = (
            LossyCoding(settings, files[0], device=device)
            if settings.mode == "lossy"
            else LosslessCoding(settings, files, device=device)
        )
        self._decoder = Decoder(_finder(files), device=device)
        self._auto = Auto(settings, self._without_loss) if settings.auto else None
        self._exact_files, self._device = files[1:], device
        self._exact: ImageCodec | None = None

    def warm_up(self) -> None:
        """Compile and load what the first image would wait for: seconds, or with a cold cache half a minute."""
        if self.settings.mode == "original":
            return
        ramp = np.linspace(0, 255, WARM_UP_SIDE, dtype=np.uint8)
        noise = np.random.default_rng(0).integers(0, 64, (WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)
        picture = Picture(pixels=ramp[:, None, None] // 2 + noise)
        (encoded,) = self._coding.encode([picture], [b""])
        if isinstance(encoded, Encoded):
            ms_ssim(picture.pixels, self._decoder.decode(encoded.stream).pixels)

    def shape_of(self, source: Source) -> tuple[int, ...]:
        """Width and height by the file's header, before any orientation; empty where it tells none."""
        return picture_size(source.data, max_pixels=self.settings.max_pixels)

    def prepare(self, source: Source) -> Prepared:
        """The part of ``encode`` that is no network's: a thread may do it ahead, with the same result."""
        return Prepared(name=source.name, data=source.data, found=self._read(source))

    def encode(self, sources: Sequence[Source]) -> list[Encoded | RecbatchError]:
        """One result per source, in order; an image's error is returned, not raised. Takes prepared ones, too."""
        results: dict[int, Encoded | RecbatchError] = {}
        batch: list[tuple[int, Picture]] = []
        pixels = 0
        for i, source in enumerate(sources):
            picture = source.found if isinstance(source, Prepared) else self._read(source)
            if not isinstance(picture, Picture):
                results[i] = self._capped(picture)
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
        lossless = s.mode == "lossless"
        convert = s.keep_originals == "never" and not lossless
        recoded = None
        if lossless and s.keep_originals == "smaller" and jpeg.is_jpeg(source.data):
            recoded = jpeg.recode(source.data)
        try:
            picture = read_picture(source.data, max_pixels=s.max_pixels, convert=convert)
        except KeepOriginal as e:
            if recoded is not None:
                return _recoded(source, recoded, e)
            if lossless and s.keep_originals == "never":
                return NotWithoutLoss(e.reason)
            return keep(source, e.reason, picture=e)
        except ImageError as e:
            return e
        if recoded is not None:
            return _recoded(source, recoded, picture)
        if s.mode == "original" or s.keep_originals == "always":
            return keep(source, "as asked", picture=picture)
        if lossless and s.keep_originals == "smaller" and jpeg.is_jpeg(source.data):
            # the pixels of a JPEG, without loss, take several times the bytes of the file
            return keep(source, "no recoding of this JPEG is smaller", picture=picture)
        return picture

    def _encode_batch(
        self, sources: Sequence[Source], batch: Sequence[tuple[int, Picture]]
    ) -> dict[int, Encoded | RecbatchError]:
        if not batch:
            return {}
        recipes: list[bytes] = []
        if self.settings.exact_files:
            found = [(i, p, recipe(sources[i].data, picture=p)) for i, p in batch]
            kept: dict[int, Encoded | RecbatchError] = {
                i: keep(sources[i], "its bytes can't be rebuilt from its pixels", picture=picture)
                for i, picture, how in found
                if how is None
            }
            if kept:
                return kept | self._encode_batch(sources, [(i, p) for i, p, how in found if how is not None])
            recipes = [how for _, _, how in found if how is not None]
        try:
            coded = self._coding.encode([p for _, p in batch], recipes or [b""] * len(batch))
        except RecbatchError as e:
            if len(batch) == 1:
                return {batch[0][0]: e}
            half = len(batch) // 2  # find whose error it is; the others go on
            return self._encode_batch(sources, batch[:half]) | self._encode_batch(sources, batch[half:])
        rows = {i: self._finish(sources[i], p, c) for (i, p), c in zip(batch, coded, strict=True)}
        if self._auto is None:
            return rows
        return {i: self._auto.settle(sources[i], p, rows[i]) for i, p in batch}

    def _without_loss(self, source: Source) -> Encoded | RecbatchError:
        """The lossless row of one file; loads what that takes when the first one comes."""
        if self._exact is None:
            settings = exact_settings(self.settings)
            self._exact = ImageCodec(settings, weights=self._exact_files, device=self._device)
        (row,) = self._exact.encode([source])
        return row

    def _capped(self, result: Encoded | RecbatchError) -> Encoded | RecbatchError:
        """No file of more bytes than were allowed is kept; streams never have more."""
        cap = self.settings.max_bytes
        if cap is None or isinstance(result, RecbatchError) or len(result.stream) <= cap:
            return result
        return TargetOutOfReach(
            f"{result.notes[0]}, and it has {len(result.stream)} bytes, asked for at most {cap}",
            "Raise --max-bytes, or convert it with --keep-originals never",
        )

    def _finish(
        self, source: Source, picture: Picture, coded: Encoded | TargetOutOfReach
    ) -> Encoded | RecbatchError:
        """Never bigger than the source; decoded again; measured."""
        s = self.settings
        if isinstance(coded, TargetOutOfReach):
            # the file itself is as good as can be, and may be small enough
            if s.keep_originals == "never" or len(source.data) > (s.max_bytes or len(source.data)):
                return coded
            return keep(source, coded.problem, picture=picture)
        if s.keep_originals == "smaller" and len(coded.stream) >= len(source.data):
            return keep(source, "smaller than its stream", picture=picture)
        try:
            restored = self._decoder.decode(coded.stream, max_pixels=s.max_pixels)
            file = self._decoder.file(coded.stream, restored) if s.exact_files else None
        except RecbatchError as e:
            return VerificationFailed(str(e))
        lossless = s.mode == "lossless"
        problem = _difference(picture, restored, lossless=lossless)
        if not problem and s.exact_files and file != source.data:
            problem = "it does not rebuild its file"
        if problem:
            return VerificationFailed(problem)
        if lossless:
            return replace(coded, pixels_sha256=pixels_sha256(restored))
        return replace(
            coded,
            psnr=psnr(picture.pixels, restored.pixels),
            ms_ssim=ms_ssim(picture.pixels, restored.pixels),
        )


def _recoded(source: Source, recoded: jpeg.Recoded, picture: Picture | KeepOriginal) -> Encoded:
    """The row of a JPEG file that has been recoded, and proved to come back."""
    row = keep(source, "", picture=picture)
    return replace(
        row,
        codec="jpeg",
        coder=recoded.method,
        stream=recoded.data,
        stream_sha256=hashlib.sha256(recoded.data).digest(),
        notes=(),
    )


def _difference(source: Picture, restored: Picture, *, lossless: bool) -> str:
    """What a restored picture must have in common with its source and has not; "" where all is well."""
    if restored.pixels.shape != source.pixels.shape:
        return f"it restores {restored.pixels.shape}, not {source.pixels.shape}"
    if restored.metadata != source.metadata:
        return "it restores other metadata"
    if (restored.alpha is None) != (source.alpha is None) or not np.array_equal(
        restored.alpha if restored.alpha is not None else 0, source.alpha if source.alpha is not None else 0
    ):
        return "it restores another alpha channel"
    if lossless and not np.array_equal(restored.pixels, source.pixels):
        return "it restores other pixels"
    return ""


def _finder(files: Sequence[bytes]) -> Callable[[bytes], bytes]:
    """Weights by the head of their digest: these files, or the package's."""
    known = {weights.digest(data): data for data in files}

    def find(head: bytes) -> bytes:
        for digest, data in known.items():
            if digest.startswith(head):
                return data
        return weights.find(head)

    return find
