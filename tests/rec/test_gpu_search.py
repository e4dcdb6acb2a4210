"""The GPU's search against the CPU's: in Triton's interpreter everywhere, on a device where there is one.

The interpreter rounds as the CPU does, so there bits, codewords and integers must be the same. It must be on before
triton is imported, so it runs in a process of its own: this file, with a list of cases and a file for the results.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from recbatch.rec.coders.score import scores
from recbatch.rec.kernels.rows import cpu as rows
from recbatch.rec.kernels.viterbi.cpu import codes_of_bits, search_block
from recbatch.rec.plan import make_plan
from recbatch.rec.tables import OWN, Tables, sigma

TABLES = Tables.default()
SCORES, _ = scores(TABLES)
FOUND = ("bit_T", "code_T", "integer_D")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sections to search together: of each the number of dimensions, a range of scale indices and of blocks."""

    bits: int
    sections: tuple[tuple[int, int, int, int], ...]
    far: bool = False  # targets beyond all rows, and the farthest that there are
    tile: int | None = None
    wave_bytes: int = 1 << 32


# small indices come in groups, from 60 on a step has one dimension, large ones have wide rows
CASES = {
    "a block": Case(bits=9, sections=((40, 28, 151, 1),)),
    "groups of up to five members": Case(bits=10, sections=((70, 28, 40, 1),)),
    "several blocks of several sections": Case(bits=9, sections=((44, 60, 151, 2), (0, 1, 2, 1), (30, 28, 90, 1))),
    "blocks shorter than the state": Case(bits=10, sections=((7, 100, 151, 1), (1, 60, 61, 1), (9, 60, 151, 2))),
    "blocks as long as the state": Case(bits=9, sections=((9, 60, 151, 1), (10, 60, 151, 1), (11, 60, 151, 1))),
    "escapes and the farthest targets": Case(bits=9, sections=((20, 28, 70, 1), (20, 70, 151, 1)), far=True),
    "metrics in memory": Case(bits=10, sections=((20, 28, 151, 1), (5, 60, 151, 1)), tile=32),
    "one block at a time": Case(bits=9, sections=((20, 60, 151, 2),), wave_bytes=1),
}  # fmt: skip
FULL = {
    f"blocks of 4096 steps, {bits} bits": Case(bits=bits, sections=((16384, 28, 151, 2), (9000, 28, 80, 1)))
    for bits in (9, 10, 11, 12, 13, 14, 15, 16)
}


def section_of(case: Case, number: int) -> dict[str, object]:
    """What a section needs, as ``Section`` names it; targets follow the prior."""
    n, low, high, n_blocks = case.sections[number]
    generator = np.random.default_rng(number)
    scale_N = generator.integers(low, high, n).astype(np.uint8)
    plan = make_plan(scale_N, TABLES)
    scale_D = scale_N[plan.lattice_D]
    e_D = generator.standard_normal(scale_D.size) * np.sqrt(
        1 + np.array([sigma(k) for k in range(151)])[scale_D] ** 2
    )
    if case.far:
        e_D[::4] *= 40
        e_D[[1, -2]] = 1 << 24, -(1 << 24)
    cuts = [plan.steps * i // n_blocks for i in range(n_blocks + 1)]
    return {
        "e_D": e_D.astype(np.float32),
        "scale_D": scale_D,
        "starts_T1": plan.starts_T1,
        "map_G": (generator.integers(0, 128, 1 << (case.bits - 9)) * 2).astype(np.uint8),
        "rotation_T": (generator.integers(0, 128, plan.steps) * 2).astype(np.uint8),
        "blocks": [cut for cut in pairwise(cuts) if cut[1] > cut[0]],
        "bit_T": np.zeros(plan.steps, np.uint8),
        "code_T": np.zeros(plan.steps, np.uint8),
        "integer_D": np.zeros(scale_D.size, np.int32),
    }


def sections_of(case: Case) -> list[dict[str, object]]:
    return [section_of(case, number) for number in range(len(case.sections))]


def search_on_cpu(case: Case) -> list[dict[str, object]]:
    sections = sections_of(case)
    for s in sections:
        for first, last in s["blocks"]:
            assert search_block(
                s["e_D"], s["scale_D"], s["starts_T1"], first, last, s["map_G"], s["rotation_T"], case.bits, SCORES,
                s["bit_T"], s["code_T"], s["integer_D"],
            )  # fmt: skip
    return sections


def search_with_triton(case: Case, device: str) -> list[dict[str, object]]:
    from recbatch.rec.kernels.viterbi.gpu import Section, search_sections

    sections = sections_of(case)
    search_sections(
        [Section(**s) for s in sections],
        case.bits,
        SCORES,
        device=device,
        tile=case.tile,
        wave_bytes=case.wave_bytes,
    )
    return sections


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """What the interpreter finds for every case, from one process."""
    pytest.importorskip("triton")
    path = tmp_path_factory.mktemp("gpu-search") / "found.npz"
    done = subprocess.run(
        [sys.executable, __file__, str(path), json.dumps(list(CASES))],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(path) as found:
        return dict(found)


@pytest.mark.parametrize("name", CASES)
def test_triton_finds_what_the_cpu_finds(interpreted, name):
    for number, want in enumerate(search_on_cpu(CASES[name])):
        for array in FOUND:
            assert np.array_equal(interpreted[f"{name}/{number}/{array}"], want[array]), (number, array)


def test_the_cases_hold_what_their_names_say():
    groups = np.diff(section_of(CASES["groups of up to five members"], 0)["starts_T1"])
    assert groups.max() == 5
    assert groups.min() < 3
    wide = TABLES.wide_S[section_of(CASES["a block"], 0)["scale_D"]]
    assert 0 < wide.sum() < wide.size
    for number in (0, 1):
        far = section_of(CASES["escapes and the farthest targets"], number)
        k = far["scale_D"]
        cells = (far["e_D"] / SCORES.step_S[k]).astype(np.int64) >> TABLES.shift_S[k]
        assert (np.abs(cells) > np.where(TABLES.wide_S[k] > 0, 31, 7)).any()
    bits = CASES["blocks as long as the state"].bits
    lengths = [s["bit_T"].size for s in sections_of(CASES["blocks as long as the state"])]
    assert lengths == [bits, bits + 1, bits + 2]
    assert TABLES.kind_S[60] == OWN


def test_a_number_of_bits_out_of_range_is_refused():
    pytest.importorskip("triton")
    from recbatch.rec.kernels.viterbi.gpu import search_sections

    for bits in (8, 17):
        with pytest.raises(ValueError, match="Use the CPU's"):
            search_sections([], bits, SCORES, device="cpu")


def test_nothing_to_search_needs_no_device():
    pytest.importorskip("triton")
    from recbatch.rec.kernels.viterbi.gpu import Section, search_sections

    empty = section_of(Case(bits=9, sections=((0, 1, 2, 1),)), 0)
    search_sections([Section(**empty)], 9, SCORES, device="nowhere")
    search_sections([], 9, SCORES, device="nowhere")


TYPES = {
    **dict.fromkeys(["e_D", "rest_D4", "extra_D4", "offsets_XC", "nats_RC"], "*fp32"),
    **dict.fromkeys(["step_S", "shrink_S"], "*fp64"),
    **dict.fromkeys(["scale_D", "map_ZG", "rotation_T", "bit_T", "code_T"], "*u8"),
    **dict.fromkeys(["steps", "narrow", "clip", "rounds_most"], "i32"),
}  # the others are *i32


@pytest.mark.parametrize(
    "bits", [pytest.param(n, marks=[] if n == 12 else [pytest.mark.long]) for n in range(9, 17)]
)
def test_all_kernels_compile_for_hopper_and_contract_nothing(bits):
    """Without a device: to machine code for compute capability 9.0. Contracted, rows would differ from the CPU's."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from recbatch.rec.kernels.viterbi import gpu

    tile = 1 << (bits - 4) if bits <= gpu.IN_REGISTERS else gpu.TILE
    warps = max(1, tile // 32)
    for kernel, n_warps, constants in (
        (gpu.prepare, 4, {"TILE": 256}),
        (gpu.pair_table, 4, {"BITS": bits}),
        (gpu.search, warps, {"BITS": bits, "ROWS": min(gpu.ROWS, max(2, warps)), "TILE": tile}),
        (gpu.trace, 1, {"BITS": bits, "STORE": True}),
        (gpu.finish, 4, {"BITS": bits, "STEPS": 256}),
    ):
        signature = {name: TYPES.get(name, "*i32") for name in kernel.arg_names}
        signature |= dict.fromkeys(constants, "constexpr")
        built = triton.compile(
            ASTSource(fn=kernel, signature=signature, constexprs=constants),
            target=GPUTarget("cuda", 90, 32),
            options={"num_warps": n_warps, "num_stages": 1, "enable_fp_fusion": False},
        )
        assert "fma.rn" not in built.asm["ptx"], kernel.__name__
        assert built.metadata.shared <= 227 << 10


def total_loss(section: dict[str, object]) -> float:
    """What the search minimises, of what it found."""
    s, loss = section, 0.0
    for t, code in enumerate(s["code_T"]):
        begin, place = s["starts_T1"][t], rows.place_of(int(code))
        for d in range(begin, s["starts_T1"][t + 1]):
            k = s["scale_D"][d]
            slot = SCORES.slot_S[k] + min(d - begin, SCORES.columns_S[k] - 1)
            wide = SCORES.wide_S[k]
            offset = (SCORES.wide_offsets_XC if wide else SCORES.narrow_offsets_XC)[slot, place]
            nats_KC = (SCORES.wide_nats_XKC if wide else SCORES.narrow_nats_XKC)[slot]
            half, cell = nats_KC.shape[0] // 2 - 1, int(s["integer_D"][d]) >> SCORES.shift_S[k]
            inside = -half <= cell <= half
            nats = nats_KC[cell + half if inside else -1, place]
            nats += 0.0 if inside else rows.escape_nats(cell, half)
            loss += float(offset + SCORES.step_S[k] * s["integer_D"][d] - s["e_D"][d]) ** 2 + float(nats)
    return loss


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*CASES, *FULL])
def test_a_device_finds_a_path_as_good(name):
    """Sums may round otherwise there, so another path will do: one that decodes, and is worth as much."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    case = {**CASES, **FULL}[name]
    for found, want in zip(search_with_triton(case, "cuda"), search_on_cpu(case), strict=True):
        code_T = np.zeros_like(found["code_T"])
        for first, last in found["blocks"]:
            codes_of_bits(found["bit_T"], first, last, found["map_G"], found["rotation_T"], case.bits, code_T)
        assert np.array_equal(code_T, found["code_T"])
        assert total_loss(found) == pytest.approx(total_loss(want), rel=1e-3)


@pytest.mark.gpu
def test_metrics_in_memory_and_in_registers_are_one_search():
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    case = FULL["blocks of 4096 steps, 12 bits"]
    for one, other in zip(
        search_with_triton(case, "cuda"), search_with_triton(replace(case, tile=128), "cuda"), strict=True
    ):
        for array in FOUND:
            assert np.array_equal(one[array], other[array])


if __name__ == "__main__":
    results = {}
    for case_name in json.loads(sys.argv[2]):
        for n, section in enumerate(search_with_triton({**CASES, **FULL}[case_name], "cpu")):
            results |= {f"{case_name}/{n}/{array}": section[array] for array in FOUND}
    np.savez(Path(sys.argv[1]), **results)
