"""The search for a level, on curves made by script: no network, no picture."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.codec import BadSetting, Settings, level_of_quality, quality_of_level
from recbatch.codec.rate import (
    LAST,
    MAX_ENCODES,
    MAX_ESTIMATES,
    Aim,
    Found,
    Point,
    TargetOutOfReach,
    search,
)

PIXELS = 400_000


class Image:
    """An image's true curves, and what estimates say of it; counts the calls."""

    def __init__(
        self,
        *,
        bytes16: float = 40_000,
        size_slope: float = 0.045,
        bend: float = 0.0,
        container: int = 60,
        psnr16: float = 34.0,
        psnr_slope: float = 0.42,
        bias: float = 0.03,
        bias_db: float = 0.2,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        level = np.arange(LAST + 1) / 8 - 16
        jitter = np.random.default_rng(seed).uniform(-noise, noise, (2, LAST + 1))
        log_size = math.log(bytes16) + size_slope * level + bend * level**2 / 32 + jitter[0]
        self.size = container + np.exp(log_size)
        self.psnr = psnr16 + psnr_slope * level - 10 * bend * level**2 / 32 + jitter[1] * 10
        self.bias, self.bias_db, self.container = bias, bias_db, container
        self.estimates: list[float] = []
        self.encodes: list[float] = []

    def estimate(self, level: float) -> Point:
        self.estimates.append(level)
        place = round(8 * level)
        payload = (self.size[place] - self.container) * (1 + self.bias + self.bias * level / 31)
        return Point(max(1, round(self.container + payload)), float(self.psnr[place]) + self.bias_db)

    def encode(self, level: float) -> Point:
        assert level not in self.encodes, "a level was encoded twice"
        self.encodes.append(level)
        return self.at(level)

    def at(self, level: float) -> Point:
        place = round(8 * level)
        return Point(max(1, round(self.size[place])), float(self.psnr[place]))

    def search(self, aim: Aim) -> Found:
        found = search(aim, self.estimate, self.encode)
        assert found.level in self.encodes
        assert len(self.encodes) <= MAX_ENCODES
        assert len(self.estimates) <= MAX_ESTIMATES
        return found

    def found(self, **aim: float) -> tuple[Point, Found]:
        found = self.search(Aim(pixels=PIXELS, **aim))  # type: ignore[arg-type]
        return self.at(found.level), found


def images(noise: float = 0.0) -> st.SearchStrategy[Callable[[], Image]]:
    """Curves from flat to steep, with estimates that are wrong by up to a tenth."""
    return st.builds(
        lambda **kw: lambda: Image(**kw),
        bytes16=st.floats(500, 400_000),
        size_slope=st.floats(0.025, 0.14),
        bend=st.floats(-0.01, 0.01),
        psnr16=st.floats(24, 44),
        psnr_slope=st.floats(0.25, 0.6),
        bias=st.floats(-0.1, 0.1),
        bias_db=st.floats(-1, 1),
        noise=st.floats(0, noise),
        seed=st.integers(0, 99),
    )


@settings(deadline=None)
@given(images(noise=0.002), st.floats(0.05, 0.95))
def test_a_size_within_reach_is_hit(make: Callable[[], Image], where: float) -> None:
    image = make()
    wish = float(np.quantile(image.size, where))
    point, found = image.found(size_bytes=wish)
    assert point.size_bytes == pytest.approx(wish, rel=0.02)
    assert found.notes == ()


@settings(deadline=None)
@given(images(noise=0.002), st.floats(0.05, 0.95))
def test_a_psnr_within_reach_is_hit(make: Callable[[], Image], where: float) -> None:
    image = make()
    wish = float(np.quantile(image.psnr, where))
    point, found = image.found(psnr_db=wish)
    assert point.psnr_db == pytest.approx(wish, abs=0.1)
    assert found.notes == ()


@settings(deadline=None)
@given(images(noise=0.002), st.floats(0, 1.2))
def test_a_cap_holds_and_is_used(make: Callable[[], Image], where: float) -> None:
    image = make()
    cap = int(image.size.min() + where * (image.size.max() - image.size.min())) + 1
    point, _ = image.found(level=31, cap_bytes=cap)
    assert point.size_bytes <= cap
    assert point.size_bytes >= min(cap, image.size[-1]) * 0.98 - 1


@settings(deadline=None)
@given(images(noise=0.002), st.floats(0, 1))
def test_a_floor_holds_at_little_cost(make: Callable[[], Image], where: float) -> None:
    image = make()
    floor = float(image.psnr[0] + where * (image.psnr[-1] - image.psnr[0]))
    point, _ = image.found(level=0, floor_db=floor)
    assert point.psnr_db >= floor
    assert point.psnr_db <= max(floor + 0.17, image.psnr[0])


@settings(deadline=None)
@given(images(), st.floats(0.1, 0.9), st.floats(1.04, 1.5))
def test_more_bytes_asked_for_are_more_bytes(make: Callable[[], Image], where: float, more: float) -> None:
    image, other = make(), make()
    wish = float(np.quantile(image.size, where))
    assert image.found(size_bytes=wish)[1].level <= other.found(size_bytes=wish * more)[1].level


@settings(deadline=None)
@given(images(), st.floats(0.1, 0.9), st.floats(0.17, 3))
def test_more_quality_asked_for_is_more_quality(make: Callable[[], Image], where: float, more: float) -> None:
    image, other = make(), make()
    wish = float(np.quantile(image.psnr, where))
    assert image.found(psnr_db=wish)[1].level <= other.found(psnr_db=wish + more)[1].level


@settings(deadline=None)
@given(
    images(noise=0.1),
    st.floats(0, 31).map(lambda level: round(8 * level) / 8),
    st.none() | st.floats(-1, 2),
    st.none() | st.floats(-1, 2),
    st.sampled_from(["level", "size", "psnr"]),
    st.floats(-1, 2),
)
def test_whatever_the_curves_few_encodes_are_made_and_bounds_hold_or_are_refused(
    make: Callable[[], Image], level: float, cap: float | None, floor: float | None, kind: str, where: float
) -> None:
    """Noise as large as two levels: nothing may be asked for twice, and no bound be broken in silence."""
    image = make()
    low, high = image.size.min(), image.size.max()
    worst, best = image.psnr.min(), image.psnr.max()
    aim = Aim(
        pixels=PIXELS,
        level=level,
        size_bytes=max(1.0, low + where * (high - low)) if kind == "size" else None,
        psnr_db=worst + where * (best - worst) if kind == "psnr" else None,
        cap_bytes=None if cap is None else max(1, int(low + cap * (high - low))),
        floor_db=None if floor is None else float(worst + floor * (best - worst)),
    )
    try:
        found = image.search(aim)
    except TargetOutOfReach:
        assert (cap, floor) != (None, None)
    else:
        assert not aim.too_large(image.at(found.level))
        assert not aim.too_poor(image.at(found.level))


def test_a_level_that_keeps_its_bounds_costs_one_encode() -> None:
    image = Image()
    found = image.search(Aim(pixels=PIXELS, level=20, floor_db=30, cap_bytes=100_000))
    assert (found, image.encodes, image.estimates) == (Found(20, ()), [20], [])


def test_a_level_that_breaks_a_bound_is_moved_and_the_row_says_so() -> None:
    point, found = Image().found(level=level_of_quality(20), floor_db=36.0)
    assert 36 <= point.psnr_db < 36.15
    assert found.notes == (f"quality {quality_of_level(found.level):g} for at least 36 dB, asked for 20.2",)
    point, found = Image().found(level=level_of_quality(80), cap_bytes=40_000)
    assert 39_200 <= point.size_bytes <= 40_000
    assert found.notes == (f"quality {quality_of_level(found.level):g} to fit 40000 bytes, asked for 79.8",)


def test_an_image_that_cannot_be_so_large_or_so_small_says_what_it_is() -> None:
    flat = Image(bytes16=10, container=60)
    _, found = flat.found(size_bytes=0.5 * PIXELS / 8)
    assert found == Found(31.0, ("0.00 bpp at best quality, asked for 0.5",))
    _, found = Image().found(size_bytes=0.1 * PIXELS / 8)
    assert found == Found(0.0, ("0.39 bpp at lowest quality, asked for 0.1",))
    _, found = Image().found(psnr_db=50.0)
    assert found == Found(31.0, ("40.30 dB at best quality, asked for 50",))


def test_a_smallest_stream_above_the_cap_is_refused() -> None:
    with pytest.raises(TargetOutOfReach, match=r"19\d\d\d bytes at lowest quality, asked for at most 19000"):
        Image().found(level=31, cap_bytes=19_000)


def test_a_floor_above_the_best_is_refused() -> None:
    with pytest.raises(TargetOutOfReach, match=r"40\.30 dB at best quality, asked for at least 41"):
        Image().found(level=0, floor_db=41.0)


def test_a_cap_and_a_floor_that_exclude_each_other_are_both_named() -> None:
    image = Image()
    with pytest.raises(TargetOutOfReach) as caught:
        image.found(level=31, cap_bytes=40_000, floor_db=35.0)
    assert "asked for at least 35 in at most 40000" in str(caught.value)
    assert "Raise --max-bytes or lower --min-psnr" in str(caught.value)
    assert len(image.encodes) <= 2


def test_a_cap_and_a_floor_that_just_agree_are_both_kept() -> None:
    image = Image()
    point = image.at(17.5)
    both = {"cap_bytes": point.size_bytes + 1, "floor_db": point.psnr_db - 0.001}
    assert image.found(level=31, **both)[1].level == 17.5


def test_good_estimates_are_worth_an_encode() -> None:
    counts = []
    for where in np.linspace(0.1, 0.9, 20):
        image = Image(bend=0.004, noise=0.001)
        image.found(size_bytes=float(np.quantile(image.size, where)))
        counts.append(len(image.encodes))
    assert np.mean(counts) <= 2.1


@pytest.mark.parametrize(
    "bad",
    [
        {"level": 16.1},
        {"level": 31.125},
        {"level": float("nan")},
        {"bpp": 0},
        {"bpp": float("inf")},
        {"psnr": -1},
        {"max_bytes": 0},
        {"bpp": 1, "psnr": 30},
        {"psnr": 30, "min_psnr": 35},
        {"mode": "lossless", "bpp": 1},
        {"mode": "original", "max_bytes": 1000},
    ],
)
def test_targets_out_of_range_or_against_each_other_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(BadSetting, match="can't be"):
        Settings(**bad)  # type: ignore[arg-type]


def test_bits_per_pixel_count_every_byte_of_the_stream() -> None:
    aim = Aim.of(Settings(bpp=0.5), 1000)
    assert aim.size_bytes == 62.5
