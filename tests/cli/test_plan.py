"""``recbatch plan``: the words, the numbers, and what is not known."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from cli.conftest import Run
from recbatch.cli.plan import forecast_rows, price_text, range_text
from recbatch.cli.text import bytes_text
from recbatch.engine.forecast import Forecast, Part
from recbatch.engine.sampling import UNKNOWN, Estimate


def about(value: float) -> Estimate:
    return Estimate(value=value, low=0.9 * value, high=1.1 * value)


def test_a_small_source_is_foretold_whole_and_neither_side_is_written_to(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        Image.effect_noise((40, 40), 50).convert("RGB").save(source / f"{number}.png")
    (source / "bad.png").write_bytes(b"no image")
    size = sum(path.stat().st_size for path in source.iterdir() if path.name != "bad.png")
    outcome = run(
        "plan", source, tmp_path / "archive", "--original", "--json", "--workers", "1", "--price-hour", "2"
    )
    (found,) = outcome.lines()
    assert outcome.status == 0
    assert (found["images"], found["seen"], found["errors"]) == (4, 4, {"not-an-image": 1})
    assert found["streams"] == {"value": size, "low": size, "high": size}
    assert found["added"]["value"] > size
    assert found["work_price"]["value"] > 0
    assert found["month_price"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_dry_run_points_to_the_forecast(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    outcome = run("compress", tmp_path, tmp_path / "archive", "--dry-run")
    assert outcome.out.splitlines()[0] == "would archive 1 image (1 B); nothing was written"
    assert "'recbatch plan'" in outcome.out


def test_a_forecast_reads_well() -> None:
    told = Forecast(
        source="photos",
        archive="photos.rba",
        images=1000,
        bytes=10**9,
        known=50,
        archive_bytes=10**8,
        sampled=200,
        seen=100,
        seen_bytes=3 * 10**8,
        out_of_time=True,
        pilot_s=60.4,
        streams=about(2e8),
        rows_bytes=10**6,
        log_bytes=10**5,
        added=about(2.011e8),
        parts={"lossy": Part(images=about(0.9), bytes_in=9e8, bytes_out=1e8)},
        quarantined=Estimate(value=0.0, low=0.0, high=0.03),
        psnr=about(35.0),
        bpp=about(0.5),
        workers=8,
        pilot_workers=2,
        shards=64,
        startup_s=12.0,
        worker_s=about(8000.0),
        wall_s=about(1000.0),
        work_price=about(0.05),
    )
    rows = dict(forecast_rows(told))
    assert rows["images"] == "1,000 images to archive, 1.00 GB, 50 archived already"
    assert "the time was up, 200 were drawn" in rows["pilot"]
    assert rows["archive"].startswith(
        "201 MB (181 MB to 221 MB) more: images 200 MB (180 MB to 220 MB), table 1.00 MB"
    )
    assert rows["afterwards"] == "301 MB (281 MB to 321 MB)"
    assert rows["codecs"] == "lossy 90% of the images (900 MB to 100 MB)"
    assert rows["quarantined"] == "0.0% of the images (0.0% to 3.0%)"
    assert rows["quality"] == "PSNR 35.0 dB, 0.500 bpp in the pilot"
    assert rows["time"].startswith(
        "16 min 40 s (15 min 00 s to 18 min 20 s) on 8 workers like those of the pilot (cpu)"
    )
    assert rows["work"] == "0.05 (0.045 to 0.055)"
    assert rows["storage"] == "price not known: give --price-gb-month"


def test_what_is_not_known_is_said() -> None:
    nothing = dict(forecast_rows(Forecast(source="a", archive="b", images=0, bytes=0)))
    assert nothing["to do"] == "nothing: b has all of them"
    unseen = dict(forecast_rows(Forecast(source="a", archive="b", images=5, bytes=0)))
    assert unseen["archive"] == "not known: the pilot saw no image; give more --seconds"
    assert range_text(UNKNOWN, bytes_text) == "not known"
    assert [price_text(price) for price in (0, 1234.5, 0.004567)] == ["0.00", "1,234.50", "0.0046"]
