"""A worker that is to have a GPU: on a real one it uses it, and without one it says so at once."""

import io

import numpy as np
import pytest
from PIL import Image

from recbatch.archive import Archive
from recbatch.codec import Settings
from recbatch.engine import compress, errors
from recbatch.engine.actor import EncodeJob


def picture(seed):
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, 96)[None, :, None] + rng.integers(0, 50, (80, 96, 3))
    out = io.BytesIO()
    Image.fromarray(ramp.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_a_worker_whose_torch_finds_no_gpu_says_why_when_it_starts(tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    Archive.create(str(tmp_path / "archive"))
    job = EncodeJob(
        archive=str(tmp_path / "archive"), settings=Settings(mode="lossy"), job="compress", device="cuda"
    )
    with pytest.raises(errors.WorkerSetupFailed, match=r"wants a GPU|finds no GPU"):
        job.build()


@pytest.mark.gpu
def test_two_workers_share_a_gpu_and_archive_what_they_are_given(tmp_path):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    (tmp_path / "in").mkdir()
    for seed in range(24):
        (tmp_path / "in" / f"{seed:02d}.png").write_bytes(picture(seed))
    report = compress(
        str(tmp_path / "in"),
        str(tmp_path / "archive"),
        settings=Settings(mode="lossy", keep_originals="never"),
        workers=2,
        gpus_per_worker=0.5,
        shard_bytes=100_000,
    )
    assert (report.images, report.quarantined) == (24, 0)
    assert all(record.psnr > 25 for record in Archive.open(str(tmp_path / "archive")).records())
