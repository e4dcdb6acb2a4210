"""Lossless codecs side by side: what is counted, what is compared, and who fails."""

from __future__ import annotations

import dataclasses
import io
import json
import zlib
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console, RenderableType

from recbatch.bench import lossless_codecs
from recbatch.bench.inputs import NoImages
from recbatch.bench.lossless import CodecFailed, LosslessResult, lossless_benchmark, timed
from recbatch.bench.lossless_codecs import BUILDERS, Coded, Contestant, contestants, on_threads, same
from recbatch.bench.lossless_inputs import Item, Loader, grouped, image_set
from recbatch.bench.lossless_plot import lossless_plot
from recbatch.bench.lossless_render import lossless_tables
from recbatch.cli import main
from recbatch.errors import UsageError
from recbatch.stream import UnsupportedFormat

OTHERS = [name for name in BUILDERS if not name.startswith("recbatch")]
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def text(renderable: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(renderable)
    return out.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def pack(pixels: np.ndarray) -> Coded:
    """A fake of our codec, which also says what its model asks for: 7 bits a dimension."""
    shape = np.array(pixels.shape, "<u4").tobytes()
    return Coded(shape + zlib.compress(pixels.tobytes()), ideal_bits=7.0 * pixels.size)


def unpack(data: bytes) -> np.ndarray:
    return np.frombuffer(zlib.decompress(data[12:]), np.uint8).reshape(np.frombuffer(data[:12], "<u4"))


FAKE = Contestant(
    name="fake", label="fakebatch, no preview", settings="zlib", encode=pack, decode=unpack, threads=2
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a sub-folder, and a mosaic of 3 x 2 tiles of 8x8 with a margin."""
    root = tmp_path_factory.mktemp("sets")
    (root / "folder" / "deeper").mkdir(parents=True)
    Image.fromarray(noise(20, 30, 3)).save(root / "folder" / "b.png")
    Image.fromarray(noise(9, 7, 4) // 64, "RGBA").save(root / "folder" / "a.png")
    Image.fromarray(noise(16, 16), "L").save(root / "folder" / "deeper" / "c.png")
    (root / "folder" / "notes.txt").write_text("no image")
    Image.fromarray(noise(19, 27, 3)).save(root / "mosaic.webp", lossless=True)
    return root / "folder", root / "mosaic.webp"


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(places: tuple[Path, Path], said: list[str]) -> LosslessResult:
    return lossless_benchmark(places, codecs=["png", "webp-m4", FAKE], progress=said.append, least_s=0.0)


def test_bits_per_dimension_are_of_whole_files(result: LosslessResult) -> None:
    folder, mosaic = result.sets
    assert (folder.name, folder.images, folder.tiles) == ("folder", 3, None)
    assert (mosaic.name, mosaic.images) == ("mosaic.webp", 1)
    assert folder.megapixels == pytest.approx((600 + 63 + 256) / 1e6)
    png = [row for row in folder.rows if row.codec == "png"]
    assert [(row.image, row.channels) for row in png] == [("a.png", 4), ("b.png", 3), ("deeper/c.png", 1)]
    assert png[1].bits_per_dim == 8 * png[1].file_bytes / (20 * 30 * 3)
    for row in folder.codecs:
        rates = [one.bits_per_dim for one in folder.rows if one.codec == row.codec]
        assert row.bits_per_dim == pytest.approx(sum(rates) / 3)
        assert (row.bits_per_dim_min, row.bits_per_dim_max) == (min(rates), max(rates))
        assert row.file_bytes == sum(one.file_bytes for one in folder.rows if one.codec == row.codec)
        assert row.share_of_png == row.file_bytes / folder.codecs[0].file_bytes
        assert min(row.encode_mps, row.decode_mps, row.encode_wall_mps, row.decode_wall_mps) > 0


def test_the_models_own_bits_are_reported_where_they_are_known(result: LosslessResult) -> None:
    png, _, fake = result.sets[0].codecs
    assert png.model_bits_per_dim is png.overhead is None
    assert fake.model_bits_per_dim == pytest.approx(7)
    assert fake.overhead == pytest.approx(8 * fake.file_bytes / (7 * (20 * 30 * 3 + 9 * 7 * 4 + 256)) - 1)


def test_tiles_are_coded_one_by_one(places: tuple[Path, Path]) -> None:
    (mosaic,) = lossless_benchmark([places[1]], tiles=8, codecs=[FAKE], least_s=0.0).sets
    assert (mosaic.images, mosaic.tiles) == (6, 8)
    assert [row.image for row in mosaic.rows] == [f"mosaic.webp#{n}" for n in range(6)]
    assert {(row.pixels, row.channels) for row in mosaic.rows} == {(64, 3)}
    assert mosaic.codecs[0].share_of_png is None


def test_tiles_are_cut_in_reading_order_and_the_margin_is_left_out(places: tuple[Path, Path]) -> None:
    whole, loader = noise(19, 27, 3), Loader()
    items = image_set(places[1], tiles=8).items
    for n, item in enumerate(items):
        i, j = divmod(n, 3)
        assert np.array_equal(loader.load(item), whole[8 * i : 8 * i + 8, 8 * j : 8 * j + 8])
    assert [item.number for item in image_set(places[1], tiles=8, images=3).items] == [0, 2, 4]
    assert [item.name for item in image_set(places[0], images=2).items] == ["a.png", "b.png"]


def test_tiles_of_an_image_on_its_side_are_of_the_upright_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    whole = noise(8, 24, 3)
    Image.fromarray(whole).save(tmp_path / "turned.png", exif=exif)
    loader = Loader()
    tiles = [loader.load(item) for item in image_set(tmp_path, tiles=8).items]
    assert np.array_equal(np.concatenate(tiles), np.rot90(whole, -1))


def test_nothing_to_measure_on_is_wrong_usage(places: tuple[Path, Path], tmp_path: Path) -> None:
    for place, tiles in ((tmp_path, None), (tmp_path / "missing", None), (places[0], 64)):
        with pytest.raises(NoImages):
            image_set(place, tiles=tiles)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    with pytest.raises(UsageError, match="broken"):
        lossless_benchmark([tmp_path], codecs=[FAKE])


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(0, 100))
def test_groups_hold_every_item_in_order(sizes: list[int], least: int) -> None:
    items = [Item(name=str(n), file=Path(), pixels=size) for n, size in enumerate(sizes)]
    groups = list(grouped(items, least))
    assert [item for group in groups for item in group] == items
    assert all(sum(item.pixels for item in group) >= least for group in groups[:-1])
    assert all(sum(item.pixels for item in group[:-1]) < max(least, 1) for group in groups)


def test_other_pixels_are_an_error_that_names_image_and_codec(places: tuple[Path, Path]) -> None:
    def flipped(data: bytes) -> np.ndarray:
        pixels = unpack(data).copy()
        if pixels.shape[2] == 3:
            pixels[3, 5, 1] ^= 1
        return pixels

    wrong = dataclasses.replace(FAKE, label="flipper", decode=flipped)
    with pytest.raises(CodecFailed, match=r"flipper failed on b\.png: other pixels came back"):
        lossless_benchmark([places[0]], codecs=[wrong], least_s=0.0)


def test_a_codec_that_breaks_is_named_with_the_image(places: tuple[Path, Path]) -> None:
    def broken(_: bytes) -> np.ndarray:
        raise ValueError("not my bytes")

    wrong = dataclasses.replace(FAKE, label="breaker", decode=broken)
    with pytest.raises(CodecFailed, match=r"breaker failed on a\.png: not my bytes"):
        lossless_benchmark([places[0]], codecs=[wrong], least_s=0.0)

    def named(_: bytes) -> np.ndarray:
        raise UnsupportedFormat("a later version")

    with pytest.raises(UnsupportedFormat):  # our own errors say enough
        lossless_benchmark([places[0]], codecs=[dataclasses.replace(FAKE, decode=named)], least_s=0.0)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("channels", MODES)
def test_every_other_codec_gives_every_pixel_back(name: str, channels: int) -> None:
    if name.startswith("jxl"):
        pytest.importorskip("pillow_jxl")
    (codec,) = contestants([name])
    for pixels in (
        noise(5, 9, channels, seed=channels),
        noise(1, 1, channels),
        np.full((6, 4, channels), 255, np.uint8),
    ):
        assert same(codec.decode(codec.encode(pixels).data), pixels)
    assert codec.encode(pixels).ideal_bits is None
    assert codec.threads == 1


def test_threads_are_for_those_that_can_use_them() -> None:
    pytest.importorskip("pillow_jxl")
    pixels = noise(30, 20, 3)
    by_name = {one.name: one for one in contestants([*OTHERS, "recbatch"], threads=2)}
    assert {name for name, one in by_name.items() if one.threads == 2} == {"recbatch", "jxl-e7", "jxl-e9"}
    jxl = by_name["jxl-e7"]
    assert jxl.encode(pixels).data == contestants(["jxl-e7"])[0].encode(pixels).data
    assert same(jxl.decode(jxl.encode(pixels).data), pixels)
    before = torch.get_num_threads(), numba.get_num_threads()
    with on_threads(1):
        assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


@given(st.sampled_from([1, 2, 3, 4]), st.integers(0, 2**32))
def test_pictures_are_the_same_whatever_planes_hold_them(channels: int, seed: int) -> None:
    pixels = noise(3, 4, channels, seed=seed)
    image = lossless_codecs.to_image(pixels)
    assert image.mode == MODES[channels]
    assert np.array_equal(lossless_codecs.to_pixels(image), pixels)
    wide = lossless_codecs.to_pixels(image.convert("RGBA"))
    assert same(pixels, wide)
    assert same(wide, pixels)
    changed = wide.copy()
    changed[2, 1, seed % 4] ^= 4
    assert not same(pixels, changed)
    assert not same(pixels, pixels[:, :3])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_our_codec_gives_pixels_back_and_says_what_it_should_take(channels: int) -> None:
    pixels = noise(9, 7, channels)
    assert lossless_codecs.available() == list(BUILDERS)
    for one in contestants(["recbatch", "recbatch-no-preview"]):
        coded = one.encode(pixels)
        assert same(one.decode(coded.data), pixels)
        assert (coded.ideal_bits is None) == (channels in (2, 4))
        assert coded.ideal_bits is None or coded.ideal_bits < 8 * len(coded.data)


def test_unknown_codecs_are_wrong_usage() -> None:
    with pytest.raises(UsageError, match="no codec 'zip'"):
        contestants(["png", "zip"])
    assert [one.name for one in contestants(["png", "webp-m4", "png"])] == ["png", "webp-m4"]


def test_what_is_quick_is_repeated_and_timed_by_the_call() -> None:
    calls = []
    last, cpu_s, wall_s = timed(lambda: calls.append(1) or len(calls), 0.01)
    assert last == len(calls) > 1
    assert wall_s * len(calls) >= 0.01
    assert cpu_s >= 0
    calls.clear()
    assert timed(lambda: calls.append(1) or len(calls), 0.0)[0] == 1


def test_a_run_says_what_it_does(said: list[str], result: LosslessResult) -> None:
    assert said[0].startswith("1/3 folder, 2 of 3 images; ")
    assert said[-1].startswith("3/3 mosaic.webp, 1 of 1 images; ")
    assert "left" in said[-1]


def test_the_result_is_json_and_reads_as_tables(result: LosslessResult, tmp_path: Path) -> None:
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [one["name"] for one in document["sets"]] == ["folder", "mosaic.webp"]
    assert document["sets"][0]["codecs"][0]["codec"] == "png"
    shown = text(lossless_tables(result))
    assert "fakebatch, no preview, 2t" in shown
    assert "100.0" in shown
    assert "over %" in shown
    assert "enc wall" in shown
    assert "…" not in shown
    assert "deeper/c.png" in text(lossless_tables(result, every_image=True))
    lossless_plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_columns_that_nobody_fills_are_left_out(places: tuple[Path, Path]) -> None:
    plain = dataclasses.replace(FAKE, threads=1, encode=lambda pixels: Coded(pack(pixels).data))
    shown = text(lossless_tables(lossless_benchmark([places[1]], tiles=8, codecs=[plain], least_s=0.0)))
    assert "mosaic.webp: 6 tiles of 8x8" in shown
    assert "over %" not in shown
    assert "enc wall" not in shown


def test_the_command_prints_one_document_and_draws(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--codec", "png", "--plot", str(tmp_path / "plot.png")]
    mosaic = ["bench", "lossless", str(places[1]), "--tiles", "8", "--images", "2", *options]
    assert main([*mosaic, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["event"], document["sets"][0]["images"], err) == ("report", 2, "")
    assert (tmp_path / "plot.png").exists()
    assert main(["bench", "lossless", str(places[0]), "--codec", "png", "--every-image"]) == 0
    out, err = capsys.readouterr()
    assert "deeper/c.png" in out
    assert err.splitlines()[-1].startswith("3/3 folder, 3 of 3 images; ")
