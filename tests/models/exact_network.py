"""A small exact network with fixed integers, and the settings under which it must give one hash.

Run as a program it prints {setting: SHA-256} as JSON; the environment is the caller's.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys

import torch
from torch.nn import functional

# int32 outputs of network() on inputs(): part of the format, computed once by the int64 definition
GOLDEN = "15063796d5e6b845d32bfabad0624890c70b82c3a3da6e8e1610a329eb9ef39b"


def network():
    """Five layers: signed input, 1x1 and 3x3, sums up to the bound, every shift from 0 to 20."""
    from recbatch.models.exact import FoldedConv2d
    from recbatch.models.exact.arithmetic import bounds, half, scattered

    layers = []
    plan = [  # outputs, inputs, kernel, reach of weights, shifts, input range, output range
        (32, 16, 1, 127, (3, 7), (-127, 127), (0, 255)),
        (24, 8, 3, 127, (9, 12), (0, 255), (0, 255)),
        (16, 24, 3, 127, (8, 10), (0, 255), (0, 255)),
        (40, 16, 1, 90, (4, 6), (0, 255), (0, 255)),
        (21, 40, 3, 100, (0, 20), (0, 255), (-32768, 32767)),
    ]
    for number, (out, inputs_, side, reach, shifts, in_range, out_range) in enumerate(plan):
        weight = scattered((out, inputs_, side, side), (-reach, reach), seed=10 + number)
        weight[0] = reach  # all positive, and cancelling halves
        weight[1, : inputs_ // 2], weight[1, inputs_ // 2 :] = reach, -reach
        shift = shifts[0] + scattered((out,), (0, shifts[1] - shifts[0]), seed=20 + number)
        if number == 4:
            shift[:] = range(21)
        bias = scattered((1, out), (-3000, 3000), seed=30 + number) + half(shift)
        room = 2**24 - 1 - bounds(weight, bias, shift, in_range)
        bias[0, 2] += room[2]  # one channel exactly at the bound
        layers.append(
            FoldedConv2d(
                weight=torch.from_numpy(weight).to(torch.int8),
                bias=torch.from_numpy(bias).to(torch.int32),
                shift=torch.from_numpy(shift).to(torch.int8),
                in_range=in_range,
                out_range=out_range,
            )
        )
    return layers


def inputs(batch=16):
    from recbatch.models.exact.arithmetic import scattered

    x = torch.from_numpy(scattered((batch, 16, 6, 5), (-127, 127), seed=40))
    x[0], x[1, :8], x[1, 8:] = 127, 127, -127
    return x.to(torch.int16)


def run(layers, x, call):
    """``call(layer, x)`` through all layers, with a pixel shuffle after the first."""
    x = call(layers[0], x)
    x = functional.pixel_shuffle(x, 2)
    for layer in layers[1:]:
        x = call(layer, x)
    return x


def digest(y):
    from recbatch.models.exact import integer_bytes

    return hashlib.sha256(integer_bytes(y)).hexdigest()


def by_rung(rung):
    """One way to compute, without exact_mode: the settings of the process stay in force."""

    def call(layer, x):
        return layer._run(x, layer._row(0, x), rung, None)

    return call


def hashes():
    """Every setting that can be changed inside a process, each with the fast ways to compute."""
    layers, x = network(), inputs()
    backends = torch.backends
    found = {}

    def note(name, rungs=("float32", "unfold"), data=x):
        with torch.inference_mode():
            for rung in rungs:
                found[f"{name} {rung}"] = digest(run(layers, data, by_rung(rung)))

    note("default", ("float32", "unfold", "float64"))
    note("channels_last", data=x.to(torch.float32).contiguous(memory_format=torch.channels_last))
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        note(f"{count} threads")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    note("flush_denormal")
    torch.set_flush_denormal(False)
    backends.nnpack.set_flags(False)
    backends.mkldnn.enabled = False
    note("no mkldnn")
    backends.mkldnn.enabled = True
    backends.nnpack.set_flags(True)
    found["layers as shipped"] = digest(run(layers, x, lambda layer, data: layer(data)))
    for precision in ("tf32", "bf16"):
        backends.mkldnn.conv.fp32_precision = backends.mkldnn.matmul.fp32_precision = precision
        note(f"fp32_precision {precision}")
        found[f"{precision} outside exact_mode"] = digest(run(layers, x, lambda layer, data: layer(data)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found["autocast outside exact_mode"] = digest(run(layers, x, lambda layer, data: layer(data)))
    backends.mkldnn.conv.fp32_precision = backends.mkldnn.matmul.fp32_precision = "ieee"
    torch.set_float32_matmul_precision("medium")
    note("matmul precision medium")
    return found


if __name__ == "__main__":
    # oneDNN reads its environment at its first convolution: let that come before our guard can help
    functional.conv2d(torch.ones(1, 16, 8, 8), torch.ones(16, 16, 3, 3))
    found = hashes()
    left = [name for name in os.environ if "FPMATH" in name or "TF32" in name]
    json.dump({"hashes": found, "environment": left}, sys.stdout)
