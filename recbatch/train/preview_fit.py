"""The integer synthesis of previews, fitted to the lossy model's own samples by least squares; previews to train on.

Shapes: M latent channels on h x w blocks of 16 x 16 pixels.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recbatch import rec
from recbatch.codec import lossy
from recbatch.images import Picture
from recbatch.models.lossless import geometry
from recbatch.models.lossless.preview import BLOCK, OUTPUTS, PreviewSynthesis
from recbatch.models.photo import PhotoModel
from recbatch.models.weights import DIGEST_HEAD
from recbatch.train.lossless_data import ExactPixels

TOTAL_SHIFT = 22
RIDGE = 1.0  # in blocks: keeps channels that never carry anything at zero
EFFORT = 1  # of the search that makes the samples: they are posterior samples at any effort


def fit_previews(
    pixels: ExactPixels, cache: Path, model: PhotoModel, level: int, synthesis: PreviewSynthesis | None = None
) -> tuple[PreviewSynthesis, ExactPixels]:
    """The synthesis (fitted where none is given), and the same pixels with their previews, cached in ``cache``."""
    index = cache.with_suffix(".json")
    stamp = json.dumps([model.digest.hex(), level, pixels.shapes.tolist()])
    stored = cache.with_suffix(".synthesis.npz")
    if cache.exists() and index.exists() and index.read_text() == stamp and stored.exists():
        return load_synthesis(cache), ExactPixels(pixels.flat, pixels.shapes, np.memmap(cache, np.uint8, "r"))
    coder = rec.coder("trellis", effort=EFFORT, tables=lossy.tables_of(model))
    samples: list[NDArray[np.int32]] = []
    channels = model.config.latent
    gram, moment = np.zeros((channels + 1, channels + 1)), np.zeros((channels + 1, OUTPUTS))
    for i in range(len(pixels.shapes)):
        image = _image(pixels, i)
        (job,) = lossy.encode_latents([Picture(pixels=image)], model, coder, level)
        sample = job.samples[0].numpy()
        samples.append(sample)
        if synthesis is None:
            a, b = _blocks(sample, image)
            gram += a.T @ a
            moment += a.T @ b
    if synthesis is None:
        synthesis = _quantised(gram, moment, level, model.digest[:DIGEST_HEAD])
    with cache.open("wb") as out:
        for sample, (_, height, width) in zip(samples, pixels.shapes, strict=True):
            planes = synthesis.planes(sample)[:, :height, :width]
            out.write(np.clip(_rgb(planes), 0, 255).astype(np.uint8).tobytes())
    np.savez(
        stored,
        weight=synthesis.weight,
        bias=synthesis.bias,
        shift=synthesis.shift,
        scalars=[synthesis.total_shift, synthesis.level],
        latents_of=np.frombuffer(synthesis.latents_of, np.uint8),
    )
    index.write_text(stamp)
    return synthesis, ExactPixels(pixels.flat, pixels.shapes, np.memmap(cache, np.uint8, "r"))


def load_synthesis(cache: Path) -> PreviewSynthesis:
    """The synthesis that ``fit_previews`` left beside ``cache``."""
    with np.load(cache.with_suffix(".synthesis.npz")) as stored:
        total_shift, level = (int(v) for v in stored["scalars"])
        return PreviewSynthesis(
            stored["weight"],
            stored["bias"],
            stored["shift"],
            total_shift,
            level,
            stored["latents_of"].tobytes(),
        )


def _rgb(planes: geometry.Integers) -> NDArray[np.int16]:
    y, co, cg = planes
    t = y - (cg >> 1)
    blue = t - (co >> 1)
    return np.stack([blue + co, cg + t, blue], axis=-1)


def _image(pixels: ExactPixels, i: int) -> NDArray[np.uint8]:
    offset, height, width = (int(v) for v in pixels.shapes[i])
    return np.array(pixels.flat[offset : offset + height * width * 3]).reshape(height, width, 3)


def _blocks(
    sample_Mhw: NDArray[np.int32], image_HW3: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows of (samples, 1) and of pixels, for the blocks that lie wholly inside the image."""
    height, width = image_HW3.shape[0] // BLOCK, image_HW3.shape[1] // BLOCK
    a = sample_Mhw[:, :height, :width].reshape(len(sample_Mhw), -1).T.astype(np.float64)
    a = np.concatenate([a, np.full((len(a), 1), 64.0)], axis=1)
    planes = geometry.to_ycocg(image_HW3)[:, : BLOCK * height, : BLOCK * width]
    b = planes.reshape(3, height, BLOCK, width, BLOCK).transpose(1, 3, 0, 2, 4).reshape(-1, OUTPUTS)
    return a, b.astype(np.float64)


def _quantised(
    gram: NDArray[np.float64], moment: NDArray[np.float64], level: int, latents_of: bytes
) -> PreviewSynthesis:
    gram = gram + RIDGE * 64.0**2 * np.eye(len(gram))
    solution = np.linalg.solve(gram, moment).T  # [768, M + 1]
    scaled = solution[:, :-1] * 2.0**TOTAL_SHIFT
    largest = np.abs(scaled).max(axis=0)
    shift = np.maximum(0, np.ceil(np.log2(np.maximum(largest, 1e-9) / 127))).astype(np.int8)
    weight = np.rint(scaled / 2.0**shift).astype(np.int8)
    bias = np.rint(solution[:, -1] * 64 * 2.0**TOTAL_SHIFT).astype(np.int32)
    return PreviewSynthesis(weight, bias, shift, TOTAL_SHIFT, level, latents_of)
