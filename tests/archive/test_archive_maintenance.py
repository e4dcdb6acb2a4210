from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_helpers import image

from recbatch.archive import Archive, UnsafeGrace, VersionGone, gone, sweep, vacuum, verify, versions

Add = Callable[..., str]
DAY_S = 86_400


def age(archive: Archive, path: str, days: float) -> None:
    then = time.time() - days * DAY_S
    os.utime(Path(archive.url, path), (then, then))


def test_orphans_are_swept_after_the_grace_period_and_no_other_file(archive: Archive, add: Add) -> None:
    live = add(image("a"))
    young = archive.write_file([image("x")], stem="s").path
    old = archive.write_file([image("y")], stem="s").path
    archive.put_object("plans/p", b"plan")
    for path, days in ((live, 400), (old, 15), (young, 13), ("_recbatch/plans/p", 400)):
        age(archive, path, days)
    assert vacuum(archive) == [old]
    assert Path(archive.url, old).exists()
    assert vacuum(archive, dry_run=False) == [old]
    assert not Path(archive.url, old).exists()
    assert Path(archive.url, young).exists()
    assert archive.object("plans/p") == b"plan"
    assert list(archive) == ["a"]
    assert verify(archive).ok


def test_a_file_swept_too_early_is_noticed_at_its_commit(archive: Archive, add: Add) -> None:
    orphan = archive.write_file([image("x")], stem="s")
    with pytest.raises(UnsafeGrace, match="7 days"):
        vacuum(archive, grace=dt.timedelta(hours=1), dry_run=False)
    assert vacuum(archive, grace=dt.timedelta(0), dry_run=False, force=True) == [orphan.path]
    from recbatch.archive import LostDataFile

    with pytest.raises(LostDataFile):
        archive.commit([("0", orphan)], job="job", epoch=archive.claim_epoch("job"))


def test_replaced_files_are_kept_for_the_grace_period(archive: Archive, add: Add) -> None:
    add(image("a"), image("b"))
    before = archive.version
    add(image("a", state="new"))
    assert vacuum(archive) == []
    assert list(Archive.open(archive.url, version=before)) == ["a", "b"]
    assert len(vacuum(archive, grace=dt.timedelta(0), dry_run=False, force=True)) == 1
    assert verify(archive).ok
    assert sorted(archive) == ["a", "b"]


def test_a_version_that_the_log_forgot_is_gone(archive: Archive, add: Add) -> None:
    for number in range(12):
        add(image(f"{number:02d}"))
    log = Path(archive.url, "_delta_log")
    for entry in log.glob("*.json"):
        age(archive, f"_delta_log/{entry.name}", 40)
    sweep(archive, dry_run=False)
    first = min(int(entry.stem) for entry in log.glob("*.json"))
    assert first > 0
    assert len(Archive.open(archive.url, version=first)) > 0
    with pytest.raises(VersionGone, match="'recbatch versions "):
        Archive.open(archive.url, version=first - 1)


def test_what_is_left_of_a_swept_version_can_be_had(archive: Archive, add: Add) -> None:
    add(image("a"))
    add(image("b"))
    before = archive.version
    add(image("b", state="new"))
    vacuum(archive, grace=dt.timedelta(0), dry_run=False, force=True)
    old = Archive.open(archive.url, version=before)
    assert old["a"].key == "a"
    with pytest.raises(VersionGone):
        old["b"]
    with pytest.raises(VersionGone):
        list(old.known_rows())
    assert [finding.code for finding in verify(old).findings] == ["missing-file"]


@pytest.mark.parametrize("looks", [0, 64])  # with 0 the folder is listed
def test_files_that_are_gone_are_found(archive: Archive, monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    monkeypatch.setattr(gone, "LOOKS", looks)
    there = archive.write_file([image("a")], stem="s").path
    assert gone.absent(archive.store, {there, "x.parquet"}) == {"x.parquet"}


def test_commits_say_what_their_run_does(archive: Archive) -> None:
    epoch = archive.claim_epoch("compress", kind="recompress")
    archive.commit([("0", archive.write_file([image("a")], stem="s"))], job="compress", epoch=epoch)
    archive.claim_epoch("compress")
    assert [(entry.job, entry.kind) for entry in versions(archive)[:3]] == [
        ("compress", None),
        ("compress", "recompress"),
        ("compress", "recompress"),
    ]


def test_versions_tell_what_each_commit_did(archive: Archive, add: Add) -> None:
    add(image("a"), image("b"))
    add(image("b", state="new"))
    found = versions(archive)
    assert [entry.version for entry in found] == [4, 3, 2, 1, 0]
    assert [(entry.shards, entry.rows, entry.replaced) for entry in found] == [
        (1, 1, 1),
        (0, 0, 0),
        (1, 2, 0),
        (0, 0, 0),
        (0, 0, 0),
    ]
    assert (found[0].job, found[0].epoch, found[-1].job) == ("job", 2, None)
    assert found[-1].operation == "CREATE TABLE"
    assert abs(found[0].committed_at.timestamp() - time.time()) < 3600
    assert len(versions(archive, limit=2)) == 2
    assert found[0].to_dict()["committed_at"].endswith("+00:00")
