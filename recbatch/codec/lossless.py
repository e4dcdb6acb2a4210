"""The lossless codec: a preview by relative entropy coding, then every pixel under p(x | preview), and back.

Large images are cut into tiles, each coded by itself, which bounds memory; a tile's code is its first pixel, its
tuning and the lanes of ``recbatch.rec.mixtures``, filled in the order of ``recbatch.codec.lossless_walk``.

Shapes: B pictures of one size, H x W pixels, C = 3 colours or 1 grey.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from recbatch import stream
from recbatch.codec import lossless_walk, lossy
from recbatch.codec.lossless_walk import Values
from recbatch.codec.tuning import Tuning, tune
from recbatch.errors import CorruptStream
from recbatch.images import Picture, decode_alpha, encode_alpha, pack_metadata, parse_metadata
from recbatch.models.exact import exact_mode
from recbatch.models.lossless import geometry
from recbatch.models.lossless.folded import VARIANTS, LosslessModel
from recbatch.models.lossless.geometry import Integers
from recbatch.models.photo import PhotoModel
from recbatch.rec.base import Bits, Coder
from recbatch.rec.mixtures import Decoder, Encoder, Law

CODEC_LOSSLESS = stream.CODEC_LOSSLESS
SHARED_FROM = 1 << 17  # pixels of a tile that torch's threads share
TILE = 2048  # no tile is larger, each way
SMALL_PIXELS = 64 * 64  # up to here the variant for small images, and no preview
PREVIEW_SIDE = 64  # images with a smaller side have no preview
PREVIEW_PIXELS = 40_000_000  # nor have larger images: the lossy codec takes about 40 bytes a pixel


@dataclass(frozen=True, slots=True)
class Coded:
    """A stream and where its bits went."""

    data: bytes
    ideal_bits: float  # -log2 of the pixels' probability, and the preview's KL
    kl_bits: float  # of the preview's posterior from its prior
    preview: Bits  # of the preview's latents
    residual_bits: int  # of the code of the pixels


@dataclass(frozen=True, slots=True)
class PreviewMaker:
    """What previews are made with: the lossy model whose latents the lossless one knows, and a coder."""

    model: PhotoModel
    coder: Coder


def variant_of(model: LosslessModel, height: int, width: int, *, preview: bool) -> str:
    """Which networks code an image."""
    if preview:
        return "preview"
    return "small" if height * width <= SMALL_PIXELS and "small" in model.variants else "plain"


def has_preview(model: LosslessModel, height: int, width: int) -> bool:
    """Whether an image of this size gets a preview where one is asked for."""
    fits = min(height, width) >= PREVIEW_SIDE and height * width <= PREVIEW_PIXELS
    return fits and "preview" in model.variants and model.preview is not None


def encode(
    pictures: Sequence[Picture],
    recipes: Sequence[bytes],
    model: LosslessModel,
    previews: PreviewMaker | None = None,
) -> list[Coded]:
    """Encode pictures of one size and number of colours, previews first where ``previews`` says how.

    ``recipes`` rebuild the source files from the pixels (``recbatch.images.png``); b"" for none.
    """
    height, width, colours = pictures[0].pixels.shape
    synthesis = model.preview
    with_preview = previews is not None and has_preview(model, height, width)
    jobs: list[lossy.Job] = []
    heads = [b""] * len(pictures)
    seen: Integers | None = None
    if with_preview:
        assert previews is not None
        assert synthesis is not None
        bare = [Picture(pixels=p.pixels) for p in pictures]  # alpha and metadata stand once, outside
        jobs = lossy.encode_latents(bare, previews.model, previews.coder, synthesis.level)
        heads = [lossy.packed(job, previews.model, previews.coder, synthesis.level) for job in jobs]
        seen = np.stack([synthesis.planes(job.samples[0].numpy())[:, :height, :width] for job in jobs])
    name = variant_of(model, height, width, preview=with_preview)
    codes: list[list[bytes]] = [[] for _ in pictures]
    bits_B = np.zeros(len(pictures))
    for rows, columns in tiles(height, width):
        part = geometry.to_ycocg(np.stack([p.pixels[rows, columns] for p in pictures]))
        hint = None if seen is None else np.ascontiguousarray(seen[:, :, rows, columns])
        tiles_B, found_B = _encode_tile(model, name, part, hint, colours)
        bits_B += found_B
        for b, (picture, code) in enumerate(zip(pictures, tiles_B, strict=True)):
            codes[b].append(picture.pixels[rows.start, columns.start].tobytes() + code)
    out = []
    for b, (picture, head, recipe) in enumerate(zip(pictures, heads, recipes, strict=True)):
        residual = join(codes[b])
        codes_of = {stream.SECTION_RESIDUAL: residual} | ({stream.SECTION_LATENTS: head} if head else {})
        number, digest = VARIANTS.index(name), model.digest[: stream.SHORT_MODEL_BYTES]
        data = packed(picture, codes_of, recipe, model=digest, variant=number)
        kl = jobs[b].kl_bits if jobs else 0.0
        bits = jobs[b].writer.bits if jobs else Bits()
        out.append(Coded(data, float(bits_B[b]) + kl, kl, bits, 8 * len(residual)))
    return out


def _encode_tile(
    model: LosslessModel, name: str, planes: Integers, hint: Integers | None, colours: int
) -> tuple[list[bytes], NDArray[np.float64]]:
    """Codes of a tile of every image, but for the first pixel, and the bits that they should take."""
    batch, _, height, width = planes.shape
    variant = model.variants[name]
    encoder = Encoder(
        Law(**model.law_tables),
        batch,
        lossless_walk.lanes(height, width),
        threads=torch.get_num_threads(),
    )

    def put(
        raw: NDArray[np.float32],
        base: Values,
        values: Values | None,
        low: int,
        high: int,
        tuning: NDArray[np.int32],
    ) -> Values:
        assert values is not None
        encoder.put(raw, base, values, low, high, tuning)
        return values

    with exact_mode(), few_threads(batch * height * width):
        tunings = [
            tune(model, variant, planes[b], None if hint is None else hint[b], colours) for b in range(batch)
        ]
        lossless_walk.walk(model, variant, planes, hint, colours, tunings, put, known=True)
    codes = [t.pack() + join(lanes) for t, lanes in zip(tunings, encoder.finish(), strict=True)]
    return codes, encoder.bits_B + 8 * colours


def decode(parsed: stream.Stream, model: LosslessModel, samples: NDArray[np.int32] | None) -> Picture:
    """The picture of a stream, checked against its digest.

    Args:
        samples: latents int32 [M, h, w] of the preview, None where there is none.

    Raises:
        CorruptStream, OtherArithmetic.
    """
    height, width = parsed.height, parsed.width
    colours = 1 if parsed.mode in ("L", "LA") else 3
    number = int(parsed.level)
    name = VARIANTS[number] if number < len(VARIANTS) else ""
    variant = model.variants.get(name)
    if variant is None or variant.config.preview != (samples is not None):
        raise CorruptStream(f"its networks have the number {number}")
    seen: Integers | None = None
    if samples is not None:
        assert model.preview is not None
        seen = model.preview.planes(samples)[:, :height, :width]
    cuts = list(tiles(height, width))
    codes = split(parsed.sections[stream.SECTION_RESIDUAL], len(cuts))
    pixels = np.empty((height, width, colours), np.uint8)
    for (rows, columns), code in zip(cuts, codes, strict=True):
        hint = None if seen is None else np.ascontiguousarray(seen[None, :, rows, columns])
        size = (rows.stop - rows.start, columns.stop - columns.start)
        pixels[rows, columns] = _decode_tile(model, name, code, size, hint, colours)
    return restored(parsed, pixels)


def restored(parsed: stream.Stream, pixels: NDArray[np.uint8]) -> Picture:
    """The picture of a stream, given its pixels [H, W, C], checked against its digest.

    Raises:
        CorruptStream, OtherArithmetic.
    """
    alpha = None
    if parsed.mode in ("RGBA", "LA"):
        alpha = decode_alpha(parsed.sections[stream.SECTION_ALPHA], parsed.width, parsed.height)
    if pixels_digest(pixels, alpha) != parsed.pixels_digest:
        raise lossy.OtherArithmetic("pixels")
    return Picture(
        pixels=pixels,
        alpha=alpha,
        metadata=parse_metadata(parsed.sections.get(stream.SECTION_METADATA, b"")),
        source_format="rec",
    )


def _decode_tile(
    model: LosslessModel,
    name: str,
    code: bytes,
    size: tuple[int, int],
    hint: Integers | None,
    colours: int,
) -> NDArray[np.uint8]:
    if len(code) < colours:
        raise CorruptStream("a tile ends before its first pixel")
    first = np.frombuffer(code[:colours], np.uint8).reshape(1, 1, colours)
    planes = np.zeros((1, 3, *size), np.int16)
    planes[0, :, :1, :1] = geometry.to_ycocg(first)
    cursor = stream.Cursor(code)
    cursor.take(colours, "a tile's first pixel")
    tuning = Tuning.parse(cursor)
    lanes = split(code[cursor.offset :], lossless_walk.lanes(*size))
    decoder = Decoder(Law(**model.law_tables), [lanes], threads=torch.get_num_threads())

    def take(
        raw: NDArray[np.float32],
        base: Values,
        values: Values | None,
        low: int,
        high: int,
        tuning: NDArray[np.int32],
    ) -> Values:
        return decoder.take(raw, base, low, high, tuning)

    with exact_mode(), few_threads(size[0] * size[1]):
        lossless_walk.walk(model, model.variants[name], planes, hint, colours, [tuning], take, known=False)
    decoder.finish()
    return geometry.to_pixels(planes[0], colours)


@contextmanager
def few_threads(pixels: int) -> Iterator[None]:
    """One thread for torch where there is little to share: threads that wait for each other cost more than they do."""
    threads = torch.get_num_threads()
    if pixels < SHARED_FROM:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of every tile, in order."""
    down, across = -(-height // TILE), -(-width // TILE)
    for i in range(down):
        for j in range(across):
            yield (
                slice(height * i // down, height * (i + 1) // down),
                slice(width * j // across, width * (j + 1) // across),
            )


def join(parts: Sequence[bytes]) -> bytes:
    """Parts end to end, after the lengths of all but the last."""
    return b"".join(stream.varint(len(p)) for p in parts[:-1]) + b"".join(parts)


def split(data: bytes, count: int) -> list[bytes]:
    """The parts that ``join`` put together. Raises CorruptStream."""
    cursor = stream.Cursor(data)
    lengths = [cursor.varint("a part's length", len(data)) for _ in range(count - 1)]
    parts = [cursor.take(length, "a part") for length in lengths]
    return [*parts, cursor.take(len(data) - cursor.offset, "the last part")]


def pixels_digest(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None) -> bytes:
    """Of a picture's pixels [H, W, C] in C order and of its alpha after them."""
    digest = xxhash.xxh3_64(pixels.tobytes())
    if alpha is not None:
        digest.update(alpha.tobytes())
    return (digest.intdigest() & 0xFFFFFFFF).to_bytes(stream.DIGEST_BYTES, "little")


def packed(
    picture: Picture,
    codes: Mapping[int, bytes],
    recipe: bytes,
    *,
    model: bytes = stream.NO_MODEL,
    variant: int = 0,
) -> bytes:
    """A whole stream: the sections of the pixels' code, by kind, and those that every lossless stream has."""
    sections = dict(codes)
    if recipe:
        sections[stream.SECTION_FILE] = recipe
    if picture.alpha is not None:
        sections[stream.SECTION_ALPHA] = encode_alpha(picture.alpha)
    if metadata := pack_metadata(picture.metadata):
        sections[stream.SECTION_METADATA] = metadata
    return stream.pack(
        stream.Stream(
            codec=CODEC_LOSSLESS,
            mode=picture.mode,
            width=picture.width,
            height=picture.height,
            model=model,
            level=variant,
            pixels_digest=pixels_digest(picture.pixels, picture.alpha),
            sections=sections,
        )
    )
