"""Makes ``tiny.safetensors`` or ``tiny-groups.safetensors``: models of some tens of KiB that the golden files are
decoded with for ever.

    python tests/golden/make_tiny_model.py PHOTOGRAPHS OUT

Golden files must outlive every retraining of the real models, so they have a model of their own. The committed file
is never made again: another machine rounds otherwise, and the digest in the golden streams would no longer fit.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from recbatch.models.lossy import LossyConfig
from recbatch.models.photo import export
from recbatch.train.data import prepare
from recbatch.train.loop import Schedule, Trainer

TINY = LossyConfig(latent=24, hyper=8, widths=(8, 8, 16))
GROUPS = (4, 10)  # of tiny-groups, where each later layer counts


def main(photographs: str, out: str, steps: int = 400) -> None:
    torch.set_num_threads(1)
    name = Path(out).stem
    config = replace(TINY, groups=GROUPS) if name == "tiny-groups" else TINY
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(Path(photographs), Path(folder) / "train.u8")
        trainer = Trainer(config, Schedule(minutes=1e9, batch=4, crop=64, average=0.98, warm_up=20), data)
        for _ in range(steps):
            trainer.step()
            trainer.progress.elapsed_s = 0.0
        for _ in range(steps // 4):  # the end of a run, on the integer grid
            trainer.progress.elapsed_s = 0.9 * 60e9
            trainer.step()
    net = trainer.average
    net.eval()
    net.set_quantised(True)
    Path(out).write_bytes(export(net, name=name))


if __name__ == "__main__":
    main(*sys.argv[1:])
