"""Beam search over auxiliary variables, compiled: what reference.py defines, one block a call.

Shapes: D dimensions of the block; B beams; J candidates a step; T steps; W dimensions a tile.

How it is fast. With r = x - a m, the score of beam x moved by s u g (sign s, step width u, shared draw g) is

    [x^2/a - r^2/V]/2  +  sum_d s u (x/a - r/V) g  +  sum_d u^2 (1/a - 1/V) g^2 / 2

The first term belongs to the beam, the last to the candidate, and the middle one is a dense product of [B, D] by
[D, J]: the path's signs are folded into the beam's factor. Dimensions go through in tiles that stay in the first
cache.

Beams are float64 that hold integers below 2**53, so they are exact: see BEAM_BITS. No fastmath and no reduction that
a compiler may reorder: one path on every machine, whatever its vectors are.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from recbatch.rec.kernels import jit
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
Singles = NDArray[np.float32]
Draws = NDArray[np.int16]
Words = NDArray[np.uint64]
Integers = NDArray[np.int64]
Indices = NDArray[np.int32]
Ratios = NDArray[np.uint32]

_UNIT = 2.0**-BEAM_BITS


@jit
def integer_sqrt(v: np.int64) -> np.int64:
    """floor(sqrt(v)) of an int64 below 2**52."""
    r = np.int64(math.sqrt(np.float64(v)))
    while r * r > v:
        r -= 1
    while (r + 1) * (r + 1) <= v:
        r += 1
    return r


@jit
def _draw_tile(
    step_key: np.uint64,
    first_dim: int,
    width: int,
    n_candidates: int,
    normal: Draws,
    draws_WJ: Singles,
    draws_JD: Draws,
) -> None:
    """Fill one tile of shared draws: four of them from each 64-bit word."""
    groups = (n_candidates + 3) // 4
    for d in range(width):
        for g in range(groups):
            drawn = word(step_key, (first_dim + d) * 64 + g)
            for i in range(4):
                value = normal[np.int64((drawn >> np.uint64(16 * i + DRAW_SHIFT)) & np.uint64(4095))]
                draws_WJ[d, 4 * g + i] = value
                draws_JD[4 * g + i, first_dim + d] = value
    for d in range(width, TILE):
        for j in range(draws_WJ.shape[1]):
            draws_WJ[d, j] = 0


@jit
def _signs(path: np.uint64, tile: int, signs_W: Reals) -> None:
    bits = word(path, SIGN_COUNTER + tile)
    for d in range(TILE):
        signs_W[d] = 1.0 - 2.0 * np.float64(np.int32((bits >> np.uint64(d)) & np.uint64(1)))


@jit
def _beam_factor(
    beam_W: Reals,
    centre_W: Reals,
    precision_W: Reals,
    signs_W: Reals,
    inverse_a: float,
    step: float,
    factor_W: Singles,
    terms_W: Reals,
) -> float:
    """The beam's part of the dense product, and its own score over the tile."""
    for d in range(TILE):
        x = beam_W[d] * _UNIT
        r = x - centre_W[d]
        pull = r * precision_W[d]
        free = x * inverse_a
        factor_W[d] = np.float32(signs_W[d] * step * (free - pull))
        terms_W[d] = 0.5 * (x * free - r * pull)
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    for d in range(0, TILE, 4):
        s0 += terms_W[d]
        s1 += terms_W[d + 1]
        s2 += terms_W[d + 2]
        s3 += terms_W[d + 3]
    return (s0 + s1) + (s2 + s3)


@jit
def _add_product(factor_W: Singles, draws_WJ: Singles, sums_J: Singles) -> None:
    """sums_J += factor_W @ draws_WJ, vectors over J, in one fixed order of additions."""
    for d in range(0, TILE, 8):
        f0, f1, f2, f3 = factor_W[d], factor_W[d + 1], factor_W[d + 2], factor_W[d + 3]
        f4, f5, f6, f7 = factor_W[d + 4], factor_W[d + 5], factor_W[d + 6], factor_W[d + 7]
        g0, g1, g2, g3 = draws_WJ[d], draws_WJ[d + 1], draws_WJ[d + 2], draws_WJ[d + 3]
        g4, g5, g6, g7 = draws_WJ[d + 4], draws_WJ[d + 5], draws_WJ[d + 6], draws_WJ[d + 7]
        for j in range(sums_J.shape[0]):
            low = (f0 * g0[j] + f1 * g1[j]) + (f2 * g2[j] + f3 * g3[j])
            high = (f4 * g4[j] + f5 * g5[j]) + (f6 * g6[j] + f7 * g7[j])
            sums_J[j] += low + high


@jit
def score_step(
    beams_BD: Reals,
    paths_B: Words,
    mean_D: Reals,
    variance_D: Reals,
    a: float,
    step: float,
    step_key: np.uint64,
    n_candidates: int,
    normal: Draws,
    draws_JD: Draws,
) -> Reals:
    """log q_a/p_a of every child, less a constant: float64 [B, J]; fills draws_JD, int16 [J, D]."""
    n_beams, n_dims = beams_BD.shape
    n_padded = (n_candidates + 7) // 8 * 8
    draws_WJ = np.zeros((TILE, n_padded), np.float32)
    sums_BJ = np.zeros((n_beams, n_padded), np.float32)
    square_J = np.zeros(n_padded, np.float32)
    own_B = np.zeros(n_beams, np.float64)
    centre_W = np.zeros(TILE, np.float64)
    precision_W = np.zeros(TILE, np.float64)
    beam_W = np.zeros(TILE, np.float64)
    signs_W = np.zeros(TILE, np.float64)
    terms_W = np.zeros(TILE, np.float64)
    factor_W = np.zeros(TILE, np.float32)
    inverse_a = 1.0 / a
    for tile in range((n_dims + TILE - 1) // TILE):
        first = tile * TILE
        width = min(TILE, n_dims - first)
        _draw_tile(step_key, first, width, n_candidates, normal, draws_WJ, draws_JD)
        for d in range(TILE):
            centre_W[d] = 0.0
            precision_W[d] = 0.0
            beam_W[d] = 0.0
        for d in range(width):
            centre_W[d] = mean_D[first + d] * a
            precision_W[d] = 1.0 / (variance_D[first + d] * a * a + a * (1.0 - a))
            curvature = np.float32(0.5 * step * step * (inverse_a - precision_W[d]))
            g = draws_WJ[d]
            for j in range(n_padded):
                square_J[j] += curvature * (g[j] * g[j])
        for b in range(n_beams):
            for d in range(width):
                beam_W[d] = beams_BD[b, first + d]
            _signs(paths_B[b], tile, signs_W)
            own_B[b] += _beam_factor(
                beam_W, centre_W, precision_W, signs_W, inverse_a, step, factor_W, terms_W
            )
            _add_product(factor_W, draws_WJ, sums_BJ[b])
    scores_BJ = np.empty((n_beams, n_candidates), np.float64)
    for b in range(n_beams):
        for j in range(n_candidates):
            scores_BJ[b, j] = own_B[b] + (np.float64(sums_BJ[b, j]) + np.float64(square_J[j]))
    return scores_BJ


@jit
def best_children(scores_BJ: Reals, n_keep: int) -> Integers:
    """Flat indices of the best children, best first; the lower index wins a tie."""
    flat = scores_BJ.ravel()
    n_keep = min(n_keep, flat.size)
    best = np.empty(n_keep, np.int64)
    count = 0
    for i in range(flat.size):
        score = flat[i]
        if count == n_keep:
            if not score > flat[best[count - 1]]:
                continue
            place = count - 1
        else:
            place = count
            count += 1
        while place > 0 and score > flat[best[place - 1]]:
            best[place] = best[place - 1]
            place -= 1
        best[place] = i
    return best


@jit
def search_block(
    mean_D: Reals,
    variance_D: Reals,
    draw_key: np.uint64,
    path: np.uint64,
    n_candidates: int,
    n_keep: int,
    normal: Draws,
    ratio: Ratios,
    indices_T: Indices,
    noise_D: Integers,
) -> None:
    """Writes the indices of the best path (as many steps as there is room for) and the noise they name."""
    n_dims, n_steps = mean_D.size, indices_T.size
    beams_BD = np.zeros((1, n_dims), np.float64)
    paths_B = np.empty(1, np.uint64)
    paths_B[0] = path
    parents_TB = np.zeros((n_steps, n_keep), np.int32)
    picks_TB = np.zeros((n_steps, n_keep), np.int32)
    draws_JD = np.empty(((n_candidates + 3) // 4 * 4, n_dims), np.int16)
    signs_W = np.empty(TILE, np.float64)
    remaining = np.int64(1) << VARIANCE_BITS
    for t in range(n_steps):
        taken = (remaining * np.int64(ratio[n_steps - 1 - t])) >> RATIO_BITS
        remaining -= taken
        width = integer_sqrt(taken)
        a = np.float64((np.int64(1) << VARIANCE_BITS) - remaining) * 2.0**-VARIANCE_BITS
        step_key = word(draw_key, t)
        scores_BJ = score_step(
            beams_BD, paths_B, mean_D, variance_D, a, width * _UNIT, step_key, n_candidates, normal, draws_JD
        )
        best = best_children(scores_BJ, n_keep)
        children_BD = np.empty((best.size, n_dims), np.float64)
        child_paths_B = np.empty(best.size, np.uint64)
        for i in range(best.size):
            parent = best[i] // n_candidates
            pick = best[i] % n_candidates
            parents_TB[t, i] = parent
            picks_TB[t, i] = pick
            for first in range(0, n_dims, TILE):
                _signs(paths_B[parent], first // TILE, signs_W)
                for d in range(min(TILE, n_dims - first)):
                    move = signs_W[d] * (np.float64(width) * np.float64(draws_JD[pick, first + d]))
                    children_BD[i, first + d] = beams_BD[parent, first + d] + move
            child_paths_B[i] = word(paths_B[parent], pick)
        beams_BD, paths_B = children_BD, child_paths_B
    for d in range(n_dims):
        noise_D[d] = np.int64(beams_BD[0, d])
    beam = 0
    for t in range(n_steps - 1, -1, -1):
        indices_T[t] = picks_TB[t, beam]
        beam = parents_TB[t, beam]


@jit
def replay_block(
    draw_key: np.uint64,
    path: np.uint64,
    normal: Draws,
    ratio: Ratios,
    indices_T: Indices,
    noise_D: Integers,
) -> None:
    """Writes the noise that indices name. Integers only: this is what a decoder runs."""
    n_steps = indices_T.size
    noise_D[:] = 0
    remaining = np.int64(1) << VARIANCE_BITS
    for t in range(n_steps):
        taken = (remaining * np.int64(ratio[n_steps - 1 - t])) >> RATIO_BITS
        remaining -= taken
        width = integer_sqrt(taken)
        step_key = word(draw_key, t)
        pick = int(indices_T[t])
        group = pick >> 2
        shift = np.uint64(16 * (pick & 3) + DRAW_SHIFT)
        signs = np.uint64(0)
        for d in range(noise_D.size):
            if d % TILE == 0:
                signs = word(path, SIGN_COUNTER + d // TILE)
            drawn = word(step_key, d * 64 + group)
            move = width * np.int64(normal[np.int64((drawn >> shift) & np.uint64(4095))])
            negative = (signs >> np.uint64(d % TILE)) & np.uint64(1)
            noise_D[d] += -move if negative else move
        path = word(path, pick)
