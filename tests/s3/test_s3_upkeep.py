"""Upkeep of an archive in a bucket: recompression from sources in a bucket, vacuum, rotating verification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from recompress_fakes import STAMP, StampSettings, stamped
from s3_helpers import put_all
from seaweed import READER

import recbatch
from recbatch import s3
from recbatch.archive import Archive, ArchiveNotWritable, VersionGone
from recbatch.engine import compress, recompress
from recbatch.engine.report import Report

As = Callable[..., None]


@pytest.fixture
def place(bucket: str) -> tuple[str, str, dict[str, bytes]]:
    """A source and an archive of it in one bucket, and what was written, by key."""
    written = put_all(bucket, [f"in/{number} é %41.png" for number in range(12)], size=500)
    source, archive = f"s3://{bucket}/in", f"s3://{bucket}/archive"
    compress(source, archive, settings=StampSettings(), executor="inline", codec_factory=STAMP)
    return bucket, archive, {key.removeprefix("in/"): data for key, data in written.items()}


def again(archive: str, stamp: str = "two", **options: object) -> Report:
    return recompress(
        archive,
        settings=StampSettings(stamp=stamp),
        executor="inline",
        codec_factory=STAMP,
        shard_bytes=1500,
        **options,  # type: ignore[arg-type]
    )


def streams(archive: str) -> dict[str, bytes | None]:
    return {row.key: row.stream for row in Archive.open(archive).records()}


def test_rows_are_coded_again_from_their_objects_wherever_these_lie_now(
    place: tuple[str, str, dict[str, bytes]], tmp_path: Path
) -> None:
    bucket, archive, written = place
    store = s3.account().bucket(bucket)
    store.delete("in/0 é %41.png")
    store.put("in/1 é %41.png", b"another state")
    outlook = again(archive, dry_run=True)
    assert (outlook.images, [failure[1] for failure in outlook.failures]) == (
        10,
        ["source-vanished", "source-differs"],
    )
    report = again(archive)
    assert (report.images, report.quarantined) == (10, 2)
    for key, data in written.items():
        (tmp_path / key).write_bytes(data)
    report = again(archive, sources_moved=[f"s3://{bucket}/in={tmp_path}"])
    assert (report.images, report.known) == (2, 10)
    assert streams(archive) == {key: stamped("two", data) for key, data in written.items()}


def test_a_vacuum_sweeps_a_bucket_and_a_reader_may_look_but_not_sweep(
    place: tuple[str, str, dict[str, bytes]], as_user: As
) -> None:
    _, archive, _ = place
    assert again(archive).images == 12
    assert recbatch.vacuum(archive).files == ()
    as_user(READER)
    looked = recbatch.vacuum(archive, older_than_days=0, force=True)
    assert len(looked.files) == 1
    assert looked.bytes > 12 * 500
    assert len(looked.plans) == 1
    assert looked.versions_lost >= 2
    with pytest.raises(ArchiveNotWritable):
        recbatch.vacuum(archive, older_than_days=0, force=True, delete=True)
    as_user()
    swept = recbatch.vacuum(archive, older_than_days=0, force=True, delete=True)
    assert (swept.files, swept.plans) == (looked.files, looked.plans)
    assert len(streams(archive)) == 12
    assert recbatch.vacuum(archive, older_than_days=0, force=True).files == ()
    as_user(READER)
    ((first, last),) = swept.unreadable
    gone = {entry.version for entry in recbatch.api.versions(archive) if not entry.readable}
    assert gone == set(range(first, last + 1))
    with pytest.raises(VersionGone):
        list(recbatch.open(archive, first))
    with pytest.raises(VersionGone):
        list(recbatch.open(archive, first).records(["key"], "source_size > 0"))


def test_a_rotation_is_recorded_in_a_bucket_and_a_reader_verifies_all_the_same(
    place: tuple[str, str, dict[str, bytes]], as_user: As
) -> None:
    _, archive, _ = place
    first = recbatch.verify(archive, rotate_days=2)
    assert (first.ok, first.recorded) == (True, True)
    assert first.rotation is not None
    assert first.rotation.is_first
    as_user(READER)
    second = recbatch.verify(archive, rotate_days=2)
    assert (second.ok, second.recorded) == (True, False)
    assert second.rotation is not None
    assert not second.rotation.is_first
