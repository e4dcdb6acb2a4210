"""What the encoder weighs by: the tables' integers as float costs. No decoder imports this."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbatch.rec.ans import PRECISION, Rows
from recbatch.rec.base import SCALES, UNIT
from recbatch.rec.kernels.viterbi.cpu import Scores
from recbatch.rec.tables import COLUMNS, GROUP, NARROW, OWN, SCALAR, WIDE, Tables, columns, sigma


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
                offsets[wide].append((tables.offsets_SQ[k][order_C] / UNIT).astype(np.float32))
                costs[wide].append(np.ascontiguousarray(nats_QK[order_C].T, np.float32))
    sigma_S = np.array([sigma(k) for k in range(SCALES)])
    step_S = tables.delta_S / UNIT
    search = Scores(
        slot_S=slot_S, wide_S=tables.wide_S, shift_S=tables.shift_S, columns_S=columns_S, step_S=step_S,
        shrink_S=sigma_S**2 / (1 + sigma_S**2),
        narrow_offsets_XC=np.stack([np.zeros(256, np.float32), *offsets[0]])[1:],
        narrow_nats_XKC=np.stack([np.zeros((NARROW, 256), np.float32), *costs[0]])[1:],
        wide_offsets_XC=np.stack([np.zeros(256, np.float32), *offsets[1]])[1:],
        wide_nats_XKC=np.stack([np.zeros((WIDE, 256), np.float32), *costs[1]])[1:],
    )  # fmt: skip
    return search, ScalarScores(scalar_SA, tables.centroid_SA / UNIT, step_S)
