"""Rate and quality of the lossy codec, everything counted, beside other codecs' curves.

Definitions are those of the anchor file: bpp is of complete files, PSNR and MS-SSIM over all 8-bit channels of what
is decoded from the file's bytes, each a mean over images; MS-SSIM in dB is taken after the mean.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recbatch.bench.archive_bytes import ArchiveBytes, archive_bytes
from recbatch.bench.bd import (
    MS_SSIM_RANGES,
    PSNR_RANGES,
    BdRate,
    Curve,
    Point,
    bd_rate,
    decibels,
    load_anchors,
)
from recbatch.bench.inputs import Image, load_images, load_weights
from recbatch.codec import Encoded, ImageCodec, Settings, Source
from recbatch.codec.quality import psnr
from recbatch.errors import RecbatchError
from recbatch.images import to_pil
from recbatch.models import weights

DEFAULT_LEVELS = (0, 4, 9, 14, 18, 22, 27)
JPEG_QUALITIES = (5, 8, 10, 15, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95, 98)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """One image at one level."""

    image: str
    level: float
    pixels: int
    file_bytes: int
    kl_bits: float
    index_bits: int
    symbol_bits: int
    side_bits: int  # all that is neither index nor symbol: header, digests, checksum, padding
    psnr: float
    ms_ssim: float | None

    @property
    def bpp(self) -> float:
        return 8 * self.file_bytes / self.pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRow:
    """One level, means over images."""

    level: float
    bpp: float  # of .rec files
    archive_bpp: float | None  # of all files of an archive of these images, the weights apart
    kl_bpp: float
    psnr: float
    ms_ssim: float | None
    ms_ssim_db: float | None
    overhead: float  # file bits over KL bits, minus one
    side_share: float  # of the file's bits
    seconds: float  # encoding, decoding again and measuring
    archive: ArchiveBytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """BD-rates against one curve, by metric and range; None where they share too little."""

    anchor: str
    measured: bool
    psnr: tuple[BdRate | None, ...]  # one for each of PSNR_RANGES
    ms_ssim: tuple[BdRate | None, ...]
    archive_psnr: tuple[BdRate | None, ...]  # the same from archive bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageComparison:
    """One image's BD-rate (PSNR) against JPEG 4:2:0 of the same image, made here."""

    image: str
    psnr: tuple[BdRate | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossyResult:
    """The benchmark's tables."""

    model: str
    digest: str
    weights_bytes: int
    coder: str
    effort: int
    images: int
    levels: tuple[LevelRow, ...]
    rows: tuple[ImageRow, ...]
    comparisons: tuple[Comparison, ...]
    per_image: tuple[ImageComparison, ...]

    @property
    def worst(self) -> ImageComparison | None:
        """The image that gains least on JPEG, in the first range that it covers."""
        return next(iter(self.hardest(1)), None)

    def hardest(self, count: int | None = None) -> list[ImageComparison]:
        """So many of the images that gain least on JPEG, the worst first; None: all that can be compared."""
        scored = [(first.percent, row) for row in self.per_image if (first := _first(row.psnr)) is not None]
        return [row for _, row in sorted(scored, key=lambda pair: -pair[0])[:count]]

    def curve(self, *, archive: bool = False) -> Curve:
        """The mean curve, from .rec files or from archive bytes."""
        points = [
            Point(bpp=bpp, psnr=row.psnr, ms_ssim=row.ms_ssim)
            for row in self.levels
            if (bpp := row.archive_bpp if archive else row.bpp) is not None
        ]
        return Curve(name="recbatch (archive)" if archive else "recbatch", points=tuple(points))

    def to_dict(self) -> dict[str, Any]:
        worst = self.worst
        return {**asdict(self), "worst": None if worst is None else worst.image}


def lossy_benchmark(
    folders: str | Path | Sequence[str | Path],
    *,
    model: str = "photo-s2",
    levels: Sequence[float] = DEFAULT_LEVELS,
    coder: str = "trellis",
    effort: int = 5,
    anchors: str | Path | None = None,
    images: int | None = None,
    archive: bool = True,
    progress: Progress | None = None,
) -> LossyResult:
    """Encode each image at each level, decode it from its bytes, and compare the mean curve with the anchors.

    Args:
        folders: of image files; with several of them an image is named by its folder, too.
        model: a model of the package, or the path of a .safetensors file.
        anchors: a JSON file of other codecs' curves on the same images; without it nothing is compared but JPEG.
        images: only so many of each folder, spread over it.
        archive: write the rows of each level into a real archive in a temporary folder too, and count its bytes.

    Raises:
        NoImages, UnknownModel, BadAnchors, BadSetting.
    """
    say = progress or (lambda _: None)
    curves = load_anchors(anchors) if anchors is not None else []
    chosen = joined_images(folders, images)
    data = load_weights(model)
    digest = weights.digest(data).hex()
    rows: list[ImageRow] = []
    level_rows: list[LevelRow] = []
    for level in levels:
        settings = Settings(level=level, coder=coder, effort=effort, keep_originals="never")
        codec = ImageCodec(settings, weights=[data])
        start = time.perf_counter()
        encoded = [_encode(codec, image) for image in chosen]
        seconds = time.perf_counter() - start
        mine = [_image_row(image, one) for image, one in zip(chosen, encoded, strict=True)]
        stored = archive_bytes(chosen, encoded, data) if archive else None
        rows += mine
        level_rows.append(_level_row(level, mine, stored, seconds))
        say(f"level {level:g}: {level_rows[-1].bpp:.4f} bpp, PSNR {level_rows[-1].psnr:.3f} dB")
    result = LossyResult(
        model=model,
        digest=digest,
        weights_bytes=len(data),
        coder=coder,
        effort=effort,
        images=len(chosen),
        levels=tuple(level_rows),
        rows=tuple(rows),
        comparisons=(),
        per_image=tuple(_against_jpeg(image, rows) for image in chosen),
    )
    return _compared(result, curves)


def joined_images(folders: str | Path | Sequence[str | Path], limit: int | None = None) -> list[Image]:
    """The images of all folders, one after another. Raises NoImages."""
    if isinstance(folders, (str, Path)):
        return load_images(folders, limit)
    if len(folders) == 1:
        return load_images(folders[0], limit)
    return [
        replace(image, name=f"{Path(folder).resolve().name}/{image.name}")
        for folder in folders
        for image in load_images(folder, limit)
    ]


def _encode(codec: ImageCodec, image: Image) -> Encoded:
    (result,) = codec.encode([Source(name=image.name, data=image.data)])
    if isinstance(result, RecbatchError):
        raise result
    return result


def _image_row(image: Image, one: Encoded) -> ImageRow:
    assert one.psnr is not None  # for the type checker: the lossy codec always measures
    return ImageRow(
        image=image.name,
        level=one.level,
        pixels=image.pixels,
        file_bytes=len(one.stream),
        kl_bits=one.kl_bits,
        index_bits=one.index_bits,
        symbol_bits=one.symbol_bits,
        side_bits=one.side_bits,
        psnr=one.psnr,
        ms_ssim=one.ms_ssim,
    )


def _level_row(
    level: float, rows: Sequence[ImageRow], stored: ArchiveBytes | None, seconds: float
) -> LevelRow:
    bits = sum(8 * row.file_bytes for row in rows)
    ms_ssims = [row.ms_ssim for row in rows if row.ms_ssim is not None]
    ms_ssim = float(np.mean(ms_ssims)) if len(ms_ssims) == len(rows) else None
    bpp = float(np.mean([row.bpp for row in rows]))
    return LevelRow(
        level=level,
        bpp=bpp,
        archive_bpp=None
        if stored is None
        else bpp * 8 * stored.total / bits,  # shared as the files' bytes are
        kl_bpp=float(np.mean([row.kl_bits / row.pixels for row in rows])),
        psnr=float(np.mean([row.psnr for row in rows])),
        ms_ssim=ms_ssim,
        ms_ssim_db=None if ms_ssim is None else decibels(ms_ssim),
        overhead=bits / sum(row.kl_bits for row in rows) - 1,
        side_share=sum(row.side_bits for row in rows) / bits,
        seconds=seconds,
        archive=stored,
    )


def _compared(result: LossyResult, curves: Sequence[Curve]) -> LossyResult:
    mine, stored = result.curve(), result.curve(archive=True)
    comparisons = [
        Comparison(
            anchor=anchor.name,
            measured=anchor.measured,
            psnr=tuple(bd_rate(mine, anchor, bounds=bounds) for bounds in PSNR_RANGES),
            ms_ssim=tuple(
                bd_rate(mine, anchor, metric="ms_ssim_db", bounds=bounds) for bounds in MS_SSIM_RANGES
            ),
            archive_psnr=tuple(bd_rate(stored, anchor, bounds=bounds) for bounds in PSNR_RANGES),
        )
        for anchor in curves
    ]
    return replace(result, comparisons=tuple(comparisons))


def _against_jpeg(image: Image, rows: Sequence[ImageRow]) -> ImageComparison:
    points = tuple(Point(bpp=row.bpp, psnr=row.psnr) for row in rows if row.image == image.name)
    mine, jpeg = Curve(name="recbatch", points=points), jpeg_curve(image)
    return ImageComparison(
        image=image.name, psnr=tuple(bd_rate(mine, jpeg, bounds=bounds) for bounds in PSNR_RANGES)
    )


def jpeg_curve(image: Image) -> Curve:
    """JPEG 4:2:0 with optimised tables, as the anchor file's ``jpeg-420``, on one image."""
    from PIL import Image as Pillow

    picture = to_pil(image.picture).convert("RGB" if image.picture.pixels.shape[2] == 3 else "L")
    points = []
    for quality in JPEG_QUALITIES:
        out = io.BytesIO()
        picture.save(out, format="JPEG", quality=quality, optimize=True, subsampling="4:2:0")
        restored = np.asarray(Pillow.open(out))
        error = psnr(image.picture.pixels, restored.reshape(image.picture.pixels.shape))
        points.append(Point(bpp=8 * out.getbuffer().nbytes / image.pixels, psnr=error))
    return Curve(name="jpeg-420", points=tuple(points))


def _first(rates: Sequence[BdRate | None]) -> BdRate | None:
    return next((rate for rate in rates if rate is not None), None)
