"""Forecasts, held against what the real run then makes."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from engine_fakes import CODEC, FakeSettings, fill
from PIL import Image

import recbatch
from recbatch.api import make_settings
from recbatch.archive import Archive
from recbatch.engine import compress, events, foresight
from recbatch.engine.forecast import Forecast
from recbatch.engine.foresight import NoRoomForPilot, foresee
from recbatch.errors import UsageError

PHOTOGRAPHS = Path(recbatch.__file__).parent.parent / "docs" / "demo" / "photographs"


def tell(source: Path, archive: Path, **options) -> Forecast:
    """A forecast with the fake codec, in this process."""
    options = {"executor": "inline", "settings": FakeKeeping(), "workers": 1, "sample": 20, **options}
    return foresee(str(source), str(archive), codec_factory=CODEC, **options)


class FakeKeeping(FakeSettings):
    keep_originals = "smaller"


def tree_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def photographs(folder: Path, count: int, *, middle: int, exact: int) -> None:
    """Crops of very different sizes: JPEG files, TIFFs that are kept, a few for the lossless codec, some no images."""
    rng = random.Random(0)
    pictures = [Image.open(path).convert("RGB").reduce(2) for path in sorted(PHOTOGRAPHS.glob("*.*g"))]
    for number in range(count):
        picture = rng.choice(pictures)
        side = min(16 + int(middle * 2 ** rng.gauss(0, 1)), *picture.size)
        x, y = rng.randrange(picture.width - side + 1), rng.randrange(picture.height - side + 1)
        crop = picture.crop((x, y, x + side, y + side))
        path = folder / str(number % 7) / f"{number:04d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 50 == 0:
            path.with_suffix(".png").write_bytes(b"no image" * rng.randrange(1, 100))
        elif number % 50 <= exact:
            crop.resize((24, 24)).save(path.with_suffix(".png"))
        elif number % 50 < 20:
            crop.convert("CMYK").save(path.with_suffix(".tif"))
        else:
            crop.save(path.with_suffix(".jpg"), quality=rng.choice([50, 80, 95]))


def test_the_archive_of_a_thousand_images_is_as_large_as_foretold_within_a_tenth(tmp_path: Path) -> None:
    source, archive = tmp_path / "source", tmp_path / "archive"
    photographs(source, 1000, middle=32, exact=1)
    settings = make_settings()
    told = foresee(
        str(source), str(archive), settings=settings, sample=120, seconds=3600, workers=1, executor="inline"
    )
    assert not archive.exists()
    report = compress(str(source), str(archive), settings=settings, executor="inline", workers=1)

    assert (told.images, told.bytes) == (1000, tree_bytes(source))
    assert told.seen >= 120
    assert not told.out_of_time
    assert told.streams is not None
    assert told.added is not None
    assert told.wall_s is not None
    assert told.streams.value == pytest.approx(report.bytes_out, rel=0.1)
    assert told.added.value == pytest.approx(tree_bytes(archive), rel=0.1)
    beside = tree_bytes(archive) - told.models_bytes - report.bytes_out
    assert told.rows_bytes + told.log_bytes == pytest.approx(beside, rel=0.25)
    assert told.quarantined is not None
    assert told.quarantined.low <= report.quarantined / 1000 <= told.quarantined.high
    assert {"jpeg", "original"} <= set(told.parts)  # the two others are a fiftieth each, and may not be seen
    assert told.errors.keys() <= {"not-an-image"}
    assert 0 < told.wall_s.low <= told.wall_s.value <= told.wall_s.high


@pytest.mark.long
def test_size_and_time_of_a_thousand_lossy_images_are_as_foretold(tmp_path: Path) -> None:
    """Size within a tenth; time within a factor of two, since other work may stand on the machine."""
    source, archive = tmp_path / "source", tmp_path / "archive"
    photographs(source, 1000, middle=96, exact=0)
    told = recbatch.plan(source, archive, quality=50, seconds=600)
    report = recbatch.compress(source, archive, quality=50, executor="processes")
    assert told.added is not None
    assert told.wall_s is not None
    assert told.psnr is not None
    assert told.added.value == pytest.approx(tree_bytes(archive), rel=0.1)
    assert 0.5 <= (told.wall_s.value + told.startup_s) / report.seconds <= 2
    assert 25 <= told.psnr.value <= 50


def test_only_what_the_archive_lacks_is_foretold_and_the_archive_stays_as_it_is(
    tmp_path: Path, quick_compress
) -> None:
    source, archive = tmp_path / "source", tmp_path / "archive"
    fill(source, [f"{number:03d}.png" for number in range(40)])
    quick_compress(source, archive)
    before = sorted(archive.rglob("*"))
    fill(source, [f"new{number:03d}.png" for number in range(30)], size=5000)
    fill(source, ["000.png"], size=200)

    told = tell(source, archive, sample=100)
    assert (told.images, told.known, told.replaces) == (31, 39, 1)
    assert told.seen == 31
    assert told.streams is not None
    assert told.after is not None
    assert told.added is not None
    assert told.streams.value == told.streams.low == told.streams.high == 30 * 5000 + 200  # all were seen
    assert told.archive_bytes == sum(file.size for file in Archive.open(archive).files())
    assert told.after.value == told.added.value + told.archive_bytes
    assert sorted(archive.rglob("*")) == before


def test_weights_that_the_archive_has_are_not_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "source", ["a.png"])
    weights = [(hashlib.sha256(data).digest(), data) for data in (b"first" * 1000, b"second" * 1000)]
    monkeypatch.setattr(foresight, "models_of", lambda settings: weights)
    archive = Archive.create(tmp_path / "archive")
    assert tell(tmp_path / "source", tmp_path / "archive").models_bytes == 11_000
    archive.put_model(weights[0][0].hex(), weights[0][1])
    assert tell(tmp_path / "source", tmp_path / "archive").models_bytes == 6_000


def test_where_nothing_is_missing_no_pilot_runs(tmp_path: Path, quick_compress) -> None:
    source, archive = tmp_path / "source", tmp_path / "archive"
    fill(source, ["a.png"])
    quick_compress(source, archive)
    told = tell(source, archive, settings=FakeKeeping(fail_setup="import"))
    assert (told.images, told.known, told.seen, told.added) == (0, 1, 0, None)


def test_a_pilot_whose_time_is_up_tells_from_what_it_saw(tmp_path: Path) -> None:
    fill(tmp_path / "source", [f"{number:03d}.png" for number in range(300)], size=1000)
    told = tell(
        tmp_path / "source", tmp_path / "archive", sample=200, seconds=0.3, settings=FakeKeeping(sleep_s=0.05)
    )
    assert told.out_of_time
    assert 3 <= told.seen < told.sampled
    assert told.streams is not None
    assert told.streams.low <= 300_000 <= told.streams.high


def test_an_image_that_kills_its_worker_is_counted_as_quarantined(tmp_path: Path) -> None:
    fill(tmp_path / "source", ["kill.png"])
    fill(tmp_path / "source", ["bad.png", "a.png"], size=50_000)  # of another stratum, so not of its call
    seen: list[events.Event] = []
    told = tell(tmp_path / "source", tmp_path / "archive", executor="processes", progress=seen.append)
    assert told.errors == {"poison-image": 1, "bad-fake": 1}
    assert told.quarantined is not None
    assert told.quarantined.value == pytest.approx(2 / 3)
    assert any(isinstance(event, events.ActorDied) for event in seen)
    assert list(tmp_path.iterdir()) == [tmp_path / "source"]


def test_money_is_told_only_where_prices_are_given(tmp_path: Path) -> None:
    fill(tmp_path / "source", [f"{number}.png" for number in range(9)])
    told = tell(tmp_path / "source", tmp_path / "archive")
    assert (told.work_price, told.month_price) == (None, None)
    told = tell(tmp_path / "source", tmp_path / "archive", price_hour=3600.0, price_gb_month=1e9)
    assert told.work_price is not None
    assert told.month_price is not None
    assert told.worker_s is not None
    assert told.added is not None
    assert told.work_price.value == pytest.approx(told.worker_s.value + told.startup_s)
    assert told.month_price.value == pytest.approx(told.added.value)


def test_a_forecast_is_json(tmp_path: Path) -> None:
    fill(tmp_path / "source", ["bad.png"])  # no pixels: their mean is not known
    found = tell(tmp_path / "source", tmp_path / "archive").to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["bpp"] == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sample": 0}, "sample of 0"),
        ({"seconds": 0.0}, "0 seconds"),
        ({"seconds": float("nan")}, "nan seconds"),
        ({"price_hour": -1.0}, "price"),
        ({"workers": 0}, "workers"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_listed(options, named: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=named):
        tell(tmp_path / "nowhere", tmp_path / "archive", **options)


def test_a_full_disk_is_told_before_the_pilot_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "source", ["a.png"])
    monkeypatch.setattr(foresight, "free_bytes", lambda folder: 1000)
    with pytest.raises(NoRoomForPilot, match="TMPDIR"):
        tell(tmp_path / "source", tmp_path / "archive")
