"""What the encoder weighs by: the tables' integers as float costs. No decoder imports this."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbatch.rec.ans import PRECISION, Rows
from recbatch.rec.base import SCALES, UNIT
from recbatch.rec.kernels import jit
from recbatch.rec.kernels.rows.cpu import UNITS_PER_NOISE
from recbatch.rec.kernels.viterbi.cpu import Scores
from recbatch.rec.tables import COLUMNS, GROUP, NARROW, OWN, SCALAR, WIDE, Tables, columns, knots, sigma

FINE_BINS, PER_UNIT, PER_OCTAVE = 128, 8, 8  # bins of |e|: linear up to 16 noise units, then by octaves
ESCAPE_NATS = 30.0  # about what an escape costs, whatever the density says of a target so far out
BINS = FINE_BINS + 20 * PER_OCTAVE  # up to 2**24


class ScalarScores(NamedTuple):
    """Costs of the scalar list, by scale index and |symbol|; the last is the escape."""

    nats_SA: NDArray[np.float64]
    value_SA: NDArray[np.float64]  # what |symbol| stands for, in units of noise
    step_S: NDArray[np.float64]


def nats(rows_CK: Rows) -> NDArray[np.float64]:
    """-ln P of every symbol of every row."""
    return np.asarray(PRECISION * np.log(2) - np.log(rows_CK.astype(np.float64) + 1))


@lru_cache(maxsize=4)
def scores(tables: Tables) -> tuple[Scores, ScalarScores]:
    """Both kinds of costs, made once per tables."""
    slot_S, columns_S = np.zeros(SCALES, np.int64), np.ones(SCALES, np.int64)
    offsets: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
    costs: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
    scalar_SA = np.zeros((SCALES, NARROW // 2 + 1))
    narrow_nats, wide_nats = nats(tables.narrow_rows), nats(tables.wide_rows)
    for k in range(SCALES):
        first, wide = int(tables.first_row_S[k]), int(tables.wide_S[k])
        if tables.kind_S[k] == SCALAR:
            scalar_SA[k] = narrow_nats[first, NARROW // 2 - 1 :]
        elif tables.kind_S[k] in (GROUP, OWN):
            slot_S[k] = len(offsets[wide])
            columns_S[k] = COLUMNS if tables.kind_S[k] == GROUP else 1
            nats_QK = (wide_nats if wide else narrow_nats)[first : first + 256]
            for column_C in columns()[: columns_S[k]]:
                order_C = np.concatenate(
                    [column_C[0::2], column_C[1::2]]
                )  # as the rows kernel's place_of says
                offsets[wide].append(
                    (tables.offsets_SQ[k][order_C] * (UNITS_PER_NOISE / UNIT)).astype(np.float32)
                )
                costs[wide].append(np.ascontiguousarray(nats_QK[order_C].T, np.float32))
    sigma_S = np.array([sigma(k) for k in range(SCALES)])
    step_S = tables.delta_S / UNIT
    search = Scores(
        slot_S=slot_S, wide_S=tables.wide_S, shift_S=tables.shift_S, columns_S=columns_S,
        step_S=step_S * UNITS_PER_NOISE,
        shrink_S=sigma_S**2 / (1 + sigma_S**2),
        narrow_offsets_XC=np.stack([np.zeros(256, np.float32), *offsets[0]])[1:],
        narrow_nats_XKC=np.stack([np.zeros((NARROW, 256), np.float32), *costs[0]])[1:],
        wide_offsets_XC=np.stack([np.zeros(256, np.float32), *offsets[1]])[1:],
        wide_nats_XKC=np.stack([np.zeros((WIDE, 256), np.float32), *costs[1]])[1:],
    )  # fmt: skip
    return search, ScalarScores(scalar_SA, tables.centroid_SA / UNIT, step_S)


@jit
def bin_of(e: float) -> int:
    """Bin of |e|, at most BINS - 1."""
    size = abs(e)
    if size < FINE_BINS // PER_UNIT:
        return int(size * PER_UNIT)
    return min(BINS - 1, FINE_BINS + int(PER_OCTAVE * (np.log2(size) - 4)))


def _middles() -> NDArray[np.float64]:
    """What |e| a bin stands for."""
    fine = (np.arange(FINE_BINS) + 0.5) / PER_UNIT
    return np.concatenate([fine, 16 * 2.0 ** ((np.arange(BINS - FINE_BINS) + 0.5) / PER_OCTAVE)])


@lru_cache(maxsize=4)
def observation_nats(tables: Tables) -> NDArray[np.float32]:
    """What an observation costs at each scale index: float32 [BINS, SCALES], nats.

    An ideal coder with prior p(z) needs, bits and half the squared error together, -ln of the mean of
    exp(-(z - e)^2 / 2) under p. Scalar dimensions cost what their quantiser makes of them.
    """
    e_B = _middles()
    out = np.zeros((BINS, SCALES), np.float32)
    _, scalar = scores(tables)
    for k in range(1, SCALES):
        if tables.kind_S[k] == SCALAR:
            nearest_B = np.rint(e_B / scalar.step_S[k])
            loss_NB = []
            for n in range(scalar.value_SA.shape[1]):
                loss_NB.append(0.5 * (e_B - scalar.value_SA[k, n]) ** 2 + scalar.nats_SA[k, n])
            beyond_B = np.maximum(nearest_B - scalar.value_SA.shape[1] + 1, 0)
            escape_B = scalar.nats_SA[k, -1] + 2 * np.log(2) * np.log2(2 * beyond_B + 2)
            loss_NB.append(0.5 * (e_B - nearest_B * scalar.step_S[k]) ** 2 + escape_B)
            out[:, k] = np.min(loss_NB, axis=0)
        else:
            out[:, k] = np.minimum(
                ESCAPE_NATS, _lattice_nats(tables.arrays["density"][k].astype(np.float64), sigma(k), e_B)
            )
    return out


def _lattice_nats(
    density_X: NDArray[np.float64], width: float, e_B: NDArray[np.float64]
) -> NDArray[np.float64]:
    z_X = knots() * width
    weight_X = density_X * np.gradient(z_X)
    mass = 2 * weight_X.sum()
    if width > 16:  # the density is flat over the noise, and its knots too far apart to integrate over it
        p_B = np.interp(e_B, z_X, density_X, right=0.0) * np.sqrt(2 * np.pi)
    else:
        p_B = np.exp(-0.5 * (e_B[:, None] - z_X).astype(np.float32) ** 2) @ weight_X
        near = z_X < 7  # from the other side of 0 only what lies near it is felt
        p_B += np.exp(-0.5 * (e_B[:, None] + z_X[near]).astype(np.float32) ** 2) @ weight_X[near]
    return np.asarray(np.log(mass) - np.log(np.maximum(p_B, mass * 1e-300)))


@jit
def shift_costs(
    e_N: NDArray[np.float32], index_N: NDArray[np.uint8], channel_N: NDArray[np.int16],
    nats_BS: NDArray[np.float32], step: int, out_MK: NDArray[np.float64],
) -> None:  # fmt: skip
    """Add to ``out_MK`` what each channel's dimensions cost when their indices move by each shift."""
    reach = out_MK.shape[1] // 2
    for n in range(e_N.size):
        k = np.int64(index_N[n])
        if k > 0:
            row = nats_BS[bin_of(np.float64(e_N[n]))]
            out = out_MK[channel_N[n]]
            for j in range(-reach, reach + 1):
                out[j + reach] += row[min(max(k + step * j, 1), row.size - 1)]
