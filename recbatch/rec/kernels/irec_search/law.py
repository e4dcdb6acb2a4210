"""Numbers of the law of the sample that both kernels share: part of the format.

A block of noise is a sum over steps. Step t of T takes the share ratio[T - t] of the prior variance that is left
(fixed point, VARIANCE_BITS), its width is the integer square root of what it took, and it adds, in every dimension,

    sign(path, dimension) * width * normal[draw(block, step, dimension, candidate)]

where ``path`` is a hash of the indices of all steps before. BEAM_BITS is the fraction of the sum: 22 bits of the
width and 13 of the table. Widths add up to at most sqrt(8192) * 2**22 and table entries stay below 2**15, so the sum
stays below 2**44: far from where int64 wraps, and exact in float64.
"""

from __future__ import annotations

from typing import Final

VARIANCE_BITS: Final = 44  # fraction of variances, in units of the prior's
RATIO_BITS: Final = 18  # fraction of the schedule's table
BEAM_BITS: Final = VARIANCE_BITS // 2 + 13  # fraction of the noise, in units of the prior's deviation
DRAW_SHIFT: Final = 4  # a draw is the upper 12 of 16 bits; a 64-bit word gives four
SIGN_COUNTER: Final = 1024  # counters of sign words under a path; children use 0 .. 255
TILE: Final = 64  # dimensions that share a word of signs
MAX_STEPS: Final = 8192  # entries of the schedule's table
MAX_CANDIDATES: Final = 256  # draws of a dimension own 64 counters of four each
