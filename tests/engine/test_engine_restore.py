import os
import signal

import pytest
from engine_fakes import fill
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.archive import Archive, ArchiveNotFound, CorruptArchive, Record
from recbatch.engine import errors, events, restore
from recbatch.engine.names import key_of
from recbatch.engine.paths import safe_name, with_suffix, write_file
from recbatch.errors import ImageError, UsageError


def make_archive(path, records):
    archive = Archive.create(str(path))
    file = archive.write_file(records, stem="x")
    archive.commit([("one", file)], job="test", epoch=archive.claim_epoch("test"))
    return str(path)


def original(key, data=b"bytes", **columns):
    return Record(key=key, codec="original", stream=data, source_format="png", width=4, height=2, **columns)


def tree(root):
    found = {}
    for folder, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, os.fsencode(root))] = file.read()
    return found


def test_originals_come_back_byte_for_byte_with_names_and_times(tmp_path, quick_compress):
    written = fill(tmp_path / "in", ["a.png", "b/c d%20.JPG", "b/é.webp"])
    with open(os.fsencode(tmp_path / "in") + b"/\xffx.png", "wb") as file:
        file.write(b"odd")
    for number, folder in enumerate(os.walk(tmp_path / "in")):
        for name in folder[2]:
            os.utime(os.path.join(folder[0], name), ns=(1, 10**18 + number))
    quick_compress(tmp_path / "in")
    told = []
    report = restore(str(tmp_path / "archive"), str(tmp_path / "out"), progress=told.append)
    assert (report.images, report.quarantined, report.exit_status) == (4, 0, 0)
    want = {os.fsencode(name): data for name, data in written.items()} | {b"\xffx.png": b"odd"}
    assert tree(tmp_path / "out") == want
    for name in want:
        paths = [os.path.join(os.fsencode(tmp_path / side), name) for side in ("in", "out")]
        assert os.stat(paths[0]).st_mtime_ns == os.stat(paths[1]).st_mtime_ns
    assert isinstance(told[0], events.Planned)
    assert told[-1].report == report


def test_a_restore_goes_on_where_it_stopped_and_never_replaces_another_file(tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png", "b.png", "c.png"])
    quick_compress(tmp_path / "in")
    archive, out = str(tmp_path / "archive"), tmp_path / "out"
    assert restore(archive, str(out)).images == 3
    (out / "a.png").unlink()
    (out / "b.png").write_bytes(b"mine")
    report = restore(archive, str(out))
    assert (report.images, report.known, report.quarantined) == (1, 1, 1)
    assert report.failures[0][:2] == ("b.png", "name-taken")
    assert (out / "b.png").read_bytes() == b"mine"
    report = restore(archive, str(out), overwrite=True)
    assert (report.images, report.exit_status) == (3, 0)
    assert tree(out) == tree(tmp_path / "in")


def test_where_chooses_rows(tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png", "b.png", "c-bad.png"])
    quick_compress(tmp_path / "in")
    report = restore(str(tmp_path / "archive"), str(tmp_path / "out"), where="key <> 'a.png'")
    assert (report.images, report.skipped) == (1, 1)
    assert list(tree(tmp_path / "out")) == [b"b.png"]


@pytest.mark.parametrize(
    "key",
    [
        "../x.png",
        "a/../../x.png",
        "/etc/x.png",
        "a//b.png",
        "./x.png",
        "a\0.png",
        "a/",
        key_of(b"../\xff.png"),
    ],
)
def test_a_key_that_leads_elsewhere_is_refused_and_the_rest_goes_on(tmp_path, key):
    with pytest.raises(errors.UnsafeKey):
        safe_name(key)
    if "\0" in key:
        return
    archive = make_archive(tmp_path / "arc", [original(key), original("good.png")])
    report = restore(archive, str(tmp_path / "deep/out"))
    assert (report.images, report.quarantined) == (1, 1)
    assert report.failures[0][:2] == (key, "unsafe-key")
    assert tree(tmp_path / "deep") == {b"out/good.png": b"bytes"}


def test_a_link_inside_the_folder_leads_nowhere_else(tmp_path):
    archive = make_archive(tmp_path / "arc", [original("sub/x.png"), original("y.png", b"new")])
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/z").write_bytes(b"keep")
    (tmp_path / "out/sub").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "out/y.png").symlink_to(tmp_path / "elsewhere/z")
    report = restore(archive, str(tmp_path / "out"), overwrite=True)
    assert (report.images, report.failures[0][:2]) == (1, ("sub/x.png", "unsafe-key"))
    assert tree(tmp_path / "elsewhere") == {b"z": b"keep"}
    assert not (tmp_path / "out/y.png").is_symlink()
    assert (tmp_path / "out/y.png").read_bytes() == b"new"


def test_a_key_that_is_a_folder_of_another_costs_one_image(tmp_path):
    archive = make_archive(tmp_path / "arc", [original("a"), original("a/b.png"), original("c.png")])
    report = restore(archive, str(tmp_path / "out"))
    assert (report.images, report.quarantined) == (2, 1)


def test_bytes_that_rotted_are_not_restored_and_the_rest_is(tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png", "b.png"])
    quick_compress(tmp_path / "in", shard_bytes=100)
    archive = tmp_path / "archive"
    (path,) = archive.glob("*-000000-*.parquet")
    data = bytearray(path.read_bytes())
    place = data.index((tmp_path / "in/a.png").read_bytes())
    data[place + 50] ^= 1
    path.write_bytes(data)
    report = restore(str(archive), str(tmp_path / "out"))
    assert (report.images, report.exit_status) == (1, 1)
    assert report.failures[0][0] == "a.png"
    assert report.failures[0][1].startswith("corrupt-")
    assert tree(tmp_path / "out") == {b"b.png": (tmp_path / "in/b.png").read_bytes()}


def test_images_come_back_from_a_damaged_page_wherever_their_own_bytes_are_whole(tmp_path):
    records = [original(f"{name}.png", bytes([number]) * 500) for number, name in enumerate("abc")]
    path = make_archive(tmp_path / "arc", records)
    (file,) = (tmp_path / "arc").glob("x-*.parquet")
    data = bytearray(file.read_bytes())
    data[data.index(records[1].stream) + 50] ^= 1  # of b, whose page is a's and c's as well
    file.write_bytes(data)
    report = restore(path, str(tmp_path / "out"))
    assert (report.images, report.quarantined, report.failures[0][:2]) == (2, 1, ("b.png", "corrupt-stream"))
    assert tree(tmp_path / "out") == {b"a.png": records[0].stream, b"c.png": records[2].stream}
    opened = Archive.open(path)
    assert opened["a.png"].stream == records[0].stream
    assert opened.record("c.png", ["stream"]).stream == records[2].stream
    with pytest.raises(CorruptArchive):
        opened["b.png"]


def test_a_data_file_that_is_gone_costs_its_images_and_no_other(tmp_path, quick_compress):
    fill(tmp_path / "in", ["a.png", "b.png", "c.png"])
    quick_compress(tmp_path / "in", shard_bytes=100)
    archive = tmp_path / "archive"
    (path,) = archive.glob("*-000001-*.parquet")
    path.unlink()
    report = restore(str(archive), str(tmp_path / "out"))
    assert (report.images, report.exit_status) == (2, 1)
    assert report.failures[0][0] == "b.png"
    assert set(tree(tmp_path / "out")) == {b"a.png", b"c.png"}


def test_counts_are_of_images_where_a_data_file_can_not_even_name_its_own(tmp_path):
    path = make_archive(tmp_path / "arc", [original(f"b{number}.png") for number in range(4)])
    (file,) = (tmp_path / "arc").glob("x-*.parquet")
    archive = Archive.open(path)
    more = archive.write_file([original("a.png"), original("c.png"), original("../d.png")], stem="y")
    archive.commit([("two", more)], job="test", epoch=archive.claim_epoch("test"))
    file.write_bytes(file.read_bytes()[:-9])
    told = []
    report = restore(path, str(tmp_path / "out"), progress=told.append)
    assert (report.images, report.quarantined, report.unnamed, report.exit_status) == (2, 5, 4, 1)
    assert [failure[0] for failure in report.failures] == ["b0.png .. b3.png", "../d.png"]
    done = [event for event in told if isinstance(event, events.ShardDone)]
    assert told[0].images == sum(event.images + event.quarantined for event in done) == 7


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["a", "a.png", "a.jpg", "a.jpg.png", "a.jpeg", ".a", "b/a.jpg", "b.x/a"]), unique=True
    )
)
def test_converted_names_never_meet(names):
    taken = {name.encode() for name in names}
    results = []
    for name in sorted(names):
        results.append(with_suffix(name.encode(), "png", taken))
        taken.add(results[-1])
    assert len(set(results)) == len(results)
    for name, result in zip(sorted(names), results, strict=True):
        assert result.endswith(b".png")
        assert name.endswith(".png") == (name.encode() == result)


def test_names_of_converted_files_are_pinned():
    assert with_suffix(b"x/a.jpg", "png", set()) == b"x/a.png"
    assert with_suffix(b"x/a.jpg", "png", {b"x/a.png"}) == b"x/a.jpg.png"
    assert with_suffix(b"x.y/a", "webp", set()) == b"x.y/a.webp"
    assert with_suffix(b".a", "png", set()) == b".a.png"
    assert with_suffix(b"a.JPEG", "jpeg", set()) == b"a.JPEG"


def test_bad_calls_say_what_is_wrong(tmp_path):
    archive = make_archive(tmp_path / "arc", [original("a.png")])
    with pytest.raises(UsageError, match="no format"):
        restore(archive, str(tmp_path / "out"), format="gif")
    with pytest.raises(UsageError, match="no folder of this machine"):
        restore(archive, "s3://bucket/out")
    with pytest.raises(UsageError):
        restore(archive, str(tmp_path / "out"), workers=0)
    with pytest.raises(UsageError):
        restore(archive, str(tmp_path / "out"), where="no such sql")
    with pytest.raises(ArchiveNotFound):
        restore(str(tmp_path / "none"), str(tmp_path / "out"))
    (tmp_path / "file").write_bytes(b"")
    for place in ("file", "file/below"):
        with pytest.raises(UsageError, match=r"file is a file, not a folder\. Name another place"):
            restore(archive, str(tmp_path / place))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_the_job_and_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    archive = make_archive(tmp_path / "arc", [original("a.png")])

    def replace(old, new):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(errors.DestinationUnwritable, match="No space"):
        restore(archive, str(tmp_path / "out"))
    assert tree(tmp_path / "out") == {}


def test_a_name_too_long_for_the_system_costs_one_image(tmp_path):
    with pytest.raises(ImageError):
        write_file(os.fsencode(tmp_path), b"x" * 300, b"data", key="x" * 300, mtime_ns=None)
    assert tree(tmp_path) == {}


def test_only_originals_where_asked(tmp_path):
    coded = Record(key="b.png", codec="lossy", stream=b"stream", source_format="png", width=1, height=1)
    archive = make_archive(tmp_path / "arc", [original("a.png"), coded])
    report = restore(archive, str(tmp_path / "out"), format="original")
    assert (report.images, report.failures[0][:2]) == (1, ("b.png", "no-original"))


class FakeDecoder:
    """A stream is the grey value of its one pixel."""

    def __init__(self, models):
        pass

    def decode_batch(self, streams):
        import numpy as np

        from recbatch.errors import CorruptStream
        from recbatch.images import Metadata, Picture

        def decode(data):
            if data == b"torn":
                return CorruptStream("torn", 3)
            pixels = np.full((1, 1, 1), data[0], np.uint8)
            return Picture(pixels=pixels, alpha=None, metadata=Metadata(), notes=(), source_format="png")

        return [decode(data) for data in streams]


@pytest.mark.parametrize(
    ("format", "suffix"), [("original-or-png", "png"), ("png", "png"), ("tiff", "tif"), ("webp", "webp")]
)
def test_coded_images_are_decoded_and_written_in_the_format_asked_for(tmp_path, format, suffix):
    image = pytest.importorskip("PIL.Image")

    def coded(key, stream):
        return Record(
            key=key,
            codec="lossy",
            stream=stream,
            source_format="jpeg",
            width=1,
            height=1,
            source_mtime=10**18,
        )

    archive = make_archive(tmp_path / "arc", [coded("x/a.jpg", b"\x80"), coded("b.jpg", b"torn")])
    report = restore(
        archive, str(tmp_path / "out"), format=format, decoder_factory="test_engine_restore:FakeDecoder"
    )
    assert (report.images, report.failures[0][:2]) == (1, ("b.jpg", "corrupt-stream"))
    path = tmp_path / f"out/x/a.{suffix}"
    with image.open(path) as opened:
        assert opened.convert("L").getpixel((0, 0)) == 0x80
    assert path.stat().st_mtime_ns == 10**18


def test_a_signal_stops_a_restore_that_the_next_one_completes(tmp_path):
    records = [
        original(f"{number}.png", bytes([number]) * (1 << 19), source_mtime=10**18) for number in range(8)
    ]
    archive = make_archive(tmp_path / "arc", records)

    def progress(event):
        if isinstance(event, events.ShardDone):
            signal.raise_signal(signal.SIGINT)

    report = restore(archive, str(tmp_path / "out"), progress=progress)
    assert (report.exit_status, report.images) == (130, 2)
    again = restore(archive, str(tmp_path / "out"))
    assert (again.images, again.known) == (6, 2)
