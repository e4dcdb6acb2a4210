"""``import recbatch``: single images, archives as mappings, errors that say what to do."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import recbatch
from recbatch.api import ModesConflict, QuarantinedImage, file_format, image_bytes, make_settings, stream_info


def gradient(width: int = 96, height: int = 64) -> Image.Image:
    """A smooth picture, which any trained model restores well."""
    y_HW, x_HW = np.mgrid[:height, :width]
    pixels_HWC = np.stack([255 * x_HW / width, 255 * y_HW / height, 128 + 0 * x_HW], axis=2)
    return Image.fromarray(pixels_HWC.astype(np.uint8))


def distance_db(a: Image.Image, b: Image.Image) -> float:
    mse = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(mse, 1e-9)))


def test_an_image_goes_to_bytes_and_comes_back_alike() -> None:
    image = gradient()
    stream = recbatch.encode(image, quality=60)
    restored = recbatch.decode(stream)
    assert (restored.size, restored.mode) == (image.size, "RGB")
    assert distance_db(image, restored) > 28
    assert len(stream) < 96 * 64 * 3 / 10
    assert recbatch.encode(image, quality=60) == stream  # one seed, one sample


def test_a_path_bytes_and_a_picture_give_the_same_stream(tmp_path: Path) -> None:
    image = gradient(33, 17)
    image.save(tmp_path / "a.png")
    from_path = recbatch.encode(tmp_path / "a.png", quality=20)
    assert from_path == recbatch.encode((tmp_path / "a.png").read_bytes(), quality=20)
    assert from_path == recbatch.encode(image, quality=20)


def test_a_stream_tells_about_itself() -> None:
    stream = recbatch.encode(gradient(), quality=100)
    found = stream_info(stream)
    assert (found.width, found.height, found.mode, found.level) == (96, 64, "RGB", 31)
    assert (found.quality, found.coder, found.model_name) == (100, "trellis", "photo-s2")
    assert sum(found.bytes.values()) == found.size_bytes == len(stream)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_pictures_of_other_modes_become_files_that_hold_them(mode: str) -> None:
    image = gradient().convert("L" if mode == "I;16" else "RGB").convert(mode)
    with Image.open(io.BytesIO(image_bytes(image))) as again:
        assert again.size == image.size
        np.testing.assert_array_equal(np.asarray(again.convert(mode)), np.asarray(image))


def test_pixels_never_change_unasked() -> None:
    assert make_settings().mode == make_settings(lossless=True).mode == "lossless"


@pytest.mark.parametrize(
    "chosen",
    [
        {"quality": 5, "original": True},
        {"quality": 5, "lossless": True},
        {"quality": 5, "preview": False},
        {"original": True, "exact_files": True},
        {"quality": 5, "bpp": 0.5},
        {"bpp": 0.5, "psnr": 35},
        {"lossless": True, "psnr": 35},
        {"lossless": True, "max_bytes": 1000},
        {"original": True, "min_psnr": 35},
        {"max_bytes": 1000, "exact_files": True},
    ],
)
def test_modes_exclude_each_other(chosen: dict[str, float | bool]) -> None:
    with pytest.raises(ModesConflict, match="--quality"):
        make_settings(**chosen)  # type: ignore[arg-type]


def test_quality_is_linear_in_the_level() -> None:
    assert [make_settings(quality=q).level for q in (0, 50, 100)] == [0, 15.5, 31]
    with pytest.raises(recbatch.UsageError, match="quality"):
        make_settings(quality=101)


def test_a_bound_alone_asks_for_the_best_that_fits_or_the_smallest_that_is_good_enough() -> None:
    assert (make_settings(max_bytes=1000).mode, make_settings(max_bytes=1000).level) == ("lossy", 31)
    assert (make_settings(min_psnr=35).mode, make_settings(min_psnr=35).level) == ("lossy", 0)
    assert make_settings(max_bytes=1000, min_psnr=35).level == 31
    assert make_settings(max_bytes=1000, min_psnr=35, quality=20).level == 6.25
    with pytest.raises(recbatch.UsageError, match="min_psnr"):
        make_settings(psnr=30, min_psnr=35)


def test_a_stream_has_the_size_or_the_quality_that_was_asked_for() -> None:
    noise_HWC = np.random.default_rng(0).integers(-40, 40, (128, 160, 3))
    pixels_HWC = np.clip(np.asarray(gradient(160, 128), np.int64) + noise_HWC, 0, 255)
    image = Image.fromarray(pixels_HWC.astype(np.uint8))
    stream = recbatch.encode(image, bpp=1.0)
    assert 8 * len(stream) / (160 * 128) == pytest.approx(1.0, rel=0.02)
    assert stream_info(stream).level % 1 in {n / 8 for n in range(8)}
    assert distance_db(image, recbatch.decode(recbatch.encode(image, psnr=22))) == pytest.approx(22, abs=0.1)
    assert len(recbatch.encode(image, max_bytes=3000)) <= 3000
    with pytest.raises(recbatch.RecbatchError, match="at most 100"):
        recbatch.encode(image, max_bytes=100)


def test_a_name_says_its_format() -> None:
    assert [file_format(name) for name in ("a.PNG", "b/c.jpg", "d.tif", "e.webp")] == [
        "png",
        "jpeg",
        "tiff",
        "webp",
    ]
    with pytest.raises(recbatch.UsageError, match=r"a\.rec"):
        file_format("a.rec")


def test_a_lossy_archive_is_a_mapping_that_decodes_its_images(tmp_path: Path) -> None:
    source, url = tmp_path / "in", tmp_path / "a.rba"
    source.mkdir()
    gradient(160, 120).save(source / "large.png", compress_level=0)
    gradient(8, 8).save(source / "tiny.png")
    (source / "bad.png").write_text("not an image")
    report = recbatch.compress(source, url, quality=40, executor="inline")
    assert (report.images, report.quarantined, report.exit_status) == (2, 1, 1)

    archive = recbatch.open(url)
    assert sorted(archive) == ["bad.png", "large.png", "tiny.png"]
    assert len(archive) == 3
    assert "large.png" in archive
    assert "none.png" not in archive
    assert archive.get("none.png") is None
    record = archive["large.png"]
    assert (record.codec, record.width, record.height) == ("lossy", 160, 120)
    assert record.psnr == pytest.approx(distance_db(gradient(160, 120), archive.image("large.png")), abs=0.05)
    assert archive["tiny.png"].codec == "original"  # its stream would be larger
    assert archive.stored("tiny.png") == (source / "tiny.png").read_bytes()
    assert [image.size for image in archive.images(["tiny.png", "large.png"])] == [(8, 8), (160, 120)]
    assert archive.to_arrow(["width"], "codec = 'lossy'")["width"].to_pylist() == [160]
    with pytest.raises(QuarantinedImage, match="not-an-image"):
        archive.image("bad.png")

    checked = recbatch.verify(url, level="pixels")
    assert checked.ok
    assert checked.streams_decoded == 2
    back = recbatch.restore(url, tmp_path / "out", format="png")
    assert back.images == 2
    with Image.open(tmp_path / "out" / "large.png") as restored:
        assert restored.tobytes() == archive.image("large.png").tobytes()


def test_an_archive_carries_the_weights_that_decode_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, url = tmp_path / "in", tmp_path / "a.rba"
    source.mkdir()
    gradient().save(source / "a.png", compress_level=0)
    recbatch.compress(source, url, quality=30, executor="inline")
    from recbatch.models import weights

    def gone(head: bytes) -> bytes:
        raise weights.UnknownModel(head.hex(), "none")

    monkeypatch.setattr(weights, "find", gone)
    monkeypatch.setattr(weights, "read", gone)
    assert recbatch.open(url).image("a.png").size == (96, 64)
