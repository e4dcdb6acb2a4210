"""Lossless and recoded rows: files, pixels and previews out of them, each compared with what the row promises."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lossless_fakes import DECODER, GREY, PixelDecoder, lossless_row, lossless_stream, picture, png_of
from PIL import Image

from recbatch import stream
from recbatch.api import pixel_check
from recbatch.archive import Archive, Record, verify
from recbatch.codec import jpeg
from recbatch.engine import restore
from recbatch.engine.rows import (
    CONTENT_COLUMNS,
    PREVIEW_COLUMNS,
    Content,
    WrongRestoration,
    for_browsing,
    preview,
    recipe_of,
)
from recbatch.engine.targets import PREVIEW_LATER_NS
from recbatch.errors import CorruptStream, UsageError
from recbatch.images import Metadata, Picture, pixels_sha256, read_picture
from recbatch.images.png import OtherZlib, recipe

decode = PixelDecoder().decode


def jpeg_file(seed: int = 1) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((160, 96), Image.Resampling.BICUBIC).save(out, "JPEG", quality=80)
    return out.getvalue()


def jpeg_row(key: str = "b.jpg", **columns: Any) -> Record:
    file = jpeg_file()
    recoded = jpeg.recode(file)
    assert recoded is not None
    facts = {"source_format": "jpeg", "source_sha256": hashlib.sha256(file).digest(), "source_mtime": 10**18}
    facts |= {"width": 160, "height": 96, "mode": "RGB", "source_size": len(file)}
    return Record(**{"key": key, "codec": "jpeg", "stream": recoded.data, **facts, **columns})


def exact_row(key: str = "a.png", **columns: Any) -> tuple[Record, bytes]:
    """A lossless row with a recipe, and its source."""
    file = png_of(picture(1), compress_level=0)
    how = recipe(file)
    assert how is not None
    return lossless_row(key, picture(1), file, recipe=how, **columns), file


def make(path: Path, *records: Record) -> str:
    archive = Archive.create(path)
    file = archive.write_file(records, stem="x")
    archive.commit([("one", file)], job="test", epoch=archive.claim_epoch("test"))
    return str(path)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_digest_of_pixels_is_over_their_bytes_and_then_the_alpha_planes() -> None:
    image = picture(3, alpha=True)
    assert image.alpha is not None
    want = hashlib.sha256(image.pixels.tobytes() + image.alpha.tobytes()).digest()
    assert pixels_sha256(image) == want
    turned = Picture(pixels=image.pixels.transpose(1, 0, 2), alpha=image.alpha.T)  # not contiguous
    assert pixels_sha256(turned) != want
    assert pixels_sha256(replace(turned, pixels=turned.pixels.copy())) == pixels_sha256(turned)


# --- one row


def test_a_lossless_row_with_a_recipe_gives_its_file_and_one_without_its_pixels() -> None:
    row, file = exact_row()
    content = Content(row, decode)
    assert content.file() == file
    assert np.array_equal(content.picture.pixels, picture(1).pixels)
    bare = lossless_row("c.png", picture(2, alpha=True), b"?")
    assert recipe_of(bare.stream or b"") is None
    assert Content(bare, decode).file() is None
    assert Content(bare, decode).picture.mode == "RGBA"


def test_a_recoded_jpeg_gives_its_file_and_is_decoded_from_it() -> None:
    content = Content(jpeg_row(), decode)
    assert content.file() == jpeg_file()
    assert np.array_equal(content.picture.pixels, read_picture(jpeg_file()).pixels)


def test_what_is_not_what_was_archived_is_refused_with_both_digests() -> None:
    zeros = bytes(32)
    row, _ = exact_row(source_sha256=zeros)
    for bad, what in (
        (row, "bytes of the file"),
        (jpeg_row(source_sha256=zeros), "bytes of the file"),
        (lossless_row("c.png", picture(2), b"?", pixels_sha256=zeros), "pixels"),
    ):
        content = Content(bad, decode)
        with pytest.raises(WrongRestoration, match=f"{bad.key}: the {what} .*{zeros.hex()}.*verify"):
            content.picture if what == "pixels" else content.file()
    assert Content(row, decode).picture.mode == "RGB"  # its pixels are whole


def test_a_damaged_recoding_is_a_corrupt_stream() -> None:
    with pytest.raises(CorruptStream):
        Content(replace(jpeg_row(), stream=b"nonsense"), decode).file()


def test_a_preview_comes_from_its_column_or_from_the_stream_or_is_the_image() -> None:
    whole = lossless_row("a.png", picture(1), b"?")
    alone = replace(whole, stream=None, preview=whole.preview)
    inside = replace(whole, preview=None)
    for row in (whole, alone, inside):
        assert (preview(row, decode).pixels == GREY).all()
    without = Record(key="a", codec="lossless", stream=lossless_stream(picture(1), preview=b""))
    assert np.array_equal(preview(without, decode).pixels, picture(1).pixels)
    assert (preview(Record(key="a", codec="lossy", stream=b"\x07"), decode).pixels == 7).all()
    assert preview(jpeg_row(), decode).width == 160


def test_a_preview_cut_short_is_a_corrupt_stream() -> None:
    row = lossless_row("a.png", picture(1), b"?")
    with pytest.raises(CorruptStream, match="preview"):
        preview(replace(row, stream=None, preview=(row.preview or b"")[:-1]), decode)


def test_pictures_for_browsing_fit_every_format() -> None:
    image = picture(1, alpha=True)
    assert image.alpha is not None
    metadata = Metadata(icc=b"icc", exif=b"x" * 100_000)
    shown = for_browsing(replace(image, metadata=metadata), "jpeg")
    assert shown.alpha is None
    assert shown.metadata == Metadata(icc=b"icc")
    weight = image.alpha[:, :, None] / 255
    assert np.abs(shown.pixels - (image.pixels * weight + 255 * (1 - weight))).max() <= 0.5
    assert for_browsing(image, "png").alpha is image.alpha


# --- a whole archive


def test_restore_gives_back_the_very_files_of_rows_that_can(tmp_path: Path) -> None:
    exact, file = exact_row("deep/a.PNG")
    odd, _ = exact_row("odd.dat")
    pixels = lossless_row("c.png", picture(2, alpha=True), b"?")
    tiff = lossless_row("d.tif", picture(4), b"?", source_format="tiff")
    archive = make(tmp_path / "arc", exact, odd, pixels, tiff, jpeg_row("b.jpg"))
    report = restore(archive, str(tmp_path / "out"), decoder_factory=DECODER)
    assert (report.images, report.exit_status) == (5, 0)
    found = files(tmp_path / "out")
    assert set(found) == {"deep/a.PNG", "odd.dat", "c.png", "d.png", "b.jpg"}
    assert (found["deep/a.PNG"], found["odd.dat"], found["b.jpg"]) == (file, file, jpeg_file())
    for name, image in (("c.png", picture(2, alpha=True)), ("d.png", picture(4))):
        assert pixels_sha256(read_picture(found[name])) == pixels_sha256(image)
    assert restore(archive, str(tmp_path / "out"), decoder_factory=DECODER).known == 5


def test_a_format_that_is_asked_for_is_written_anew_unless_the_file_has_it(tmp_path: Path) -> None:
    exact, file = exact_row()
    archive = make(tmp_path / "arc", exact, jpeg_row("b.jpg"))
    restore(archive, str(tmp_path / "png"), format="png", decoder_factory=DECODER)
    found = files(tmp_path / "png")
    assert set(found) == {"a.png", "b.png"}
    assert found["a.png"] != file  # so a zlib that can't rebuild it keeps no pixels back
    assert np.array_equal(read_picture(found["a.png"]).pixels, picture(1).pixels)
    restore(archive, str(tmp_path / "jpeg"), format="jpeg", decoder_factory=DECODER)
    assert files(tmp_path / "jpeg")["b.jpg"] == jpeg_file()


def test_only_files_that_come_back_where_originals_are_asked_for(tmp_path: Path) -> None:
    exact, file = exact_row()
    others = (
        lossless_row("c.png", picture(2), b"?"),
        lossless_row("d", picture(2), b"?", source_format="webp"),
    )
    archive = make(tmp_path / "arc", exact, jpeg_row("b.jpg"), *others)
    report = restore(archive, str(tmp_path / "out"), format="original", decoder_factory=DECODER)
    assert files(tmp_path / "out") == {"a.png": file, "b.jpg": jpeg_file()}
    assert sorted(failure[:2] for failure in report.failures) == [
        ("c.png", "no-original"),
        ("d", "no-original"),
    ]


def test_a_row_that_breaks_its_promise_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    exact, _ = exact_row(source_sha256=bytes(32))
    pixels = lossless_row("c.png", picture(2), b"?", pixels_sha256=bytes(32))
    archive = make(tmp_path / "arc", exact, pixels, jpeg_row("b.jpg", source_sha256=bytes(32)))
    report = restore(archive, str(tmp_path / "out"), decoder_factory=DECODER)
    assert [failure[1] for failure in report.failures] == ["wrong-restoration"] * 3
    assert files(tmp_path / "out") == {}


def test_another_zlib_costs_the_file_and_not_the_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rebuild(*_: object) -> bytes:
        raise OtherZlib("zlib 1", "zlib 2")

    monkeypatch.setattr("recbatch.images.png.rebuild", rebuild)
    archive = make(tmp_path / "arc", exact_row()[0])
    report = restore(archive, str(tmp_path / "out"), decoder_factory=DECODER)
    assert report.failures[0][:2] == ("a.png", "other-zlib")
    assert restore(archive, str(tmp_path / "out"), format="png", decoder_factory=DECODER).images == 1


@pytest.fixture
def columns_read(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    import pyarrow.parquet as pq

    seen: list[set[str]] = []
    real = pq.ParquetFile.read_row_group

    def spy(self: pq.ParquetFile, group: int, columns: Any = None, **options: Any) -> Any:
        seen.append(set(columns))
        return real(self, group, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    return seen


def test_previews_of_an_archive_are_read_alone_and_never_pass_for_its_images(
    tmp_path: Path, columns_read: list[set[str]]
) -> None:
    tiff = lossless_row("x/c.tif", picture(2, alpha=True), b"?", source_format="tiff")
    archive = make(tmp_path / "arc", exact_row("a.png")[0], tiff)
    columns_read.clear()
    report = restore(archive, str(tmp_path / "out"), previews=True, decoder_factory=DECODER)
    assert (report.images, report.exit_status) == (2, 0)
    assert report.bytes_in < 200
    assert any("preview" in columns for columns in columns_read)
    assert not any("stream" in columns for columns in columns_read)
    out = tmp_path / "out"
    assert set(files(out)) == {"a.jpg", "x/c.jpg"}
    with Image.open(out / "a.jpg") as shown:
        assert (shown.format, shown.size) == ("JPEG", (16, 12))
        assert shown.getpixel((3, 3)) == (GREY, GREY, GREY)
    assert (out / "a.jpg").stat().st_mtime_ns == 10**18 + PREVIEW_LATER_NS
    assert restore(archive, str(out), previews=True, decoder_factory=DECODER).known == 2
    restore(archive, str(out), previews=True, format="png", decoder_factory=DECODER)
    report = restore(archive, str(out), decoder_factory=DECODER)
    assert (report.known, report.images) == (0, 0)
    assert [failure[:2] for failure in report.failures] == [
        ("a.png", "name-taken"),
        ("x/c.tif", "name-taken"),
    ]


def test_rows_without_a_preview_show_themselves(tmp_path: Path) -> None:
    whole = lossless_stream(picture(5, alpha=True), preview=b"")
    small = Record(key="s.png", codec="lossless", stream=whole, source_format="png", width=16, height=12)
    own = Record(key="o.png", codec="original", stream=png_of(picture(6)), source_format="png")
    lossy = Record(key="l.png", codec="lossy", stream=b"\x21", source_format="png", width=16, height=12)
    archive = make(tmp_path / "arc", small, own, lossy, jpeg_row("b.jpg"), exact_row("a.png")[0])
    report = restore(archive, str(tmp_path / "out"), previews=True, decoder_factory=DECODER)
    assert (report.images, report.failures) == (5, ())
    found = files(tmp_path / "out")
    assert found["b.jpg"] == jpeg_file()
    greys = {name: read_picture(found[name]).pixels.mean() for name in ("l.jpg", "a.jpg")}
    assert greys == {"l.jpg": pytest.approx(0x21, abs=1), "a.jpg": pytest.approx(GREY, abs=1)}
    assert read_picture(found["o.jpg"]).width == 16
    with pytest.raises(UsageError, match="Previews"):
        restore(archive, str(tmp_path / "out"), previews=True, format="original")


def test_verification_of_pixels_compares_what_rows_promise(tmp_path: Path) -> None:
    zeros = bytes(32)
    rows = [
        exact_row("fine/a.png")[0],
        jpeg_row("fine/b.jpg"),
        lossless_row("fine/c.png", picture(2, alpha=True), b"?"),
        exact_row("bad/file.png", source_sha256=zeros)[0],
        jpeg_row("bad/recoded.jpg", source_sha256=zeros),
        lossless_row("bad/pixels.png", picture(2), b"?", pixels_sha256=zeros),
        lossless_row("bad/size.png", picture(2), b"?", width=17),
        Record(key="bad/broken.jpg", codec="jpeg", stream=b"nonsense"),
    ]
    archive = Archive.open(make(tmp_path / "arc", *rows))
    assert verify(archive).ok  # nothing has rotted
    check: Callable[[Record], Any] = pixel_check(PixelDecoder())  # type: ignore[arg-type]
    report = verify(archive, level="pixels", decoder=check)
    assert {finding.key: finding.code for finding in report.findings} == {
        "bad/file.png": "wrong-restoration",
        "bad/recoded.jpg": "wrong-restoration",
        "bad/pixels.png": "wrong-restoration",
        "bad/size.png": "wrong-size",
        "bad/broken.jpg": "corrupt-stream",
    }
    assert report.streams_decoded == len(rows)


def test_the_columns_to_read_are_all_that_is_needed() -> None:
    assert "stream" not in PREVIEW_COLUMNS
    assert {"stream_sha256", "pixels_sha256", "source_sha256"} < set(CONTENT_COLUMNS)
    row = lossless_row("a.png", picture(1), b"?")
    assert stream.preview_size(row.stream or b"") == row.preview_size
