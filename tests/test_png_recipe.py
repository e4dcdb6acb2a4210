"""The very same PNG file from its recipe and its pixels. The files are written here, by slow code of its own."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from recbatch.errors import CorruptStream
from recbatch.images import read_picture
from recbatch.images.png import OtherZlib, deflate, rebuild, recipe, recipes

PHOTOGRAPHS = Path(__file__).parents[1] / "docs" / "demo" / "photographs"
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [(0, 8), (2, 8), (4, 8), (6, 8), (0, 1), (0, 2), (0, 4), (3, 1), (3, 2), (3, 4), (3, 8)]
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
Pixels = Any


@dataclass(kw_only=True)
class Writer:
    """All the liberties that a PNG writer has."""

    samples: Pixels  # [H, W, S]
    colour_type: int = 2
    depth: int = 8
    interlaced: bool = False
    filters: tuple[int, ...] = (0,)  # of the rows, from the first again after the last
    level: int = 6
    memory: int = 8
    strategy: int = 0
    window_bits: int = 15
    flush: int = zlib.Z_NO_FLUSH
    flush_step: int = 0  # bytes between flushes, 0: one before the end
    idat_size: int = 0  # 0: one chunk
    before: tuple[tuple[bytes, bytes], ...] = ()
    after: tuple[tuple[bytes, bytes], ...] = ()
    trailing: bytes = b""
    in_idat: bytes = b""
    stream: bytes = field(default=b"", repr=False)

    def rows(self) -> bytes:
        out, number = b"", 0
        bits = SAMPLES[self.colour_type] * self.depth
        for top, left, down, right in ADAM7 if self.interlaced else [(0, 0, 1, 1)]:
            part = self.samples[top::down, left::right]
            above = b""
            for line in part if part.size else []:
                text = "".join(f"{value:0{self.depth}b}" for value in line.reshape(-1))
                text += "0" * (-len(text) % 8)
                row = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))
                kind = self.filters[number % len(self.filters)]
                out += bytes([kind]) + filtered(kind, row, above or bytes(len(row)), max(1, bits // 8))
                above, number = row, number + 1
        return out

    def file(self) -> bytes:
        raw = self.rows()
        if not self.stream:
            machine = zlib.compressobj(
                self.level, zlib.DEFLATED, self.window_bits, self.memory, self.strategy
            )
            step = self.flush_step or len(raw)
            for at in range(0, len(raw), step):
                self.stream += machine.compress(raw[at : at + step])
                if self.flush != zlib.Z_NO_FLUSH:
                    self.stream += machine.flush(self.flush)
            self.stream += machine.flush()
        height, width = self.samples.shape[:2]
        head = struct.pack(">IIBBBBB", width, height, self.depth, self.colour_type, 0, 0, self.interlaced)
        idat = self.stream + self.in_idat
        size = self.idat_size or len(idat)
        chunks = [(b"IHDR", head), *self.before]
        chunks += [(b"IDAT", idat[at : at + size]) for at in range(0, len(idat), size)]
        chunks += [*self.after, (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks) + self.trailing


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered(kind: int, row: bytes, above: bytes, back: int) -> bytes:
    """Byte after byte, as the specification says it."""
    out = bytearray()
    for at, value in enumerate(row):
        left = row[at - back] if at >= back else 0
        corner = above[at - back] if at >= back else 0
        up = above[at]
        guess = left + up - corner
        paeth = min((left, up, corner), key=lambda near: abs(guess - near))  # the first of equals
        out.append((value - (0, left, up, (left + up) // 2, paeth)[kind]) & 255)
    return bytes(out)


def rebuilt(data: bytes) -> bytes:
    """The file again, and its recipe must be there."""
    made = recipe(data)
    assert made is not None
    picture = read_picture(data)
    return rebuild(made, picture.pixels, picture.alpha)


def noise(height: int, width: int, samples: int, seed: int = 3) -> Pixels:
    """Steps and a little noise: neither flat nor hopeless."""
    random = np.random.default_rng(seed)
    ramp = np.arange(height * width * samples).reshape(height, width, samples) // 5
    return ((ramp + random.integers(0, 4, (height, width, samples))) % 256).astype(np.uint8)


PALETTE = b"".join(bytes([i, 255 - i, i * 7 % 256]) for i in range(256))


@st.composite
def writers(draw: st.DrawFn) -> Writer:
    colour_type, depth = draw(st.sampled_from(KINDS))
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 12)), SAMPLES[colour_type])
    samples = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2**depth - 1)))
    before = [(b"PLTE", PALETTE[: 3 * 2**depth])] if colour_type == 3 else []
    if colour_type == 3 and draw(st.booleans()):
        before.append((b"tRNS", draw(st.binary(min_size=1, max_size=2**depth))))
    texts = st.builds(lambda text: (b"tEXt", b"Comment\0" + text), st.binary(max_size=20).map(strip_zeros))
    odd = st.builds(lambda data: (b"prVt", data), st.binary(max_size=20))
    known = st.sampled_from([(b"gAMA", struct.pack(">I", 45455)), (b"sRGB", b"\0"), (b"pHYs", bytes(9))])
    more = st.lists(st.one_of(texts, odd, known), max_size=3, unique_by=lambda part: part[0])
    flush = draw(st.sampled_from([zlib.Z_NO_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH]))
    return Writer(
        samples=samples,
        colour_type=colour_type,
        depth=depth,
        interlaced=draw(st.booleans()),
        filters=tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=30))),
        level=draw(st.integers(int(flush != zlib.Z_NO_FLUSH), 9)),  # no empty stored blocks
        memory=draw(st.sampled_from([8, 9])),
        strategy=draw(st.integers(0, 4)),
        window_bits=draw(st.sampled_from([9, 12, 15])),
        flush=flush,
        flush_step=draw(st.integers(1, 40)),
        idat_size=draw(st.integers(0, 50)),
        before=(*before, *draw(more)),
        after=tuple(draw(more)),
        trailing=draw(st.binary(max_size=9)),
        in_idat=draw(st.sampled_from([b"", b"", b"left over"])),
    )


def strip_zeros(text: bytes) -> bytes:
    return text.replace(b"\0", b"")


@given(writers())
@settings(max_examples=150, deadline=None)
def test_whatever_a_writer_chose_the_file_comes_back_byte_for_byte(writer: Writer) -> None:
    data = writer.file()
    assert rebuilt(data) == data


@pytest.mark.long
@given(writers())
@settings(max_examples=3_000, deadline=None)
def test_many_more_files_come_back_byte_for_byte(writer: Writer) -> None:
    data = writer.file()
    assert rebuilt(data) == data


@pytest.mark.parametrize("strategy", range(5))
@pytest.mark.parametrize("level", [1, 3, 6, 9])
def test_levels_and_strategies_are_found_where_the_stream_has_several_blocks(
    level: int, strategy: int
) -> None:
    samples = noise(150, 130, 3)
    data = Writer(samples=samples, filters=(1, 2), level=level, strategy=strategy, idat_size=8192).file()
    assert rebuilt(data) == data


@pytest.mark.parametrize("memory", range(1, 10))
def test_every_memory_level_is_found(memory: int) -> None:
    data = Writer(samples=noise(90, 80, 3), filters=(4,), memory=memory).file()
    assert rebuilt(data) == data


@pytest.mark.parametrize("flush", [zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
def test_flushes_after_each_row_are_found(flush: int) -> None:
    data = Writer(samples=noise(40, 50, 3), level=9, flush=flush, flush_step=151).file()
    assert rebuilt(data) == data
    assert len(recipe(data) or b"") < 40


def test_a_partial_flush_before_the_end_is_found() -> None:
    data = Writer(samples=noise(40, 50, 3), level=9, flush=zlib.Z_PARTIAL_FLUSH).file()
    assert rebuilt(data) == data


def test_a_header_that_hints_at_another_level_is_kept() -> None:
    writer = Writer(samples=noise(60, 60, 3), level=2)
    writer.file()
    data = Writer(samples=writer.samples, stream=b"\x78\xda" + writer.stream[2:]).file()
    assert rebuilt(data) == data


@pytest.mark.parametrize("sizes", [[630], [630, 0], [1, 629], 90 * [7], [7, 7, 7, 300, 309]])
def test_stored_blocks_of_any_sizes_come_back(sizes: list[int]) -> None:
    writer = Writer(samples=noise(30, 20, 1), colour_type=0)
    writer.stream = stored(writer.rows(), sizes)
    data = writer.file()
    assert rebuilt(data) == data
    assert len(recipe(data) or b"") < 40


def stored(raw: bytes, sizes: list[int]) -> bytes:
    out, at = b"\x78\x01", 0
    for number, size in enumerate(sizes, start=1):
        lengths = struct.pack("<HH", size, size ^ 0xFFFF)
        out += bytes([number == len(sizes)]) + lengths + raw[at : at + size]
        at += size
    return out + struct.pack(">I", zlib.adler32(raw))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"compress_level": 1}, {"compress_level": 0}])
def test_a_file_that_pillow_wrote_comes_back(mode: str, options: dict[str, Any]) -> None:
    image = Image.fromarray(noise(150, 200, 4)).convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG", icc_profile=ICC, **options)
    assert rebuilt(file.getvalue()) == file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_that_reading_applied_is_undone(orientation: int) -> None:
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    data = Writer(samples=noise(9, 14, 4), colour_type=6, before=((b"eXIf", exif),), filters=(1, 3)).file()
    assert rebuilt(data) == data


def test_a_colour_key_comes_back() -> None:
    samples = noise(10, 10, 3)
    key = struct.pack(">HHH", *samples[0, 0])
    data = Writer(samples=samples, before=((b"tRNS", key),)).file()
    assert read_picture(data).alpha is not None
    assert rebuilt(data) == data


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_the_photographs_of_the_demo_come_back(name: str) -> None:
    data = (PHOTOGRAPHS / f"{name}.png").read_bytes()
    made = recipe(data)
    if made is None and deflate.family(zlib.ZLIB_RUNTIME_VERSION) != 0:
        pytest.skip("these files were made by zlib, and this Python has another")
    picture = read_picture(data)
    assert made is not None
    assert rebuild(made, picture.pixels, picture.alpha) == data
    assert len(made) < len(data) / 50


def test_a_recipe_of_a_small_picture_is_a_few_bytes() -> None:
    data = Writer(samples=noise(32, 32, 3), filters=(2,)).file()
    assert len(recipe(data) or b"") <= 24


def test_rows_filtered_by_the_usual_rule_cost_one_byte() -> None:
    samples = noise(64, 64, 3)
    rule = Writer(samples=samples, filters=tuple(usual_filters(samples))).file()
    constant = Writer(samples=samples, filters=(4,)).file()
    assert len(recipe(rule) or b"") == len(recipe(constant) or b"")


def usual_filters(samples: Pixels) -> list[int]:
    chosen, above = [], bytes(samples[0].size)
    for row in (line.tobytes() for line in samples):
        sums = [sum(min(v, 256 - v) for v in filtered(kind, row, above, 3)) for kind in range(5)]
        chosen.append(sums.index(min(sums)))
        above = row
    return chosen


def test_the_bytes_of_a_recipe_stay_what_they_are() -> None:
    samples = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    writer = Writer(samples=samples, filters=(1, 4), before=((b"gAMA", b"\0\0\xb1\x8f"),), trailing=b"!")
    raw = writer.rows()
    writer.stream = stored(raw, [len(raw)])
    made = recipe(writer.file())
    assert made is not None
    assert made.hex() == GOLDEN


GOLDEN = "01006ac3c935676178330b0101040000b18f00012100007801000500"


def unlike(data: bytes, at: int, mask: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


SMALL = Writer(
    samples=noise(12, 9, 3), filters=(1, 2, 4, 4), before=((b"tEXt", b"Title\0" + 200 * b"x"),)
).file()


def sixteen_bits() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(file, "PNG")
    return file.getvalue()


def animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(noise(8, 8, 3, seed)) for seed in (1, 2)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


def mixed_levels() -> bytes:
    writer = Writer(samples=noise(150, 130, 3))
    raw = writer.rows()
    first, second = zlib.compressobj(1, wbits=-15), zlib.compressobj(9, wbits=-15)
    body = first.compress(raw[:30000]) + first.flush(zlib.Z_FULL_FLUSH)
    body += second.compress(raw[30000:]) + second.flush()
    writer.stream = b"\x78\x9c" + body + struct.pack(">I", zlib.adler32(raw))
    return writer.file()


def second_of_equal_colours() -> bytes:
    samples = np.array([[[0], [1]]], dtype=np.uint8)
    return Writer(samples=samples, colour_type=3, depth=1, before=((b"PLTE", 6 * b"z"),)).file()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xd8\xff\xe0 a JPEG", id="another format"),
        pytest.param(SMALL[:-13], id="cut short"),
        pytest.param(SMALL[:8], id="no chunk"),
        pytest.param(unlike(SMALL, 30), id="wrong checksum of IHDR"),
        pytest.param(unlike(SMALL, SMALL.index(b"tEXt") + 9), id="wrong checksum of a text"),
        pytest.param(sixteen_bits(), id="16 bits"),
        pytest.param(animated(), id="animated"),
        pytest.param(mixed_levels(), id="unknown compressor"),
        pytest.param(second_of_equal_colours(), id="ambiguous palette"),
    ],
)
def test_what_cannot_be_proved_has_no_recipe(data: bytes) -> None:
    assert recipe(data) is None


def test_a_file_with_too_much_beside_its_pixels_has_no_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "MAX_CARRIED_BYTES", 100)
    assert recipe(SMALL) is None


@given(st.binary(max_size=200), st.integers(0, len(SMALL)), st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_proved_recipe_or_none(middle: bytes, at: int, drop: int) -> None:
    data = SMALL[:at] + middle + SMALL[at + drop :]
    made = recipe(data)
    if made is not None:
        picture = read_picture(data)
        assert rebuild(made, picture.pixels, picture.alpha) == data


BUSY = Writer(
    samples=noise(30, 9, 4),
    colour_type=6,
    filters=(1, 2, 4, 4, 0, 3, 1),
    flush=zlib.Z_SYNC_FLUSH,
    flush_step=60,
    idat_size=40,
    before=((b"tEXt", b"Title\0" + 200 * b"x"),),
).file()


@pytest.mark.parametrize("data", [SMALL, BUSY])
def test_every_damaged_bit_and_every_cut_is_noticed(data: bytes) -> None:
    made, picture = recipe(data), read_picture(data)
    assert made is not None
    damaged = [unlike(made, at, 1 << bit) for at in range(len(made)) for bit in range(8)]
    damaged += [made[:at] for at in range(len(made))] + [made + b"\0"]
    for bad in damaged:
        with pytest.raises(CorruptStream):
            rebuild(bad, picture.pixels, picture.alpha)


@given(st.binary(max_size=300), st.integers(0, 15), st.booleans())
@settings(max_examples=150, deadline=None)
def test_random_bytes_are_no_recipe(body: bytes, flags: int, packed: bool) -> None:
    picture = read_picture(BUSY)
    if packed:
        body, flags = zstandard.compress(body)[4:], flags | 1
    with pytest.raises(CorruptStream):
        rebuild(bytes([recipes.VERSION, flags]) + bytes(8) + body, picture.pixels, picture.alpha)


def test_a_recipe_does_not_unpack_beyond_its_limit() -> None:
    picture = read_picture(SMALL)
    bomb = zstandard.compress(bytes(recipes.MAX_CARRIED_BYTES + 4096))[4:]
    with pytest.raises(CorruptStream, match="unpacks to more"):
        rebuild(bytes([recipes.VERSION, 1]) + bytes(8) + bomb, picture.pixels, picture.alpha)


def test_pixels_of_another_picture_are_noticed() -> None:
    made, picture = recipe(SMALL), read_picture(SMALL)
    assert made is not None
    other = picture.pixels.copy()
    other[3, 3, 1] ^= 1
    for pixels, alpha in [
        (other, None),
        (picture.pixels[:-1], None),
        (picture.pixels[:, :, :1], None),
        (picture.pixels[:0], None),
        (picture.pixels, np.zeros((3, 3), dtype=np.uint8)),
    ]:
        with pytest.raises(CorruptStream):
            rebuild(made, pixels, alpha)


def test_another_zlib_is_told_from_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Writer(samples=noise(50, 50, 3)).file()
    made, picture = recipe(data), read_picture(data)
    assert made is not None
    real = zlib.compressobj
    monkeypatch.setattr(deflate.zlib, "compressobj", lambda level, *more: real(1, *more))
    with pytest.raises(OtherZlib, match="The pixels are whole"):
        rebuild(made, picture.pixels, picture.alpha)


@pytest.mark.parametrize(
    ("version", "family"),
    [("1.2.13", 0), ("1.3.1", 0), ("1.3.1.zlib-ng", 1), ("1.3.0-zlib-rs-0.5.1", 2), ("?", 3)],
)
def test_families_of_zlib_are_told_apart_by_their_version(version: str, family: int) -> None:
    assert deflate.family(version) == family
