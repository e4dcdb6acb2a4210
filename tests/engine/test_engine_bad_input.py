"""A folder of everything that goes wrong, with the codec's own reading of images."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from recbatch.archive import Archive
from recbatch.engine import compress, restore


def bomb() -> bytes:
    """A PNG whose header promises 40,000 x 40,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_bytes(tmp_path, mode="RGB") -> bytes:
    rng = np.random.default_rng(1)
    channels = {"RGB": 3, "CMYK": 4}[mode]
    image = Image.fromarray(rng.integers(0, 255, (48, 64, channels), np.uint8), mode)
    image.save(tmp_path / "made.jpg", quality=90)
    return (tmp_path / "made.jpg").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("made")
    jpeg = jpeg_bytes(made)
    good = {
        "a good one.jpg": jpeg,
        "100%20real.jpg": jpeg,
        "ünïcode/日本.jpg": jpeg,
        "cmyk.jpg": jpeg_bytes(made, "CMYK"),
    }
    for name, data in good.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    with open(os.fsencode(root) + b"/bad\xff\xfename.jpg", "wb") as file:
        file.write(jpeg)
    Image.new("RGB", (1, 1), (1, 2, 3)).save(root / "one.png")
    Image.fromarray((np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)).save(root / "sixteen.png")
    frames = [Image.new("P", (8, 8), colour) for colour in range(3)]
    frames[0].save(root / "moving.gif", save_all=True, append_images=frames[1:])
    (root / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (root / "text.png").write_text("this is no image, whatever it is called")
    (root / "empty.png").write_bytes(b"")
    (root / "bomb.png").write_bytes(bomb())
    (root / "broken.png").symlink_to("nowhere at all.png")
    if os.path.exists("/proc/self/mem"):  # can be opened and not be read, by root either
        (root / "unreadable.png").symlink_to("/proc/self/mem")
    (root / "readme.txt").write_text("not an image, and does not say it is")
    return root


GOOD = {
    "a good one.jpg",
    "100%20real.jpg",
    "ünïcode/日本.jpg",
    "cmyk.jpg",
    "bad%FF%FEname.jpg",
    "one.png",
    "sixteen.png",
    "moving.gif",
}
BAD = {
    "cut.jpg": "truncated-image",
    "text.png": "not-an-image",
    "empty.png": "empty-file",
    "bomb.png": "image-too-large",
    "broken.png": "broken-link",
}


def test_each_bad_file_is_a_row_with_a_code_and_the_rest_is_archived(tmp_path, folder):
    from recbatch.codec import Settings

    bad = dict(BAD)
    if (folder / "unreadable.png").is_symlink():
        bad["unreadable.png"] = "unreadable-file"
    archive = str(tmp_path / "archive")
    report = compress(str(folder), archive, settings=Settings(mode="original"), executor="inline")
    assert (report.images, report.quarantined, report.skipped) == (len(GOOD), len(bad), 1)
    assert report.exit_status == 1
    rows = {record.key: record for record in Archive.open(archive).records()}
    assert {key for key, row in rows.items() if row.status == "ok"} == GOOD
    assert {key: row.error_code for key, row in rows.items() if row.status == "quarantined"} == bad
    for key in bad:
        assert rows[key].error.endswith(".")
        assert rows[key].error.count(". ") >= 1  # what it is, and what to do about it
        assert "Traceback" not in rows[key].error
    assert rows["bad%FF%FEname.jpg"].notes[0] == "name percent-escaped"
    assert {key for key in GOOD if rows[key].source_sha256 is None} == set()

    restored = restore(archive, str(tmp_path / "out"))
    assert (restored.images, restored.exit_status) == (len(GOOD), 0)
    for key in GOOD - {"bad%FF%FEname.jpg"}:
        assert (tmp_path / "out" / key).read_bytes() == (folder / key).read_bytes()
    with open(os.fsencode(tmp_path / "out") + b"/bad\xff\xfename.jpg", "rb") as file:
        assert file.read() == (folder / "a good one.jpg").read_bytes()
