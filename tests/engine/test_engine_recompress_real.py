"""Rows coded again with the real codec."""

import io

import numpy as np
from PIL import Image


def drawn(seed):
    ramp = np.linspace(0, 200, 80, dtype=np.uint8)
    noise = np.random.default_rng(seed).integers(0, 24, (80, 96, 3), np.uint8)
    return ramp[:, None, None] + noise


def save(array, format, **options):
    out = io.BytesIO()
    Image.fromarray(array).save(out, format, **options)
    return out.getvalue()


def test_from_the_archive_itself_only_what_is_there_without_loss(tmp_path):
    import recbatch

    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(save(drawn(1), "PNG"))
    (tmp_path / "in/b.jpg").write_bytes(save(drawn(2), "JPEG", quality=95))
    archive = tmp_path / "archive"
    recbatch.compress(tmp_path / "in", archive, original=True, executor="inline")
    for path in (tmp_path / "in").iterdir():
        path.unlink()

    def codecs():
        return {row.key: row.codec for row in recbatch.open(archive).records()}

    def run(**options):
        return recbatch.recompress(archive, from_archive=True, executor="inline", **options)

    sources = {row.key: (row.source_sha256, row.source_uri) for row in recbatch.open(archive).records()}
    assert (
        recbatch.recompress(archive, executor="inline", dry_run=True).quarantined == 2
    )  # the sources are gone
    assert run(preview=False).images == 2
    assert codecs() == {"a.png": "lossless", "b.jpg": "jpeg"}
    assert run(preview=False).known == 2
    assert (np.asarray(recbatch.open(archive).image("a.png")) == drawn(1)).all()

    report = run(original=True)  # the JPEG's file comes back, the PNG's does not
    assert (report.images, [failure[:2] for failure in report.failures]) == (1, [("a.png", "file-not-held")])
    assert recbatch.open(archive)["a.png"].codec == "lossless"

    assert run(quality=40).images == 2
    assert codecs() == {"a.png": "lossy", "b.jpg": "lossy"}
    row = recbatch.open(archive)["a.png"]
    assert row.psnr is not None
    assert (row.source_format, row.source_sha256, row.source_uri) == ("png", *sources["a.png"])

    outlook = run(quality=30, dry_run=True)
    assert (outlook.images, outlook.quarantined) == (0, 2)
    assert {code for _, code, _ in outlook.failures} == {"generation-loss"}
    assert run(quality=30, lossy_again=True).images == 2
    row = recbatch.open(archive)["a.png"]
    assert row.psnr is None
    assert row.notes[0].startswith("coded again from lossy pixels of quality ")
    assert run(quality=30, lossy_again=True).known == 2

    (tmp_path / "in/a.png").write_bytes(save(drawn(1), "PNG"))  # the source is back: it gives a better row
    report = recbatch.recompress(archive, quality=30, where="key = 'a.png'", executor="inline")
    assert report.images == 1
    assert recbatch.open(archive)["a.png"].psnr is not None
    assert recbatch.verify(archive, level="pixels").ok
