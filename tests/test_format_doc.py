"""docs/format.md against the code: its numbers, its example, and a decoder written from it (tests/independent)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from independent import container as stranger
from independent.errors import Corrupt, Unsupported
from independent.stream import make_coder
from test_stream import GOLDEN, GOLDEN_STREAMS, streams

from recbatch import rec, stream
from recbatch.errors import CorruptData

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "format.md").read_text()


def section(title: str) -> str:
    """The text under a second-level heading."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found.group(1)


def numbers_after(text: str, words: str) -> list[int]:
    """The indented list of integers that follows some words."""
    block = text.split(words, 1)[1].split("\n\n")[1]
    return [int(number) for number in re.findall(r"\d+", block)]


def rows_of(text: str) -> list[list[str]]:
    """The cells of all tables, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


# The page's numbers


def test_the_example_is_the_golden_file() -> None:
    lines = re.findall(r"^    ((?:[0-9a-f]{2} )*[0-9a-f]{2})  ", section("Bytes"), re.MULTILINE)
    data = bytes.fromhex("".join(lines))
    assert data == (GOLDEN / "rgb.rec").read_bytes()
    assert f"{len(data)} bytes. Its latents" in PAGE


def test_the_containers_numbers() -> None:
    text = section("Bytes")
    assert stream.MAGIC.hex(" ") in text
    kinds = {
        row[0]: row[1]
        for row in rows_of(text)
        if row[0] in ("latents", "alpha", "metadata", "residual", "calibration", "pixels", "file recipe")
    }
    assert kinds == {
        **{"latents": "1", "alpha": "2", "metadata": "3", "residual": "4", "calibration": "5"},
        "pixels": "6",
        "file recipe": "8",
    }
    assert (stream.SECTION_LATENTS, stream.SECTION_ALPHA) == (1, 2)
    assert (stream.SECTION_METADATA, stream.SECTION_RESIDUAL) == (3, 4)
    assert (stream.SECTION_CALIBRATION, stream.SECTION_PIXELS, stream.SECTION_FILE) == (5, 6, 8)
    assert (stream.CODEC_LOSSY, stream.CODEC_LOSSLESS) == (1, 2)
    assert f"Kinds {stream.FIRST_ANCILLARY_SECTION} to {stream.LAST_SECTION} may be passed over" in text
    assert f"major {stream.MAJOR}, minor {stream.MINOR}" in PAGE
    assert f"- {stream.MAJOR}.{stream.MINOR}: " in section("Changes")
    assert stream.MAX_PIXELS_PER_BYTE == 2**18
    assert "2^18 * (bytes of the whole stream)" in section("Checks")
    assert stream.short_digest(b"").hex() in section("Terms")


def test_the_metadata_and_alpha_numbers() -> None:
    from recbatch.images import sections

    assert sections.MAX_METADATA_BYTES == 64 * 2**20
    assert sections._ZSTD_MAX_WINDOW == 8 * 2**20
    assert "window at most 8 MiB, unpacked at most 64 MiB" in PAGE
    assert sections._FIELDS == ((1, "icc"), (2, "exif"), (3, "xmp"))
    assert sections._FIRST_ANCILLARY_FIELD == 64


def test_the_exact_networks_numbers() -> None:
    from recbatch.models.exact import arithmetic
    from recbatch.models.exact.compand import THRESHOLDS
    from recbatch.models.photo import ARCHITECTURES, EXACT_LAYERS, LATER_LAYERS, STRIDE
    from recbatch.models.prior import (
        FRACTION_MULTIPLIERS,
        INDEX_OFFSET,
        INDEX_SHIFT,
        MEAN_MULTIPLIERS,
        MULTIPLIER_BITS,
    )

    text = section("Exact networks")
    assert tuple(numbers_after(text, "The 127 thresholds:")) == THRESHOLDS
    assert tuple(numbers_after(text, "The 32 multipliers:")) == tuple(MEAN_MULTIPLIERS)
    assert (MULTIPLIER_BITS, INDEX_SHIFT, INDEX_OFFSET) == (15, 3, 18)
    assert (arithmetic.SUM_LIMIT, arithmetic.MAX_SHIFT, arithmetic.MAX_WEIGHT) == (2**24 - 1, 20, 127)
    assert arithmetic.INPUT_RANGE == (-128, 255)
    assert all(f"{layer}(" in text for layer in EXACT_LAYERS)
    assert all(f"{layer}'(" in text for layer in LATER_LAYERS)
    assert all(f"`{architecture}`" in PAGE for architecture in ARCHITECTURES)
    assert tuple(numbers_after(text, "all models take all of them:")) == FRACTION_MULTIPLIERS
    assert STRIDE == 64


def test_the_exact_networks_formulas() -> None:
    import torch

    from recbatch.models.exact import compand
    from recbatch.models.prior import mean_and_index

    thresholds = numbers_after(section("Exact networks"), "The 127 thresholds:")
    multipliers = numbers_after(section("Exact networks"), "The 32 multipliers:")
    eighths = numbers_after(section("Exact networks"), "all models take all of them:")
    samples = [0, 1, 2, -2, 63, -64, 5000, -95333, 95334, 2**30]
    expected = [sum(abs(n) >= t for t in thresholds) * (1 if n > 0 else -1) for n in samples]
    assert compand(torch.tensor(samples)).tolist() == expected
    raw = torch.tensor([-32768, -5, 0, 4, 12, 801, 32767])
    for q, e in ((0, 0), (7, 0), (31, 0), (7, 3), (7, -4), (30, -1)):
        mean, index = mean_and_index(torch.cat([raw, raw])[None, :, None, None], q + e / 8)
        multiplier = (multipliers[q] * eighths[e + 4] + 2**14) >> 15
        assert multiplier == multipliers[q] or e
        assert mean.flatten().tolist() == [(v * multiplier + 2**14) >> 15 for v in raw.tolist()]
        assert index.flatten().tolist() == [
            min(max(((v + e + 4) >> 3) + 18 + q, 0), 150) for v in raw.tolist()
        ]


def test_the_calibrations_numbers() -> None:
    from recbatch.codec.calibration import FOLLOW, OTHER, SPLIT

    text = section("Decoding a lossy stream")
    lines = dict(re.findall(r"^    (split|other|F\(\d\))(?: =|:) ([\d, ]+)$", text, re.MULTILINE))
    numbers = {name: tuple(map(int, line.split(", "))) for name, line in lines.items()}
    follow = {f"F({shift})": tuple(row) for shift, row in enumerate(FOLLOW, 1)}
    assert numbers == {"split": tuple(SPLIT), "other": tuple(OTHER), **follow}


def test_the_table_is_the_archives() -> None:
    from recbatch.archive.schema import FORMAT, FORMAT_PROPERTY, TABLE

    text = section("Archive table")
    rows = {row[0]: row[1] for row in rows_of(text) if row[0] != "column"}
    names = {
        "large_binary": "binary",
        "double": "float64",
        "float": "float32",
        "timestamp[us, tz=UTC]": "timestamp, microseconds, UTC",
    }
    for field in TABLE:
        kind = str(field.type)
        kind = "list of string" if kind.startswith("list<") else names.get(kind, kind)
        assert rows.pop(field.name) == kind + ("" if field.nullable else ", not null"), field.name
    assert rows == {}
    assert f"`{FORMAT_PROPERTY}` = `{FORMAT}`" in text


def test_sections_stand_in_order() -> None:
    heads = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert heads[:4] == ["Terms", "Layout", "Bytes", "Checks"]
    assert heads[-1] == "Changes"
    wanted = ["Exact networks", "Latents payload: coder 1 (mixed trellis)", "Latents payload: coder 2 (iREC)"]
    assert set(wanted) <= set(heads)


# A stranger's decoder


@given(streams())
@settings(deadline=None, max_examples=50)
def test_a_stranger_reads_the_container(made: stream.Stream) -> None:
    header, sections = stranger.parse(stream.pack(made), max_pixels=2**62)
    assert sections == made.sections
    for name, value in vars(header).items():
        ours = {"parameters": "coder_parameters"}.get(name, name)
        if name == "level" and made.codec == stream.CODEC_LOSSY:
            level, eighths = header.rate
            value = level + eighths / 8
        assert value == getattr(made, ours), name


def test_a_stranger_refuses_what_we_refuse() -> None:
    """Same verdict on mutated streams with a right checksum; unsupported is refused, too."""
    import random
    import struct
    import zlib

    rng = random.Random(12)
    bodies = [stream.pack(made)[:-4] for made in GOLDEN_STREAMS.values()]
    verdicts = []
    for _ in range(3000):
        body = bytearray(rng.choice(bodies))
        place = rng.randrange(9, min(len(body), 50))
        if rng.random() < 0.3:
            del body[place : place + rng.randint(1, 3)]
        else:
            body[place] = rng.randrange(256)
        data = bytes(body) + struct.pack("<I", zlib.crc32(body))
        try:
            ours = stream.parse(data, max_pixels=2**62)
        except CorruptData:
            ours = None
        try:
            theirs = stranger.parse(data, max_pixels=2**62)
        except (Corrupt, Unsupported):
            theirs = None
        assert (ours is None) == (theirs is None), data.hex()
        verdicts.append(ours is None)
    assert 300 < sum(verdicts) < 2900


PARTS = {
    "everything": [np.arange(151), np.array([1, 0, 150, 43, 28]), np.zeros(7, np.int64)],
    "nothing": [np.zeros(0, np.int64)],
    "little": [np.array([3]), np.array([60])],
    "one block and more": [np.random.default_rng(5).integers(0, 14, 1300), np.full(300, 12)],
    "many steps": [np.random.default_rng(5).integers(0, 90, 1500), np.full(300, 30)],
}
SETTINGS = [("trellis", b"\x09"), ("trellis", b"\x0c"), ("irec", bytes([48, 19])), ("irec", bytes([3, 1]))]


@pytest.mark.parametrize(
    ("name", "parameters", "parts"),
    [(*setting, parts) for setting in SETTINGS for parts in PARTS],
)
def test_a_stranger_decodes_payloads(name: str, parameters: bytes, parts: str) -> None:
    rng = np.random.default_rng(6)
    coder = rec.coder(name, parameters)
    writer, expected = coder.writer(), []
    scales = [np.asarray(part, np.uint8) for part in PARTS[parts]]
    for scale_N in scales:
        deviation = np.sqrt(1 + (0.083 * 1.085 ** (scale_N - 1.0)) ** 2)
        target = (deviation * rng.standard_normal(scale_N.size)).astype(np.float32)
        if name == "trellis":
            target[::11] *= 30  # escapes
        expected.append(coder.encode([writer], [target], [scale_N])[0].tolist())
    payload = writer.finish()
    theirs = make_coder(coder.number, coder.parameters, payload, seed=0)
    assert [theirs.decode_part(scale_N.astype(np.int64)).tolist() for scale_N in scales] == expected
    theirs.finish()
