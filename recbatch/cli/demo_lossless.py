"""The second half of ``recbatch demo``: the same folder without loss, and the proof."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from recbatch.cli.display import Progress
from recbatch.cli.text import bytes_text, columns

if TYPE_CHECKING:
    import recbatch
    from recbatch.archive import Record


def show_lossless(source: Path, output: Path, *, executor: recbatch.Executor) -> int:
    """Archive ``source`` without loss, restore it, compare; print a table. Returns an exit status."""
    import recbatch

    url, restored = output / "lossless.rba", output / "restored-lossless"
    with Progress("compress") as progress:
        report = recbatch.compress(source, url, executor=executor, progress=progress.event)
    with Progress("restore") as progress:
        back = recbatch.restore(url, restored, progress=progress.event)
    archive = recbatch.open(url)
    records = sorted(archive.records(archive.light_columns), key=lambda record: record.key)
    same = [came_back(source / record.key, restored) for record in records]
    typer.echo(table(records, same))
    return max(report.exit_status, back.exit_status, int("no" in same))


def came_back(source: Path, restored: Path) -> str:
    """What a restored file has in common with its source: "file", "pixels", or "no"."""
    import numpy as np

    from recbatch import api

    found = next(iter(sorted(restored.glob(f"{source.stem}.*"))), None)
    if found is None:
        return "no"
    before, after = source.read_bytes(), found.read_bytes()
    if before == after:
        return "file"
    same = np.array_equal(np.asarray(api.read_image(before)), np.asarray(api.read_image(after)))
    return "pixels" if same else "no"


def table(records: Sequence[Record], same: Sequence[str]) -> str:
    """A row for each image and one for all."""
    rows = [["image", "bytes in", "bytes out", "%", "codec", "came back"]]
    for record, what in zip(records, same, strict=True):
        how = f"{record.codec} ({record.coder})" if record.codec == "jpeg" else record.codec or "-"
        rows.append(
            [
                record.key,
                *sizes([record]),
                how,
                {"file": "same file", "pixels": "same pixels"}.get(what, what),
            ]
        )
    rows.append([f"all {len(records)}", *sizes(records), "", ""])
    return columns(rows, right=range(1, 4))


def sizes(records: Sequence[Record]) -> list[str]:
    bytes_in = sum(record.source_size or 0 for record in records)
    bytes_out = sum(record.stream_size or 0 for record in records)
    return [bytes_text(bytes_in), bytes_text(bytes_out), f"{100 * bytes_out / max(1, bytes_in):.1f}"]
