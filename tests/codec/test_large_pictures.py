"""What keeps the memory of large pictures small changes nothing that is sent."""

from __future__ import annotations

import pytest
import torch
from pictures import GOLDEN, photograph, source_of

from recbatch import rec, stream
from recbatch.codec import calibration, lossy
from recbatch.images import Picture, read_picture
from recbatch.models import photo
from recbatch.models.photo import PhotoModel
from recbatch.rec.base import Coder


@pytest.fixture(scope="module", params=["tiny", "tiny-groups"])
def model(request: pytest.FixtureRequest) -> PhotoModel:
    return PhotoModel.from_bytes((GOLDEN / "model" / f"{request.param}.safetensors").read_bytes())


@pytest.fixture(scope="module")
def coder(model: PhotoModel) -> Coder:
    return rec.coder("trellis", effort=1, tables=lossy.tables_of(model))


@pytest.fixture(scope="module")
def picture() -> Picture:
    picture = read_picture(source_of(photograph(140, 200, seed=3)).data)
    assert isinstance(picture, Picture)
    return picture


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that freed memory is given back."""
    seen: list[int] = []
    for module in (photo, lossy):
        monkeypatch.setattr(module, "return_freed_memory", lambda: seen.append(1))
    return seen


def test_pieces_of_a_section_leave_no_trace_in_its_stream(model, coder, picture, monkeypatch):
    (whole,) = lossy.encode([picture], model, coder, 16)
    assert stream.SECTION_CALIBRATION in stream.parse(whole.data).sections
    monkeypatch.setattr(lossy, "CHUNK", 101)
    monkeypatch.setattr(calibration, "CHUNK", 67)
    (pieces,) = lossy.encode([picture], model, coder, 16)
    assert pieces.data == whole.data
    lossy.decode_latents(stream.parse(pieces.data), model, coder)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_picture_that_is_cut_decodes_to_what_was_sent(model, coder, picture, monkeypatch, trims, steps):
    for module in (photo, lossy):
        monkeypatch.setattr(module, "STRIP_PIXELS", 64 * 128)
    (job,) = lossy.encode_latents([picture], model, coder, 16, steps=steps)
    assert trims
    trims.clear()
    data = lossy.packed(job, model, coder, 16)
    assert torch.equal(lossy.decode_latents(stream.parse(data), model, coder), job.samples)
    assert trims
    assert lossy.decode(stream.parse(data), model, coder).pixels.shape == picture.pixels.shape


def test_a_small_picture_leaves_the_heap_alone(model, coder, picture, trims):
    (coded,) = lossy.encode([picture], model, coder, 16)
    lossy.decode(stream.parse(coded.data), model, coder)
    assert not trims


def test_means_take_two_bytes_unless_the_level_makes_them_larger(model):
    z = torch.zeros(1, model.config.hyper, 1, 1, dtype=torch.int32)
    y = torch.zeros(1, model.config.latent, 4, 4, dtype=torch.int32)
    for level, kind in ((0, torch.int16), (30.875, torch.int16), (31, torch.int16), (31.125, torch.int32)):
        assert model.pass_prior(model.begin(z, level), 0, y).mean.dtype == kind
