"""Makes ``tables.npz``, the integers every stream is decoded by. Run by hand; decoders only ever load the result.

    python -m recbatch.rec.make_tables            write the file and print the digest that tables.py must name

Floats live here and nowhere behind the format's border. Another run on another machine may round a value the other
way: that makes another format, so the file is committed and its digest checked, and this script is its explanation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recbatch.rec import tables
from recbatch.rec.base import SCALES, UNIT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SCALAR_BELOW = 0.3  # bits of planned rate; dimensions under it are scalar symbols
SCALAR_STEP = 3.46  # units of noise
GROUP_BITS = tables.GROUP_RATE / 256
NARROW_REACH, WIDE_REACH = 6.0, 6.0  # prior deviations that a row's symbols must cover
GRID = 1 << 14  # points of the wrapped prior


def wrapped_gaussian(step: float) -> tuple[Floats, float]:
    """The 256 quantiles of N(0, 1) wrapped modulo ``step``, and the bits that the lattice integer then costs."""
    reach = int(np.ceil(9 / step)) + 1
    turns = np.arange(-reach, reach + 1)
    phase = (np.arange(GRID) + 0.5) / GRID - 0.5
    density = np.zeros(GRID)
    for turn in turns:  # one at a time: at high rate there are thousands
        density += np.exp(-0.5 * (step * (turn + phase)) ** 2)
    cdf = np.concatenate([[0.0], np.cumsum(density)])
    edges = np.arange(GRID + 1) / GRID - 0.5
    offsets = step * np.interp((np.arange(256) + 0.5) / 256, cdf / cdf[-1], edges)
    offsets = (offsets - offsets[::-1]) / 2  # exactly symmetric
    weights = np.exp(-0.5 * (step * turns[:, None] + offsets) ** 2)
    p = weights / weights.sum(0)
    return offsets, float(-(p * np.log2(p + 1e-300)).sum(0).mean())


def step_for_entropy(bits: float) -> float:
    """The step, in prior deviations, at which the lattice integer costs ``bits`` on average."""
    if bits > 7:  # there the wrapped prior is flat and the integer as fine as differential entropy says
        return float(np.sqrt(2 * np.pi * np.e) / 2**bits)
    low, high = 0.005, 12.0
    for _ in range(40):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if wrapped_gaussian(middle)[1] > bits else (low, middle)
    return float(np.sqrt(low * high))


def lattice(sigma: float, rate: float, members: int) -> tuple[int, Ints]:
    """Step and offsets, in 1/UNIT of noise, of a dimension that shares its step's one index bit with ``members``."""
    step = round(step_for_entropy(rate - 1 / members) * sigma * UNIT)
    offsets, _ = wrapped_gaussian(step / (sigma * UNIT)) if rate < 8 else (np.zeros(256), 0.0)
    if rate >= 8:
        offsets = ((np.arange(256) + 0.5) / 256 - 0.5) * step / (sigma * UNIT)
    return step, np.rint(offsets * sigma * UNIT).astype(np.int64)


def scalar_prior(sigma: float) -> tuple[Ints, Ints]:
    """Masses of |symbol| 0..7 and beyond, and what |symbol| 0..7 stands for: an entropy-constrained quantiser.

    Designed for the observation, a mixture of Gaussians of mean variance 1 + sigma^2: dimensions that are planned at
    almost nothing are sparse in every picture, never Gaussian, and the tail must not cost 24 bits.
    """
    e = (np.arange(1 << 14) + 0.5) / 256  # 0 .. 64
    p = np.zeros_like(e)
    for share, factor in ((0.96, 0.5), (0.035, 4.0), (0.005, 64.0)):
        variance = 1 + factor * sigma**2
        p += share * np.exp(-0.5 * e * e / variance) / np.sqrt(variance)
    p /= p.sum()
    step = SCALAR_STEP
    centroids = np.arange(9) * step
    masses = np.array([0.9, *(0.1 * 0.3 ** np.arange(8))])
    for _ in range(60):
        cost = -np.log(masses / masses.sum()) + np.log(2) * (np.arange(9) > 0)
        choice = (0.5 * (e[:, None] - centroids) ** 2 + cost).argmin(1)
        masses = np.bincount(choice, p, 9) + 1e-7 * 0.5 ** np.arange(9)
        means = np.bincount(choice, p * e, 9) / np.maximum(np.bincount(choice, p, 9), 1e-30)
        used = np.bincount(choice, minlength=9) > 0
        centroids = np.where(used, means, np.arange(9) * step)
        centroids[0] = 0.0
        for i in range(1, 9):  # codewords keep apart, even where nothing falls
            centroids[i] = max(centroids[i], centroids[i - 1] + 0.5 * step)
    return np.rint(masses * 2**31).astype(np.int64), np.rint(centroids[:8] * UNIT).astype(np.int64)


def make() -> dict[str, NDArray[np.generic]]:
    """All arrays of the file, by name."""
    out = {name: np.zeros(shape, dtype) for name, (dtype, shape) in tables.FORMAT.items()}
    knots = tables.knots()
    gaussian = np.rint((2**32 - 1) * np.exp(-0.5 * knots**2))
    for k in range(1, SCALES):
        sigma = tables.sigma(k)
        rate = 0.5 * np.log2(1 + sigma**2)
        out["rate"][k] = round(256 * rate)
        out["inverse"][k] = round(2**32 / (sigma * UNIT))
        if rate < SCALAR_BELOW:
            out["kind"][k] = tables.SCALAR
            out["delta"][k] = round(SCALAR_STEP * UNIT)
            out["mass"][k], out["centroid"][k] = scalar_prior(sigma)
            continue
        grouped = int(out["rate"][k]) < tables.GROUP_RATE
        out["kind"][k] = tables.GROUP if grouped else tables.OWN
        members = int(np.ceil(GROUP_BITS / rate)) if grouped else 1
        step, out["offsets"][k] = lattice(sigma, rate, members)
        out["delta"][k] = step
        out["density"][k] = gaussian
        if (tables.NARROW // 2 - 1) * step < NARROW_REACH * sigma * UNIT:
            out["wide"][k] = 1
            while ((tables.WIDE // 2 - 1) * step << int(out["shift"][k])) < WIDE_REACH * sigma * UNIT:
                out["shift"][k] += 1
    return out


def main() -> None:
    arrays = make()
    np.savez_compressed(Path(__file__).with_name("tables.npz"), **arrays)  # type: ignore[arg-type]
    print(tables.digest(arrays))


if __name__ == "__main__":
    main()
