"""The best path through the trellis, and the walk back from symbols: the compiled part of trellis-coded quantisation.

Legend: D dimensions in their order, S states, C contexts of a state, P parities, A magnitudes, K symbols of a row.
Row number k * C + c is that of scale index k in context c.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recbatch.bench.coders import stack
from recbatch.bench.coders.levels import EVEN, HALF, Floats, Index, Ints, level_bits
from recbatch.rec.base import UNIT
from recbatch.rec.kernels import jit

Bytes = NDArray[np.uint8]
FAR = 1e6  # nats: no path this far behind wins


@jit
def value_of(level: int, half: int, step: int, point_A: Ints) -> int:
    """What a level of quantiser ``half`` (0 or 1) stands for, 1/UNIT of noise."""
    size = abs(level)
    value = int(point_A[size]) if size <= HALF else (2 * size - half) * step
    return value if level >= 0 else -value


@jit
def search(
    e_D: Floats, scale_D: Index, step_S: Ints, shift_S: Ints, point_XA: Ints, bits_XK: Floats, context_S: Index,
    half_C: Index, next_SP: Index, before_SP: Index, parity_SP: Index,
) -> tuple[Ints, Index]:  # fmt: skip
    """Levels of least total loss in nats, and the context that each is sent in; starts in state 0."""
    states, contexts = context_S.size, half_C.size
    decision_DS = np.empty((e_D.size, states), np.uint8)
    level_DCP = np.empty((e_D.size, contexts, 2), np.int32)
    loss_CP = np.empty((contexts, 2))
    loss_B = np.empty(2 * contexts, np.float32)
    one_S, two_S = before_SP[:, 0].copy(), before_SP[:, 1].copy()
    first_S, second_S = np.empty(states, np.int32), np.empty(states, np.int32)
    for s in range(states):
        first_S[s] = 2 * context_S[one_S[s]] + parity_SP[s, 0]
        second_S[s] = 2 * context_S[two_S[s]] + parity_SP[s, 1]
    metric, after = np.full(states, np.float32(FAR)), np.empty(states, np.float32)
    metric[0] = 0
    for d in range(e_D.size):
        k = scale_D[d]
        _branches(e_D[d], k, step_S[k] / UNIT, shift_S[k], point_XA, bits_XK, half_C, loss_CP, level_DCP[d])
        floor = loss_CP.min()  # float32 keeps what paths differ by, however far the target is
        for c in range(contexts):
            loss_B[2 * c] = min(loss_CP[c, 0] - floor, FAR)
            loss_B[2 * c + 1] = min(loss_CP[c, 1] - floor, FAR)
        for s in range(states):
            first = metric[one_S[s]] + loss_B[first_S[s]]
            second = metric[two_S[s]] + loss_B[second_S[s]]
            decision_DS[d, s] = second < first
            after[s] = min(first, second)
        least = after.min()
        for s in range(states):
            metric[s] = min(after[s] - least, np.float32(FAR))
    level_D = np.empty(e_D.size, np.int64)
    used_D = np.empty(e_D.size, np.int32)
    state = 0
    for s in range(states):
        if metric[s] < metric[state]:
            state = s
    for d in range(e_D.size - 1, -1, -1):
        way = decision_DS[d, state]
        parity = parity_SP[state, way]
        state = before_SP[state, way]
        used_D[d] = context_S[state]
        level_D[d] = level_DCP[d, used_D[d], parity]
    return level_D, used_D


@jit
def _branches(
    e: float, k: int, step: float, shift: int, point_XA: Ints, bits_XK: Floats, half_C: Index, loss_CP: Floats,
    level_CP: Index,
) -> None:  # fmt: skip
    """The best level of each context and parity, and its loss."""
    size = abs(e)
    sign = -1 if e < 0 else 1
    for c in range(half_C.size):
        row = k * half_C.size + c
        nearest = int((size / step + half_C[c]) / 2 + 0.5)
        loss_CP[c, 0] = 0.5 * size * size + 0.6931471805599453 * level_bits(bits_XK[row], 0, shift)
        loss_CP[c, 1] = 1e300
        level_CP[c, 0] = 0
        first = nearest - 2 if nearest > 3 else 1
        for n in range(first, nearest + 3):
            point = point_XA[row, n] / UNIT if n <= HALF else (2 * n - half_C[c]) * step
            parity = n & 1
            loss = 0.5 * (size - point) ** 2
            if loss < loss_CP[c, parity]:
                loss += 0.6931471805599453 * level_bits(bits_XK[row], sign * n, shift)
            if loss < loss_CP[c, parity]:
                loss_CP[c, parity] = loss
                level_CP[c, parity] = sign * n


@jit
def walk(
    words: stack.Words, state_W: stack.State, starts_XK: stack.Starts, scale_D: Index, shift_S: Ints, low_D: Ints,
    context_S: Index, contexts: int, next_SP: Index,
) -> tuple[Index, Index]:  # fmt: skip
    """Symbols and their contexts, each row chosen by the parities before it."""
    symbol_D = np.empty(scale_D.size, np.int32)
    used_D = np.empty(scale_D.size, np.int32)
    state = 0
    for d in range(scale_D.size):
        k = scale_D[d]
        used_D[d] = context_S[state]
        symbol_D[d] = stack.pop(words, state_W, starts_XK[k * contexts + used_D[d]])
        if shift_S[k] > 0:
            parity = low_D[d] & 1
        elif symbol_D[d] > 2 * HALF:
            parity = symbol_D[d] - EVEN
        else:
            parity = (symbol_D[d] - HALF) & 1
        state = next_SP[state, parity]
    return symbol_D, used_D


@jit
def values(level_D: Ints, used_D: Index, scale_D: Index, step_S: Ints, point_XA: Ints, half_C: Index) -> Ints:
    """Samples of levels."""
    out = np.empty(level_D.size, np.int64)
    for d in range(level_D.size):
        row = scale_D[d] * half_C.size + used_D[d]
        out[d] = value_of(level_D[d], half_C[used_D[d]], step_S[scale_D[d]], point_XA[row])
    return out
