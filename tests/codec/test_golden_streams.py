"""Streams that every later version must read, with a tiny model that never changes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pictures import GOLDEN
from PIL import Image

from recbatch import stream
from recbatch.codec import Decoder, lossy
from recbatch.codec.quality import psnr
from recbatch.errors import CorruptData, RecbatchError
from recbatch.models.exact import at_least
from recbatch.models.photo import PhotoModel

FOLDER = GOLDEN / "codec"
CASES = json.loads((FOLDER / "cases.json").read_text())


def weights_of(name):
    """The tiny model that a case was made with."""
    model = "tiny-groups" if name.startswith("groups") else "tiny"
    return (GOLDEN / "model" / f"{model}.safetensors").read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_latents_are_those_of_the_day_it_was_made(name):
    parsed = stream.parse((FOLDER / f"{name}.rec").read_bytes())
    model = PhotoModel.from_bytes(weights_of(name))
    y = lossy.decode_latents(parsed, model, Decoder.coder(parsed, model))
    assert stream.short_digest(y.numpy().astype("<i4").tobytes()).hex() == CASES[name]["samples"]


@pytest.mark.parametrize("name", ["trellis", "groups"])
@pytest.mark.parametrize("rung", ["unfold", "float64", "int64"])
def test_every_arithmetic_path_reads_it(rung, name):
    parsed = stream.parse((FOLDER / f"{name}.rec").read_bytes())
    model = PhotoModel.from_bytes(weights_of(name))
    with at_least(rung):
        y = lossy.decode_latents(parsed, model, Decoder.coder(parsed, model))
    assert stream.short_digest(y.numpy().astype("<i4").tobytes()).hex() == CASES[name]["samples"]


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_within_the_tolerance_of_the_format(name):
    decoder = Decoder(lambda head: weights_of(name))
    picture = decoder.decode((FOLDER / f"{name}.rec").read_bytes())
    golden = np.asarray(Image.open(FOLDER / f"{name}.png"))
    height, width, bands = picture.pixels.shape
    assert psnr(picture.pixels, golden.reshape(height, width, -1)[..., :bands]) > 55


def test_damage_is_found_wherever_it_is(decoder):
    data = (FOLDER / "trellis.rec").read_bytes()
    rng = np.random.default_rng(0)
    for offset in rng.choice(len(data), 40, replace=False):
        damaged = bytearray(data)
        damaged[offset] ^= 1 << int(rng.integers(8))
        with pytest.raises(CorruptData):
            decoder.decode(bytes(damaged))
        with pytest.raises(CorruptData):
            decoder.decode(data[:offset])


def test_damage_behind_a_mended_checksum_never_passes_silently(decoder):
    """The container's CRC put right again: the coder, its reader or a digest must say no."""
    parsed = stream.parse((FOLDER / "trellis.rec").read_bytes())
    fields = {f: getattr(parsed, f) for f in parsed.__slots__}
    payload = parsed.sections[stream.SECTION_LATENTS]
    rng = np.random.default_rng(1)
    for _ in range(25):
        damaged = bytearray(payload)
        damaged[int(rng.integers(len(payload)))] ^= 1 << int(rng.integers(8))
        sections = {**parsed.sections, stream.SECTION_LATENTS: bytes(damaged)}
        with pytest.raises(RecbatchError):
            decoder.decode(stream.pack(stream.Stream(**{**fields, "sections": sections})))


def test_threads_do_not_change_the_latents(weights):
    parsed = stream.parse((FOLDER / "trellis.rec").read_bytes())
    model = PhotoModel.from_bytes(weights)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = lossy.decode_latents(parsed, model, Decoder.coder(parsed, model))
            assert stream.short_digest(y.numpy().astype("<i4").tobytes()).hex() == CASES["trellis"]["samples"]
    finally:
        torch.set_num_threads(before)
