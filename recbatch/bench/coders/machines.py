"""The trellis machines of trellis-coded quantisation.

In every state one of two quantisers is in force, and the parity of the level that is sent names the next state.
Quantiser 0 has the even multiples of the step, quantiser 1 the odd ones and zero, as dependent quantisation has it.

Four states are those of ITU-T H.266 (08/2020), clause 7.3.11.11, where the table is the number 32040. Eight states are
its extension in the enhanced compression model (ECM) of the same experts. More states are Ungerboeck's
systematic feedback codes, from the parity checks of the one-dimensional table in his paper of 1987, as in the original
trellis-coded quantisation; but for 64 states, the best of fifteen tried on latents of training photographs.

Sources: Schwarz et al. 2021, "Quantization and entropy coding in the versatile video coding (VVC) standard";
Marcellin & Fischer 1990, "Trellis coded quantization of memoryless and Gauss-Markov sources"; Ungerboeck 1987,
"Trellis-coded modulation with redundant signal sets", part II, table I.

Legend: S states, P the two parities of a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import UsageError

Index = NDArray[np.int32]

DEPENDENT = {
    4: ((0, 2), (2, 0), (1, 3), (3, 1)),
    8: ((0, 2), (5, 7), (1, 3), (6, 4), (2, 0), (4, 6), (3, 1), (7, 5)),
}
# Excess on training photographs at levels 4, 12, 20, in percent, all with the same shorter design than today's.
# 64 states: 0165/062 -0.55, 2.20, 1.67; Ungerboeck's 0103/024 -0.34, 2.38, 1.89. 256 states: three codes within 0.12 of
# one another. 8 states: Ungerboeck's 013/04 1.50, 4.17, 3.36; the extension's table 1.36, 4.20, 3.44.
CHECKS = {
    16: (0o23, 0o04),
    32: (0o45, 0o10),
    64: (0o165, 0o062),
    128: (0o235, 0o126),
    256: (0o515, 0o362),
}


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """One machine, forwards and backwards."""

    next_SP: Index
    quantiser_S: Index
    before_SP: Index  # the two states that lead to a state
    parity_SP: Index  # by which parity they do


@cache
def machine(states: int) -> Machine:
    """The machine of so many states. Raises UsageError if there is none."""
    if states in DEPENDENT:
        next_SP = np.array(DEPENDENT[states], np.int32)
        quantiser_S = np.arange(states) // 2 if states == 4 else np.arange(states) & 1
    elif states in CHECKS:
        next_SP, quantiser_S = systematic(*CHECKS[states], states)
    else:
        known = sorted([*DEPENDENT, *CHECKS])
        raise UsageError(f"There is no machine of {states} states. Take one of {known}.")
    return with_states_before(next_SP, quantiser_S.astype(np.int32))


def systematic(check_0: int, check_1: int, states: int) -> tuple[Index, Index]:
    """The encoder of a code with these parity checks: its low state bit is the check bit, the parity goes in."""
    state = np.arange(states)
    bit = state & 1
    base = (state >> 1) ^ (bit * (check_0 >> 1))
    return np.stack([base, base ^ (check_1 >> 1)], 1).astype(np.int32), bit.astype(np.int32)


def with_states_before(next_SP: Index, quantiser_S: Index) -> Machine:
    """Add the way back."""
    states = next_SP.shape[0]
    before_SP, parity_SP = np.zeros((states, 2), np.int32), np.zeros((states, 2), np.int32)
    count = np.zeros(states, np.int64)
    for state in range(states):
        for parity in range(2):
            to = next_SP[state, parity]
            before_SP[to, count[to]], parity_SP[to, count[to]] = state, parity
            count[to] += 1
    return Machine(next_SP, quantiser_S, before_SP, parity_SP)
