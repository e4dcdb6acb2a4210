"""What the search must compute, in the plainest float64 NumPy: every candidate is made, every density written out.

Shapes: D dimensions of one block; B beams; J candidates a step; T steps.

In units of the prior's deviation the prior is N(0, 1) and the posterior N(m, v). A sample is a sum of T auxiliary
variables whose variances add up to 1. After steps of total variance a the partial sum has prior p_a = N(0, a) and
posterior q_a = N(a m, a^2 v + a (1 - a)); candidates are ranked by log q_a/p_a, the best B live on.

Source: Flamich, Havasi & Hernandez-Lobato 2020, "Compressing Images by Encoding Their Latent Representations with
Relative Entropy Coding", NeurIPS. Integers instead of floats in the sample, and signs that depend on the
path instead of fresh draws for each beam, are ours (law.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recbatch.rec.kernels.irec_search.law import (
    BEAM_BITS,
    DRAW_SHIFT,
    RATIO_BITS,
    SIGN_COUNTER,
    TILE,
    VARIANCE_BITS,
)
from recbatch.rec.noise import word

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]


def schedule(n_steps: int, ratio: NDArray[np.uint32]) -> tuple[list[int], list[int]]:
    """Width and cumulative variance of each step, in fixed point."""
    remaining = 1 << VARIANCE_BITS
    widths, sums = [], []
    for t in range(n_steps):
        taken = (remaining * int(ratio[n_steps - 1 - t])) >> RATIO_BITS
        remaining -= taken
        widths.append(math.isqrt(taken))
        sums.append((1 << VARIANCE_BITS) - remaining)
    return widths, sums


def moves(
    n_dims: int, step_key: int, path: int, candidates: Sequence[int], width: int, normal: NDArray[np.int16]
) -> Integers:
    """What each candidate adds to a beam with this path: int64 [J, D]."""
    out = np.empty((len(candidates), n_dims), np.int64)
    for row, j in enumerate(candidates):
        for d in range(n_dims):
            drawn = int(word(np.uint64(step_key), d * 64 + j // 4)) >> (16 * (j % 4) + DRAW_SHIFT)
            sign_word = int(word(np.uint64(path), SIGN_COUNTER + d // TILE))
            sign = -1 if (sign_word >> (d % TILE)) & 1 else 1
            out[row, d] = sign * width * int(normal[drawn & 4095])
    return out


def scores(beams_BD: Integers, mean_D: Reals, variance_D: Reals, a: float) -> Reals:
    """log q_a(x)/p_a(x), nats, of beams in fixed point: float64 [B]."""
    x = beams_BD * 2.0**-BEAM_BITS
    variance = a * a * variance_D + a * (1 - a)
    log_q = -0.5 * (x - a * mean_D) ** 2 / variance - 0.5 * np.log(variance)
    log_p = -0.5 * x**2 / a - 0.5 * math.log(a)
    return np.asarray((log_q - log_p).sum(axis=-1), np.float64)


def search_reference(
    mean_D: Reals,
    variance_D: Reals,
    n_steps: int,
    draw_key: int,
    path: int,
    n_candidates: int,
    n_keep: int,
    normal: NDArray[np.int16],
    ratio: NDArray[np.uint32],
) -> tuple[list[int], Integers]:
    """The indices of the best path, and the noise they name (int64 [D], BEAM_BITS fraction)."""
    beams = [(path, np.zeros(mean_D.size, np.int64), [])]  # type: list[tuple[int, Integers, list[int]]]
    for t, (width, total) in enumerate(zip(*schedule(n_steps, ratio), strict=True)):
        step_key = int(word(np.uint64(draw_key), t))
        children = []
        for parent_path, noise_D, indices in beams:
            for j, move_D in enumerate(
                moves(mean_D.size, step_key, parent_path, range(n_candidates), width, normal)
            ):
                children.append((int(word(np.uint64(parent_path), j)), noise_D + move_D, [*indices, j]))
        ranked = -scores(np.array([c[1] for c in children]), mean_D, variance_D, total * 2.0**-VARIANCE_BITS)
        beams = [children[i] for i in np.argsort(ranked, kind="stable")[:n_keep]]
    return beams[0][2], beams[0][1]


def replay_reference(
    indices: Sequence[int],
    n_dims: int,
    draw_key: int,
    path: int,
    normal: NDArray[np.int16],
    ratio: NDArray[np.uint32],
) -> Integers:
    """The noise that indices name: int64 [D]."""
    noise_D = np.zeros(n_dims, np.int64)
    widths, _ = schedule(len(indices), ratio)
    for t, (j, width) in enumerate(zip(indices, widths, strict=True)):
        noise_D += moves(n_dims, int(word(np.uint64(draw_key), t)), path, [j], width, normal)[0]
        path = int(word(np.uint64(path), j))
    return noise_D
