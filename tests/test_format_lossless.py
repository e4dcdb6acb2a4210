"""The lossless chapters of docs/format.md against the code: their numbers, and a decoder written from them."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from independent import container as stranger
from independent import lossless as strangers_lossless
from independent.stages import STAGES as STRANGERS_STAGES
from independent.stages import LosslessWeights, load_lossless
from independent.weights import Weights, load_weights
from lossless_models import TINY_PHOTO, model_file
from test_format_doc import PAGE, rows_of, section

from recbatch import rec, stream
from recbatch.codec import lossless, lossless_walk, lossy, tuning
from recbatch.images import Picture
from recbatch.models.lossless import folded, geometry, network
from recbatch.models.photo import PhotoModel
from recbatch.rec import mixtures

CHAPTER = section("Decoding a lossless stream")
RECIPE = section("File recipe")


# The page's numbers


def test_tiles_lanes_and_variants() -> None:
    assert lossless.TILE == 2048
    assert "n = ceil(H / 2048)" in CHAPTER
    assert (lossless_walk.LANES, lossless_walk.LANES_FROM) == (4, 2**14)
    assert "A tile of 2^14 pixels or more has 4 **lanes**, else 1" in CHAPTER
    assert lossless_walk.BAND_ROWS == 64
    assert "cut into bands of 64" in CHAPTER
    named = [f"{number} `{name}`" for number, name in enumerate(folded.VARIANTS)]
    assert ", ".join(named) in CHAPTER
    assert f"`{folded.ARCHITECTURE}`" in CHAPTER


def test_the_law_of_mixtures() -> None:
    law = mixtures.Law.make()
    shapes = {row[0].strip("`"): row[2] for row in rows_of(CHAPTER) if len(row) == 4}
    for name in folded.LAW:
        assert shapes[f"law.{name}"] == str(list(getattr(law, name).shape))
    assert shapes["compand"] == str(list(geometry.make_compand().shape))
    assert (mixtures.PRECISION, mixtures.BASE_BITS, mixtures.REACH, mixtures.INVERSE_BITS) == (24, 4, 12, 20)
    assert (mixtures.INDEX_AT_ZERO, mixtures.INDEX_SHIFT, mixtures.LAST_INDEX) == (128, 2, 255)
    assert mixtures.LOGIT_REACH * mixtures.LOGITS_PER_NAT == 1536
    assert (geometry.WEIGHT_BITS, geometry.LARGEST_DIFFERENCE, network.LEVELS) == (12, 510, 4)
    assert (*geometry.LOWEST, geometry.HIGHEST) == (0, -255, -255, 255)


def test_the_tuning() -> None:
    assert (tuning.LEVELS, tuning.PLANES, tuning.NUMBERS) == (3, 27, 18)
    assert "(0, 1 or 2; below)" in CHAPTER
    assert "below 2^27" in CHAPTER
    assert "18 signed bytes" in CHAPTER
    assert (mixtures.GAIN_BITS, mixtures.GAIN_UNIT, mixtures.BIAS_UNITS) == (6, 64, (8, 1, 4))
    assert (
        "r[n] = ((raw[n] * (64 + g[n]) + 32) >> 6) + b[n] * unit[n],   unit = 8, 8, 8, 1, 1, 1, 4, 4, 4"
        in CHAPTER
    )
    one = tuning.Tuning.none()
    one.numbers[1, 2, 0] = 5
    assert one.pack()[:-18] == stream.varint(1 << 9 * 1 + 3 * 2 + 0)


def test_the_bounds_of_a_model() -> None:
    assert (network.SIGNED, network.MIXED) == ((-128, 127), (-128, 255))
    assert (network.HIDDEN, network.RAW) == ((0, 255), (-2048, 2047))
    assert (
        "-128..127 into `enter`, -128..255 into `mix<c>`, 0..255 between all others, and -2048..2047"
        in CHAPTER
    )


def test_the_stages_taps() -> None:
    table = {row[0]: row for row in rows_of(CHAPTER) if row[0] in ("A", "B", "C")}
    assert len(geometry.STAGES) == len(table) == 3
    for ours, (name, phase, taps) in zip(geometry.STAGES, STRANGERS_STAGES, strict=True):
        assert (ours.name, ours.phase, list(ours.taps)) == (name, phase, taps)
        row = table[name]
        assert row[1] == str(phase)
        assert row[3] == str(len(taps))
        found: list[tuple[int, ...]] = []
        for block in re.findall(r"\((\d), (\d)\): (-?\d)\.\.(\d), (-?\d)\.\.(\d)( without)?", row[2]):
            p, q, top, bottom, left, right = map(int, block[:6])
            found += [
                (p, q, a, b)
                for a in range(top, bottom + 1)
                for b in range(left, right + 1)
                if not (block[6] and a in (top, bottom) and b in (left, right))
            ]
        assert found == taps


def test_every_tensor_of_a_model_is_named() -> None:
    from safetensors.torch import load

    rows = {row[0].strip("`"): row for row in rows_of(CHAPTER) if len(row) == 4}
    kinds = {"torch.int32": "int32", "torch.int8": "int8", "torch.uint8": "uint8"}
    left = set(rows) - {"tensor", "stage", "A", "B", "C"}
    for name, tensor in load(model_file()).items():
        if re.fullmatch(r"\w+\.[ABC]\.(enter|(wide|narrow|mix|out)\d)\.(weight|bias|shift|ranges)", name):
            continue
        row = rows[re.sub(r"^(plain|preview|small)\.", "<variant>.", name)]
        assert row[1] == kinds[str(tensor.dtype)], name
        assert row[2].replace("M", "24") == str(list(tensor.shape)), name
        left.discard(row[0].strip("`"))
    assert left == set()


def test_headers_are_as_long_as_the_page_says() -> None:
    fields = {"codec": 2, "mode": "RGB", "model": bytes(4), "level": 0, "pixels_digest": bytes(4)}
    for (width, height), size in (((768, 512), 28), ((32, 32), 26)):
        made = stream.Stream(**fields, width=width, height=height, sections={4: b"x"})  # type: ignore[arg-type]
        assert len(stream.pack(made)) == size + 1
    assert "28 beside its residual" in PAGE
    assert "has 26 there" in PAGE


def test_the_file_recipes_numbers() -> None:
    from recbatch.images.png import deflate, plan, recipes

    assert f"| version | 1 | {recipes.VERSION} |" in RECIPE
    assert recipes.MAX_CARRIED_BYTES == 2**24
    listed = re.search(r"Type numbers from 1: (.*?)\. Check", RECIPE, re.DOTALL)
    assert listed
    assert [name.encode() for name in re.split(r",\s+", listed[1])] == list(plan._TYPES)
    assert (deflate.Stored.number, deflate.Zlib.number, deflate.Pillow.number) == (0, 1, 2)
    assert recipes._BACK == (1, 2, 3, 4, 5, 8, 7, 6)


# A stranger's decoder


@lru_cache
def models(folder: Path) -> tuple[LosslessWeights, Weights, folded.LosslessModel, lossless.PreviewMaker]:
    """A random model and that of its previews as the stranger sees them, then as we do."""
    path = folder / "model.safetensors"
    path.write_bytes(model_file())
    photo = PhotoModel.from_bytes(TINY_PHOTO.read_bytes())
    coder = rec.coder("trellis", effort=1, tables=lossy.tables_of(photo))
    ours = folded.LosslessModel.from_bytes(model_file())
    return load_lossless(path), load_weights(TINY_PHOTO), ours, lossless.PreviewMaker(photo, coder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


def picture(rng: np.random.Generator, height: int, width: int, mode: str, roughness: float) -> Picture:
    """Pixels between smooth and wild."""
    colours = 1 if mode in ("L", "LA") else 3
    steps = rng.normal(0, roughness, (height, width, colours)).cumsum(axis=0).cumsum(axis=1)
    alpha = rng.integers(0, 256, (height, width), np.uint8) if mode.endswith("A") else None
    return Picture(pixels=(steps % 256).astype(np.uint8), alpha=alpha)


def check(made: Picture, folder: Path, *, preview: bool = False) -> None:
    """The stranger gets the pixels that were encoded."""
    theirs, photo, ours, maker = models(folder)
    (coded,) = lossless.encode([made], [b""], ours, maker if preview else None)
    header, sections = stranger.parse(coded.data)
    assert (stranger.LATENTS in sections) == preview
    assert header.mode == made.mode
    image = strangers_lossless.decode(coded.data, theirs, photo)
    assert np.array_equal(image.pixels_HWC, made.pixels)
    assert (image.alpha_HW is None) == (made.alpha is None)
    assert made.alpha is None or np.array_equal(image.alpha_HW, made.alpha)


@given(
    height=st.integers(1, 10),
    width=st.integers(1, 10),
    mode=st.sampled_from(["L", "RGB", "LA", "RGBA"]),
    roughness=st.sampled_from([0.0, 0.3, 40.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=8)
def test_a_stranger_decodes_small_images(
    folder: Path, height: int, width: int, mode: str, roughness: float, seed: int
) -> None:
    check(picture(np.random.default_rng(seed), height, width, mode, roughness), folder)


SIZES = {  # larger ones are among the golden streams
    "not small": (1, 4097, "L", False),
    "a row": (1, 300, "L", False),
    "a column": (300, 1, "L", False),
    "two tiles, wide": (1, 2051, "LA", False),
    "a band of one row": (130, 3, "RGB", False),
    "preview with alpha": (64, 65, "LA", True),
}
LONG = {
    "lanes": (129, 128, "RGB", False),
    "preview": (139, 131, "RGBA", True),
    "tiles": (3, 4097, "RGB", False),
}


@pytest.mark.parametrize("name", [*SIZES, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)])
def test_a_stranger_decodes(name: str, folder: Path) -> None:
    height, width, mode, preview = (SIZES | LONG)[name]
    check(picture(np.random.default_rng(len(name)), height, width, mode, 0.2), folder, preview=preview)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_stranger_knows_any_tuning(mode: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every plane that can be tuned, in an image with levels beyond."""
    rng = np.random.default_rng(9)
    wild = rng.choice([-128, -127, -64, -9, 0, 3, 127], tuning.Tuning.none().numbers.shape).astype(np.int8)
    monkeypatch.setattr(lossless, "tune", lambda *_: tuning.Tuning(wild))
    check(picture(rng, 19, 21, mode, 0.3), folder)


def test_a_stranger_sees_the_same_preview(folder: Path) -> None:
    """Also of samples that no image has."""
    theirs, _, model, _ = models(folder)
    ours = model.preview
    assert ours is not None
    assert theirs.synthesis is not None
    rng = np.random.default_rng(8)
    samples = (rng.normal(0, 300, (24, 3, 2)) * rng.choice([1, 1000], (24, 3, 2))).astype(np.int32)
    assert np.array_equal(theirs.synthesis.planes(samples.astype(np.int64)), ours.planes(samples))


def test_a_stranger_knows_the_same_law(folder: Path) -> None:
    from independent.mixtures import Mixture

    law, theirs = mixtures.Law.make(), models(folder)[0].law
    rng = np.random.default_rng(2)
    for low in (0, -255):
        for _ in range(20):
            raw = rng.integers(-2048, 2048, 9)
            raw[1] = raw[rng.integers(3)]  # ties
            base = int(rng.integers(16 * low, 16 * 255 + 1))
            ours = mixtures.distribution(raw, base, low, 255, law.sigmoid, law.inverse, law.weight)
            mixture = Mixture(raw.tolist(), base, (low, 255), theirs)
            assert ours.tolist() == [mixture.below(value) for value in range(low, 257)]
