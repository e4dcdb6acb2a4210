"""Archives with runs in them: one of real lossy images, others of rows alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_runs import EVIL_FILE, Ledger, picture

from recbatch import api


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "archive")


@pytest.fixture(scope="session")
def lossy_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, api.RunPage]:
    """Source, archive and page of a run over real images, one of them broken."""
    folder = tmp_path_factory.mktemp("lossy")
    source, url = folder / "in", folder / "archive"
    source.mkdir()
    names = {"smooth.png": 2, EVIL_FILE: 60, "rough.png": 90}
    for seed, (name, noise) in enumerate(names.items()):
        picture(seed, noise).save(source / name, compress_level=0)
    (source / "broken.png").write_text("no image")
    api.compress(source, url, quality=10, effort=1, executor="inline")
    return source, url, api.run_page(url)
