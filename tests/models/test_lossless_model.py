"""The lossless networks as trained and as folded, their file, and the synthesis of previews."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lossless_models import model_file, random_model, random_net, random_synthesis

from recbatch.errors import RecbatchError
from recbatch.models import weights
from recbatch.models.exact import ExactConv2d, at_least, exact_mode, quantise
from recbatch.models.lossless import geometry
from recbatch.models.lossless.folded import LosslessModel, fold, layers
from recbatch.models.lossless.geometry import HIGHEST, LOWEST, STAGES
from recbatch.models.lossless.network import LEVELS, LosslessConfig
from recbatch.models.lossless.preview import BLOCK, PreviewSynthesis
from recbatch.models.weights import BadWeights
from recbatch.train.lossless_batch import COMPAND_D, batch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def image(seed: int, height: int, width: int):
    """Planes of two pictures, half ramp, half noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    pixels = np.clip(ramp + rng.integers(-60, 60, (2, height, width, 3)), 0, 255).astype(np.uint8)
    return geometry.to_ycocg(pixels)


# -- trained is folded


@torch.no_grad()
def trained_and_folded(net, model, variant, x, hint, level: int, stage: int, rung: str):
    """Raw parameters of every component from the fake-quantised network, and from the integers."""
    quantise(net, True)
    b = batch(net, x, hint, level, stage)
    network = net.stage(stage)
    features = network.trunk(b.planes.contiguous(), level)
    difference = b.values - ((b.base + 8) >> 4)
    earlier = torch.from_numpy(COMPAND_D[difference + geometry.LARGEST_DIFFERENCE].astype(np.float32))
    trained = [network.head(features, earlier[:, :c], c) * 128 for c in range(3)]
    with exact_mode(), at_least(rung):
        band = model.band(variant, x, hint, level, stage, 0, b.base.shape[2])
        values = [np.ascontiguousarray(b.values[:, c]) for c in range(3)]
        raw = [model.head(variant, stage, band, values[:c]) for c in range(3)]
        integers = (band.features, raw)
    return (features * 32, trained), integers


@pytest.mark.parametrize("rung", ["float32", "float64", "int64"])
@pytest.mark.parametrize("preview", [False, True])
def test_the_network_in_training_is_the_folded_one(preview, rung):
    net = random_net(2 if preview else 0, preview=preview)
    model = random_model()
    variant = model.variants["preview" if preview else "plain"]
    x, hint = image(0, 14, 11), image(1, 14, 11) if preview else None
    used = 0
    for level in range(LEVELS):
        for stage in range(len(STAGES)):
            (f, trained), (g, folded) = trained_and_folded(net, model, variant, x, hint, level, stage, rung)
            assert np.array_equal(f.numpy(), g.numpy())
            for a, b in zip(trained, folded, strict=True):
                assert np.array_equal(a.numpy(), b)
                assert b.shape[1] == 9
                assert np.abs(b).max() <= 2048
                used += np.unique(b).size
    assert used > 1000  # these are not nets that say the same everywhere


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), height=st.integers(2, 40), width=st.integers(2, 40), level=st.integers(0, 3)
)
def test_any_random_net_folds_to_what_it_computes(seed, height, width, level):
    from recbatch.models.lossless.folded import LAW, export
    from recbatch.rec.mixtures import Law

    net, law = random_net(seed), Law.make()
    data = export({"plain": net}, {key: getattr(law, key) for key in LAW}, name="any")
    model = LosslessModel.from_bytes(data)
    for stage in range(len(STAGES)):
        variant = model.variants["plain"]
        trained, folded = trained_and_folded(
            net, model, variant, image(seed, height, width), None, level, stage, "float32"
        )
        assert np.array_equal(trained[0].numpy(), folded[0].numpy())
        for a, b in zip(trained[1], folded[1], strict=True):
            assert np.array_equal(a.numpy(), b)


def test_every_layer_of_a_net_is_in_its_file():
    net = random_net(0)
    tensors = fold(net, "plain")
    names = {f"plain.{s.name}.{layer}" for s in STAGES for layer in layers(net.config)}
    assert {key.rpartition(".")[0] for key in tensors} == names | {"plain"}
    assert len(names) == sum(isinstance(m, ExactConv2d) for m in net.modules())
    assert not any(tensor.is_floating_point() for tensor in tensors.values())


# -- the file


def test_a_model_file_comes_back_as_it_was_written():
    data = model_file()
    model = LosslessModel.from_bytes(data)
    assert model.name == "tiny-exact"
    assert model.digest == weights.digest(data)
    assert list(model.variants) == ["plain", "small", "preview"]
    for name, seed in (("plain", 0), ("small", 1), ("preview", 2)):
        net = random_net(seed, preview=name == "preview")
        assert model.variants[name].config == net.config
        assert np.array_equal(model.variants[name].weights, net.weights.numpy())
        assert np.array_equal(model.variants[name].gains, net.gains.numpy())
    synthesis = random_synthesis(0, 24, model.preview.latents_of)
    for field in PreviewSynthesis.__dataclass_fields__:
        assert np.array_equal(getattr(model.preview, field), getattr(synthesis, field))


def test_a_model_without_previews_has_none():
    model = LosslessModel.from_bytes(model_file(preview=False, small=False))
    assert model.preview is None
    assert list(model.variants) == ["plain"]


def changed(**metadata: str) -> bytes:
    """The file with other metadata."""
    tensors, before = weights.parse(model_file())
    return weights.pack(tensors, before | metadata)


def without(name: str) -> bytes:
    tensors, metadata = weights.parse(model_file())
    return weights.pack({key: tensor for key, tensor in tensors.items() if key != name}, metadata)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"text",
        bytes(100),
        changed(architecture="photo/1"),
        changed(variants="{"),
        changed(variants='{"plain": {"depth": 3}}'),
        changed(variants='{"plain": 3}'),
        changed(variants="[1]"),
        changed(variants='{"plain": {"width": 8, "blocks": 1}, "preview": {"width": 8, "mixtures": 7}}'),
        without("law.sigmoid"),
        without("compand"),
        without("plain.weights"),
        without("preview.gains"),
        without("synthesis.bias"),
    ],
    ids=lambda data: str(len(data)),
)
def test_a_damaged_model_file_is_bad_weights(damaged):
    with pytest.raises(BadWeights):
        LosslessModel.from_bytes(damaged)


TABLES = ["law.sigmoid", "law.inverse", "law.weight", "compand", "plain.weights", "plain.gains"]
SYNTHESIS = ["synthesis.weight", "synthesis.bias", "synthesis.shift", "synthesis.scalars"]


def altered(name: str, how: str) -> bytes:
    """The file with one tensor too short, of another type, or of numbers that make no sense."""
    tensors, metadata = weights.parse(model_file())
    tensor = tensors[name]
    other = {
        "short": lambda: tensor.flatten()[:-1].clone(),
        "float": lambda: tensor.to(torch.float64),
        "zero": lambda: torch.zeros_like(tensor),
        "huge": lambda: torch.full_like(tensor, torch.iinfo(tensor.dtype).max),
    }[how]()
    return weights.pack({**tensors, name: other}, metadata)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "short") for name in TABLES + SYNTHESIS),
        *((name, "float") for name in TABLES + SYNTHESIS[:3]),
        ("law.inverse", "zero"),
        ("law.weight", "zero"),
        ("law.weight", "huge"),
        ("law.sigmoid", "huge"),
        ("plain.weights", "huge"),
        ("plain.gains", "huge"),
        ("synthesis.shift", "huge"),
        ("synthesis.scalars", "zero"),
    ],
)
def test_tables_that_compiled_code_would_misread_are_bad_weights(name, how):
    with pytest.raises(BadWeights):
        LosslessModel.from_bytes(altered(name, how))


def test_a_model_file_cut_anywhere_is_bad_weights():
    data = model_file()
    for end in np.linspace(0, len(data) - 1, 40, dtype=int):
        with pytest.raises(BadWeights):
            LosslessModel.from_bytes(data[:end])


@pytest.mark.parametrize(
    "damaged",
    [without("plain.B.wide1.bias"), changed(variants='{"other": {"width": 8}}')],
    ids=["bias", "other"],
)
def test_a_model_file_without_a_layer_is_an_error_with_a_name(damaged):
    with pytest.raises(RecbatchError):  # BadWeights, or what the layer says of itself
        LosslessModel.from_bytes(damaged)


def test_a_configuration_survives_its_json():
    config = LosslessConfig(width=24, blocks=1, preview=True)
    assert LosslessConfig(**json.loads(json.dumps(config.to_json()))) == config


# -- the synthesis of previews


def plain_loop(synthesis: PreviewSynthesis, samples_Mhw):
    """Python integers, one pixel after the other."""
    _, height, width = samples_Mhw.shape
    out = np.empty((3, BLOCK * height, BLOCK * width), np.int64)
    half = 1 << (synthesis.total_shift - 1)
    scaled = samples_Mhw.astype(np.int64) << synthesis.shift.astype(np.int64)[:, None, None]
    for i, j in np.ndindex(height, width):
        sums = synthesis.weight.astype(np.int64) @ scaled[:, i, j] + synthesis.bias.astype(np.int64)
        pixels = ((sums + half) >> synthesis.total_shift).reshape(3, BLOCK, BLOCK)
        out[:, BLOCK * i : BLOCK * (i + 1), BLOCK * j : BLOCK * (j + 1)] = pixels
    low = np.array(LOWEST)[:, None, None]
    return out.clip(low, HIGHEST)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    reach=st.sampled_from([1, 64, 2000, 2**17, 2**31 - 1]),
)
def test_preview_planes_are_the_sums_of_a_plain_loop(seed, height, width, reach):
    rng = np.random.default_rng(seed)
    synthesis = random_synthesis(seed, 7, b"")
    samples = rng.integers(-reach, reach, (7, height, width), endpoint=True).astype(np.int32)
    planes = synthesis.planes(samples)
    assert planes.dtype == np.int16
    assert planes.shape == (3, BLOCK * height, BLOCK * width)
    assert np.array_equal(planes, plain_loop(synthesis, samples))
