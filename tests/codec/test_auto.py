"""``auto``: a lossy job takes pictures without loss where that is the better bargain, and photographs pay nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import file_of, source_of
from PIL import Image, ImageDraw, ImageFont

from recbatch.api.common import ModesConflict, make_settings
from recbatch.codec import BadSetting, Decoder, Encoded, ImageCodec, Settings, Source, jpeg, models_of
from recbatch.codec.auto import AFFORDABLE, FLOOR_DB, LEAST_OF_ESTIMATE, Auto, estimated_bpp, exact_settings
from recbatch.codec.rate import TargetOutOfReach
from recbatch.errors import ImageError, RecbatchError
from recbatch.images import read_picture

PHOTOGRAPHS = Path(__file__).parents[2] / "docs" / "demo" / "photographs"
LOSSY = Settings(level=28, auto=True, keep_originals="never")


def page(width: int = 256, height: int = 192) -> Image.Image:
    """A page of letters."""
    image = Image.new("RGB", (width, height), "white")
    draw, letters = ImageDraw.Draw(image), ImageFont.load_default(12)
    for row in range(0, height, 15):
        draw.text(
            (6, row), f"{row}. The quick brown fox jumps over {row * 7} lazy dogs", font=letters, fill="black"
        )
    return image


def repeated() -> Image.Image:
    """The same piece of a page over and over, which PNG knows and our predictors do not."""
    return Image.fromarray(np.tile(np.asarray(page(64, 48)), (4, 4, 1)))


def coffee() -> Image.Image:
    return Image.open(PHOTOGRAPHS / "coffee.png").convert("RGB").crop((200, 100, 456, 292))


# --- the choice alone: rows are made up, nothing is encoded ---


def lossy_row(size: int, psnr: float) -> Encoded:
    return Encoded(codec="lossy", stream=bytes(size), stream_sha256=b"", psnr=psnr)


def lossless_row(size: int) -> Encoded:
    return Encoded(codec="lossless", stream=bytes(size), stream_sha256=b"", notes=("orientation applied",))


def never(_: Source) -> Encoded | RecbatchError:
    pytest.fail("a lossless encode was paid for")


def settle(
    row: Encoded | RecbatchError,
    without_loss: Callable[[Source], Encoded | RecbatchError],
    *,
    source: Source | None = None,
    asked: Settings = LOSSY,
) -> Encoded | RecbatchError:
    source = source or source_of(page())
    return Auto(asked, without_loss).settle(source, read_picture(source.data), row)


def test_fewer_bytes_without_loss_are_taken_at_any_quality() -> None:
    chosen = settle(lossy_row(10_000, 50.0), lambda _: lossless_row(5_900))
    assert isinstance(chosen, Encoded)
    assert (chosen.codec, len(chosen.stream)) == ("lossless", 5_900)
    assert chosen.notes == ("orientation applied", "lossless: 41 % smaller than lossy at this quality")


def test_more_bytes_are_paid_only_where_the_lossy_picture_is_bad() -> None:
    bad = settle(lossy_row(10_000, FLOOR_DB - 6.5), lambda _: lossless_row(12_000))
    assert isinstance(bad, Encoded)
    assert bad.codec == "lossless"
    assert bad.notes[-1] == "lossless: 20 % more bytes than lossy, which has only 27.5 dB here"
    good = lossy_row(10_000, FLOOR_DB)
    assert settle(good, lambda _: lossless_row(12_000)) is good


@given(
    lossy=st.integers(1, 10**6),
    lossless=st.integers(1, 10**6),
    psnr=st.floats(10, 60),
    cap=st.none() | st.integers(1, 10**6),
)
@settings(deadline=None)
def test_the_choice_is_lossless_exactly_within_its_budget(
    lossy: int, lossless: int, psnr: float, cap: int | None
) -> None:
    asked = replace(LOSSY, max_bytes=cap)
    row = lossy_row(lossy, psnr)
    source = Source(name="a", data=file_of(Image.new("RGB", (8, 8), "red")))
    chosen = settle(row, lambda _: lossless_row(lossless), source=source, asked=asked)
    assert isinstance(chosen, Encoded)
    below = cap is None and psnr < FLOOR_DB
    within = lossless <= AFFORDABLE * lossy if below else lossless < lossy and lossless <= (cap or lossless)
    if chosen is not row:
        assert within
    elif within:  # then the estimate said that no stream is so small, and it was not even tried
        least = LEAST_OF_ESTIMATE * estimated_bpp(read_picture(source.data).pixels) * 64 / 8
        assert least > (AFFORDABLE * lossy if below else lossy - 1) or least > (cap or least)


def test_who_asks_for_a_size_or_a_psnr_has_set_the_floor() -> None:
    row = lossy_row(10_000, 25.0)
    for wish in ({"bpp": 0.5}, {"psnr": 25.0}, {"min_psnr": 24.0}, {"max_bytes": 11_000}):
        asked = Settings(auto=True, keep_originals="never", **wish)
        assert settle(row, lambda _: lossless_row(12_000), asked=asked) is row, wish
        assert settle(row, lambda _: lossless_row(9_000), asked=asked) is not row, wish


def test_a_drawing_is_tried_without_loss_however_much_its_estimate_is() -> None:
    source = Source(name="a.png", data=file_of(repeated(), optimize=True))
    row = lossy_row(len(source.data) + 1000, 40.0)
    chosen = settle(
        row, lambda _: lossless_row(90), source=source, asked=replace(LOSSY, keep_originals="smaller")
    )
    assert isinstance(chosen, Encoded)
    assert (chosen.codec, len(chosen.stream)) == ("lossless", 90)
    assert "smaller than lossy at this quality" in chosen.notes[-1]


def test_a_picture_that_no_lossy_stream_can_be_is_taken_without_loss() -> None:
    out_of_reach = TargetOutOfReach("30 dB at best", "Ask for less")
    asked = Settings(auto=True, keep_originals="never", min_psnr=60.0)
    chosen = settle(out_of_reach, lambda _: lossless_row(500), source=source_of(page()), asked=asked)
    assert isinstance(chosen, Encoded)
    assert chosen.notes[-1] == "lossless: no lossy stream is what was asked for"
    capped = Settings(auto=True, keep_originals="never", max_bytes=499)
    assert settle(out_of_reach, lambda _: lossless_row(500), asked=capped) is out_of_reach


def test_other_errors_stay_and_a_failing_lossless_encode_leaves_the_lossy_row() -> None:
    error = ImageError("broken")
    assert settle(error, never) is error
    row = lossy_row(100_000, 30.0)
    assert settle(row, lambda _: ImageError("no")) is row


@pytest.mark.parametrize("name", sorted(path.name for path in PHOTOGRAPHS.iterdir() if path.suffix != ".md"))
def test_no_photograph_pays_for_a_lossless_encode(name: str) -> None:
    source = Source(name=name, data=(PHOTOGRAPHS / name).read_bytes())
    picture = read_picture(source.data)
    pixels = picture.width * picture.height
    assert estimated_bpp(picture.pixels) > 7
    auto = Auto(LOSSY, never)  # without the way out of keeping or recoding the file
    for bpp, psnr in ((0.1, 22.0), (0.7, 30.0), (1.7, 33.9), (3.4, 40.0)):  # beyond what is dear and bad
        row = lossy_row(int(bpp * pixels / 8), psnr)
        assert auto.settle(source, picture, row) is row


def test_a_photograph_at_a_low_quality_stays_lossy_though_its_jpeg_file_is_little_larger() -> None:
    source = Source(name="wine.jpg", data=(PHOTOGRAPHS / "wine.jpg").read_bytes())
    row = lossy_row(len(source.data) * 2 // 3, 28.0)
    assert settle(row, never, source=source, asked=replace(LOSSY, keep_originals="smaller")) is row


@given(
    seed=st.integers(0, 50),
    width=st.integers(1, 80),
    height=st.integers(1, 80),
    channels=st.sampled_from([1, 3]),
)
@settings(deadline=None, max_examples=30)
def test_the_estimate_knows_flat_from_noise(seed: int, width: int, height: int, channels: int) -> None:
    flat = np.full((height, width, channels), seed, np.uint8)
    noise = np.random.default_rng(seed).integers(0, 256, flat.shape, np.uint8)
    assert 0 <= estimated_bpp(flat) * width * height < 24 * channels * (1 + np.log2(width * height + 1))
    if width * height > 500:
        assert 0.7 < estimated_bpp(noise) / (8 * channels) < 1.5
    assert estimated_bpp(noise) == estimated_bpp(noise.copy(order="F"))


# --- the whole way, by the models of the package: small pictures, since they take a second each ---


@pytest.fixture(scope="module")
def codec() -> ImageCodec:
    return ImageCodec(LOSSY)


def test_a_page_of_text_comes_back_exactly_and_a_photograph_stays_lossy(codec: ImageCodec) -> None:
    text, photo = source_of(page(128, 96)), source_of(coffee().crop((0, 0, 128, 96)))
    chosen, kept = codec.encode([text, photo])
    assert isinstance(chosen, Encoded)
    assert isinstance(kept, Encoded)
    assert chosen.codec == "lossless"
    assert "lossy" in chosen.notes[-1]
    assert np.array_equal(Decoder().decode(chosen.stream).pixels, np.asarray(page(128, 96)))
    assert chosen.pixels_sha256 is not None
    assert kept.codec == "lossy"
    assert kept.notes == ()
    (alone,) = ImageCodec(replace(LOSSY, auto=False)).encode([photo])
    assert kept == alone


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_and_alpha_come_back_too(codec: ImageCodec, mode: str) -> None:
    image = page(96, 64).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    (chosen,) = codec.encode([source_of(image)])
    assert isinstance(chosen, Encoded)
    assert chosen.codec == "lossless"
    restored = Decoder().decode(chosen.stream)
    assert restored.mode == mode
    again = restored.pixels[:, :, 0] if mode == "L" else np.dstack([restored.pixels, restored.alpha])
    assert np.array_equal(again, np.asarray(image))


# --- the whole way, by a tiny lossy model: only files ---


@pytest.fixture(scope="module")
def thrifty(weights: bytes) -> ImageCodec:
    return ImageCodec(replace(LOSSY, keep_originals="smaller"), weights=[weights])


def test_what_repeats_takes_less_than_its_png_without_loss(thrifty: ImageCodec) -> None:
    source = Source(name="a.png", data=file_of(repeated(), optimize=True))
    (chosen,) = thrifty.encode([source])
    assert isinstance(chosen, Encoded)
    assert (chosen.codec, chosen.coder) == ("lossless", "webp")
    assert len(chosen.stream) < len(source.data)


def test_a_jpeg_file_that_recodes_to_less_than_its_lossy_stream_is_recoded(thrifty: ImageCodec) -> None:
    data = file_of(coffee(), "JPEG", quality=10)
    (chosen,) = thrifty.encode([Source(name="a.jpg", data=data)])
    assert isinstance(chosen, Encoded)
    assert chosen.codec == "jpeg"
    assert len(chosen.stream) < len(data)
    assert jpeg.restore(chosen.stream) == data


# --- settings ---


def test_the_models_of_both_ways_are_named_so_that_an_archive_holds_them() -> None:
    digests = [digest for digest, _ in models_of(LOSSY)]
    assert digests == [
        digest for one in (replace(LOSSY, auto=False), exact_settings(LOSSY)) for digest, _ in models_of(one)
    ]


def test_auto_belongs_to_lossy_coding() -> None:
    assert make_settings(quality=50, auto=True).auto
    assert make_settings(psnr=35, auto=True).auto
    for options in ({}, {"lossless": True}, {"original": True}):
        with pytest.raises(ModesConflict, match="--auto needs a lossy option"):
            make_settings(auto=True, **options)
    with pytest.raises(BadSetting):
        Settings(mode="lossless", auto=True)
