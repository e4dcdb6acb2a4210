"""Rows coded again: the new one in the old one's place, at no version none, and never a bad one for a good one."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
from engine_fakes import fill
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from recompress_fakes import STAMP, StampSettings, stamped

from recbatch import archive as archives
from recbatch.archive import Archive, Record, verify, versions
from recbatch.codec import Settings
from recbatch.engine import compress, errors, events, recompress, recompress_actor
from recbatch.engine.driver import Tuning
from recbatch.engine.recompress_plan import BadMove, Move, Wanted, parse_move
from recbatch.engine.runs import read_runs
from recbatch.errors import UsageError

QUICK = Tuning(poll_s=0.02, backoff_s=0.01, setup_s=60)


@pytest.fixture
def place(tmp_path):
    """A source, an archive of it with the stamp "one", and what was written, by key."""
    written = fill(tmp_path / "in", [f"{number}.png" for number in range(6)])
    compress(
        str(tmp_path / "in"),
        str(tmp_path / "archive"),
        settings=StampSettings(),
        executor="inline",
        codec_factory=STAMP,
        tuning=QUICK,
    )
    return tmp_path, written


def again(folder, *, executor="inline", stamp="two", bad="\0", kill="\0", tuning=QUICK, **options):
    return recompress(
        str(folder / "archive"),
        settings=StampSettings(stamp=stamp, bad=bad, kill=kill),
        executor=executor,
        codec_factory=STAMP,
        tuning=tuning,
        **options,
    )


def streams(folder, version=None):
    return {row.key: row.stream for row in Archive.open(str(folder / "archive"), version=version).records()}


def all_stamped(written, stamp, **others):
    return {key: stamped(others.get(key[0], stamp), data) for key, data in written.items()}


def test_rows_are_coded_again_from_their_sources_and_the_old_version_stays(place):
    folder, written = place
    before = Archive.open(str(folder / "archive"))
    rows = {row.key: row for row in before.records()}
    report = again(folder)
    assert (report.kind, report.images, report.replaces, report.known) == ("recompress", 6, 6, 0)
    assert (report.exit_status, report.bytes_in) == (0, 600)
    assert streams(folder) == all_stamped(written, "two")
    assert streams(folder, before.version) == all_stamped(written, "one")
    for row in Archive.open(str(folder / "archive")).records():
        for name in ("source_uri", "source_size", "source_mtime", "source_sha256"):
            assert getattr(row, name) == getattr(rows[row.key], name)
    assert versions(before)[0].replaced == 6
    assert verify(before).ok
    run = read_runs(before)[0]
    assert (run.job, run.state, run.archived, run.settings["stamp"]) == ("recompress", "finished", 6, "two")


def test_rows_that_have_the_settings_are_left_alone(place):
    folder, _ = place
    again(folder, where="key < '2'")
    report = again(folder)
    assert (report.images, report.known) == (4, 2)
    version = Archive.open(str(folder / "archive")).version
    report = again(folder)
    assert (report.images, report.known, report.version) == (0, 6, version)
    assert again(folder, stamp="one").images == 6
    assert (
        compress(
            str(folder / "in"), str(folder / "archive"), settings=StampSettings(), executor="inline"
        ).known
        == 6
    )


def test_where_chooses_rows_and_a_quarantined_one_is_not_tried(place):
    folder, written = place
    fill(folder / "in", ["bad.png"])
    settings = StampSettings(bad="bad")
    compress(
        str(folder / "in"), str(folder / "archive"), settings=settings, executor="inline", codec_factory=STAMP
    )
    report = again(folder, where="key >= '4'")
    assert (report.images, report.skipped, report.exit_status) == (2, 1, 0)
    found = streams(folder)
    assert found.pop("bad.png") is None
    assert found == all_stamped(written, "one", **{"4": "two", "5": "two"})


def test_what_fails_keeps_its_row_and_is_told(place):
    folder, written = place
    told = []
    report = again(folder, bad="3", progress=told.append)
    assert (report.images, report.quarantined, report.exit_status) == (5, 1, 1)
    assert report.failures[0][:2] == ("3.png", "bad-fake")
    assert [event.key for event in told if isinstance(event, events.ImageQuarantined)] == ["3.png"]
    assert streams(folder) == all_stamped(written, "two", **{"3": "one"})
    assert {row.status for row in Archive.open(str(folder / "archive")).records(["status"])} == {"ok"}


def test_where_all_fail_nothing_is_committed(place):
    folder, written = place
    report = again(folder, bad="png")
    assert (report.images, report.quarantined) == (0, 6)
    assert streams(folder) == all_stamped(written, "one")


def test_what_no_worker_can_do_keeps_its_row(place, monkeypatch):
    folder, written = place
    real = recompress_actor.read_item

    def read_item(item):
        if item.key == "2.png":
            raise errors.SourceUnreadable(item.uri, "no answer")
        return real(item)

    monkeypatch.setattr(recompress_actor, "read_item", read_item)
    report = again(folder)
    assert (report.images, report.quarantined) == (5, 1)
    assert report.failures[0][:2] == ("2.png", "unreadable-file")
    assert streams(folder) == all_stamped(written, "two", **{"2": "one"})


@pytest.mark.long
def test_an_image_that_kills_its_worker_keeps_its_row(place):
    folder, written = place
    report = again(folder, kill="2", executor="processes", workers=1)
    assert (report.images, report.quarantined) == (5, 1)
    assert report.failures[0][:2] == ("2.png", "poison-image")
    assert streams(folder) == all_stamped(written, "two", **{"2": "one"})


def test_a_source_that_is_gone_or_another_file_now_keeps_its_row_unless_told_otherwise(place):
    folder, written = place
    (folder / "in/0.png").unlink()
    changed = fill(folder / "other", ["1.png"], size=101)["1.png"]
    (folder / "in/1.png").write_bytes(changed)
    (folder / "in/2.png").write_bytes(written["5.png"])  # the same size
    os.utime(folder / "in/3.png", ns=(1, 1))  # the same bytes
    outlook = again(folder, dry_run=True)
    assert (outlook.images, outlook.quarantined, outlook.dry_run) == (4, 2, True)
    assert {code for _, code, _ in outlook.failures} == {"source-vanished", "source-differs"}
    assert outlook.bytes_in == 400
    report = again(folder)
    assert {key: code for key, code, _ in report.failures} == {
        "0.png": "source-vanished",
        "1.png": "source-differs",
        "2.png": "source-differs",
    }
    assert streams(folder) == all_stamped(written, "two", **{"0": "one", "1": "one", "2": "one"})
    report = again(folder, changed="take")
    assert (report.images, report.quarantined, report.known) == (2, 1, 3)
    assert streams(folder)["1.png"] == stamped("two", changed)
    row = Archive.open(str(folder / "archive"))["1.png"]
    assert row.source_size == 101


def test_lossy_rows_of_the_archive_are_not_coded_again_by_themselves(place):
    folder, written = place
    report = again(folder, from_archive=True)
    assert (report.images, report.quarantined) == (0, 6)
    assert {code for _, code, _ in report.failures} == {"generation-loss"}
    assert streams(folder) == all_stamped(written, "one")


def test_sources_behind_a_url_are_looked_at_and_read(tmp_path):
    import fsspec

    bucket = f"memory://{tmp_path.name}"
    files = {f"{name} %41.png": name.encode() * 50 for name in "abc"}
    for name, data in files.items():
        fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{name}", data)
    archive = str(tmp_path / "archive")
    compress(bucket, archive, settings=StampSettings(), executor="inline", codec_factory=STAMP)
    fsspec.filesystem("memory").rm_file(f"/{tmp_path.name}/a %41.png")
    outlook = again(tmp_path, dry_run=True)
    assert (outlook.images, [failure[:2] for failure in outlook.failures]) == (
        2,
        [("a %41.png", "source-vanished")],
    )
    assert again(tmp_path).images == 2
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    uri = Archive.open(archive)["a %41.png"].source_uri
    assert again(tmp_path, sources_moved=[f"{uri.rpartition('/')[0]}={tmp_path / 'in'}"]).images == 1
    assert streams(tmp_path) == {name: stamped("two", data) for name, data in files.items()}


def test_a_dry_run_writes_nothing(place):
    folder, _ = place
    version = Archive.open(str(folder / "archive")).version
    report = again(folder, dry_run=True)
    assert (report.images, report.bytes_in, report.exit_status, report.version) == (6, 600, 0, version)
    assert Archive.open(str(folder / "archive")).version == version


def test_sources_that_moved_are_read_where_they_are(place):
    folder, _ = place
    (folder / "in").rename(folder / "new home %41")
    move = f"{folder / 'in'}={folder / 'new home %41'}"
    assert again(folder).quarantined == 6
    report = again(folder, sources_moved=[move])
    assert (report.images, report.quarantined) == (6, 0)
    assert Archive.open(str(folder / "archive"))["0.png"].source_uri.endswith("/new%20home%20%2541/0.png")
    assert again(folder, sources_moved=[move]).known == 6
    with pytest.raises(UsageError, match="No row"):
        again(folder, stamp="three", sources_moved=["/nowhere=/else"])


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20))
def test_a_move_between_folders_and_buckets_keeps_names(name):
    from recbatch.engine.source import file_uri

    there = Move(old=file_uri(b"/old"), new="s3://bucket/new")
    back = Move(old="s3://bucket/new", new=file_uri(b"/old"))
    uri = (
        file_uri(b"/old") + "/" + file_uri(b"/" + name.encode()).removeprefix("file:///")
        if "/" not in name
        else None
    )
    if uri is not None and name not in (".", ".."):
        assert there.apply(uri) == f"s3://bucket/new/{name}"
        assert back.apply(f"s3://bucket/new/{name}") == uri
    assert there.apply("file:///older/x") is None


def test_a_move_needs_two_places():
    for text in ("/a", "=/b", "/a=", "="):
        with pytest.raises(BadMove):
            parse_move(text)
    assert parse_move("s3://a/b/=/c").old == "s3://a/b"


def test_wrong_calls_are_refused_before_any_work(place):
    folder, _ = place
    for options in (
        {"changed": "perhaps"},
        {"lossy_again": True},
        {"from_archive": True, "changed": "take"},
        {"workers": 0},
    ):
        with pytest.raises(UsageError):
            again(folder, **options)
    with pytest.raises(archives.InvalidFilter):
        again(folder, where="nonsense >")


def test_a_signal_commits_what_is_finished_and_the_next_run_goes_on(place):
    folder, written = place

    def progress(event):
        if isinstance(event, events.ShardDone) and event.shard == "000001":
            signal.raise_signal(signal.SIGTERM)

    report = again(folder, shard_bytes=100, progress=progress)
    assert (report.interrupted, report.exit_status, report.images) == (True, 130, 2)
    report = again(folder)
    assert (report.images, report.known) == (4, 2)
    assert streams(folder) == all_stamped(written, "two")


def test_of_two_runs_the_later_one_goes_on_alone(place):
    folder, _ = place
    inner = []

    def progress(event):
        if isinstance(event, events.ShardDone) and not inner:
            (folder / "in/0.png").write_bytes(b"a later state")
            source, archive = str(folder / "in"), str(folder / "archive")
            inner.append(
                compress(source, archive, settings=StampSettings(), executor="inline", codec_factory=STAMP)
            )

    with pytest.raises(archives.Superseded):
        again(folder, shard_bytes=100, progress=progress)
    assert inner[0].images == 1
    assert streams(folder)["0.png"] == stamped("one", b"a later state")  # not the older one, coded again


def watch(archive, seen, over):
    """Every version as it comes: how many rows, how many keys, how many of them coded again."""
    while True:
        last_look = over.is_set()
        opened = Archive.open(archive)
        if opened.version not in seen:
            rows = [(row.key, row.stream[:3]) for row in opened.records(["stream"])]
            again = sum(stamp == b"two" for _, stamp in rows)
            seen[opened.version] = (len(rows), len({key for key, _ in rows}), again)
        if last_look:
            return
        time.sleep(0.005)


def test_no_reader_ever_misses_an_image(tmp_path):
    fill(tmp_path / "in", [f"{number:03d}.png" for number in range(60)])
    source, archive = str(tmp_path / "in"), str(tmp_path / "archive")
    settings = StampSettings()
    compress(source, archive, settings=settings, executor="inline", codec_factory=STAMP, shard_bytes=1500)
    first = Archive.open(archive).version
    seen, over = {}, threading.Event()
    reader = threading.Thread(target=watch, args=(archive, seen, over))
    reader.start()
    try:
        tuning = Tuning(poll_s=0.02, commit_shards=1)
        report = again(tmp_path, shard_bytes=700, tuning=tuning)
    finally:
        over.set()
        reader.join()
    assert report.images == 60
    assert set(seen) >= {Archive.open(archive).version}
    for version in range(
        first, Archive.open(archive).version + 1
    ):  # and those that the reader was too slow for
        keys = [row.key for row in Archive.open(archive, version=version).records(["key"])]
        assert len(keys) == len(set(keys)) == 60
    assert {(rows, keys) for rows, keys, _ in seen.values()} == {(60, 60)}
    assert seen[Archive.open(archive).version][2] == 60


@pytest.mark.chaos
@pytest.mark.parametrize(
    "kills",
    [
        [("Committed", 2)],
        pytest.param([("Planned", 1), ("ShardDone", 4), ("Committed", 2)], marks=pytest.mark.long),
    ],
)
def test_killed_drivers_lose_no_image_and_do_none_twice(tmp_path, kills):
    written = fill(tmp_path / "in", [f"{number:03d}.png" for number in range(100)])
    source, archive = str(tmp_path / "in"), str(tmp_path / "archive")
    compress(
        source, archive, settings=StampSettings(), executor="inline", codec_factory=STAMP, shard_bytes=2500
    )
    first = Archive.open(archive).version
    for event, count in kills:
        run_until(archive, event, count)
    done = run_until(archive, "never", 1)
    assert done[-1].startswith("images ")
    newest = Archive.open(archive).version
    assert streams(tmp_path) == all_stamped(written, "two")
    for version in range(first, newest + 1):
        keys = [row.key for row in Archive.open(archive, version=version).records(["key"])]
        assert len(keys) == len(set(keys)) == 100
    later = [entry for entry in versions(Archive.open(archive)) if entry.version > first]
    assert sum(entry.rows for entry in later) == sum(entry.replaced for entry in later) == 100
    assert verify(Archive.open(archive)).ok


def run_until(archive, event, count):
    """A driver of its own, killed at the n-th such event; the lines that it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "recompress_driver", archive, "two", "0.004"]
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    family, lines = {}, []
    try:
        for line in driver.stdout:
            lines.append(line.strip())
            if event in lines[-1]:
                family |= {child.pid: child for child in psutil.Process(driver.pid).children(recursive=True)}
            if lines.count(event) == count:
                break
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()
        _, alive = psutil.wait_procs(list(family.values()), timeout=10)
        for process in alive:
            process.kill()
    assert not alive
    return lines


# --- which rows have the settings


LOSSY = {"codec": "lossy", "model": "aa", "quality": 40.3, "level": 13, "effort": 5, "coder": "trellis"}
LOSSLESS = {"codec": "lossless", "model": "aa", "effort": 5, "coder": "trellis", "preview_size": 9}


@pytest.mark.parametrize(
    ("settings", "row", "has"),
    [
        ({"mode": "lossy", "level": 12.5}, LOSSY, True),
        ({"mode": "lossy", "level": 12.625}, LOSSY, False),
        ({"mode": "lossy", "level": 12.5, "effort": 6}, LOSSY, False),
        ({"mode": "lossy", "level": 12.5, "coder": "irec"}, LOSSY, False),
        ({"mode": "lossy", "level": 12.5}, {**LOSSY, "model": "bb"}, False),
        (
            {"mode": "lossy", "level": 12.5},
            {**LOSSY, "quality": None},
            False,
        ),  # an early archive: it may be 13
        ({"mode": "lossy", "level": 12.5, "auto": True}, LOSSY, False),
        ({"mode": "lossy", "bpp": 0.5}, LOSSY, False),
        ({"mode": "lossy", "level": 12.5, "keep_originals": "always"}, LOSSY, False),
        ({"mode": "lossy", "level": 12.5}, LOSSLESS, False),
        ({"mode": "lossless"}, LOSSLESS, True),
        ({"mode": "lossless", "preview": False}, LOSSLESS, False),
        ({"mode": "lossless"}, {**LOSSLESS, "preview_size": None}, False),
        ({"mode": "lossless", "exact_files": True}, LOSSLESS, False),
        ({"mode": "lossless", "effort": 4}, LOSSLESS, False),
        ({"mode": "lossless"}, {"codec": "jpeg"}, True),
        ({"mode": "lossless", "keep_originals": "never"}, {"codec": "jpeg"}, False),
        ({"mode": "lossless"}, {"codec": "original"}, False),
        ({"mode": "original"}, {"codec": "original"}, True),
        ({"mode": "original"}, LOSSLESS, False),
    ],
)
def test_a_row_of_compress_is_judged_by_its_columns(settings, row, has):
    wanted = Wanted(settings=Settings(**settings), models=() if settings["mode"] == "original" else ("aa",))
    assert wanted.has(Record(key="k", shard="000000", **row)) is has
    assert wanted.has(Record(key="k", shard=f"recompress-{wanted.mark}000000", **row))
    again = Record(key="k", shard=f"recompress-lossy-{wanted.mark}000000", **row)
    assert not wanted.has(again)
    assert replace(wanted, lossy_again=True).has(again)


# --- with the real codec


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
