"""The dimensions of tiny rates, which every baseline codes as scalar symbols: zero nearly always, and cheap then.

Legend: N dimensions of a section, M scalar ones.
"""

from __future__ import annotations

import numpy as np

from recbatch.bench.coders import ecsq
from recbatch.bench.coders.frame import Bytes, Run, Source
from recbatch.bench.coders.levels import Index, join_levels, read_low, write_levels
from recbatch.rec.base import Samples, Scales, Targets
from recbatch.rec.tables import Tables


def code_scalars(
    target_N: Targets, scale_N: Scales, dims_M: Index, tables: Tables
) -> tuple[Samples, Run, Bytes]:
    """Samples [M], their symbols, and the bits behind them."""
    made = ecsq.quantiser(tables)
    scale_M = scale_N[dims_M].astype(np.int32)
    e_M = target_N[dims_M].astype(np.float64)
    level_M = ecsq.choose(e_M, scale_M, made.spacing_S, made.shift_S, made.point_SA, made.book.bits)
    symbol_M, extra = write_levels(level_M, made.shift_S[scale_M])
    return ecsq.values(level_M, scale_M, made), Run(symbols=symbol_M, numbers=scale_M, book=made.book), extra


def restore_scalars(source: Source, scale_N: Scales, dims_M: Index, tables: Tables) -> Samples:
    """Samples [M] back."""
    made = ecsq.quantiser(tables)
    scale_M = scale_N[dims_M].astype(np.int32)
    shift_M = made.shift_S[scale_M]
    symbol_M = source.stack.pop(scale_M, made.book)
    level_M = join_levels(symbol_M, read_low(source.bits, shift_M), shift_M, source.bits)
    return ecsq.values(level_M, scale_M, made)
