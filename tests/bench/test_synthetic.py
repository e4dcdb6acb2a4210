"""Synthetic latents have the law that their name says, and coders are measured on them as they should be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbatch.bench import rec_measure, synthetic
from recbatch.bench.rec_contestants import Contestant, on_device
from recbatch.bench.recording import Clock, RecordingCoder, Section, joined
from recbatch.bench.synthetic import BLOCK, LAWS, Piece, nearest_scale, piece
from recbatch.errors import UsageError
from recbatch.rec import Tables
from recbatch.rec.base import SCALES, Coder
from recbatch.rec.coders.trellis import Trellis
from recbatch.rec.tables import sigma

RATE = np.array([0.5 * np.log2(1 + sigma(k) ** 2) for k in range(SCALES)])
TRELLIS = Contestant(coder="trellis", effort=1, setting="effort 1")
CODERS = rec_measure.Coders()
POSTERIOR = Contestant(coder="posterior", effort=None, setting="exact")


def nothing(done: int, of: int) -> None:
    assert done <= of


@given(st.integers(0, SCALES - 1))
def test_a_scale_s_own_rate_finds_it_again(index: int) -> None:
    assert nearest_scale(np.array([RATE[index]]))[0] == index


@given(st.floats(0, 50), st.floats(0, 50))
def test_more_rate_never_has_a_smaller_scale(a: float, b: float) -> None:
    low, high = nearest_scale(np.sort([a, b]))
    assert low <= high


@pytest.mark.parametrize("name", LAWS)
def test_a_piece_is_the_same_on_every_call_and_pieces_differ(name: str) -> None:
    first, again, other = piece(name, 3, 500), piece(name, 3, 500), piece(name, 4, 500)
    assert np.array_equal(first.target_N, again.target_N)
    assert np.array_equal(first.scale_N, again.scale_N)
    assert not np.array_equal(first.target_N, other.target_N)
    assert (first.target_N.dtype, first.scale_N.dtype) == (np.float32, np.uint8)


@pytest.mark.parametrize("name", [name for name in LAWS if synthetic.known_plan(name)])
def test_latents_of_a_known_plan_follow_the_planned_prior(name: str) -> None:
    one = piece(name, 0, 60_000)
    normal_N = one.target_N / np.sqrt(1 + synthetic.SIGMA_S[one.scale_N] ** 2)
    assert normal_N.mean() == pytest.approx(0, abs=0.02)
    assert normal_N.var() == pytest.approx(1, abs=0.03)


def test_rates_are_spread_as_the_names_say() -> None:
    uniform = RATE[piece("synthetic uniform", 0).scale_N]
    assert uniform.max() == pytest.approx(0.5, rel=0.1)
    assert np.quantile(uniform, [0.25, 0.5, 0.75]) == pytest.approx([0.125, 0.25, 0.375], rel=0.05)
    spread = RATE[piece("synthetic log-uniform", 0).scale_N]
    assert (spread > 1).mean() == pytest.approx(np.log(4) / np.log(4e4), abs=0.02)
    assert (spread > 0).mean() == pytest.approx(np.log(4 / 0.0046) / np.log(4e4), abs=0.02)


@pytest.mark.parametrize("rates", ["uniform", "log-uniform"])
def test_a_wrong_plan_errs_by_dimension_or_by_block(rates: str) -> None:
    known, each, blocks = (
        np.log(RATE[one.scale_N[one.scale_N > 20]])
        for one in (
            piece(f"synthetic {rates}{tail}", 0) for tail in ("", ", wrong plan", ", wrong plan in blocks")
        )
    )
    assert np.exp(each.max() - known.max()) > np.exp(blocks.max() - known.max()) > 1.2
    generator = np.random.default_rng(1)
    factor_N = synthetic._errors("block", generator, 5 * BLOCK + 7)
    assert len(np.unique(factor_N)) == 6
    assert (factor_N[:BLOCK] == factor_N[0]).all()
    assert np.log(synthetic._errors("dimension", generator, 20_000)).std() == pytest.approx(0.5, rel=0.05)


def test_other_latents_are_unknown() -> None:
    with pytest.raises(UsageError, match="synthetic log-uniform, wrong plan"):
        piece("synthetic", 0)


def test_exact_samples_of_a_known_plan_have_no_excess() -> None:
    got = rec_measure.run_pieces(CODERS, POSTERIOR, "synthetic log-uniform", range(4), 20_000, nothing)
    assert [sample.image for sample in got.samples] == ["0", "1", "2", "3"]
    assert not got.clocks
    assert np.mean([sample.yardstick.excess for sample in got.samples]) == pytest.approx(0, abs=0.03)


def test_a_coder_is_measured_by_payloads_and_timed_on_one_thread_and_on_two() -> None:
    before = numba.get_num_threads()
    got = rec_measure.run_pieces(CODERS, TRELLIS, "synthetic uniform", range(2), 3000, nothing)
    assert numba.get_num_threads() == before
    expected = {(n, "cpu") for n in (1, 2) if n <= before}
    assert {place for place in got.clocks if place[1] == "cpu"} == expected
    for clock in got.clocks.values():
        assert clock.encode_s > 0
        assert clock.decode_s > 0
    for sample in got.samples:
        assert sample.psnr is None
        assert sample.bits % 8 == 0
        assert 0 <= sample.side_bits < sample.bits
        assert sample.yardstick.spent_bits == sample.bits
        assert sample.coded <= sample.dimensions == 3000


def test_what_is_recorded_is_what_went_through() -> None:
    coder = Trellis(bits=9)
    recorder = RecordingCoder(coder)
    one, two = piece("synthetic uniform", 0, 300), piece("synthetic log-uniform", 0, 200)
    writers = [recorder.writer(seed=seed) for seed in (5, 6)]
    first = recorder.encode(writers, [one.target_N, two.target_N], [one.scale_N, two.scale_N])
    second = recorder.encode(writers, [two.target_N, one.target_N], [two.scale_N, one.scale_N])
    a, b = recorder.take()
    assert recorder.take() == []
    assert np.array_equal(joined(a).sample_N, np.concatenate([first[0], second[0]]))
    assert np.array_equal(joined(b).scale_N, np.concatenate([two.scale_N, one.scale_N]))
    assert (recorder.number, recorder.name, recorder.parameters) == (coder.number, "trellis", b"\x09")
    encode_s = recorder.clock.encode_s
    payload = writers[0].finish()
    assert recorder.clock.encode_s > encode_s > 0
    reader = recorder.reader(payload, seed=5)
    assert np.array_equal(reader.decode(one.scale_N), first[0])
    assert np.array_equal(reader.decode(two.scale_N), second[0])
    reader.finish()
    assert recorder.clock.decode_s > 0


def test_sections_searched_again_cost_the_same_bits() -> None:
    sections = [
        Section(one.target_N, one.scale_N, np.zeros(0, np.int32))
        for one in (piece("synthetic uniform", n, 700) for n in range(2))
    ]
    (own,), clock, ((bits, side),) = rec_measure.search(Trellis(bits=9), [sections], [0])
    assert [sample.size for sample in own] == [700, 700]
    assert clock.encode_s > 0
    assert 0 < side < bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Lying(Trellis):
    """Its decoder has other tables than its encoder."""

    def reader(self, payload: bytes, *, seed: int = 0) -> object:  # type: ignore[override]
        return Trellis(bits=self.bits, tables=self.tables).reader(payload, seed=seed + 1)


def test_a_coder_that_decodes_to_other_samples_is_not_measured() -> None:
    one = piece("synthetic uniform", 0, 400)
    with pytest.raises(RuntimeError, match="decoder's samples"):
        rec_measure.search(Lying(bits=9), [[Piece(one.target_N, one.scale_N)]], [0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving(Trellis):
    """A coder that can search on a device."""

    device: str = "cpu"


def test_a_coder_moves_to_a_device_where_it_can() -> None:
    coder = Moving(bits=9, tables=Tables.default())
    assert on_device(coder, "cuda") == replace(coder, device="cuda")
    assert on_device(coder, "cpu") is coder
    assert on_device(RecordingCoder(coder), "cuda") is None  # type: ignore[arg-type]


def test_a_search_on_a_gpu_is_timed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []

    def search(coder: Coder, images: object, seeds: object) -> tuple[list[object], Clock, list[object]]:
        calls.append((getattr(coder, "device", "cpu"), numba.get_num_threads()))
        return [], Clock(1.0, 2.0), []

    monkeypatch.setattr(rec_measure.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(rec_measure, "search", search)
    out = rec_measure.Measured()
    for _ in range(2):
        rec_measure._again(TRELLIS, Moving(bits=9), [], [], out)
    assert out.clocks[1, "cuda"] == Clock(2.0, 4.0)
    assert [device for device, _ in calls].count("cuda") == 3  # once more, to compile
    assert ("cuda", 1) in calls


def test_every_scale_is_warmed_up() -> None:
    seen: list[np.ndarray] = []

    class Spy(RecordingCoder):
        def encode(self, writers, targets, scales):  # type: ignore[no-untyped-def]
            seen.extend(scales)
            return super().encode(writers, targets, scales)

    rec_measure.warm_up(Spy(Trellis(bits=9)))  # type: ignore[arg-type]
    assert set(np.concatenate(seen)) == set(range(SCALES))
