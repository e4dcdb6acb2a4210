"""The benchmark of stores: its ratio is of turns, and it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from test_s3_archive import objects

from recbatch.bench.stores import StoreRun, StoresResult, stores_benchmark, stores_table


def run(place: str, seconds: float) -> StoreRun:
    return StoreRun(
        mode="original",
        place=place,
        seconds=seconds,
        megapixels_per_second=8 / seconds,
        megabytes_per_second=4 / seconds,
    )


def test_the_ratio_is_the_median_of_the_turns() -> None:
    runs = (
        run("local", 1.0),
        run("s3", 2.0),
        run("local", 2.0),
        run("s3", 2.5),
        run("local", 1.0),
        run("s3", 4.0),
    )
    result = StoresResult(
        images=1, megapixels=8, megabytes=4, workers=1, executor="processes", url="s3://b", runs=runs
    )
    assert result.ratio("original") == 0.5
    assert result.to_dict()["ratio"] == {"original": 0.5}
    assert stores_table(result).splitlines()[2] == "| original | 8.00 | 3.20 | 4.00 | 1.60 | 0.50 |"


@pytest.mark.long
def test_both_places_are_timed_and_nothing_stays(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        Image.new("RGB", (64, 48), "red").save(tmp_path / name)
    result = stores_benchmark(tmp_path, f"s3://{bucket}/x", modes=("original",), workers=1, repeats=1)
    assert [(each.mode, each.place) for each in result.runs] == [("original", "local"), ("original", "s3")]
    assert result.ratio("original") > 0
    assert objects(bucket) == []
