"""Kinds of pictures that learned codecs are known to be bad at: ours beside JPEG, WebP, JPEG XL and AVIF.

Text, drawings, screenshots, charts, pixel art and the like, made by script (``pictures``). For each picture: rate at
equal PSNR and at equal MS-SSIM (BD-rate over all that two curves share), and the bytes of lossless codecs, which on
many of these pictures are fewer than those of any lossy one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recbatch.bench.bd import BdRate, Curve, Point, bd_rate
from recbatch.bench.inputs import Image, NoImages, load_weights
from recbatch.bench.kinds_codecs import RIVALS, lossless_bytes, save
from recbatch.bench.pictures import Drawing, pictures
from recbatch.codec import Encoded, ImageCodec, Settings, Source
from recbatch.codec.quality import PSNR_OF_EQUAL
from recbatch.errors import RecbatchError
from recbatch.images import read_picture
from recbatch.models import weights

DEFAULT_LEVELS = (4, 12, 20, 28)
METRICS = {"psnr": "PSNR", "ms_ssim_db": "MS-SSIM"}
OURS = "recbatch"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRow:
    """One picture by all codecs."""

    picture: str
    width: int
    height: int
    ours: Curve  # a point for each level, in their order
    others: tuple[Curve, ...]
    lossless: Mapping[str, int]  # bytes of complete files, ours first

    def against(self, other: str, metric: str) -> BdRate | None:
        """Our bits over the other's at equal quality, over all that the two curves share; None: under 1 dB."""
        anchor = next(curve for curve in self.others if curve.name == other)
        return bd_rate(self.ours, anchor, metric=metric)

    @property
    def lossless_bpp(self) -> float:
        return 8 * self.lossless[OURS] / (self.width * self.height)


@dataclass(frozen=True, slots=True, kw_only=True)
class KindsResult:
    """The benchmark's tables."""

    model: str
    digest: str
    coder: str
    effort: int
    levels: tuple[float, ...]
    rows: tuple[PictureRow, ...]

    def worst(self, other: str, metric: str = "psnr") -> tuple[str, BdRate] | None:
        """The picture on which we lose most to another codec."""
        rated = [(row.picture, rate) for row in self.rows if (rate := row.against(other, metric)) is not None]
        return max(rated, key=lambda pair: pair[1].percent, default=None)

    def to_dict(self) -> dict[str, Any]:
        rates = {
            row.picture: {
                metric: {curve.name: row.against(curve.name, metric) for curve in row.others}
                for metric in METRICS
            }
            for row in self.rows
        }
        return {
            **asdict(self),
            "bd_rates": {
                picture: {
                    metric: {name: None if rate is None else asdict(rate) for name, rate in of_metric.items()}
                    for metric, of_metric in by_metric.items()
                }
                for picture, by_metric in rates.items()
            },
        }


def kinds_benchmark(
    photographs: str | Path | None = None,
    *,
    model: str = "photo-s2",
    levels: Sequence[float] = DEFAULT_LEVELS,
    coder: str = "trellis",
    effort: int = 5,
    only: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> KindsResult:
    """Make the pictures and code each by every codec, whole files, decoded from their bytes.

    Args:
        photographs: a folder with the demo's photographs; without it faces and the screenshot's inlay are left out.
        model: a model of the package, or the path of a .safetensors file.
        levels: rate levels of ours; three are the fewest that make a curve.
        only: names of pictures; None: all.

    Raises:
        NoImages, UnknownModel, BadSetting, MissingExtra.
    """
    say = progress or (lambda _: None)
    chosen = pictures(photographs, only=only)
    if not chosen:
        raise NoImages(str(photographs or "the set of pictures that are made"))
    data = load_weights(model)
    lossy = [
        ImageCodec(Settings(level=level, coder=coder, effort=effort, keep_originals="never"), weights=[data])
        for level in levels
    ]
    lossless = ImageCodec(Settings(mode="lossless", preview=False, keep_originals="never"))
    rows = []
    for drawing in chosen:
        rows.append(row_of(drawing, lossy, lossless))
        say(f"{drawing.name}: {', '.join(f'{p.bpp:.3f} bpp {p.psnr:.2f} dB' for p in rows[-1].ours.points)}")
    return KindsResult(
        model=model,
        digest=weights.digest(data).hex(),
        coder=coder,
        effort=effort,
        levels=tuple(levels),
        rows=tuple(rows),
    )


def row_of(drawing: Drawing, lossy: Sequence[ImageCodec], lossless: ImageCodec) -> PictureRow:
    """One picture by ours at each level, by ours without loss, and by all others."""
    image = image_of(drawing)
    points = []
    for codec in lossy:
        one = encode(codec, image)
        assert one.psnr is not None  # for the type checker: the lossy codec always measures
        if one.psnr < PSNR_OF_EQUAL:
            points.append(Point(bpp=8 * len(one.stream) / image.pixels, psnr=one.psnr, ms_ssim=one.ms_ssim))
    return PictureRow(
        picture=drawing.name,
        width=image.picture.width,
        height=image.picture.height,
        ours=Curve(name=OURS, points=tuple(points)),
        others=tuple(rival.curve(drawing.pixels_HWC) for rival in RIVALS),
        lossless={OURS: len(encode(lossless, image).stream), **lossless_bytes(drawing.pixels_HWC)},
    )


def image_of(drawing: Drawing) -> Image:
    data = save(drawing.pixels_HWC, "PNG", compress_level=1)
    return Image(name=drawing.name, data=data, picture=read_picture(data))


def encode(codec: ImageCodec, image: Image) -> Encoded:
    """One picture as a proved and measured row. Raises what its error is."""
    (result,) = codec.encode([Source(name=image.name, data=image.data)])
    if isinstance(result, RecbatchError):
        raise result
    return result
