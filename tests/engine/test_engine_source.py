import os
import socket
from types import SimpleNamespace

import fsspec
import pytest
from engine_fakes import fill

from recbatch.engine import errors, source
from recbatch.engine.source import Tally, find_items, read_item
from recbatch.errors import UsageError


def list_source(url, *, archive=None, **choice):
    tally = Tally()
    items = sorted(find_items(url, archive=archive, tally=tally, **choice), key=lambda item: item.key)
    return SimpleNamespace(items=items, skipped=tally.skipped, problems=tally.problems)


def keys(listing):
    return [item.key for item in listing.items]


def test_images_are_found_by_extension_and_the_rest_is_counted(tmp_path):
    fill(tmp_path, ["a.png", "b/c.JPEG", "b/d.txt", "e", "z.webp"])
    listing = list_source(str(tmp_path))
    assert keys(listing) == ["a.png", "b/c.JPEG", "z.webp"]
    assert listing.skipped == 2


@pytest.mark.parametrize(
    ("include", "exclude", "want"),
    [
        (["*.dat"], [], ["x.dat", "y/z.dat"]),
        (["y/*"], [], ["y/q.png", "y/z.dat"]),
        ([], ["y/*"], ["a.png"]),
        (["*"], ["*.png"], ["x.dat", "y/z.dat"]),
    ],
)
def test_globs_choose(tmp_path, include, exclude, want):
    fill(tmp_path, ["a.png", "x.dat", "y/z.dat", "y/q.png"])
    assert keys(list_source(str(tmp_path), include=include, exclude=exclude)) == want


def test_an_archive_inside_the_source_is_left_out(tmp_path):
    fill(tmp_path, ["a.png", "arc/_recbatch/b.png"])
    assert keys(list_source(str(tmp_path), archive=str(tmp_path / "arc"))) == ["a.png"]


def test_a_single_file_is_a_source(tmp_path):
    fill(tmp_path, ["a.dat"])
    listing = list_source(str(tmp_path / "a.dat"))
    assert keys(listing) == ["a.dat"]
    assert read_item(listing.items[0]).data == (tmp_path / "a.dat").read_bytes()


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path):
    fill(tmp_path, ["real/a.png"])
    (tmp_path / "real/loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "link.png").symlink_to("real/a.png")
    (tmp_path / "broken.png").symlink_to("nowhere")
    listing = list_source(str(tmp_path))
    assert keys(listing) == ["broken.png", "link.png", "real/a.png"]
    with pytest.raises(errors.BrokenLink, match="nowhere"):
        read_item(listing.items[0])
    assert read_item(listing.items[1]).data == (tmp_path / "real/a.png").read_bytes()


def test_names_that_are_no_utf8_are_listed_and_read(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xfe x%20.png"
    with open(path, "wb") as file:
        file.write(b"data")
    (item,) = list_source(str(tmp_path)).items
    assert item.key == "%FF%FE x%2520.png"
    assert read_item(item).data == b"data"
    assert source.notes_of(item) == ("name percent-escaped",)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: socket.socket(socket.AF_UNIX).bind(path)])
def test_what_is_no_regular_file_is_refused_without_opening_it(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make("pipe.png")
    (item,) = list_source(str(tmp_path)).items
    with pytest.raises(errors.NotAFile, match=r"pipe|socket"):
        read_item(item)


def test_a_file_that_can_be_opened_but_not_read_is_unreadable(tmp_path):
    # Reading the first page of a process's memory fails for everyone, root as well.
    if not os.path.exists("/proc/self/mem"):
        pytest.skip("this system has no /proc/self/mem")
    (tmp_path / "x.png").symlink_to("/proc/self/mem")
    (item,) = list_source(str(tmp_path)).items
    with pytest.raises(errors.UnreadableFile):
        read_item(item)


def test_a_file_that_vanished_says_so(tmp_path):
    fill(tmp_path, ["a.png"])
    (item,) = list_source(str(tmp_path)).items
    (tmp_path / "a.png").unlink()
    with pytest.raises(errors.SourceVanished):
        read_item(item)


def test_a_file_above_the_limit_is_refused(tmp_path):
    fill(tmp_path, ["a.png"], size=100)
    (item,) = list_source(str(tmp_path)).items
    assert len(read_item(item, limit=100).data) == 100
    with pytest.raises(errors.FileTooLarge):
        read_item(item, limit=99)


@pytest.mark.parametrize("changes", [2, 3])
def test_a_file_that_changes_while_it_is_read_is_read_again_then_refused(tmp_path, monkeypatch, changes):
    fill(tmp_path, ["a.png"])
    (item,) = list_source(str(tmp_path)).items
    path = tmp_path / "a.png"
    real, seen = os.fstat, []

    def fstat(descriptor):
        seen.append(descriptor)
        if len(seen) % 2 == 0 and len(seen) <= 2 * changes:  # between the looks before and after the read
            path.write_bytes(b"x" * len(seen))
            os.utime(path, ns=(len(seen), len(seen)))
        return real(descriptor)

    monkeypatch.setattr(source.os, "fstat", fstat)
    if changes < source.READ_ATTEMPTS:
        content = read_item(item)
        assert (content.data, content.mtime_ns) == (b"x" * 4, 4)
    else:
        with pytest.raises(errors.SourceChanged):
            read_item(item)


def test_bad_sources_say_what_is_wrong(tmp_path):
    with pytest.raises(errors.SourceNotFound):
        list_source(str(tmp_path / "none"))
    with pytest.raises(errors.SourceEmpty, match="no files"):
        list_source(str(tmp_path))
    fill(tmp_path, ["a.txt"])
    with pytest.raises(errors.SourceEmpty, match="--include"):
        list_source(str(tmp_path))
    with pytest.raises(UsageError):
        list_source("")
    with pytest.raises(errors.SourceUnreadable, match="nosuch"):
        list_source("nosuch://bucket/x")


def test_a_folder_that_cant_be_listed_is_a_problem_not_a_crash(tmp_path, monkeypatch):
    fill(tmp_path, ["a.png", "locked/b.png"])
    real = os.scandir

    def scandir(path):
        if path.endswith(b"locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(source.os, "scandir", scandir)
    listing = list_source(str(tmp_path))
    assert keys(listing) == ["a.png"]
    assert len(listing.problems) == 1
    assert "locked" in listing.problems[0]


@pytest.fixture
def bucket():
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    filesystem.pipe({"/bucket/in/a b.png": b"one", "/bucket/in/c/%20.jpg": b"two", "/bucket/in/x.txt": b"no"})
    yield filesystem
    filesystem.store.clear()


def test_an_fsspec_url_is_a_source(bucket):
    listing = list_source("memory://bucket/in")
    assert keys(listing) == ["a b.png", "c/%20.jpg"]
    assert listing.skipped == 1
    assert [read_item(item).data for item in listing.items] == [b"one", b"two"]
    with pytest.raises(errors.SourceNotFound):
        list_source("memory://bucket/none")


def test_an_object_that_changed_since_it_was_listed_is_read_as_it_is_now(bucket):
    item = list_source("memory://bucket/in").items[0]
    bucket.pipe("/bucket/in/a b.png", b"longer than before")
    assert read_item(item).data == b"longer than before"


def test_a_store_that_fails_is_no_fault_of_the_image(bucket, monkeypatch):
    item = list_source("memory://bucket/in").items[0]
    monkeypatch.setattr(source.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(
        type(bucket), "cat_file", lambda *_, **__: (_ for _ in ()).throw(OSError("503 Slow Down"))
    )
    with pytest.raises(errors.SourceUnreadable, match="503") as caught:
        read_item(item)
    assert caught.value.retryable
