"""A whole lossless stream: from bytes to pixels, the digest compared.

Shapes: H x W pixels, C = 3 colours or 1 grey.
"""

from dataclasses import dataclass

import numpy as np

from . import ancillary, container, stream, webp
from .alpha import read_alpha
from .digests import array_bytes, short_digest
from .errors import Unsupported, require
from .mixtures import TUNED, Lane, read_block, tuned
from .stages import HIGHEST, LOWEST, STAGES, VARIANTS, LosslessWeights, Stage, Variant, phase_of
from .weights import Weights

TILE, BAND = 2048, 64
LANES, LANES_FROM = 4, 2**14
TUNED_LEVELS = 3


@dataclass(frozen=True)
class Image:
    """What a stream restores."""

    header: container.Header
    pixels_HWC: np.ndarray
    alpha_HW: np.ndarray | None


def decode(data: bytes, weights: LosslessWeights, lossy: Weights | None = None) -> Image:
    """Pixels of a stream, proven by their digest; `lossy` is the model of its preview."""
    header, sections = container.parse(data)
    if container.PIXELS in sections:
        return proven(header, sections, webp_pixels(header, sections[container.PIXELS]))
    if header.codec != container.LOSSLESS or header.model != weights.digest[:4]:
        raise Unsupported("another codec or model")
    height, width = header.height, header.width
    name = VARIANTS[header.level] if header.level < len(VARIANTS) else ""
    require(name in weights.variants, "variant")
    variant = weights.variants[name]
    require(variant.preview == (container.LATENTS in sections), "variant and preview contradict each other")
    preview = None
    if variant.preview:
        assert lossy is not None
        preview = preview_planes(sections[container.LATENTS], header, weights, lossy)
    cuts = tiles(height, width)
    pixels_HWC = np.zeros((height, width, 3 if header.mode.startswith("RGB") else 1), np.int64)
    for (rows, columns), code in zip(cuts, joined(sections[container.RESIDUAL], len(cuts)), strict=True):
        part = pixels_HWC[rows, columns]
        hint = None if preview is None else preview[:, rows, columns]
        part[...] = decode_tile(code, part.shape, weights, variant, hint)
    return proven(header, sections, pixels_HWC)


def webp_pixels(header: container.Header, section: bytes) -> np.ndarray:
    """Pixels [H, W, C] that need no model."""
    cuts = tiles(header.height, header.width)
    pixels_HWC = np.zeros((header.height, header.width, 3), np.int64)
    for (rows, columns), code in zip(cuts, joined(section, len(cuts)), strict=True):
        part = pixels_HWC[rows, columns]
        part[...] = webp.decode_tile(code, part.shape[0], part.shape[1])
    return pixels_HWC if header.mode.startswith("RGB") else pixels_HWC[:, :, :1]


def proven(header: container.Header, sections: dict[int, bytes], pixels_HWC: np.ndarray) -> Image:
    """The image of these pixels, if they have the stream's digest."""
    height, width = header.height, header.width
    alpha_HW: np.ndarray | None = None
    digested = array_bytes(pixels_HWC, "u1")
    if container.ALPHA in sections:
        ancillary.check_alpha(sections[container.ALPHA], width, height)
        alpha_HW = read_alpha(sections[container.ALPHA], width, height)
        digested += alpha_HW.tobytes()
    require(short_digest(digested) == header.pixels_digest, "pixels digest")
    return Image(header, pixels_HWC, alpha_HW)


def preview_planes(
    data: bytes, outer: container.Header, weights: LosslessWeights, lossy: Weights
) -> np.ndarray:
    """The preview's planes [3, H, W]."""
    header, _ = container.parse(data)
    require(header.codec == container.LOSSY, "preview is not lossy")
    require((header.width, header.height) == (outer.width, outer.height), "preview of another size")
    assert weights.synthesis is not None
    require(header.model == weights.synthesis.latents_of, "preview by another model")
    y_Mhw = stream.decode(data, lossy).y_MHW
    return weights.synthesis.planes(y_Mhw)[:, : outer.height, : outer.width]


def tiles(height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of every tile, in order."""
    down, across = -(-height // TILE), -(-width // TILE)
    return [
        (
            slice(height * i // down, height * (i + 1) // down),
            slice(width * j // across, width * (j + 1) // across),
        )
        for i in range(down)
        for j in range(across)
    ]


def joined(data: bytes, count: int) -> list[bytes]:
    """Parts of which all lengths but the last stand in front."""
    reader = container.Reader(data)
    lengths = [reader.varint() for _ in range(count - 1)]
    require(sum(lengths) <= reader.left, "a part's length")
    return [*(reader.take(length) for length in lengths), reader.take(reader.left)]


def decode_tile(
    code: bytes,
    shape: tuple[int, int, int],
    weights: LosslessWeights,
    variant: Variant,
    preview_3HW: np.ndarray | None,
) -> np.ndarray:
    """Pixels of a tile [H, W, C]."""
    height, width, colours = shape
    require(len(code) >= colours, "a tile without a first pixel")
    count = LANES if height * width >= LANES_FROM else 1
    reader = container.Reader(code[colours:])
    tunings = read_tunings(reader)
    lanes = [Lane(part) for part in joined(reader.take(reader.left), count)]
    planes_3HW = np.zeros((3, height, width), np.int64)
    planes_3HW[:, 0, 0] = first_pixel(code[:colours])
    for level in range((max(height, width) - 1).bit_length() - 1, -1, -1):
        here = planes_3HW[:, :: 2**level, :: 2**level]
        seen = None if preview_3HW is None else preview_3HW[:, :: 2**level, :: 2**level]
        for number, (_, phase, _) in enumerate(STAGES):
            if phase_of(here, phase).size:
                stage = Stage(weights, variant, here, seen, level, number)
                numbers = tunings[min(level, TUNED_LEVELS), number]
                fill(stage, phase_of(here, phase)[:colours], lanes, numbers)
    for lane in lanes:
        lane.finish()
    return to_pixels(planes_3HW, colours)


def read_tunings(reader: container.Reader) -> np.ndarray:
    """Numbers [4, 3, 3, 18] by level, stage, component; those of level 3 are zeros, and serve all further levels."""
    mask = reader.varint()
    require(mask < 1 << TUNED_LEVELS * 9, "mask of tuned planes")
    numbers = np.zeros((9 * (TUNED_LEVELS + 1), TUNED), np.int64)
    for plane in range(9 * TUNED_LEVELS):
        if mask >> plane & 1:
            numbers[plane] = np.frombuffer(reader.take(TUNED), np.int8)
    return numbers.reshape(TUNED_LEVELS + 1, 3, 3, TUNED)


def fill(stage: Stage, target_CRS: np.ndarray, lanes: list[Lane], tuning_C18: np.ndarray) -> None:
    """Read all values of a phase, into ``target_CRS``."""
    for first in range(0, target_CRS.shape[1], BAND):
        rows, done = slice(first, first + BAND), []
        for c in range(len(target_CRS)):
            raw, base = tuned(stage.raw(rows, done), tuning_C18[c]), stage.base_3RS[c, rows]
            done.append(read_block(lanes, raw, base, (LOWEST[c], HIGHEST), stage.weights.law))
            target_CRS[c, rows] = done[-1]


def first_pixel(values: bytes) -> tuple[int, int, int]:
    """Y, Co, Cg of a pixel that is stored as it is."""
    if len(values) == 1:
        return values[0], 0, 0
    red, green, blue = values
    co = red - blue
    t = blue + (co >> 1)
    cg = green - t
    return t + (cg >> 1), co, cg


def to_pixels(planes_3HW: np.ndarray, colours: int) -> np.ndarray:
    """Planes to pixels [H, W, C]."""
    y, co, cg = planes_3HW
    if colours == 1:
        return y[:, :, None] & 255
    t = y - (cg >> 1)
    blue = t - (co >> 1)
    return np.stack([blue + co, cg + t, blue], axis=-1) & 255
