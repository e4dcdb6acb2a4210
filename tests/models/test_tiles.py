from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recbatch.models import photo
from recbatch.models.lossy import LossyConfig, LossyNet
from recbatch.models.photo import PhotoModel, export
from recbatch.models.tiles import HALO, STRIDE, banded, spans, tiles

sides = st.integers(1, 3000)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> PhotoModel:
    torch.manual_seed(0)
    net = LossyNet(LossyConfig(latent=12, hyper=6, widths=(8, 8, 8)))
    for p in net.parameters():  # away from the zero start, so that every part matters
        p.data += 0.05 * torch.randn_like(p)
    net.set_quantised(True)
    return PhotoModel.from_bytes(export(net.eval(), name="small"))


@settings(max_examples=40, deadline=None)
@given(sides, sides, st.integers(STRIDE * STRIDE, 2_000_000))
@example(64, 3000, 4096)
@example(3000, 1, 4096)
def test_tiles_cover_each_pixel_once(height, width, pixels):
    count_HW = np.zeros((height, width), np.int8)
    for tile in tiles(height, width, pixels):
        count_HW[tile.y.own, tile.x.own] += 1
        assert tile.rows * tile.columns <= max(pixels, STRIDE * STRIDE)
    assert (count_HW == 1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 40), st.sampled_from([(80, 64), (4, 4), (1, 1)]))
def test_spans_see_their_halo_wherever_there_is_a_picture(length, count, grid):
    halo, stride = grid
    for span in spans(length, count, halo=halo, stride=stride):
        assert span.first % stride == 0
        assert span.first < span.end
        assert span.low == max(0, span.first - halo)
        assert span.high == min(length, span.end + halo)
        window = np.arange(length)[span.window]
        assert np.array_equal(window[span.inner], np.arange(length)[span.own])


@given(sides, sides)
def test_what_is_small_enough_is_never_cut(height, width):
    (tile,) = tiles(height, width, height * width)
    assert tile.y.window == tile.y.own == tile.y.inner == slice(0, height)
    assert tile.x.window == tile.x.own == tile.x.inner == slice(0, width)


def test_no_picture_is_too_wide():
    for height, width in ((4032, 6016), (64, 200_000), (1024, 65_536), (65_536, 1024)):
        for tile in tiles(height, width, 1 << 20):
            assert (tile.y.high - tile.y.low) * (tile.x.high - tile.x.low) < 2 << 20


def test_tiles_in_both_directions_change_nothing_but_rounding(model, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 384, 448, 3), np.uint8)
    y, z = model.analyse(pixels, 12)
    whole = model.synthesise((y * 64).int(), 12)
    monkeypatch.setattr(photo, "STRIP_PIXELS", 128 * 128)
    cut = photo.strips(384, 448)
    assert len({tile.y for tile in cut}) > 2 < len({tile.x for tile in cut})
    y_cut, z_cut = model.analyse(pixels, 12)
    assert torch.allclose(y, y_cut, atol=1e-3)
    assert torch.allclose(z, z_cut, atol=1e-3)
    difference = np.abs(whole.astype(int) - model.synthesise((y * 64).int(), 12))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_gradients_by_tiles_are_those_of_the_whole(model, monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 256, (1, 384, 448, 3), np.uint8)
    y = model.analyse(pixels, 12)[0].clone()
    size = (290, 300)  # the last tiles hold padding and nothing else
    whole = model.error_gradient(y, pixels, size, 12)
    monkeypatch.setattr(photo, "GRADIENT_PIXELS", 64 * 64)
    cut = model.error_gradient(y, pixels, size, 12)
    assert torch.allclose(whole, cut, atol=1e-3 * float(whole.abs().max()))


def test_hyper_analysis_by_bands_changes_nothing_but_rounding(model):
    y = 20 * torch.randn(1, 12, 40, 24, generator=torch.Generator().manual_seed(2))
    hyper = model._net.hyper_analysis
    (cut,) = banded(lambda y: (hyper(y),), [y], halo=photo.HYPER_REACH, stride=4, cells=24 * 8)
    with torch.inference_mode():
        assert torch.allclose(cut, hyper(y), atol=1e-4)


@pytest.mark.parametrize("cells", [1, 30, 100, 10**6])
def test_integers_by_bands_are_the_very_same(cells):
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(-127, 128, (2, 5, 23, 10), generator=generator, dtype=torch.int8)
    base = torch.randint(0, 256, (2, 4, 23, 10), generator=generator, dtype=torch.uint8)
    weight = torch.randint(-9, 10, (4, 5, 3, 3), generator=generator).double()

    def network(x, base):
        sums = F.conv2d(x.double(), weight, padding=1) + base
        return sums.to(torch.int32), F.pixel_shuffle(sums, 2).to(torch.int16)

    for cut, whole in zip(banded(network, [x, base], halo=1, cells=cells), network(x, base), strict=True):
        assert cut.dtype == whole.dtype
        assert torch.equal(cut, whole)


def test_the_halo_is_wider_than_the_networks_reach(model):
    """A change of one pixel, or of one latent, is felt no farther than the halo; by networks of the usual depth."""
    pixels = np.full((1, 512, 64, 3), 128, np.uint8)
    other = pixels.copy()
    other[0, 255] = 255
    changed = (model.analyse(pixels, 12)[0] != model.analyse(other, 12)[0]).any(dim=3).any(dim=1)[0]
    rows = torch.nonzero(changed).flatten()
    assert 255 - 16 * (int(rows[0]) + 1) < HALO
    assert 16 * int(rows[-1]) - 255 <= HALO
    y = torch.zeros((1, 12, 32, 4), dtype=torch.int32)
    near = y.clone()
    near[:, :, 16] = 640
    differs = (model.synthesise(y, 12) != model.synthesise(near, 12)).any(axis=(0, 2, 3))
    found = np.flatnonzero(differs)
    assert 16 * 16 - found[0] <= HALO
    assert found[-1] - (16 * 17 - 1) <= HALO
