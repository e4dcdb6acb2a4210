"""What a stage may know when it predicts, and that it never knows more.

Legend: B images, H x W pixels of a level, h x w positions of a phase, T taps.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lossless_models import random_model, trust_convolutions

from recbatch.models.exact import exact_mode, selftest
from recbatch.models.lossless import geometry
from recbatch.models.lossless.geometry import HIGHEST, LARGEST_DIFFERENCE, LOWEST, STAGES
from recbatch.models.lossless.network import LEVELS
from recbatch.train.lossless_batch import COMPAND_D, batch

SIZES = [(h, w) for h in range(1, 10) for w in range(1, 10)]
sides = st.integers(1, 24)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def no_trials():
    with pytest.MonkeyPatch.context() as patch:
        trust_convolutions(patch)
        yield
    selftest.forget_trials()


@pytest.fixture(scope="module")
def model():
    return random_model()


def noise(seed: int, *shape: int):
    """Planes of random colours [B, 3, H, W]."""
    rng = np.random.default_rng(seed)
    batch, _, height, width = shape
    return geometry.to_ycocg(rng.integers(0, 256, (batch, height, width, 3), np.uint8))


def free_noise(seed: int, *shape: int):
    """Planes anywhere in their ranges, also where no colour is: what a preview or a damaged stream holds."""
    rng = np.random.default_rng(seed)
    out = np.empty(shape, np.int16)
    for c in range(3):
        out[:, c] = rng.integers(LOWEST[c], HIGHEST + 1, out[:, c].shape)
    return out


# -- colours


def check_reversible(colours_N3) -> None:
    planes = geometry.to_ycocg(colours_N3[None])
    for c in range(3):
        assert planes[c].min() >= LOWEST[c]
        assert planes[c].max() <= HIGHEST
    assert np.array_equal(geometry.to_pixels(planes, 3)[0], colours_N3)


def test_colours_come_back_from_their_planes():
    steps = np.array([0, 1, 2, 3, 63, 127, 128, 129, 200, 252, 253, 254, 255], np.uint8)
    check_reversible(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3))
    check_reversible(np.random.default_rng(0).integers(0, 256, (50_000, 3), np.uint8))


@pytest.mark.long
def test_every_one_of_the_colours_comes_back_from_its_planes():
    green_blue = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).reshape(-1, 2).astype(np.uint8)
    for red in range(256):
        check_reversible(np.insert(green_blue, 0, np.uint8(red), axis=1))


def test_grey_is_luma_alone_and_comes_back():
    grey = np.arange(256, dtype=np.uint8).reshape(2, 128, 1)
    planes = geometry.to_ycocg(grey)
    assert planes.shape == (3, 2, 128)
    assert not planes[1:].any()
    assert np.array_equal(geometry.to_pixels(planes, 1), grey)
    as_colour = geometry.to_ycocg(np.repeat(grey, 3, axis=2))
    assert np.array_equal(planes, as_colour)


def test_companded_differences_are_odd_monotone_and_one_byte():
    assert COMPAND_D.dtype == np.int8
    assert COMPAND_D.size == 2 * LARGEST_DIFFERENCE + 1
    assert np.array_equal(COMPAND_D, -COMPAND_D[::-1])
    assert (np.diff(COMPAND_D.astype(int)) >= 0).all()
    assert COMPAND_D[LARGEST_DIFFERENCE] == 0


# -- levels and phases


@pytest.mark.parametrize("size", [*SIZES, (1, 40), (33, 1), (17, 64)])
def test_levels_and_stages_visit_every_pixel_but_the_first_once(size):
    height, width = size
    visits = np.zeros(size, int)
    depth = (max(size) - 1).bit_length()
    for level in range(depth):
        here = visits[:: 1 << level, :: 1 << level]
        for s in STAGES:
            p, q = s.phase
            phase = here[p::2, q::2]
            assert phase.shape == geometry.phase_size(*here.shape, s.phase)
            phase += 1
    first = visits[0, 0]
    assert first == 0
    assert visits.sum() == height * width - 1
    assert visits.max() <= 1


def known_before(stage: int, height: int, width: int):
    """Which pixels of a level a decoder has when a stage begins."""
    known = np.zeros((height, width), bool)
    known[::2, ::2] = True
    for s in STAGES[:stage]:
        known[s.phase[0] :: 2, s.phase[1] :: 2] = True
    return known


def seen_by(stage: int, level_B3HW, weights_3T, first: int = 0, rows: int | None = None):
    """Bases and input planes of a stage, straight from the kernels."""
    s = STAGES[stage]
    b, _, height, width = level_B3HW.shape
    all_rows, columns = geometry.phase_size(height, width, s.phase)
    rows = all_rows if rows is None else rows
    base = np.empty((b, 3, rows, columns), np.int32)
    geometry.bases(level_B3HW, s.taps_T4, weights_3T, first, base)
    planes = np.empty((b, s.inputs(preview=False), rows, columns), np.float32)
    geometry.inputs(level_B3HW, s.taps_T4, base, first, COMPAND_D, planes)
    return base, planes


@pytest.mark.parametrize("stage", range(3))
def test_no_stage_sees_a_pixel_that_is_not_known_yet(model, stage):
    rng = np.random.default_rng(stage)
    for size in [*SIZES, (1, 31), (30, 1), (13, 22)]:
        rows, columns = geometry.phase_size(*size, STAGES[stage].phase)
        if rows == 0 or columns == 0:
            continue
        weights = model.variants["plain"].weights[0, stage]
        level = free_noise(int(rng.integers(1000)), 2, 3, *size)
        other = free_noise(int(rng.integers(1000)), 2, 3, *size)
        known = known_before(stage, *size)
        other[..., known] = level[..., known]
        base, planes = seen_by(stage, level, weights)
        other_base, other_planes = seen_by(stage, other, weights)
        assert np.array_equal(base, other_base), size
        assert np.array_equal(planes, other_planes), size


@pytest.mark.parametrize("preview", [False, True])
def test_what_the_networks_say_depends_on_known_pixels_alone(model, preview):
    variant = model.variants["preview" if preview else "plain"]
    for size in [(1, 2), (2, 1), (2, 2), (3, 5), (9, 8)]:
        hint = free_noise(5, 1, 3, *size) if preview else None
        for stage, s in enumerate(STAGES):
            rows, columns = geometry.phase_size(*size, s.phase)
            if rows == 0 or columns == 0:
                continue
            level, other = free_noise(1, 1, 3, *size), free_noise(2, 1, 3, *size)
            known = known_before(stage, *size)
            other[..., known] = level[..., known]
            with exact_mode():
                bands = [model.band(variant, x, hint, 0, stage, 0, rows) for x in (level, other)]
            assert np.array_equal(bands[0].base, bands[1].base)
            assert torch.equal(bands[0].features, bands[1].features)


# -- what the kernels compute


def tap(level_3HW, c: int, s: geometry.Stage, k: int, i: int, j: int) -> int:
    """One tap of position (i, j), by the words of the module."""
    p, q, dy, dx = s.taps[k]
    if (p and level_3HW.shape[1] == 1) or (q and level_3HW.shape[2] == 1):
        p = q = 0  # that phase is empty: the coarse one stands in
    phase = level_3HW[c, p::2, q::2]
    return int(phase[np.clip(i + dy, 0, phase.shape[0] - 1), np.clip(j + dx, 0, phase.shape[1] - 1)])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), height=sides, width=sides, stage=st.integers(0, 2))
@example(seed=0, height=1, width=9, stage=1)
@example(seed=0, height=9, width=1, stage=2)
@example(seed=0, height=2, width=2, stage=2)
def test_bases_and_inputs_are_what_a_plain_loop_makes_of_the_taps(model, seed, height, width, stage):
    s, weights = STAGES[stage], model.variants["plain"].weights[0, stage]
    rows, columns = geometry.phase_size(height, width, s.phase)
    if rows == 0 or columns == 0:
        return
    level = free_noise(seed, 1, 3, height, width)
    base, planes = seen_by(stage, level, weights)
    rng = np.random.default_rng(seed)
    for i, j in {
        (0, 0),
        (rows - 1, columns - 1),
        *zip(rng.integers(0, rows, 4), rng.integers(0, columns, 4), strict=True),
    }:
        for c in range(3):
            taps = [tap(level[0], c, s, k, i, j) for k in range(len(s.taps))]
            total = sum(int(w) * t for w, t in zip(weights[c], taps, strict=False))
            want = min(max((total + 128) >> 8, 16 * LOWEST[c]), 16 * HIGHEST)
            assert base[0, c, i, j] == want
            rounded = (want + 8) >> 4
            assert planes[0, 3 * len(taps) + c, i, j] == (rounded - 128 if c == 0 else rounded >> 1)
            for k, t in enumerate(taps):
                assert planes[0, 3 * k + c, i, j] == COMPAND_D[t - rounded + LARGEST_DIFFERENCE]


def test_input_planes_stay_in_the_range_of_the_first_layer(model):
    for stage, s in enumerate(STAGES):
        for level in (free_noise(3, 1, 3, 16, 16), np.full((1, 3, 16, 16), 255, np.int16)):
            band = seen_by(stage, level, model.variants["plain"].weights[0, stage])[1]
            assert band.min() >= -128
            assert band.max() <= 127
            assert s.inputs(preview=True) == band.shape[1] + geometry.PREVIEW_INPUTS


# -- bands


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999),
    height=st.integers(2, 40),
    width=sides,
    level=st.integers(0, 5),
    stage=st.integers(0, 2),
    preview=st.booleans(),
    cuts=st.lists(st.integers(1, 19), max_size=4),
)
def test_bands_are_rows_of_the_whole_plane(model, seed, height, width, level, stage, preview, cuts):
    variant = model.variants["preview" if preview else "plain"]
    rows, columns = geometry.phase_size(height, width, STAGES[stage].phase)
    if rows == 0 or columns == 0:
        return
    x = free_noise(seed, 2, 3, height, width)
    hint = free_noise(seed + 1, 2, 3, height, width) if preview else None
    with exact_mode():
        whole = model.band(variant, x, hint, level, stage, 0, rows)
        ends = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
        for first, last in pairwise(ends):
            band = model.band(variant, x, hint, level, stage, first, last)
            assert np.array_equal(band.base, whole.base[:, :, first:last])
            assert torch.equal(band.features, whole.features[:, :, first:last])


# -- training sees what the codec sees


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("size", [(18, 20), (11, 7), (2, 2)])
def test_training_inputs_are_those_of_the_codec(model, preview, size):
    variant = model.variants["preview" if preview else "plain"]
    from lossless_models import random_net

    net = random_net(2 if preview else 0, preview=preview)  # the seeds that random_model uses
    assert np.array_equal(net.weights.numpy(), variant.weights)
    x, hint = noise(1, 2, 3, *size), free_noise(2, 2, 3, *size) if preview else None
    for level in range(LEVELS):
        for stage, s in enumerate(STAGES):
            b = batch(net, x, hint, level, stage)
            rows = geometry.phase_size(*size, s.phase)[0]
            caught = {}
            enter = variant.stages[stage]["enter"]
            handle = enter.register_forward_pre_hook(
                lambda layer, args, seen=caught: seen.update(planes=args[0])
            )
            try:
                with exact_mode():
                    band = model.band(variant, x, hint, level, stage, 0, rows)
            finally:
                handle.remove()
            assert np.array_equal(b.base, band.base)
            assert torch.equal(b.planes, caught["planes"])
            assert np.array_equal(b.values, x[:, :, s.phase[0] :: 2, s.phase[1] :: 2])
