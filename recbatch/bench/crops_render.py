"""Crops as a page that needs no other file, and as one sheet; no pixel of them is scaled or coded with loss."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from recbatch.bench.crops import SIDE, Cell, CropResult, CropRow

GAP, MARGIN, TITLE, CAPTION = 6, 16, 26, 40
PAPER, INK, FAINT = (250, 250, 248), (24, 24, 24), (110, 110, 110)
STYLE = (
    "body{font:14px/1.4 sans-serif;margin:24px;background:#fafaf8;color:#181818}"
    "h2{font-size:15px;margin:24px 0 6px}div.row{display:flex;gap:6px;flex-wrap:wrap}"
    f"figure{{margin:0;width:{SIDE}px}}img{{width:{SIDE}px;height:{SIDE}px;image-rendering:pixelated}}"
    "figcaption{font-size:11px;color:#555}"
)


def crops_page(result: CropResult) -> str:
    """A whole HTML document; images are lossless WebP inside it."""
    rows = "\n".join(_section(row) for row in result.rows)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Crops at equal bytes</title>\n'
        f"<style>{STYLE}</style></head><body>\n<h1>Crops at equal bytes</h1>\n"
        f"<p>{html.escape(_subtitle(result))}</p>\n{rows}\n</body></html>\n"
    )


def crops_sheet(result: CropResult) -> Image.Image:
    """All rows on one picture."""
    columns = max(len(row.cells) for row in result.rows)
    width = 2 * MARGIN + columns * (SIDE + GAP) - GAP
    height = 2 * MARGIN + TITLE + len(result.rows) * (TITLE + SIDE + CAPTION)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    medium, small = ImageFont.load_default(13), ImageFont.load_default(11)
    pen.text((MARGIN, MARGIN), _subtitle(result), fill=FAINT, font=small)
    for place, row in enumerate(result.rows):
        top = MARGIN + TITLE + place * (TITLE + SIDE + CAPTION)
        pen.text((MARGIN, top + 4), row.title(), fill=INK, font=medium)
        for column, cell in enumerate(row.cells):
            left = MARGIN + column * (SIDE + GAP)
            sheet.paste(Image.fromarray(cell.crop), (left, top + TITLE))
            pen.text((left, top + TITLE + SIDE + 2), "\n".join(cell.caption()), fill=FAINT, font=small)
    return sheet


def save_sheet(result: CropResult, path: str | Path) -> None:
    """The sheet as PNG."""
    crops_sheet(result).save(path, format="PNG", optimize=True)


def _subtitle(result: CropResult) -> str:
    return (
        f"Every codec's file is at most as large as that of recbatch ({result.model}, {result.digest[:12]}). "
        "Figures are of whole images, crops are at their true size."
    )


def _section(row: CropRow) -> str:
    figures = "".join(_figure(cell) for cell in row.cells)
    return f'<h2>{html.escape(row.title())}</h2>\n<div class="row">{figures}</div>'


def _figure(cell: Cell) -> str:
    out = io.BytesIO()
    Image.fromarray(cell.crop).save(out, format="WEBP", lossless=True)
    data = base64.b64encode(out.getvalue()).decode("ascii")
    caption = "<br>".join(html.escape(line) for line in cell.caption())
    alt = html.escape(cell.codec, quote=True)
    return f'<figure><img alt="{alt}" src="data:image/webp;base64,{data}"><figcaption>{caption}</figcaption></figure>'
