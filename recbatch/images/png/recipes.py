"""A PNG file without its pixels, as few bytes; and the file again.

Shape letters: H height, W width, C channels, S samples of a pixel, R rows.
"""

from __future__ import annotations

import zlib

from recbatch.errors import CorruptStream, ImageError
from recbatch.images.orientation import exif_orientation, upright
from recbatch.images.picture import Picture
from recbatch.images.png.chunks import Kind, Parts, join, split
from recbatch.images.png.deflate import Pillow, family_name, maker
from recbatch.images.png.errors import OtherZlib
from recbatch.images.png.filters import filters_in
from recbatch.images.png.plan import Plan, parse_plan
from recbatch.images.png.scanlines import Bytes, passes, samples_of, scanlines
from recbatch.images.png.search import find
from recbatch.images.png.wire import in_runs
from recbatch.images.reading import read_picture

VERSION = 1
MAX_CARRIED_BYTES = 16 * 2**20  # of chunks and of bytes after the end; a file with more has no recipe
_HEAD_BYTES = 10
_ZSTD_LEVEL = 12
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # of every frame, so left out
_BACK = (1, 2, 3, 4, 5, 8, 7, 6)  # the orientation that undoes each of 1..8


def recipe(data: bytes, *, picture: Picture | None = None, max_pixels: int = 200_000_000) -> bytes | None:
    """All of a PNG file that its pixels don't say, proved by rebuilding the file from it.

    Args:
        data: the file.
        picture: what ``read_picture(data)`` gave, if that is at hand.
        max_pixels: as for ``read_picture``.

    Returns:
        A few dozen bytes for most files; None for what is no such PNG, and where the proof fails: 16 bits,
        animations, a wrong checksum, a compressor that is not known here.
    """
    parts = split(data)
    if parts is None:
        return None
    try:
        picture = picture or read_picture(data, max_pixels=max_pixels)
        made = _recipe(parts, picture, zlib.crc32(data))
        if made is None or rebuild(made, picture.pixels, picture.alpha) != data:
            return None
    except (ImageError, CorruptStream, OtherZlib):
        return None
    return made


def rebuild(recipe: bytes, pixels_HWC: Bytes, alpha_HW: Bytes | None) -> bytes:
    """The PNG file of a recipe and of the pixels that ``read_picture`` gave for it.

    Args:
        recipe: what ``recipe`` returned.
        pixels_HWC: uint8 [H, W, C], C = 1 grey or 3 RGB.
        alpha_HW: uint8 [H, W], or None where the picture has no alpha.

    Raises:
        CorruptStream: the recipe is damaged, or these are not its pixels.
        OtherZlib: both are whole, but the zlib at hand compresses them to other bytes.
    """
    if len(recipe) < _HEAD_BYTES:
        raise CorruptStream(f"a recipe has {_HEAD_BYTES} bytes at least, this one {len(recipe)}")
    if recipe[0] != VERSION or recipe[1] >= 16:
        raise CorruptStream(f"the recipe is of version {recipe[0]} with flags {recipe[1]}", 0)
    check, file_check = (int.from_bytes(recipe[at : at + 4], "little") for at in (2, 6))
    if pixels_HWC.size == 0 or (alpha_HW is not None and alpha_HW.shape != pixels_HWC.shape[:2]):
        raise CorruptStream(f"there is no file of planes of {pixels_HWC.shape}")
    pixels_HWC, alpha_HW = _turned(pixels_HWC, alpha_HW, recipe[1] >> 1)
    body = recipe[_HEAD_BYTES:]
    if recipe[1] & 1:
        body = _unpacked(body, _limit(len(pixels_HWC)))
    plan, samples_HWS = parse_plan(body, pixels_HWC, alpha_HW)
    if _check(recipe[:2] + recipe[6:], samples_HWS, plan.kind) != check:
        raise CorruptStream("the recipe is damaged, or is not one for these pixels")
    data = join(plan.file(samples_HWS))
    if zlib.crc32(data) != file_check:
        raise OtherZlib(family_name(plan.how, plan.family), maker(plan.how)[1])
    return data


def _recipe(parts: Parts, picture: Picture, file_check: int) -> bytes | None:
    orientation, _ = exif_orientation(dict(parts.before + parts.after).get(b"eXIf", b""))
    pixels_HWC, alpha_HW = _turned(picture.pixels, picture.alpha, orientation - 1)
    if pixels_HWC.shape[:2] != (parts.height, parts.width):
        return None
    samples_HWS = samples_of(pixels_HWC, alpha_HW, parts.kind, dict(parts.before))
    pass_rows = passes(samples_HWS, parts.kind)

    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(parts.stream, sum(rows.size + len(rows) for rows in pass_rows) + 1)
    except zlib.error:
        return None
    filters_R = filters_in(raw, pass_rows)
    if not inflater.eof or filters_R is None:
        return None
    at = 0
    for line in scanlines(pass_rows, filters_R, parts.kind.pixel_bytes):
        if raw[at : at + len(line)] != line:
            return None
        at += len(line)
    size = len(parts.stream) - len(inflater.unused_data)
    how = find(parts.stream, size, raw, samples_HWS, parts.kind)
    if how is None:
        return None
    by_pillow = isinstance(how, Pillow)  # then it writes the header and filters, too
    plan = Plan(
        kind=parts.kind,
        before=parts.before,
        after=parts.after,
        trailing=parts.trailing,
        idat_runs=in_runs(parts.idat_sizes[:-1]),
        zlib_header=b"" if by_pillow else parts.stream[:2],
        how=how,
        family=maker(how)[0],
        filters_R=None if by_pillow else filters_R,
        after_stream=inflater.unused_data,
    )
    body = plan.pack(samples_HWS)
    if len(body) > _limit(parts.height):
        return None
    packed = _packed(body)
    start = bytes([VERSION, (len(packed) < len(body)) | (orientation - 1) << 1])
    rest = file_check.to_bytes(4, "little") + min(body, packed, key=len)
    return start + _check(start + rest, samples_HWS, parts.kind).to_bytes(4, "little") + rest


def _turned(pixels_HWC: Bytes, alpha_HW: Bytes | None, turn: int) -> tuple[Bytes, Bytes | None]:
    """The planes as the file has them, before its orientation ``turn + 1`` was applied."""
    if turn == 0:
        return pixels_HWC, alpha_HW
    return upright(pixels_HWC, _BACK[turn]), None if alpha_HW is None else upright(alpha_HW, _BACK[turn])


def _check(said: bytes, samples_HWS: Bytes, kind: Kind) -> int:
    """Over all that a recipe says and the rows before they are filtered, so that no compressor matters."""
    check = zlib.crc32(said)
    for rows in passes(samples_HWS, kind):
        check = zlib.crc32(rows.data, check)
    return check


def _limit(height: int) -> int:
    """Bytes that a body may unpack to: what it carries, and a few for each row."""
    return MAX_CARRIED_BYTES + 4 * height


def _packed(body: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(body)[len(_ZSTD_MAGIC) :]


def _unpacked(packed: bytes, limit: int) -> bytes:
    import zstandard

    frame = _ZSTD_MAGIC + packed
    try:
        size = zstandard.get_frame_parameters(frame).content_size  # all ones where it is not said
        if not 0 <= size <= limit:
            raise CorruptStream(f"the recipe unpacks to more than {limit} bytes", _HEAD_BYTES)
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptStream(f"the recipe can't be unpacked ({error})", _HEAD_BYTES) from None
