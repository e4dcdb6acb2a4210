"""One hash under every setting that changes which kernels run, each environment in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys

import exact_network
import pytest
import torch

from recbatch.models.exact import RUNGS, at_least

ENVIRONMENTS = {
    "plain": {},
    "oldest": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
    "bf16": {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"},
    "any": {
        "DNNL_DEFAULT_FPMATH_MODE": "ANY",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
        "OMP_NUM_THREADS": "1",
    },
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_network_has_one_hash_in_each_environment(name):
    root = pathlib.Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, exact_network.__file__],
        env={**os.environ, "PYTHONPATH": path, **ENVIRONMENTS[name]},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["hashes"]) >= 20
    other = {setting: got for setting, got in answer["hashes"].items() if got != exact_network.GOLDEN}
    assert other == {}
    assert answer["environment"] == []  # the guard removed what asks for reduced precision
    for variable in set(ENVIRONMENTS[name]) - {
        "ONEDNN_MAX_CPU_ISA",
        "ATEN_CPU_CAPABILITY",
        "OMP_NUM_THREADS",
    }:
        if "MKL" not in variable:
            assert f"{variable}=" in done.stderr  # and said so


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_network_has_one_hash_on_cuda(precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    layers = [layer.to("cuda") for layer in exact_network.network()]
    x = exact_network.inputs().to("cuda")
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = precision
    try:
        for rung in RUNGS:
            with at_least(rung):
                y = exact_network.run(layers, x, lambda layer, data: layer(data))
            assert exact_network.digest(y) == exact_network.GOLDEN, rung
        for size in (1, 5):  # other shapes, other kernels
            parts = [x[b : b + size] for b in range(0, 16, size)]
            y = torch.cat(
                [exact_network.run(layers, part, lambda layer, data: layer(data)) for part in parts]
            )
            assert exact_network.digest(y) == exact_network.GOLDEN
    finally:
        torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision = before
