"""BD-rates against cases that a hand can compute."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.bench.bd import BadAnchors, Curve, Point, bd_rate, decibels, load_anchors, rate_at


def line(slope: float, offset: float, qualities: range, name: str = "line") -> Curve:
    """log(rate) = slope * quality + offset: PCHIP is exact on it."""
    points = (Point(bpp=math.exp(slope * q + offset), psnr=float(q)) for q in qualities)
    return Curve(name=name, points=tuple(points))


def percent(test: Curve, anchor: Curve, bounds: tuple[float, float] | None = None) -> float:
    rate = bd_rate(test, anchor, bounds=bounds)
    assert rate is not None
    return rate.percent


def test_a_fifth_fewer_bits_is_minus_twenty_percent() -> None:
    anchor = line(0.15, -5.0, range(26, 40, 2))
    assert percent(line(0.15, -5.0 + math.log(0.8), range(26, 40, 2)), anchor) == pytest.approx(-20)


def test_two_lines_of_other_slopes_by_hand() -> None:
    # the mean of 0.02 q - 0.7 over 30..36 is -0.04
    anchor, test = line(0.10, -3.0, range(28, 40)), line(0.12, -3.7, range(30, 44))
    assert percent(test, anchor, (24.0, 36.0)) == pytest.approx(100 * math.expm1(-0.04))


def test_three_points_with_unequal_slopes_by_hand() -> None:
    # PCHIP through (0,0), (1,1), (2,3): Fritsch-Carlson slopes 0.5, 4/3, 2.5 give the integral 31/12 + ... by Hermite:
    # each unit interval integrates to (y0 + y1)/2 + (d0 - d1)/12
    curve = Curve(
        name="c",
        points=tuple(Point(bpp=math.exp(y), psnr=q) for q, y in ((0.0, 0.0), (1.0, 1.0), (2.0, 3.0))),
    )
    flat = Curve(name="f", points=tuple(Point(bpp=1.0, psnr=q) for q in (0.0, 1.0, 2.0)))
    area = (0.5 + (0.5 - 4 / 3) / 12) + (2.0 + (4 / 3 - 2.5) / 12)
    assert percent(curve, flat) == pytest.approx(100 * math.expm1(area / 2))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(0.1, 0.5), min_size=4, max_size=8),
    st.lists(st.floats(0.1, 0.5), min_size=4, max_size=8),
    st.floats(0.3, 3.0),
)
def test_turning_the_comparison_round_and_scaling_it(
    steps: list[float], others: list[float], factor: float
) -> None:
    def curve(increments: list[float], scale: float = 1.0) -> Curve:
        log_rate, points = 0.0, []
        for q, step in enumerate(increments):
            log_rate += step
            points.append(Point(bpp=scale * math.exp(log_rate), psnr=30.0 + q))
        return Curve(name="c", points=tuple(points))

    forth, back = percent(curve(steps), curve(others)), percent(curve(others), curve(steps))
    assert (1 + forth / 100) * (1 + back / 100) == pytest.approx(1)
    scaled = percent(curve(steps, factor), curve(others))
    assert 1 + scaled / 100 == pytest.approx(factor * (1 + forth / 100))
    assert percent(curve(steps), curve(steps)) == pytest.approx(0, abs=1e-9)


def test_too_little_in_common_gives_nothing() -> None:
    low, high = line(0.1, 0.0, range(20, 26)), line(0.1, 0.0, range(25, 40))
    assert bd_rate(low, high) is None
    assert bd_rate(high, high, bounds=(39.2, 50.0)) is None
    assert bd_rate(line(0.1, 0.0, range(30, 32)), high) is None
    assert bd_rate(high, high, metric="ms_ssim_db") is None


def test_the_range_that_was_used_is_told() -> None:
    rate = bd_rate(line(0.1, 0.0, range(20, 33)), line(0.1, 0.0, range(29, 40)), bounds=(27.0, 37.0))
    assert rate is not None
    assert (rate.low, rate.high) == (29, 32)


def test_the_rate_of_a_curve_between_and_beyond_its_points() -> None:
    qualities, rates = [30.0, 32.0, 34.0], [1.0, 2.0, 4.0]
    assert rate_at(33.0, qualities, rates) == pytest.approx(2 * math.sqrt(2))
    assert rate_at(36.0, qualities, rates) == pytest.approx(8)
    assert rate_at(28.0, qualities[::-1], rates[::-1]) == pytest.approx(0.5)
    assert math.isnan(rate_at(33.0, [30.0], [1.0]))


def test_anchor_files_with_either_form_of_ms_ssim(tmp_path: Path) -> None:
    points = [{"bpp": 1.0, "psnr": 30, "msssim": 0.99}, {"bpp": 2.0, "psnr": 33, "msssim_db": 23.0}]
    path = tmp_path / "anchors.json"
    path.write_text(json.dumps({"codecs": {"x": {"measured": False, "points": points}}}))
    (curve,) = load_anchors(path)
    assert not curve.measured
    assert [p.ms_ssim_db for p in curve.points] == pytest.approx([20.0, 23.0])
    assert decibels(1.0) == 100


@pytest.mark.parametrize("text", ["{}", "[1]", "no", '{"codecs": {"x": {"points": [{"psnr": 1}]}}}'])
def test_a_file_that_holds_no_curves_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "anchors.json"
    path.write_text(text)
    with pytest.raises(BadAnchors, match="can't be used"):
        load_anchors(path)
    with pytest.raises(BadAnchors):
        load_anchors(tmp_path / "missing.json")
