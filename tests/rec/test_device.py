"""Where a search runs is the encoder's business: the same bytes, or a clear word on what is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from compliance import channel

from recbatch import rec
from recbatch.rec.coders.trellis import BadTrellisSize, NoTriton, Trellis


def test_a_gpu_search_without_triton_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "recbatch.rec.kernels.viterbi.gpu", raising=False)
    monkeypatch.delitem(sys.modules, "recbatch.rec.kernels.rows.gpu", raising=False)
    coder = rec.coder("trellis", device="cuda")
    scales_N = np.full(40, 50, np.uint8)
    with pytest.raises(NoTriton, match="Install recbatch"):
        coder.encode([coder.writer()], [channel(scales_N, np.random.default_rng(1))], [scales_N])


def test_the_device_is_no_part_of_the_stream():
    assert rec.coder("trellis", device="cuda").parameters == rec.coder("trellis").parameters


@pytest.mark.parametrize("bits", [8, 17, 300])
def test_sizes_that_no_header_can_name_are_refused(bits):
    with pytest.raises(BadTrellisSize, match="Use 9 to 16"):
        Trellis(bits=bits)
