"""Lossless streams that every later version must read to the last bit, with a tiny model that never changes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch
from pictures import GOLDEN

from recbatch.codec import Decoder
from recbatch.errors import RecbatchError
from recbatch.images import pixels_sha256
from recbatch.models.exact import at_least
from recbatch.models.lossless import folded
from recbatch.models.lossless.folded import LosslessModel

FOLDER = GOLDEN / "lossless"
CASES: dict[str, dict[str, str]] = json.loads((FOLDER / "cases.json").read_text())
MODELS = [(GOLDEN / "model" / f"{name}.safetensors").read_bytes() for name in ("tiny", "tiny-exact")]
LARGE = ("lanes-and-bands", "preview-lanes-grey", "preview", "small-alpha")

ENVIRONMENTS = {
    "oldest processor": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
    "fast bfloat16 asked for": {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
}
SCRIPT = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import torch
import test_golden_lossless as golden

torch.set_num_threads(1)
golden.check_all(golden.LARGE)
torch.backends.mkldnn.enabled = False
torch.backends.nnpack.set_flags(False)
golden.check_all(golden.LARGE[:1])
print("all right")
"""


def fetch(head: bytes) -> bytes:
    return next(data for data in MODELS if hashlib.sha256(data).digest().startswith(head))


def check_all(names: tuple[str, ...]) -> None:
    decoder = Decoder(fetch)
    for name in names:
        picture = decoder.decode((FOLDER / f"{name}.rec").read_bytes())
        assert pixels_sha256(picture).hex() == CASES[name]["pixels"], name


@pytest.fixture(scope="module")
def reader() -> Decoder:
    return Decoder(fetch)


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_of_the_day_it_was_made(name: str, reader: Decoder) -> None:
    picture = reader.decode((FOLDER / f"{name}.rec").read_bytes())
    assert pixels_sha256(picture).hex() == CASES[name]["pixels"]


def test_the_file_itself_comes_back(reader: Decoder) -> None:
    data = (FOLDER / "file.rec").read_bytes()
    file = reader.file(data, reader.decode(data))
    assert file is not None
    assert hashlib.sha256(file).hexdigest() == CASES["file"]["file"]


@pytest.mark.parametrize("rung", ["unfold", "float64", "int64"])
def test_every_arithmetic_path_reads_it(rung: str) -> None:
    with at_least(rung):
        check_all(LARGE)


def test_threads_change_nothing() -> None:
    before = torch.get_num_threads()
    try:
        for threads, name in ((2, "lanes-and-bands"), (3, "preview-lanes-grey")):
            torch.set_num_threads(threads)
            check_all((name,))
    finally:
        torch.set_num_threads(before)


def test_the_layout_in_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes and weights with channels last take other kernels."""
    calls = []

    def channels_last(array):
        calls.append(array.shape)
        return torch.as_tensor(array).contiguous(memory_format=torch.channels_last)

    class Other(LosslessModel):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            for variant in self.variants.values():
                for stage in variant.stages:
                    for layer in stage.values():
                        layer.to(memory_format=torch.channels_last)

    monkeypatch.setattr("recbatch.codec.decoder.LosslessModel", Other)
    monkeypatch.setattr(folded.torch, "from_numpy", channels_last)
    check_all(("small-alpha", "lanes-and-bands"))
    assert len(calls) > 20


@pytest.mark.parametrize(
    "name",
    ["oldest processor", *(pytest.param(name, marks=pytest.mark.long) for name in list(ENVIRONMENTS)[1:])],
)
def test_every_machine_reads_it(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, os.path.dirname(__file__)],
        env={**os.environ, **ENVIRONMENTS[name]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all right\n"


def test_damage_is_found_wherever_it_is(reader: Decoder) -> None:
    data = (FOLDER / "small-alpha.rec").read_bytes()
    for offset in range(0, len(data), 97):
        damaged = bytearray(data)
        damaged[offset] ^= 1 << offset % 8
        for wrong in (bytes(damaged), data[:offset]):
            with pytest.raises(RecbatchError):
                reader.decode(wrong)
