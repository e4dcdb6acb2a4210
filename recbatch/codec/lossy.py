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
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from recbatch import rec, stream
from recbatch.codec import calibration
from recbatch.codec.calibration import Calibration
from recbatch.codec.refine import expected_prior, refined
from recbatch.errors import CorruptData, CorruptStream
from recbatch.images import Picture, decode_alpha, encode_alpha, pack_metadata, parse_metadata
from recbatch.models.freed import return_freed_memory
from recbatch.models.photo import STRIDE, STRIP_PIXELS, Context, PhotoModel, Prior
from recbatch.models.prior import SAMPLES_PER_MEAN
from recbatch.models.weights import DIGEST_HEAD
from recbatch.rec.base import SCALES, Bits, Coder, Reader, Sender, Writer
from recbatch.rec.tables import sigma

CODEC_LOSSY = 1
MEANS_PER_UNIT = 16
CHUNK = 1 << 20  # dimensions that are converted at once
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
    y: Tensor  # [M, h, w], in units of observation noise; empty at the end
    z: Tensor  # [N, h/4, w/4]
    writer: Writer
    samples: Tensor  # int32 [1, M, h, w] in 1/UNIT: what the decoder will have
    calibration: Calibration
    tuning_s: float = 0.0  # spent on calibration and refinement
    kl_bits: float = 0.0
    parameters: xxhash.xxh3_64 = field(default_factory=xxhash.xxh3_64)
    latents: xxhash.xxh3_64 = field(default_factory=xxhash.xxh3_64)


@dataclass(frozen=True, slots=True)
class _Section:
    """What is coded of one image in one go, flat in the order of its mask; all where that is None."""

    target_N: NDArray[np.float32]  # latents minus prior means
    index_N: NDArray[np.uint8]
    mean_N: NDArray[Any]  # integers in 1/16
    mask: Tensor | None

    @classmethod
    def of(cls, x: Tensor, prior: Prior, mask: Tensor | None) -> _Section:
        mean_N = _select(prior.mean[0], mask)
        target_N = mean_N.astype(np.float32)
        target_N /= np.float32(-MEANS_PER_UNIT)
        target_N += _select(x, mask)
        return cls(target_N, _select(prior.index[0], mask), mean_N, mask)

    def samples(self, residual_N: NDArray[np.int32]) -> NDArray[np.int32]:
        return _samples(self.mean_N, residual_N)


@dataclass(frozen=True, slots=True)
class Coded:
    """A stream and where its bits went."""

    data: bytes
    kl_bits: float
    bits: Bits
    tuning_s: float  # of the encoder, beside networks and search: calibration and refinement


def encode(
    pictures: Sequence[Picture], model: PhotoModel, coder: Coder, level: float, *, steps: int = 0
) -> list[Coded]:
    """Encode pictures of any sizes at one rate level; ``steps`` as in ``encode_latents``."""
    out = []
    for job in encode_latents(pictures, model, coder, level, steps=steps):
        data = packed(job, model, coder, level)
        out.append(Coded(data, job.kl_bits, job.writer.bits, job.tuning_s))
    return out


def packed(job: Job, model: PhotoModel, coder: Sender, level: float) -> bytes:
    """The stream of a job that ``encode_latents`` has completed."""
    return stream.pack(_stream(job, job.writer.finish(), model, coder, level))


def encode_latents(
    pictures: Sequence[Picture],
    model: PhotoModel,
    coder: Sender,
    level: float,
    *,
    calibrate: bool = True,
    steps: int = 0,
) -> list[Job]:
    """Everything but the packing: the samples of all pictures, sent to their writers.

    Without ``calibrate`` the coder gets the scale indices just as the networks give them; ``steps`` of refinement are
    made before each pass (``refine``).
    """
    jobs = []
    tables = tables_of(model) or rec.Tables.default()
    for picture in pictures:
        y, z = model.analyse(_padded(picture), level)
        none = Calibration.none(model.config.latent)
        jobs.append(Job(picture, y[0], z[0], coder.writer(), _nothing(y.shape), none))

    def send(sections: list[_Section], which: int | None = None) -> list[NDArray[np.int32]]:
        """Code a section of each job; samples. ``which`` pass, None: not one."""
        scales = []
        for job, section in zip(jobs, sections, strict=True):
            e, index, mask = section.target_N, section.index_N, section.mask
            job.kl_bits += kl_bits(e, index)
            if which is not None and mask is not None and calibrate:
                with _clocked(job):
                    shifts = job.calibration.of(model.pass_channels(which))
                    parity, channel_N = model.parity(which), _channels(mask)
                    before_M = shifts.shift_PM[0] if parity else None
                    shifts.shift_PM[parity] = calibration.choose(
                        e, index, channel_N, tables, len(mask), before_M
                    )
                    index = shifts.apply(index, channel_N, parity)
                    del channel_N
            scales.append(index)
        if any(_is_large(job.samples) for job in jobs):
            return_freed_memory()
        residuals = coder.encode([job.writer for job in jobs], [s.target_N for s in sections], scales)
        return [s.samples(residual) for s, residual in zip(sections, residuals, strict=True)]

    hyper = [_Section.of(job.z, model.hyper_prior(1, *job.z.shape[1:]), None) for job in jobs]
    z_samples = [
        torch.from_numpy(sent).reshape(1, *job.z.shape) for job, sent in zip(jobs, send(hyper), strict=True)
    ]
    contexts = [model.begin(z, level) for z in z_samples]

    # functions, so that nothing of a pass stays behind in a name: a large picture's takes more than all that is kept

    def section_of(job: Job, context: Context, which: int) -> _Section:
        prior = model.pass_prior(context, which, job.samples)
        _update(job.parameters, prior)
        return _Section.of(job.y[model.pass_channels(which)], prior, model.pass_mask(which, *job.y.shape[1:]))

    def code(which: int) -> None:
        if steps and model.pass_channels(which).start == 0:  # once before each parity
            for n, job in enumerate(jobs):
                with _clocked(job):
                    _refine(job, model, contexts[n], which, steps)
        sections = [section_of(job, context, which) for job, context in zip(jobs, contexts, strict=True)]
        if which == model.passes - 1:  # the last search needs none of this
            contexts.clear()
            for job in jobs:
                job.y = job.y[:, :0].clone()
        for job, section, sent in zip(jobs, sections, send(sections, which), strict=True):
            _place(job.samples, model.pass_channels(which), section.mask, sent)

    for which in range(model.passes):
        code(which)
        if any(_is_large(job.samples) for job in jobs):
            return_freed_memory()
    for job, z in zip(jobs, z_samples, strict=True):
        _update_samples(job.latents, z, job.samples)
    return jobs


@contextmanager
def _clocked(job: Job) -> Iterator[None]:
    start = time.perf_counter()
    yield
    job.tuning_s += time.perf_counter() - start


def _refine(job: Job, model: PhotoModel, context: Context, which: int, steps: int) -> None:
    """Refine what is not yet sent of a job, its priors guessed from what the passes will send on average."""
    y, size = job.y[None], job.picture.pixels.shape[:2]
    prior = expected_prior(model, y, context, job.samples, which)
    free = torch.ones_like(y, dtype=torch.bool)
    for before in range(which):
        free[:, model.pass_channels(before)] &= ~model.pass_mask(before, *y.shape[2:])
    job.y = refined(model, y, _padded(job.picture), size, context.level, prior, steps, job.samples, free)[0]


def decode(parsed: stream.Stream, model: PhotoModel, coder: Coder) -> Picture:
    """The picture of a stream. Raises CorruptStream, OtherArithmetic."""
    sections = parsed.sections
    pixels = model.synthesise(decode_latents(parsed, model, coder), parsed.level)
    pixels = pixels[0, : parsed.height, : parsed.width]
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
    hyper = model.hyper_prior(1, height, width)
    z = torch.from_numpy(_receive(reader, _select(hyper.mean[0], None), _select(hyper.index[0], None)))
    z = z.reshape(hyper.mean.shape)
    context = model.begin(z, parsed.level)
    y = _nothing((1, model.config.latent, 4 * height, 4 * width))

    def receive(which: int) -> None:  # a function for the reason that encode_latents has some
        prior = model.pass_prior(context, which, y)
        _update(parameters, prior)
        channels, mask = model.pass_channels(which), model.pass_mask(which, *y.shape[2:])
        mean_N, index_N = _select(prior.mean[0], mask), _select(prior.index[0], mask)
        del prior
        index_N = shifts.of(channels).apply(index_N, _channels(mask), model.parity(which))
        _place(y, channels, mask, _receive(reader, mean_N, index_N))

    for which in range(model.passes):
        receive(which)
    reader.finish()
    if _is_large(y):
        return_freed_memory()
    _update_samples(latents, z, y)
    if _digest(parameters) != parsed.parameters_digest:
        raise OtherArithmetic("prior parameters")
    if _digest(latents) != parsed.latents_digest:
        raise CorruptStream("the latents are not the ones that were encoded (their digest differs)")
    return y


def kl_bits(e: NDArray[np.float32], index: NDArray[np.uint8]) -> float:
    """KL in bits of the exact posteriors from their priors (rec.base: the channel)."""
    a = VARIANCES / (1 + VARIANCES)
    counts, squares = np.zeros(SCALES), np.zeros(SCALES)
    for first in range(0, e.size, CHUNK):  # else float64 takes more memory than all the rest
        some = index[first : first + CHUNK]
        counts += np.bincount(some, minlength=SCALES)
        squares += np.bincount(some, np.square(e[first : first + CHUNK], dtype=np.float64), SCALES)
    nats = 0.5 * np.sum(counts * (np.log1p(VARIANCES) - a) + squares * a * (1 - a))
    return float(nats / np.log(2))


def _padded(picture: Picture) -> NDArray[np.uint8]:
    """Pixels [1, H, W, 3] with edges repeated up to multiples of the model's stride."""
    height, width = picture.pixels.shape[:2]
    pixels = np.pad(picture.pixels, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))[None]


def _select(x: Tensor, mask: Tensor | None) -> NDArray[Any]:
    """What a mask chooses, flat; by NumPy, which needs no list of positions for it."""
    array: NDArray[Any] = x.numpy()
    return np.ascontiguousarray(array).reshape(-1) if mask is None else array[mask.numpy()]


def _receive(reader: Reader, mean_N: NDArray[Any], index_N: NDArray[np.uint8]) -> NDArray[np.int32]:
    return _samples(mean_N, reader.decode(index_N))


def _is_large(y: Tensor) -> bool:
    """Whether latents [1, M, h, w] are of a picture that the networks see in tiles."""
    return 256 * y.shape[2] * y.shape[3] > STRIP_PIXELS


def _samples(mean_N: NDArray[Any], residual_N: NDArray[np.int32]) -> NDArray[np.int32]:
    """Samples in 1/64 from a prior's means in 1/16 and coded residuals in 1/64."""
    sample_N: NDArray[np.int32] = mean_N.astype(np.int32)
    sample_N *= np.int32(SAMPLES_PER_MEAN)
    sample_N += residual_N
    return sample_N


def _nothing(shape: Sequence[int]) -> Tensor:
    """Samples that are all zero; NumPy's zeros, unlike torch's, take no memory before they are written."""
    return torch.from_numpy(np.zeros(shape, np.int32))


def _place(y: Tensor, channels: slice, mask: Tensor | None, sample_N: NDArray[np.int32]) -> None:
    """Put samples where a pass has its own in y [1, M, h, w]."""
    y[0, channels].numpy()[... if mask is None else mask.numpy()] = sample_N


def _channels(mask: Tensor) -> NDArray[np.int16]:
    """Channel, counted from the first of the mask, of each dimension that it selects, in its order."""
    counts = mask.sum((1, 2)).numpy()
    return np.repeat(np.arange(len(counts), dtype=np.int16), counts)


def _update(digest: xxhash.xxh3_64, prior: Prior) -> None:
    _feed(digest, prior.mean, "<i4")
    _feed(digest, prior.index, "u1")


def _update_samples(digest: xxhash.xxh3_64, *parts: Tensor) -> None:
    for part in parts:
        _feed(digest, part, "<i4")


def _feed(digest: xxhash.xxh3_64, x: Tensor, kind: str) -> None:
    """Feed a tensor's numbers to a digest in C order, as integers of a kind."""
    flat = x.contiguous().numpy().reshape(-1)
    for first in range(0, flat.size, CHUNK):
        digest.update(flat[first : first + CHUNK].astype(kind, copy=False).tobytes())


def _digest(digest: xxhash.xxh3_64) -> bytes:
    """As ``stream.short_digest``, of what was fed piece by piece."""
    return (digest.intdigest() & 0xFFFFFFFF).to_bytes(4, "little")


def _stream(job: Job, payload: bytes, model: PhotoModel, coder: Sender, level: float) -> stream.Stream:
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
