"""The lossy codec: picture -> latents -> samples by relative entropy coding -> stream, and back.

Networks run image by image, so that an image's bytes do not depend on its neighbours; the index search runs over
all images of a call at once.

Shapes: M latent channels on h x w = 1/16 of the padded picture, N hyper channels on 1/64; dimensions of a section are
flattened in C order, those of a pass after its mask.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from recbatch import rec, stream
from recbatch.codec import calibration
from recbatch.codec.calibration import Calibration
from recbatch.codec.refine import expected_samples, refined
from recbatch.errors import CorruptData, CorruptStream
from recbatch.images import Picture, decode_alpha, encode_alpha, pack_metadata, parse_metadata
from recbatch.models.photo import STRIDE, PhotoModel, Prior, samples
from recbatch.models.weights import DIGEST_HEAD
from recbatch.rec.base import SCALES, Bits, Coder, Reader, Writer
from recbatch.rec.tables import sigma

CODEC_LOSSY = 1
MEANS_PER_UNIT = 16
VARIANCES = np.array([sigma(k) ** 2 for k in range(SCALES)])  # of the prior, by scale index


class OtherArithmetic(CorruptData):
    """The exact networks gave other integers here than where the stream was made."""

    code = "other-arithmetic"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return (
            f"The decoder's networks give other {self.what} than the encoder's did, on every arithmetic path. "
            "Run 'recbatch doctor', or decode on another machine; the stream's own checksum is right."
        )


@dataclass(slots=True)
class Job:
    """One image on its way through the encoder; ``samples`` and the digests are complete at the end."""

    picture: Picture
    y: Tensor  # [M, h, w], in units of observation noise
    z: Tensor  # [N, h/4, w/4]
    writer: Writer
    samples: Tensor  # int32 [1, M, h, w] in 1/UNIT: what the decoder will have
    calibration: Calibration
    tuning_s: float = 0.0  # spent on calibration and refinement
    kl_bits: float = 0.0
    parameters: xxhash.xxh3_64 = field(default_factory=xxhash.xxh3_64)
    latents: xxhash.xxh3_64 = field(default_factory=xxhash.xxh3_64)


@dataclass(frozen=True, slots=True)
class Coded:
    """A stream and where its bits went."""

    data: bytes
    kl_bits: float
    bits: Bits
    tuning_s: float  # of the encoder, beside networks and search: calibration and refinement


def encode(
    pictures: Sequence[Picture], model: PhotoModel, coder: Coder, level: int, *, steps: int = 0
) -> list[Coded]:
    """Encode pictures of any sizes at one rate level; ``steps`` as in ``encode_latents``."""
    out = []
    for job in encode_latents(pictures, model, coder, level, steps=steps):
        data = packed(job, model, coder, level)
        out.append(Coded(data, job.kl_bits, job.writer.bits, job.tuning_s))
    return out


def packed(job: Job, model: PhotoModel, coder: Coder, level: int) -> bytes:
    """The stream of a job that ``encode_latents`` has completed."""
    return stream.pack(_stream(job, job.writer.finish(), model, coder, level))


def encode_latents(
    pictures: Sequence[Picture],
    model: PhotoModel,
    coder: Coder,
    level: int,
    *,
    calibrate: bool = True,
    steps: int = 0,
) -> list[Job]:
    """Everything but the packing: the samples of all pictures, sent to their writers.

    Without ``calibrate`` the coder gets the scale indices just as the networks give them; ``steps`` of refinement are
    made before each pass (``refine``).
    """
    jobs = []
    channels = model.config.latent
    tables = tables_of(model) or rec.Tables.default()
    for picture in pictures:
        y, z = model.analyse(_padded(picture), level)
        shifts = Calibration.none(channels)
        jobs.append(Job(picture, y[0], z[0], coder.writer(), torch.empty(0), shifts))

    def send(
        latents: list[Tensor], priors: list[Prior], masks: list[Tensor | None], which: int | None = None
    ) -> list[Tensor]:
        """Code what the masks select; samples with their means, zero elsewhere. ``which`` pass, None: not one."""
        targets, scales = [], []
        for job, x, prior, mask in zip(jobs, latents, priors, masks, strict=True):
            e = _select(x - prior.mean[0].float() / MEANS_PER_UNIT, mask).numpy()
            index = _select(prior.index[0], mask).numpy()
            job.kl_bits += kl_bits(e, index)
            if which is not None and mask is not None and calibrate:
                with _clocked(job):
                    channel_N, shift_PM = _channels(mask), job.calibration.shift_PM
                    before_M = shift_PM[0] if which else None
                    shift_PM[which] = calibration.choose(e, index, channel_N, tables, channels, before_M)
                    index = job.calibration.apply(index, channel_N, which)
            targets.append(e)
            scales.append(index)
        residuals = coder.encode([job.writer for job in jobs], targets, scales)
        return [_scatter(p, m, r) for p, m, r in zip(priors, masks, residuals, strict=True)]

    z_samples = send(
        [j.z for j in jobs], [model.hyper_prior(1, *j.z.shape[1:]) for j in jobs], [None] * len(jobs)
    )
    firsts = [model.first_prior(z, level) for z in z_samples]
    masks = [model.mask(*job.y.shape[1:]) for job in jobs]
    if steps:
        for job, first, mask in zip(jobs, firsts, masks, strict=True):
            with _clocked(job):
                _refine_all(job, model, level, first, mask, steps)
    y_first = send([job.y for job in jobs], [prior for prior, _, _ in firsts], list(masks), 0)
    seconds = [model.second_prior(y, h, raw, level) for y, (_, h, raw) in zip(y_first, firsts, strict=True)]
    if steps:
        for job, y0, prior, mask in zip(jobs, y_first, seconds, masks, strict=True):
            size = job.picture.pixels.shape[:2]
            y = job.y[None]
            with _clocked(job):
                job.y = refined(model, y, _padded(job.picture), size, level, prior, steps, y0, ~mask[None])[0]
    y_second = send([job.y for job in jobs], seconds, [~m for m in masks], 1)

    for job, z, y0, y1, first, second in zip(
        jobs, z_samples, y_first, y_second, firsts, seconds, strict=True
    ):
        job.samples = y0 + y1
        _update(job.parameters, first[0], second)
        _update_samples(job.latents, z, job.samples)
    return jobs


@contextmanager
def _clocked(job: Job) -> Iterator[None]:
    start = time.perf_counter()
    yield
    job.tuning_s += time.perf_counter() - start


def _refine_all(
    job: Job, model: PhotoModel, level: int, first: tuple[Prior, Tensor, Tensor], mask: Tensor, steps: int
) -> None:
    """Refine all latents of a job, the prior of pass 1 guessed from what pass 0 will send on average."""
    prior, h, raw = first
    y = job.y[None]
    likely = torch.where(mask, expected_samples(y, prior), 0)
    other = model.second_prior(likely, h, raw, level)
    both = Prior(torch.where(mask, prior.mean, other.mean), torch.where(mask, prior.index, other.index))
    job.y = refined(model, y, _padded(job.picture), job.picture.pixels.shape[:2], level, both, steps)[0]


def decode(parsed: stream.Stream, model: PhotoModel, coder: Coder) -> Picture:
    """The picture of a stream. Raises CorruptStream, OtherArithmetic."""
    sections = parsed.sections
    y = decode_latents(parsed, model, coder)
    pixels = model.synthesise(y, parsed.level)[0, : parsed.height, : parsed.width]
    if parsed.mode in ("L", "LA"):
        pixels = pixels.mean(axis=2, keepdims=True, dtype=np.float32).round().astype(np.uint8)
    alpha = None
    if parsed.mode in ("RGBA", "LA"):
        alpha = decode_alpha(sections[stream.SECTION_ALPHA], parsed.width, parsed.height)
    return Picture(
        pixels=np.ascontiguousarray(pixels),
        alpha=alpha,
        metadata=parse_metadata(sections.get(stream.SECTION_METADATA, b"")),
        notes=(),
        source_format="rec",
    )


def decode_latents(parsed: stream.Stream, model: PhotoModel, coder: Coder) -> Tensor:
    """Latent samples [1, M, h, w] of a stream, checked against its digests."""
    if parsed.level >= 32:
        raise CorruptStream(f"rate level {parsed.level} does not exist")
    height, width = (-(-side // STRIDE) for side in (parsed.height, parsed.width))
    reader = coder.reader(parsed.sections[stream.SECTION_LATENTS])
    shifts = Calibration.parse(parsed.sections.get(stream.SECTION_CALIBRATION, b""), model.config.latent)
    parameters, latents = xxhash.xxh3_64(), xxhash.xxh3_64()
    z = _receive(reader, model.hyper_prior(1, height, width), None)
    first, h, raw = model.first_prior(z, parsed.level)
    mask = model.mask(4 * height, 4 * width)
    y0 = _receive(reader, first, mask, shifts, 0)
    second = model.second_prior(y0, h, raw, parsed.level)
    y = y0 + _receive(reader, second, ~mask, shifts, 1)
    reader.finish()
    _update(parameters, first, second)
    _update_samples(latents, z, y)
    if _digest(parameters) != parsed.parameters_digest:
        raise OtherArithmetic("prior parameters")
    if _digest(latents) != parsed.latents_digest:
        raise CorruptStream("the latents are not the ones that were encoded (their digest differs)")
    return y


def kl_bits(e: NDArray[np.float32], index: NDArray[np.uint8]) -> float:
    """KL in bits of the exact posteriors from their priors (rec.base: the channel)."""
    variance = VARIANCES[index]
    a = variance / (1 + variance)
    nats = 0.5 * np.log1p(variance) + 0.5 * (a * (1 - a) * np.square(e, dtype=np.float64) - a)
    return float(nats.sum() / np.log(2))


def _padded(picture: Picture) -> NDArray[np.uint8]:
    """Pixels [1, H, W, 3] with edges repeated up to multiples of the model's stride."""
    height, width = picture.pixels.shape[:2]
    pixels = np.pad(picture.pixels, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))[None]


def _select(x: Tensor, mask: Tensor | None) -> Tensor:
    return x.reshape(-1) if mask is None else x[mask]


def _scatter(prior: Prior, mask: Tensor | None, residual: NDArray[np.int32]) -> Tensor:
    full = torch.zeros_like(prior.mean)
    values = torch.from_numpy(residual)
    if mask is None:
        return samples(prior, values.reshape(full.shape))
    full[0][mask] = values
    return torch.where(mask, samples(prior, full), 0)


def _receive(
    reader: Reader, prior: Prior, mask: Tensor | None, shifts: Calibration | None = None, which: int = 0
) -> Tensor:
    index = _select(prior.index[0], mask).numpy()
    if shifts is not None and mask is not None:
        index = shifts.apply(index, _channels(mask), which)
    return _scatter(prior, mask, reader.decode(index))


def _channels(mask: Tensor) -> NDArray[np.int16]:
    """Channel of each dimension that a mask selects, in its order."""
    counts = mask.sum((1, 2)).numpy()
    return np.repeat(np.arange(len(counts), dtype=np.int16), counts)


def _update(digest: xxhash.xxh3_64, *priors: Prior) -> None:
    for prior in priors:
        digest.update(prior.mean.contiguous().numpy().astype("<i4", copy=False).tobytes())
        digest.update(prior.index.contiguous().numpy().tobytes())


def _update_samples(digest: xxhash.xxh3_64, *parts: Tensor) -> None:
    for part in parts:
        digest.update(part.contiguous().numpy().astype("<i4", copy=False).tobytes())


def _digest(digest: xxhash.xxh3_64) -> bytes:
    """As ``stream.short_digest``, of what was fed piece by piece."""
    return (digest.intdigest() & 0xFFFFFFFF).to_bytes(4, "little")


def _stream(job: Job, payload: bytes, model: PhotoModel, coder: Coder, level: int) -> stream.Stream:
    picture = job.picture
    sections = {stream.SECTION_LATENTS: payload}
    if picture.alpha is not None:
        sections[stream.SECTION_ALPHA] = encode_alpha(picture.alpha)
    metadata = pack_metadata(picture.metadata)
    if metadata:
        sections[stream.SECTION_METADATA] = metadata
    if shifts := job.calibration.pack():
        sections[stream.SECTION_CALIBRATION] = shifts
    return stream.Stream(
        codec=CODEC_LOSSY,
        mode=picture.mode,
        width=picture.width,
        height=picture.height,
        model=model.digest[:DIGEST_HEAD],
        level=level,
        coder=coder.number,
        coder_parameters=coder.parameters,
        parameters_digest=_digest(job.parameters),
        latents_digest=_digest(job.latents),
        sections=sections,
    )


@lru_cache(maxsize=4)  # else every stream would derive its rows anew
def tables_of(model: PhotoModel) -> rec.Tables | None:
    """Entropy tables that came with the model, if any."""
    return rec.Tables.with_prior(**model.coder_prior) if model.coder_prior else None
