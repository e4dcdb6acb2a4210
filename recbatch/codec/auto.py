"""What a lossy job takes instead of its lossy stream where that is the worse bargain: ``--auto``.

Learned codecs are bad at some pictures that are easy for others: text, drawings, charts, screenshots. There a stream
without loss often takes fewer bytes than the lossy one, or few more for a picture that is exact. Photographs must not
pay for that: they are told apart by an estimate of the lossless size, which takes some hundredths of the time of an
encode and is far above what any lossy stream takes.

Shapes: H height, W width, C channels (3 or 1), K contexts, V values of a residual.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recbatch.codec import jpeg
from recbatch.codec.original import keep
from recbatch.codec.rate import TargetOutOfReach
from recbatch.codec.types import Encoded, Settings, Source
from recbatch.errors import RecbatchError
from recbatch.images import Picture

FLOOR_DB = 34.0  # a drawing below this is not taken where one without loss is affordable
AFFORDABLE = 2.0  # times its bytes, for a drawing below the floor
# Of the estimate: photographs have 7 and more (grey ones 2.6), what people draw, write and compute has 5 and less
DRAWN_BPP = 6.0
DRAWN_GREY_BPP = 2.25
CONTEXTS = 10
SAMPLED_PIXELS = 1 << 19  # about so many of a larger picture are looked at,
BAND_ROWS = 32  # in bands of so many rows
# Of the estimate (but of drawings), and of a JPEG file's bytes: less than any stream without loss takes
LEAST_OF_ESTIMATE = 0.5
LEAST_OF_JPEG = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Bargain:
    """What a picture without loss may cost in the place of a lossy one."""

    budget_bytes: int
    lossy_bytes: int | None  # None: there is no lossy stream that is what was asked for
    lossy_psnr: float | None = None

    @classmethod
    def of(
        cls, row: Encoded | TargetOutOfReach, source: Source, settings: Settings, *, is_drawn: bool
    ) -> Bargain:
        """By what the lossy codec made of a picture.

        A photograph below the floor is what a low quality means, and who asks for a PSNR or a size has set a floor.
        """
        if isinstance(row, TargetOutOfReach):
            return cls(budget_bytes=settings.max_bytes or len(source.data), lossy_bytes=None)
        size = len(row.stream)
        below = row.psnr is not None and row.psnr < FLOOR_DB and is_drawn and not settings.has_target
        budget = int(size * AFFORDABLE) if below else size - 1
        return cls(
            budget_bytes=min(budget, settings.max_bytes or budget),
            lossy_bytes=size,
            lossy_psnr=row.psnr,
        )

    def reason(self, other: Encoded) -> str:
        """Why the other row was chosen, for its notes."""
        if self.lossy_bytes is None:
            return f"{other.codec}: no lossy stream is what was asked for"
        change = 100 * (len(other.stream) / self.lossy_bytes - 1)
        if change < 0:
            return f"{other.codec}: {-change:.0f} % smaller than lossy at this quality"
        return f"{other.codec}: {change:.0f} % more bytes than lossy, which has only {self.lossy_psnr:.1f} dB here"


class Auto:
    """Rows of a lossy job, or better ones.

    Args:
        settings: of the lossy job.
        without_loss: gives the lossless row of one file, proved.
    """

    def __init__(self, settings: Settings, without_loss: Callable[[Source], Encoded | RecbatchError]) -> None:
        self._settings = settings
        self._without_loss = without_loss

    def settle(
        self, source: Source, picture: Picture, row: Encoded | RecbatchError
    ) -> Encoded | RecbatchError:
        """The row to archive: this one, or one of the same picture without loss, whose notes say why."""
        if not isinstance(row, Encoded | TargetOutOfReach):
            return row  # a bug shows as one
        estimate = estimated_bpp(picture.pixels)
        drawn = is_drawn(picture.pixels, estimate)
        bargain = Bargain.of(row, source, self._settings, is_drawn=drawn)
        # what repeats takes far less than a predictor of neighbours can see (docs/decisions/0008)
        least_bytes = 0.0 if drawn else LEAST_OF_ESTIMATE * estimate * picture.width * picture.height / 8
        other = self._other(source, picture, bargain.budget_bytes, least_bytes)
        if other is None or len(other.stream) > bargain.budget_bytes:
            return row
        notes = other.notes if other.codec == "lossless" else ()  # the others give back the file, unconverted
        return replace(other, notes=(*notes, bargain.reason(other)))

    def _other(self, source: Source, picture: Picture, budget: int, least_bytes: float) -> Encoded | None:
        """The smallest row without loss; None where none can come within the budget, which seldom takes an encode."""
        keeps_files, file_bytes = self._settings.keep_originals == "smaller", len(source.data)
        if keeps_files and jpeg.is_jpeg(source.data):
            return self._coded(source) if LEAST_OF_JPEG * file_bytes <= budget else None
        is_file_good = keeps_files and file_bytes <= budget
        if least_bytes <= (min(budget, file_bytes) if is_file_good else budget):
            return self._coded(source)
        return keep(source, "", picture=picture) if is_file_good else None

    def _coded(self, source: Source) -> Encoded | None:
        row = self._without_loss(source)
        return None if isinstance(row, RecbatchError) else row


def exact_settings(settings: Settings) -> Settings:
    """What the rows without loss of a lossy job are made by; they have no preview, which would need a third model."""
    return Settings(
        mode="lossless",
        preview=False,
        keep_originals=settings.keep_originals,
        effort=settings.effort,
        max_pixels=settings.max_pixels,
    )


def is_drawn(pixels_HWC: NDArray[np.uint8], estimate: float) -> bool:
    """Whether an estimate says that a picture is no photograph."""
    return estimate < (DRAWN_BPP if pixels_HWC.shape[2] == 3 else DRAWN_GREY_BPP)


def estimated_bpp(pixels_HWC: NDArray[np.uint8]) -> float:
    """About the bits per pixel of a lossless stream, alpha apart: the entropy of what a simple predictor leaves.

    Each channel (green, red - green, blue - green) is predicted from its left, upper and upper left neighbours; the
    residuals are counted by how much these neighbours differ, since flat parts cost next to nothing. The price of
    learning each count is in it. Of a large picture only some bands of rows are looked at.

    Source: the predictor of Weinberger, Seroussi, Sapiro 2000, LOCO-I, section III-A.
    """
    height, width, _ = pixels_HWC.shape
    step = max(1, height * width // SAMPLED_PIXELS)
    sample_HWC = pixels_HWC[np.arange(height) // BAND_ROWS % step == 0]
    counts_CKV = _count_residuals(np.ascontiguousarray(sample_HWC))
    bits = 0.0
    for counts_V in counts_CKV.reshape(-1, 256):
        seen = counts_V[counts_V > 0].astype(np.float64)
        total = float(seen.sum())
        if total:
            bits += total * math.log2(total) - float((seen * np.log2(seen)).sum())
            bits += 0.5 * seen.size * math.log2(total + 1)
    return float(bits / (sample_HWC.shape[0] * width))


@njit(cache=True)
def _count_residuals(pixels_HWC: Any) -> Any:
    """Counts [C, K, V] of residuals modulo 256, by channel and by the neighbours' unrest over all channels."""
    height, width, channels = pixels_HWC.shape
    counts_CKV = np.zeros((channels, CONTEXTS, 256), np.int64)
    rows = np.zeros(
        (2, width + 1, channels), np.int32
    )  # this row and the one above; column 0 stands for the left edge
    for i in range(height):
        now, above = i % 2, 1 - i % 2
        for c in range(channels):
            rows[now, 0, c] = rows[above, 1, c]
        for j in range(width):
            unrest = 0
            for c in range(channels):
                unrest += abs(rows[now, j, c] - rows[above, j, c])
                unrest += abs(rows[above, j + 1, c] - rows[above, j, c])
            context = 0
            while unrest > 0 and context < CONTEXTS - 1:
                unrest >>= 1
                context += 1
            green = np.int32(pixels_HWC[i, j, 1]) if channels == 3 else np.int32(0)
            for c in range(channels):
                value = np.int32(pixels_HWC[i, j, c])
                if c != 1:
                    value -= green
                left, up, corner = rows[now, j, c], rows[above, j + 1, c], rows[above, j, c]
                if corner >= max(left, up):
                    guess = min(left, up)
                elif corner <= min(left, up):
                    guess = max(left, up)
                else:
                    guess = left + up - corner
                counts_CKV[c, context, (value - guess) & 255] += 1
                rows[now, j + 1, c] = value
    return counts_CKV
