"""Fixtures of the archive's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recbatch.archive import Archive, Record


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / "photos.rec")


@pytest.fixture
def add(archive: Archive) -> Callable[..., str]:
    """Commit records as one shard of a fresh epoch; returns the data file's path."""
    numbers = iter(range(10**6))

    def commit(*records: Record) -> str:
        file = archive.write_file(records, stem="shard")
        epoch = archive.claim_epoch("job")
        archive.commit([(f"plan/{next(numbers)}", file)], job="job", epoch=epoch)
        return file.path

    return commit
