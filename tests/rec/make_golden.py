"""Writes a coder's golden files, by hand and once per format version:

    python tests/rec/make_golden.py trellis 0a 0c 10
    python tests/rec/make_golden.py large-irec 3013

The arguments are the coder's name and the parameters, in hexadecimal, of each case. The large file has one part of many
dimensions, so that windows and blocks meet, and digests in place of samples. An existing file is never touched.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from compliance import GOLDEN, channel, golden_case, large_case

from recbatch.rec import coder as coder_of


def main(name: str, parameters: list[str]) -> None:
    generator = np.random.default_rng(7)
    cases = []
    for n, text in enumerate(parameters):
        scales = [
            np.minimum(generator.exponential(30, 150), 150).astype(np.uint8),
            np.zeros(3, np.uint8),
            generator.integers(0, 151, 40).astype(np.uint8),
        ]
        parts = [(channel(scales_N, generator), scales_N) for scales_N in scales]
        parts[0][0][5] = 4000.0  # an escape
        cases.append(golden_case(coder_of(name, bytes.fromhex(text)), n, parts))
    write(name, cases)


def large(name: str, parameters: str) -> None:
    """Enough dimensions for three windows, three blocks of coder 1 and twenty of coder 2; rates drift along."""
    generator = np.random.default_rng(11)
    drift = 30 + 25 * np.sin(np.arange(20_000) / 900)
    scales_N = np.clip(drift + generator.normal(0, 15, drift.size), 0, 150).astype(np.uint8)
    target_N = channel(scales_N, generator)
    target_N[::97] *= 6
    target_N[::4999] = -3e4
    write(f"large-{name}", large_case(coder_of(name, bytes.fromhex(parameters)), 5, target_N, scales_N))


def write(name: str, cases: object) -> None:
    with (GOLDEN / f"{name}.json").open("x") as file:
        json.dump(cases, file, separators=(",", ":"))


if __name__ == "__main__":
    if sys.argv[1].startswith("large-"):
        large(sys.argv[1].removeprefix("large-"), sys.argv[2])
    else:
        main(sys.argv[1], sys.argv[2:])
