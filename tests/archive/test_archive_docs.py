"""docs/archive.md is normative, so it has to say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import recbatch.archive
from recbatch.archive import COLUMNS, TABLE
from recbatch.archive.schema import TABLE_PROPERTIES

PAGE = Path(__file__).parents[2].joinpath("docs", "archive.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_column_is_described_in_its_order() -> None:
    cells = [line.split("|")[1] for line in section("Columns").splitlines() if line.startswith("| `")]
    assert tuple(name for cell in cells for name in re.findall(r"`(\w+)`", cell)) == COLUMNS
    assert [field.name for field in TABLE if not field.nullable] == ["key", "status"]


def test_every_table_property_is_described_with_its_value() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `(\w+)` \|", section("Layout"), re.MULTILINE))
    assert rows == TABLE_PROPERTIES


def test_every_finding_is_described() -> None:
    source = Path(recbatch.archive.verify.__code__.co_filename).read_text(encoding="utf-8")
    codes = set(re.findall(r'(?:_find|wrong)\(\s*"([a-z-]+)"', source)) | set(
        re.findall(r'code="([a-z-]+)"', source)
    )
    assert len(codes) > 12
    assert {code for code in codes if f"`{code}`" not in section("Verification")} == set()
