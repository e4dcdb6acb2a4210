"""Pictures of any size through networks of bounded reach: in pieces that overlap by more than the reach.

Float networks run tile by tile, cut in both directions; networks on the grid of latents run band by band. A piece's
outer part, the halo, is computed and thrown away, so the cut changes nothing but the rounding of floats, and nothing
at all of integers. What fits one piece is never cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from recbatch.models.freed import return_freed_memory

STRIDE = 64  # pixels; tiles begin at multiples of this, as the coarsest grid asks
HALO = 80  # pixels; analysis reaches 70 to each side, synthesis 76
BAND_CELLS = 15_625  # of a grid that is never cut in bands: those of the latents of four megapixels


@dataclass(frozen=True, slots=True)
class Span:
    """One direction of a tile: low..high is computed; of that, first..end is the tile's own."""

    low: int
    high: int
    first: int
    end: int

    @property
    def window(self) -> slice:
        """What is computed."""
        return slice(self.low, self.high)

    @property
    def own(self) -> slice:
        """What is kept, in the picture."""
        return slice(self.first, self.end)

    @property
    def inner(self) -> slice:
        """What is kept, in the window."""
        return slice(self.first - self.low, self.end - self.low)

    def over(self, stride: int) -> Span:
        """The same on a grid so many times as coarse."""
        return Span(self.low // stride, self.high // stride, self.first // stride, self.end // stride)

    def until(self, length: int) -> Span:
        """The same, but what is kept ends at ``length``: a picture without its padding."""
        return Span(self.low, self.high, self.first, max(self.first, min(self.end, length)))


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of a picture with its surroundings."""

    y: Span
    x: Span

    @property
    def rows(self) -> int:
        """Of its own."""
        return self.y.end - self.y.first

    @property
    def columns(self) -> int:
        """Of its own."""
        return self.x.end - self.x.first

    def over(self, stride: int) -> Tile:
        return Tile(self.y.over(stride), self.x.over(stride))


def spans(length: int, count: int, *, halo: int, stride: int) -> list[Span]:
    """Cut a length into so many even parts or fewer; they begin at multiples of the stride."""
    steps = -(-length // stride)
    count = min(count, steps)
    edges = [min(length, stride * (steps * n // count)) for n in range(count)] + [length]
    return [Span(max(0, a - halo), min(length, b + halo), a, b) for a, b in pairwise(edges)]


def tiles(height: int, width: int, pixels: int, *, halo: int = HALO, stride: int = STRIDE) -> list[Tile]:
    """Cut a picture into tiles of about so many pixels of their own, along as little seam as possible.

    A picture of no more pixels than that is one tile. The cut depends on the size alone, so the same picture always
    gives the same stream.
    """
    rows, columns = _counts(height, width, pixels, stride)
    return [
        Tile(y, x)
        for y in spans(height, rows, halo=halo, stride=stride)
        for x in spans(width, columns, halo=halo, stride=stride)
    ]


def _counts(height: int, width: int, pixels: int, stride: int) -> tuple[int, int]:
    """Numbers of rows and columns of tiles: of those that make tiles small enough, those with the shortest seam."""
    best, shortest = (1, 1), None
    if height * width <= pixels:
        return best
    most = -(-width // stride)
    for columns in range(1, most + 1):
        tile_width = stride * -(-most // columns)  # of the widest
        tile_height = max(stride, pixels // tile_width // stride * stride)
        rows = -(-height // tile_height)
        seam = (rows - 1) * width + (columns - 1) * height
        if tile_width * stride > pixels and columns < most:
            continue  # even the lowest tile is too large
        if shortest is None or seam < shortest:
            best, shortest = (rows, columns), seam
        if rows == 1:
            break
    return best


def banded(
    network: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    *,
    halo: int,
    stride: int = 1,
    cells: int = BAND_CELLS,
) -> tuple[Tensor, ...]:
    """Outputs of a network over bands of rows, put together again.

    Args:
        network: takes the inputs' rows and gives tensors [B, ?, h, w], each on a grid that is a whole
            number of times as fine as theirs, or up to ``stride`` times as coarse.
        inputs: tensors [B, ?, h, w] of one height and width.
        halo: rows that the network looks at to each side, a multiple of ``stride``.
        stride: bands begin at multiples of this.
        cells: rows times columns that are never cut; a band without its halo has half of them, about.
    """
    height, width = inputs[0].shape[2:]
    if height * width <= cells:
        return network(*inputs)
    rows = max(stride, cells // (2 * width) // stride * stride)
    whole: list[Tensor] = []
    for span in spans(height, -(-height // rows), halo=halo, stride=stride):
        found = network(*(x[:, :, span.window] for x in inputs))
        if not whole:
            whole = [_room(part, height, span) for part in found]
        for out, part in zip(whole, found, strict=True):
            # an output's rows per row of the inputs, as a fraction
            up, down = part.shape[2], span.high - span.low
            first, end, low = (at * up // down for at in (span.first, span.end, span.low))
            out[:, :, first:end] = part[:, :, first - low : end - low]
    del found, part
    return_freed_memory()  # a band's temporaries are as large as what is kept of all bands
    return tuple(whole)


def _room(part: Tensor, height: int, span: Span) -> Tensor:
    shape = list(part.shape)
    shape[2] = shape[2] * height // (span.high - span.low)
    return torch.empty(shape, dtype=part.dtype, device=part.device)
