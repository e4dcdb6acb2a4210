"""The worst images of a lossy run: source and restoration side by side, where they differ most, pixel by pixel."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recbatch.errors import RecbatchError

if TYPE_CHECKING:
    from PIL import Image

    from recbatch.api.archives import Archive
    from recbatch.api.page_sums import Row

CROP = 240  # pixels of a side; shown one to one
THUMB = 480
BLOCK = 8  # errors are summed over blocks of this side before the worst window is looked for
MAX_PIXELS = 60_000_000  # larger ones would take the page minutes
BUDGET_BYTES = 4_000_000  # of all pictures of a page, before base64


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """One image with its pictures as data URIs; ``problem`` says why some are missing."""

    row: Row
    whole: str = ""  # the restored image, small
    frame: tuple[float, float, float, float] = (
        0,
        0,
        0,
        0,
    )  # of the crop within it: x, y, width, height in per cent
    source: str = ""
    restored: str = ""
    crop: tuple[int, int] = (0, 0)  # width and height
    problem: str = ""


def pictures(opened: Archive, rows: list[Row], *, sources: bool) -> list[Worst]:
    """The rows with their pictures, as many as the budget of bytes allows."""
    left, found = BUDGET_BYTES, []
    for row in rows:
        worst = one(opened, row, sources=sources)
        size = sum(len(uri) * 3 // 4 for uri in (worst.whole, worst.source, worst.restored))
        if size > left:
            worst = Worst(row=row, problem="The page is large enough without its pictures.")
            size = 0
        left -= size
        found.append(worst)
    return found


def one(opened: Archive, row: Row, *, sources: bool) -> Worst:
    if row.width * row.height > MAX_PIXELS:
        return Worst(
            row=row, problem=f"Its pictures are left out: it has over {MAX_PIXELS // 1_000_000} megapixels."
        )
    try:
        restored = opened.image(row.key).convert("RGB")
    except RecbatchError as error:
        return Worst(row=row, problem=f"It can't be restored: {error}")
    whole = small(restored)
    if not sources:
        return Worst(row=row, whole=whole, problem="Sources were not to be read.")
    try:
        source, problem = source_of(opened, row.key)
    except (RecbatchError, OSError) as error:
        return Worst(row=row, whole=whole, problem=f"Its source can't be read: {error}")
    if source is None or source.size != restored.size:
        return Worst(row=row, whole=whole, problem=problem or "Its source has another size now.")
    x, y, width, height = worst_place(source, restored)
    box = (x, y, x + width, y + height)
    scale = (100 / restored.width, 100 / restored.height)
    return Worst(
        row=row,
        whole=whole,
        frame=(x * scale[0], y * scale[1], width * scale[0], height * scale[1]),
        source=data_uri(source.crop(box), lossless=True),
        restored=data_uri(restored.crop(box), lossless=True),
        crop=(width, height),
    )


def source_of(opened: Archive, key: str) -> tuple[Image.Image | None, str]:
    """The source of an image, as it was archived; else None, and why."""
    from recbatch.engine.source import Item, read_item
    from recbatch.images import read_picture, to_pil

    row = opened.record(key, ["source_uri", "source_size", "source_mtime", "source_etag", "source_sha256"])
    item = Item(
        key=key,
        uri=row.source_uri or "",
        size=row.source_size or 0,
        mtime_ns=row.source_mtime or 0,
        etag=row.source_etag or "",
    )
    data = read_item(item).data
    if row.source_sha256 is not None and hashlib.sha256(data).digest() != row.source_sha256:
        return None, "Its source has changed since it was archived."
    return to_pil(read_picture(data, max_pixels=MAX_PIXELS, convert=True)).convert("RGB"), ""


def worst_place(source: Image.Image, restored: Image.Image) -> tuple[int, int, int, int]:
    """The window of at most ``CROP`` pixels a side with the largest squared error: x, y, width, height."""
    import numpy as np

    height, width = source.height, source.width
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    error_RC = np.zeros((rows, columns))
    for row in range(rows):  # a strip at a time: a large image's differences are larger still
        box = (0, row * BLOCK, width, min(height, (row + 1) * BLOCK))
        strip = np.asarray(source.crop(box), np.int32) - np.asarray(restored.crop(box), np.int32)
        by_column = (strip.astype(np.float64) ** 2).sum(axis=(0, 2))
        error_RC[row] = np.add.reduceat(by_column, np.arange(0, width, BLOCK))
    span_R, span_C = min(rows, CROP // BLOCK), min(columns, CROP // BLOCK)
    sums = np.pad(error_RC.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    windows = (
        sums[span_R:, span_C:] - sums[:-span_R, span_C:] - sums[span_R:, :-span_C] + sums[:-span_R, :-span_C]
    )
    y, x = (BLOCK * int(place) for place in np.unravel_index(int(windows.argmax()), windows.shape))
    crop_width, crop_height = min(CROP, width), min(CROP, height)
    return min(x, width - crop_width), min(y, height - crop_height), crop_width, crop_height


def small(image: Image.Image) -> str:
    copy = image.copy()
    copy.thumbnail((THUMB, THUMB))
    return data_uri(copy, lossless=False)


def data_uri(image: Image.Image, *, lossless: bool) -> str:
    """WebP, which every browser reads; crops must show what is there and nothing else, so they lose nothing."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"lossless": True, "quality": 50} if lossless else {"quality": 80}
    image.save(buffer, "WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
