"""The order in which an image's pixels are coded, one walk for encoder and decoder.

From the coarsest level, a single pixel, to the image itself; on each level the stages A, B, C; in each stage bands of
rows from top to bottom; in each band Y, then Co, then Cg (grey: Y alone), a block each.

Shapes: B images of one size, H x W pixels, 3 planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recbatch.codec.tuning import Tuning
from recbatch.models.lossless import geometry
from recbatch.models.lossless.folded import LosslessModel, Variant
from recbatch.models.lossless.geometry import STAGES, Integers
from recbatch.rec.mixtures import tuning_of

BAND_ROWS = 64
LANES, LANES_FROM = 4, 1 << 14  # pixels from which an image has so many lanes, one below

Values = NDArray[np.int32]


class Block(Protocol):
    """What happens to a block: raw parameters [B, 9, h, w], bases [B, h, w], true values or none, their range, and the
    numbers [B, 18] that tune the parameters."""

    def __call__(
        self,
        raw: NDArray[np.float32],
        base: Values,
        values: Values | None,
        low: int,
        high: int,
        tuning: NDArray[np.int32],
    ) -> Values: ...


def lanes(height: int, width: int) -> int:
    """Lanes of an image's code."""
    return LANES if height * width >= LANES_FROM else 1


def walk(
    model: LosslessModel,
    variant: Variant,
    planes_B3HW: Integers,
    preview_B3HW: Integers | None,
    components: int,
    tunings: Sequence[Tuning],
    block: Block,
    *,
    known: bool,
) -> None:
    """Visit every block. ``known``: encoder; else ``planes_B3HW``, of which pixel (0, 0) is known, is filled in."""
    height, width = planes_B3HW.shape[2:]
    depth = (max(height, width) - 1).bit_length()
    for level in range(depth - 1, -1, -1):
        step = 1 << level
        here = np.ascontiguousarray(planes_B3HW[:, :, ::step, ::step])
        seen = None if preview_B3HW is None else np.ascontiguousarray(preview_B3HW[:, :, ::step, ::step])
        for stage, s in enumerate(STAGES):
            p, q = s.phase
            rows, columns = geometry.phase_size(here.shape[2], here.shape[3], s.phase)
            if columns == 0:
                continue
            for first in range(0, rows, BAND_ROWS):
                last = min(rows, first + BAND_ROWS)
                band = model.band(variant, here, seen, level, stage, first, last)
                done: list[Values] = []
                for c in range(components):
                    raw = model.head(variant, stage, band, done)
                    base = np.ascontiguousarray(band.base[:, c])
                    target = here[:, c, p::2, q::2][:, first:last]
                    values = target.astype(np.int32) if known else None
                    low = geometry.LOWEST[c]
                    numbers = tuning_of(np.stack([t.of(level, stage, c) for t in tunings]))
                    done.append(block(raw, base, values, low, geometry.HIGHEST, numbers))
                    if not known:
                        target[...] = done[-1]
        if not known:
            planes_B3HW[:, :, ::step, ::step] = here
