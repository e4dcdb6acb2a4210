"""What must hold after whatever happened: of the archive, its files, and the work that was done for it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

from chaos_codec import Traps
from engine_fakes import CODEC, FakeSettings

from recbatch.archive import Archive, verify
from recbatch.archive.maintenance import sweep, versions
from recbatch.engine import Report, compress

Row = tuple[str, bytes | None, bytes | None, str | None]  # status, stream, its digest, error code


def rows_of(archive: str) -> dict[str, Row]:
    """By key; fails where a key stands twice."""
    found = [
        (record.key, (record.status, record.stream, record.stream_sha256, record.error_code))
        for record in Archive.open(archive).records()
    ]
    rows = dict(found)
    assert len(found) == len(rows), "an image stands there twice"
    return rows


def finish(source: str, archive: str) -> Report:
    """The same job once more, in this process, with nothing to disturb it."""
    return compress(source, archive, settings=FakeSettings(), executor="inline", codec_factory=CODEC)  # type: ignore[arg-type]


def check_rows(archive: str, want: Mapping[str, Row | set[Row | None]]) -> None:
    """Every image once, with the bytes of an undisturbed run; a set names what may have become of an image."""
    rows = rows_of(archive)
    assert rows.keys() <= want.keys()
    for key, wanted in want.items():
        allowed = wanted if isinstance(wanted, set) else {wanted}
        assert rows.get(key) in allowed, (key, rows.get(key), wanted)


def check_whole(source: str, archive: str) -> None:
    """The log, the files and every digest agree, and there is nothing left to do."""
    opened = Archive.open(archive)
    checked = verify(opened, level="digests")
    assert checked.ok, checked.findings
    again = finish(source, archive)
    assert (again.images, again.quarantined, again.version) == (0, 0, opened.version)


def check_swept(archive: str) -> int:
    """What dead writers left is not visible and can be swept. Returns how many such files there were."""
    opened = Archive.open(archive)
    rows = rows_of(archive)
    swept = sweep(opened, grace=dt.timedelta(0), dry_run=False, force=True)
    active = {file.path for file in Archive.open(archive).files()}
    assert {path.name for path in Path(archive).glob("*.parquet")} == active
    assert rows_of(archive) == rows
    return swept.orphans


def redone(traps: Traps, archive: str) -> int:
    """Shards that workers began and that never came into the log: what the faults cost."""
    begun = len(traps.notes("begun"))
    committed = sum(entry.shards for entry in versions(Archive.open(archive)) if entry.job == "compress")
    return begun - committed
