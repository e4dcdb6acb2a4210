"""Lossless and recoded rows on the command line and in Python: previews, files that come back, what is listed."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lossless_fakes import GREY, PixelDecoder, lossless_row, lossless_stream, picture, png_of
from PIL import Image

import recbatch
from cli.conftest import Run
from recbatch import stream
from recbatch.archive import Archive, Record
from recbatch.errors import UsageError
from recbatch.images.png import recipe


def jpeg_file() -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (6, 9, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((160, 96), Image.Resampling.BICUBIC).save(out, "JPEG", quality=80)
    return out.getvalue()


FILE = png_of(picture(1), compress_level=4)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from recbatch.codec import jpeg

    recoded = jpeg.recode(jpeg_file())
    how = recipe(FILE)
    assert recoded is not None
    assert how is not None
    rows = [
        lossless_row("x/a.PNG", picture(1), FILE, recipe=how),
        lossless_row("c.png", picture(2, alpha=True), b"?" * 4000),
        Record(
            key="b.jpeg",
            codec="jpeg",
            stream=recoded.data,
            source_format="jpeg",
            source_size=len(jpeg_file()),
            source_sha256=hashlib.sha256(jpeg_file()).digest(),
            width=160,
            height=96,
            mode="RGB",
        ),
        Record(key="o.png", codec="original", stream=FILE, source_format="png", source_size=len(FILE)),
        Record(key="q.png", status="quarantined", error_code="not-an-image", error="It is text."),
    ]
    path = tmp_path_factory.mktemp("archives") / "a.rba"
    archive = Archive.create(path)
    file = archive.write_file(rows, stem="x")
    archive.commit([("one", file)], job="test", epoch=archive.claim_epoch("test"))
    return path


@pytest.fixture
def archive(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("recbatch.codec.Decoder", PixelDecoder, raising=False)
    return built


def test_get_preview_reads_and_decodes_the_preview_alone(
    run: Run, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    seen: list[str] = []
    real = pq.ParquetFile.read_row_group

    def spy(self: pq.ParquetFile, group: int, columns: list[str], **options: bool) -> object:
        seen.extend(columns)
        return real(self, group, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    monkeypatch.chdir(tmp_path)
    assert run("get", archive, "x/a.PNG", "--preview").status == 0
    assert "preview" in seen
    assert "stream" not in seen
    with Image.open("a.jpg") as shown:
        assert (shown.format, shown.size, shown.getpixel((1, 1))) == ("JPEG", (16, 12), (GREY, GREY, GREY))
    assert run("get", archive, "x/a.PNG", "--preview", "-o", "p.png").status == 0
    with Image.open("p.png") as shown:
        assert shown.format == "PNG"
    assert run("get", archive, "b.jpeg", "--preview", "-o", "b.webp").status == 0
    with Image.open("b.webp") as shown:
        assert shown.size == (160, 96)


def test_get_preview_says_what_it_can_not_do(run: Run, archive: Path, tmp_path: Path) -> None:
    both = run("get", archive, "x/a.PNG", "--preview", "--raw", "-o", tmp_path / "x")
    bad = run("get", archive, "q.png", "--preview", "-o", tmp_path / "x.png")
    missing = run("get", archive, "none.png", "--preview", "-o", tmp_path / "x.png")
    assert (both.status, bad.status, missing.status) == (2, 2, 2)
    assert "Choose one" in both.err
    assert "not-an-image" in bad.err
    assert "none.png" in missing.err
    assert list(tmp_path.iterdir()) == []


def test_get_gives_files_back_under_their_names(
    run: Run, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("x/a.PNG", "b.jpeg", "c.png"):
        assert run("get", archive, key).status == 0
        assert run("get", archive, key, "--raw").status == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name for name in names if name not in ("b.lep", "b.jxl")] == [
        "a.PNG",
        "a.rec",
        "b.jpeg",
        "c.png",
        "c.rec",
    ]
    assert len(names) == 6
    assert (tmp_path / "a.PNG").read_bytes() == FILE
    assert (tmp_path / "b.jpeg").read_bytes() == jpeg_file()
    with Image.open("c.png") as image:
        assert image.mode == "RGBA"


def test_previews_of_a_whole_archive_are_written_for_browsing(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    outcome = run("restore", archive, tmp_path / "out", "--previews", "--json")
    assert outcome.status == 0
    assert outcome.lines()[-1]["images"] == 4
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.jp*")}
    assert found == {"x/a.jpg", "b.jpeg", "c.jpg", "o.jpg"}
    outcome = run(
        "restore", archive, tmp_path / "png", "--previews", "--format", "png", "--where", "key = 'c.png'"
    )
    assert outcome.status == 0
    assert [path.name for path in (tmp_path / "png").iterdir()] == ["c.png"]
    assert run("restore", archive, tmp_path / "no", "--previews", "--format", "original").status == 2


def test_python_gives_previews_images_and_files(archive: Path) -> None:
    opened = recbatch.open(archive)
    preview = opened.preview("x/a.PNG")
    assert (preview.size, preview.getpixel((0, 0))) == ((16, 12), (GREY, GREY, GREY))
    assert [image.mode for image in opened.previews(["c.png", "b.jpeg", "o.png"])] == ["RGB"] * 3
    assert opened.image("c.png").mode == "RGBA"
    assert np.array_equal(np.asarray(opened.image("x/a.PNG")), picture(1).pixels)
    assert opened.file("x/a.PNG") == ("png", FILE)
    assert opened.file("b.jpeg") == ("jpeg", jpeg_file())
    assert opened.file("c.png")[0] == "png"
    assert opened.record("c.png", ["preview_size"]).stream is None
    assert opened.describe()["previews"] == 2
    with pytest.raises(UsageError, match="quarantined"):
        opened.preview("q.png")


def test_listings_tell_shares_of_bytes_and_of_previews(run: Run, archive: Path) -> None:
    lines = {line.split("\t")[0]: line.split("\t") for line in run("ls", archive, "--long").out.splitlines()}
    record = recbatch.open(archive)["c.png"]
    assert lines["c.png"][2] == "lossless"
    assert lines["c.png"][5] == f"{(record.stream_size or 0) / 4000:.1%}"
    assert lines["b.jpeg"][5].endswith("%")
    assert lines["o.png"][5] == "-"
    text = run("stats", archive).out
    assert "codec lossless" in text
    assert "codec jpeg" in text
    assert "previews: " in text
    assert " of 2 images, " in text
    (stats,) = run("stats", archive, "--json").lines()
    assert stats["by_codec"]["lossless"]["previews"] == 2
    assert stats["total"]["preview_bytes"] == stats["by_codec"]["lossless"]["preview_bytes"] > 0
    (row,) = run("info", archive, "c.png", "--json").lines()
    assert row["preview_size"] == record.preview_size
    assert "preview" not in row
    assert "pixels_sha256" in run("info", archive, "c.png").out


def test_info_shows_a_lossless_stream_without_what_only_lossy_ones_have(
    run: Run, archive: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.rec").write_bytes(recbatch.open(archive).stored("c.png"))
    text = run("info", tmp_path / "a.rec").out
    assert "codec lossless" in text
    assert "pixels 31323334" in text
    assert "coder" not in text
    assert "bytes: preview" in text


def test_verify_compares_pixels_and_files(run: Run, archive: Path, tmp_path: Path) -> None:
    assert run("verify", archive, "--level", "pixels").status == 0
    rows = [replace(record, pixels_sha256=bytes(32)) for record in Archive.open(archive).records()]
    other = Archive.create(tmp_path / "b.rba")
    epoch = other.claim_epoch("t")
    other.commit([("0", other.write_file(rows, stem="x"))], job="t", epoch=epoch)
    outcome = run("verify", other.url, "--level", "pixels")
    assert outcome.status == 1
    assert "c.png: [wrong-restoration]" in outcome.out
    assert "x/a.PNG: [wrong-restoration]" in outcome.out
    assert "b.jpeg: [" not in outcome.out


@pytest.mark.long
def test_a_lossless_archive_of_the_real_codec_comes_back(run: Run, tmp_path: Path) -> None:
    from recbatch.codec import ImageCodec, Settings, Source

    ramp = Image.linear_gradient("L").resize((96, 80))
    image = Image.merge("RGB", (ramp, ramp.rotate(180), ramp))
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=4)
    file = out.getvalue()
    codec = ImageCodec(Settings(mode="lossless", exact_files=True, keep_originals="never"))
    (encoded,) = codec.encode([Source(name="a.png", data=file)])
    assert not isinstance(encoded, Exception)
    archive = Archive.create(tmp_path / "a.rba")
    row = Record(
        key="a.png",
        codec=encoded.codec,
        stream=encoded.stream,
        preview=encoded.stream[: stream.preview_size(encoded.stream)] or None,  # as the model has it
        pixels_sha256=encoded.pixels_sha256,
        source_sha256=hashlib.sha256(file).digest(),
        source_format="png",
        width=96,
        height=80,
        mode="RGB",
    )
    rows = archive.write_file([row], stem="x")
    archive.commit([("0", rows)], job="t", epoch=archive.claim_epoch("t"))
    assert run("verify", archive.url, "--level", "pixels").status == 0
    opened = recbatch.open(archive.url)
    assert opened.file("a.png") == ("png", file)
    assert opened.image("a.png").tobytes() == image.tobytes()
    shown = np.asarray(opened.preview("a.png"), np.float64)
    assert np.mean((shown - np.asarray(image, np.float64)) ** 2) < 400


@pytest.mark.long
def test_a_preview_is_decoded_by_the_real_lossy_codec(run: Run, tmp_path: Path) -> None:
    image = picture(1, height=96, width=128)
    lossy = recbatch.encode(Image.fromarray(image.pixels), quality=30)
    data = lossless_stream(image, preview=lossy)
    row = lossless_row("a.png", image, b"?")
    row = replace(row, stream=data, preview=data[: stream.preview_size(data)])
    row = replace(row, stream_size=len(data), stream_sha256=hashlib.sha256(data).digest())
    row = replace(row, preview_size=len(row.preview or b""))
    archive = Archive.create(tmp_path / "a.rba")
    rows = archive.write_file([row], stem="x")
    archive.commit([("0", rows)], job="t", epoch=archive.claim_epoch("t"))
    shown = recbatch.open(archive.url).preview("a.png")
    assert shown.tobytes() == recbatch.decode(lossy).tobytes()
    assert run("restore", archive.url, tmp_path / "out", "--previews", "--format", "png").status == 0
    with Image.open(tmp_path / "out" / "a.png") as restored:
        assert restored.tobytes() == shown.tobytes()
