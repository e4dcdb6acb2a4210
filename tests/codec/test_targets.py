"""Rate control on pictures: the model of the package, real streams, every byte counted."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from pictures import file_of, photograph, source_of
from PIL import Image

from recbatch.codec import Decoder, Encoded, ImageCodec, Settings, Source
from recbatch.codec.quality import psnr
from recbatch.codec.rate import MAX_ENCODES, TargetOutOfReach
from recbatch.errors import RecbatchError
from recbatch.images import read_picture

DEMO = Path(__file__).parents[2] / "docs" / "demo" / "photographs"
SIDE = 384


@lru_cache
def loaded() -> ImageCodec:
    return ImageCodec(Settings())


def codec(**settings: object) -> ImageCodec:
    """With these settings; the model and its tables, which take seconds to load, are shared."""
    made, coding = copy.copy(loaded()), copy.copy(loaded()._coding)
    made.settings = Settings(**({"keep_originals": "never"} | settings))  # type: ignore[arg-type]
    coding._settings = made.settings  # type: ignore[attr-defined]
    made._coding = coding
    return made


def coded(source: Source, **settings: object) -> Encoded:
    (result,) = codec(**settings).encode([source])
    assert isinstance(result, Encoded), result
    return result


def refused(source: Source, **settings: object) -> RecbatchError:
    (result,) = codec(**settings).encode([source])
    assert isinstance(result, TargetOutOfReach), result
    return result


def bpp(row: Encoded) -> float:
    return 8 * len(row.stream) / (row.width * row.height)


def crop(name: str, side: int = SIDE) -> Source:
    """The middle of a photograph of the demo."""
    with Image.open(DEMO / name) as image:
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return source_of(image.convert("RGB").crop((left, top, left + side, top + side)), name=name)


def noise(mode: str = "RGB", width: int = 96, height: int = 80) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, shape, np.uint8), mode)


@pytest.mark.parametrize("name", ["coffee.png", "meadow.jpg"])
def test_a_photograph_has_the_bits_and_the_psnr_that_were_asked_for(name: str) -> None:
    source = crop(name)
    assert bpp(coded(source, bpp=0.6)) == pytest.approx(0.6, rel=0.02)
    row = coded(source, psnr=29.0)
    restored = Decoder().decode(row.stream).pixels
    assert psnr(read_picture(source.data).pixels, restored) == pytest.approx(29.0, abs=0.1)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(path.name for path in DEMO.iterdir() if path.suffix != ".md"))
def test_whole_photographs_have_what_was_asked_for_and_more_is_more(name: str) -> None:
    source = Source(name=name, data=(DEMO / name).read_bytes())
    sized = [(coded(source, bpp=value), value) for value in (0.3, 0.6, 1.2)]
    good = [(coded(source, psnr=value), value) for value in (28.0, 31.0, 34.0)]
    for rows in (sized, good):
        levels = [row.level for row, _ in rows]
        assert levels == sorted(levels)
    ends = "quality, asked for"
    assert all(bpp(row) == pytest.approx(value, rel=0.02) or ends in row.notes[-1] for row, value in sized)
    assert all(row.psnr == pytest.approx(value, abs=0.1) or ends in row.notes[-1] for row, value in good)


def test_a_cap_is_kept_and_used_and_a_floor_is_kept_at_little_cost() -> None:
    source = crop("coffee.png")
    row = coded(source, level=31.0, max_bytes=4000)
    assert 3900 <= len(row.stream) <= 4000
    good = coded(source, level=0.0, min_psnr=30.0)
    assert good.psnr is not None
    assert 30.0 <= good.psnr <= 30.2


def test_alpha_and_metadata_count() -> None:
    """A noisy alpha channel takes most of the bits, and the picture gets what is left."""
    plain = photograph(160, 144)
    veiled = plain.copy()
    alpha = Image.fromarray(np.random.default_rng(0).integers(0, 4, (144, 160), np.uint8))
    veiled.putalpha(alpha)
    profile = bytes(np.random.default_rng(2).integers(0, 256, 600, np.uint8))
    wish = bpp(coded(source_of(veiled, icc_profile=profile), level=8.0)) * 1.05
    row = coded(source_of(veiled, icc_profile=profile), bpp=wish)
    assert row.mode == "RGBA"
    assert bpp(row) == pytest.approx(wish, rel=0.02)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_a_picture_cannot_be_is_noted(mode: str) -> None:
    flat = source_of(Image.new(mode, (96, 80), "grey"))
    row = coded(flat, bpp=2.0)
    assert (row.level, row.notes) == (31.0, (f"{bpp(row):.2f} bpp at best quality, asked for 2",))
    row = coded(source_of(noise(mode)), psnr=50.0)
    assert (row.level, row.notes) == (31.0, (f"{row.psnr:.2f} dB at best quality, asked for 50",))
    row = coded(source_of(noise(mode)), bpp=0.01)
    assert (row.level, row.notes) == (0.0, (f"{bpp(row):.2f} bpp at lowest quality, asked for 0.01",))


def test_one_pixel_is_a_picture() -> None:
    source = source_of(Image.new("RGB", (1, 1), (200, 30, 90)))
    row = coded(source, bpp=8.0)
    assert "lowest quality, asked for 8" in row.notes[0]
    assert coded(source, max_bytes=200, level=31.0).width == 1
    assert "asked for at most 10" in str(refused(source, max_bytes=10, level=31.0))


def test_bounds_that_exclude_each_other_are_refused_by_name() -> None:
    text = str(refused(crop("coffee.png"), level=31.0, max_bytes=2000, min_psnr=38.0))
    assert "asked for at least 38 in at most 2000" in text
    assert "--max-bytes" in text
    assert "--min-psnr" in text


def test_a_file_that_is_good_and_small_enough_is_kept_where_no_stream_is() -> None:
    source = source_of(noise(), format="JPEG", quality=60)
    keeping = {"keep_originals": "smaller", "level": 0.0, "min_psnr": 60.0}
    row = coded(source, **keeping)
    assert (row.codec, row.stream) == ("original", source.data)
    assert "at best quality, asked for at least 60" in row.notes[0]
    assert "asked for at least 60 in at most" in str(
        refused(source, **keeping, max_bytes=len(source.data) - 1)
    )
    assert coded(source, **keeping, max_bytes=len(source.data)).codec == "original"


def test_no_file_above_the_cap_is_kept() -> None:
    deep = Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (64, 64), np.uint16))
    small = {"level": 31.0, "max_bytes": 200, "keep_originals": "smaller"}
    text = str(refused(source_of(deep), **small))
    assert "16" in text
    assert "--keep-originals never" in text
    assert "asked for at most 200" in str(
        refused(crop("coffee.png"), **(small | {"keep_originals": "always"}))
    )


def test_a_stream_depends_on_no_other_image() -> None:
    sources = [source_of(photograph(w, h, seed=w), name=f"{w}") for w, h in ((90, 70), (128, 64), (64, 200))]
    aimed = codec(bpp=1.0)
    together = aimed.encode(sources)
    apart = [aimed.encode([source])[0] for source in reversed(sources)]
    assert together == apart[::-1]


def test_few_encodes_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from recbatch.codec import lossy

    calls: list[bool] = []
    real = lossy.encode_latents

    def counted(*args: object, calibrate: bool = True, **kwargs: object) -> object:
        calls.append(calibrate)
        return real(*args, calibrate=calibrate, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(lossy, "encode_latents", counted)
    coded(crop("coffee.png"), bpp=0.7)
    assert sum(calls) <= min(3, MAX_ENCODES)  # the others are estimates


def test_rows_carry_the_whole_level_and_its_quality(tmp_path: Path) -> None:
    """The table has the same columns: whole levels stay integers, the quality carries the eighths."""
    import recbatch

    source = tmp_path / "in"
    source.mkdir()
    (source / "old.png").write_bytes(file_of(photograph(96, 80)))
    recbatch.compress(source, tmp_path / "a.rba", quality=100, executor="inline")
    (source / "new.png").write_bytes(file_of(photograph(96, 80, seed=3)))
    recbatch.compress(source, tmp_path / "a.rba", quality=36.7, executor="inline")
    opened = recbatch.open(tmp_path / "a.rba")
    rows = {key: opened[key] for key in ("old.png", "new.png")}
    assert (rows["old.png"].level, rows["old.png"].quality) == (31, 100.0)
    assert (rows["new.png"].level, rows["new.png"].quality) == (11, 36.7)
    assert opened.image("new.png").size == (96, 80)
