"""Writes one golden file, by hand and once per format version:  python tests/rec/make_golden.py trellis 0a 0c 10

The arguments are the coder's name and the parameters, in hexadecimal, of each case. An existing file is never touched.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from compliance import GOLDEN, channel, golden_case

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
    with (GOLDEN / f"{name}.json").open("x") as file:
        json.dump(cases, file, separators=(",", ":"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
