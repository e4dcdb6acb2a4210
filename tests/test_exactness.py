"""An archive made one way decodes to the same integers every other way: threads, batch, instruction set, arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = """
import hashlib, json, sys
import torch
from recbatch import stream
from recbatch.archive import Archive
from recbatch.codec import Decoder, lossy
from recbatch.models.exact import at_least
from recbatch.models.photo import PhotoModel

archive, threads, rung, oddities = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(threads)
if oddities == "off":
    torch.backends.mkldnn.enabled = False
    torch.backends.nnpack.set_flags(False)
table = Archive.open(archive)
models = {}
out = {}
for record in table.records(["key", "model", "stream"]):
    model = models.setdefault(record.model, PhotoModel.from_bytes(table.model(record.model)))
    parsed = stream.parse(record.stream)
    with at_least(rung):  # raises unless both digests of the stream hold
        y = lossy.decode_latents(parsed, model, Decoder.coder(parsed, model))
    out[record.key] = hashlib.sha256(y.numpy().astype("<i4").tobytes()).hexdigest()
print(json.dumps(out))
"""

WAYS = {
    "as it comes": ({}, "1", "float32", "-"),
    "three threads": ({}, "3", "float32", "-"),
    "no vector instructions in torch": ({"ATEN_CPU_CAPABILITY": "default"}, "1", "float32", "-"),
    "oneDNN as on an old processor": ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, "2", "float32", "-"),
    "neither oneDNN nor NNPACK": ({}, "1", "float32", "off"),
    "fast bfloat16 asked for": ({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}, "1", "float32", "-"),
    "float64": ({}, "2", "float64", "-"),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures in one batch, encoded with two threads, by the model that ships."""
    import torch

    import recbatch

    root = tmp_path_factory.mktemp("exactness")
    rng = np.random.default_rng(5)
    (root / "photos").mkdir()
    for i, size in enumerate(
        [(64, 64), (130, 70), (96, 160), (31, 90), (1, 1), (200, 64), (65, 65), (120, 120)]
    ):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(root / "photos" / f"{i}.png")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        recbatch.compress(
            root / "photos",
            root / "archive",
            quality=60,
            keep_originals="never",
            executor="inline",
            workers=1,
        )
    finally:
        torch.set_num_threads(before)
    return root / "archive"


def latents(archive: Path, way: str) -> dict[str, str]:
    environment, *arguments = WAYS[way]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(archive), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, str] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def decoded(archive: Path) -> Iterator[dict[str, Future[dict[str, str]]]]:
    """Two ways at a time."""
    with ThreadPoolExecutor(2) as threads:
        yield {way: threads.submit(latents, archive, way) for way in WAYS}


@pytest.mark.parametrize("way", [way for way in WAYS if way != "as it comes"])
def test_the_same_integers_come_out(decoded, way):
    expected = decoded["as it comes"].result()
    assert len(expected) == 8
    assert decoded[way].result() == expected
