"""Crops of some pictures, side by side at about equal bytes: the source, ours, WebP, JPEG.

Shapes: H height, W width, C channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from recbatch.bench.inputs import load_weights
from recbatch.bench.kinds import KindsResult, encode, image_of
from recbatch.bench.kinds_codecs import RIVALS, load, nearest
from recbatch.bench.pictures import Drawing, pictures
from recbatch.bench.pictures.brush import INK, WHITE, Pixels, font
from recbatch.codec import Decoder, ImageCodec, Settings
from recbatch.codec.quality import psnr

# picture -> left and top of its crop
SHOWN = {
    "text-page": (40, 70),
    "screenshot-photo": (380, 250),
    "chart-curves": (40, 130),
    "map": (300, 180),
    "text-scan": (60, 90),
    "face-astronaut": (120, 60),
}
SHOWN_RIVALS = ("webp-m4", "jpeg-420")
CROP = (192, 128)  # width, height
ZOOM = 2
GAP, HEAD = 8, 22


def kinds_plot(result: KindsResult, path: str | Path, photographs: str | Path | None = None) -> None:
    """Draw the crops into a file, ours at the second of the result's levels; PNG keeps them as they are."""
    level = result.levels[min(1, len(result.levels) - 1)]
    data = load_weights(result.model)
    settings = Settings(level=level, coder=result.coder, effort=result.effort, keep_originals="never")
    codec, decoder = ImageCodec(settings, weights=[data]), Decoder(lambda _: data)
    measured = {row.picture for row in result.rows}
    drawings = pictures(photographs, only=[name for name in SHOWN if name in measured])
    cells = [_row(drawing, codec, decoder) for drawing in drawings]
    wide, high = CROP[0] * ZOOM + GAP, CROP[1] * ZOOM + HEAD + GAP
    sheet = Image.new("RGB", (wide * (2 + len(SHOWN_RIVALS)) + GAP, high * max(1, len(cells)) + GAP), WHITE)
    draw = ImageDraw.Draw(sheet)
    for i, (drawing, row) in enumerate(zip(drawings, cells, strict=True)):
        for j, (label, pixels_HWC) in enumerate(row):
            place = GAP + wide * j, GAP + high * i
            draw.text(place, label, font=font(14), fill=INK)
            sheet.paste(_crop(pixels_HWC, SHOWN[drawing.name]), (place[0], place[1] + HEAD))
    sheet.save(path)


def _row(drawing: Drawing, codec: ImageCodec, decoder: Decoder) -> list[tuple[str, Pixels]]:
    """Label and pixels of the source, of ours, and of the others at the quality that gives most nearly our bytes."""
    source_HWC = drawing.pixels_HWC
    one = encode(codec, image_of(drawing))
    cells = [(drawing.name, source_HWC)]
    files = [("recbatch", one.stream, decoder.decode(one.stream).pixels)]
    for rival in (rival for rival in RIVALS if rival.name in SHOWN_RIVALS):
        _, data = nearest(rival, source_HWC, len(one.stream))
        files.append((rival.name, data, load(data, source_HWC.shape[2])))
    for name, data, pixels_HWC in files:
        cells.append(
            (f"{name}: {len(data) / 1000:.1f} kB, {psnr(source_HWC, pixels_HWC):.1f} dB", pixels_HWC)
        )
    return cells


def _crop(pixels_HWC: Pixels, place: tuple[int, int]) -> Image.Image:
    left, top = place
    part_HWC = pixels_HWC[top : top + CROP[1], left : left + CROP[0]]
    image = Image.fromarray(np.broadcast_to(part_HWC, (*part_HWC.shape[:2], 3)).copy())
    return image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.NEAREST)
